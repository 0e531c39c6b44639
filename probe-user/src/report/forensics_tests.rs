//! What is said of interruptions, and what of it the signalling has to prove.

use super::*;
use crate::sip::sdp::Direction;

/// 1.81 s without packets from second 10 on.
const GAP: Interruption = Interruption {
    at: Nanos(11_810_000_000),
    packet: 9,
    silence_s: 1.81,
    timestamp_s: Some(0.02),
    missing: 0,
    restarted: false,
};

fn told(ms: u64, what: What) -> Told {
    Told::own(Moment { time: Nanos(ms * 1_000_000), number: ms, what })
}

fn sentence(gap: Interruption, is_doubted: bool, moments: &[Told]) -> String {
    let meanwhile = if is_doubted { Meanwhile::ProbeLost } else { Meanwhile::Ordinary };
    Explanation::new(&gap, meanwhile, moments).sentence(&gap)
}

#[test]
fn a_pause_names_the_messages_at_both_of_its_ends() {
    let moments = [told(9_992, What::Refer), told(11_798, What::Notify(200)), told(15_000, What::Bye)];
    assert_eq!(
        sentence(GAP, false, &moments),
        "1.81 s without packets, began 8 ms after REFER, ended 12 ms after NOTIFY 200: the sender stopped sending, its \
         numbers run on; nothing lost"
    );
}

#[test]
fn what_is_far_away_in_time_is_not_named() {
    let moments = [told(8_900, What::Refer), told(12_400, What::Notify(200))];
    assert!(sentence(GAP, false, &moments).starts_with("1.81 s without packets: the sender"));
}

#[test]
fn only_what_the_stream_proves_is_a_cause() {
    let causes = [
        (GAP, "nothing lost", Cause::SenderPaused),
        (
            Interruption { missing: 90, ..GAP },
            "90 packets missing: sent, and lost on the way here",
            Cause::Lost,
        ),
        (
            Interruption { timestamp_s: Some(1.8), ..GAP },
            "its clock ran on; nothing lost",
            Cause::SenderPaused,
        ),
        (Interruption { restarted: true, ..GAP }, "or 3,000 packets or more were lost", Cause::Restarted),
        (
            Interruption { restarted: true, timestamp_s: Some(1.8), ..GAP },
            "and the timestamp ran on: loss",
            Cause::Restarted,
        ),
        (
            Interruption { silence_s: 0.02, timestamp_s: Some(-3.0), ..GAP },
            "timestamp alone jumped by -3.02 s: the sender changed its source",
            Cause::TimestampJumped,
        ),
    ];
    for (gap, words, cause) in causes {
        let explanation = Explanation::new(&gap, Meanwhile::Ordinary, &[told(9_992, What::Refer)]);
        assert_eq!(explanation.cause, cause);
        assert!(explanation.because.ends_with(words), "{}", explanation.because);
    }
}

#[test]
fn a_hole_that_the_probe_may_have_made_is_nobodys() {
    for gap in [Interruption { missing: 90, ..GAP }, Interruption { restarted: true, ..GAP }] {
        assert!(
            sentence(gap, true, &[]).ends_with("the probe itself lost frames and may have made the hole")
        );
    }
}

#[test]
fn silence_on_hold_is_in_order_until_somebody_resumes() {
    let hold = told(9_990, What::Hold(Direction::SendOnly));
    let held = Explanation::new(&GAP, Meanwhile::Ordinary, &[told(9_990, What::ReInvite), hold]);
    assert_eq!(held.cause, Cause::Hold);
    assert!(held.because.starts_with("hold (sendonly) was agreed"), "{}", held.because);
    let hold = told(2_000, What::Hold(Direction::SendOnly));
    let resumed = [told(2_000, What::ReInvite), hold.clone(), told(5_000, What::Resume)];
    assert_eq!(Explanation::new(&GAP, Meanwhile::Ordinary, &resumed).cause, Cause::SenderPaused);
    // A session refresh in between resumes nothing.
    let refreshed = [hold, told(5_000, What::ReInvite)];
    assert_eq!(Explanation::new(&GAP, Meanwhile::Ordinary, &refreshed).cause, Cause::Hold);
}

#[test]
fn a_stream_that_another_call_goes_on_with_was_not_interrupted() {
    let moments = [told(10_040, What::Bye), told(11_790, What::Answer)];
    let explanation = Explanation::new(&GAP, Meanwhile::Ordinary, &moments);
    assert_eq!(explanation.cause, Cause::CallEnded);
    assert_eq!(
        Explanation::new(&Interruption { missing: 3, ..GAP }, Meanwhile::Ordinary, &moments).cause,
        Cause::Lost
    );
}

#[test]
fn the_other_leg_is_asked_where_the_own_call_is_silent() {
    let other = Told { of_call: Some("b2bua-77".into()), ..told(9_998, What::Refer) };
    let text = sentence(GAP, false, std::slice::from_ref(&other));
    assert!(
        text.contains("began 2 ms after REFER of call b2bua-77,") || text.contains("REFER of call b2bua-77:"),
        "{text}"
    );
    let own = sentence(GAP, false, &[other, told(9_900, What::ReInvite)]);
    assert!(own.contains("began 100 ms after re-INVITE"), "{own}");
}

#[test]
fn fax_and_a_hole_of_the_capture_are_no_loss_of_the_network() {
    let lost = Interruption { missing: 90, ..GAP };
    let explained = |gap: &Interruption, meanwhile| Explanation::new(gap, meanwhile, &[]);
    let fax = explained(&lost, Meanwhile::Fax);
    assert_eq!((fax.cause, fax.is_excuse(), fax.is_pause()), (Cause::Fax, true, true));
    let paused = explained(&lost, Meanwhile::NothingCaptured);
    assert_eq!((paused.cause, paused.is_excuse(), paused.is_pause()), (Cause::CapturePaused, true, false));
    assert_eq!(explained(&lost, Meanwhile::Ordinary).cause, Cause::Lost);
    // On hold both directions are silent, and nothing else may be on the wire.
    let hold = [told(9_000, What::Hold(Direction::Inactive))];
    assert_eq!(Explanation::new(&GAP, Meanwhile::NothingCaptured, &hold).cause, Cause::Hold);
    assert_eq!(Explanation::new(&lost, Meanwhile::NothingCaptured, &hold).cause, Cause::CapturePaused);
}
