//! Offers and answers as they come, and which lines are announced after the grace.

use super::*;
use crate::packet::{Endpoint, Nanos};
use crate::sip::media::GRACE;

/// Ann calls Bob; further branches answer with tags of their own.
struct Talk {
    negotiation: Negotiation,
    known: CallMedia,
    media: MediaTable,
    time: Nanos,
}

const SDP: &str = "application/sdp";

fn audio(port: u16) -> String {
    format!("m=audio {port} RTP/AVP 0\r\n")
}

impl Talk {
    fn new() -> Self {
        let media = MediaTable::default();
        Self { negotiation: Negotiation::default(), known: CallMedia::default(), media, time: Nanos(0) }
    }

    /// A second later, a message of `tag` whose body has these media lines, all at 10.0.0.1.
    fn says(&mut self, tag: &str, start: &str, cseq: &str, lines: &str) -> Option<Direction> {
        let body =
            if lines.is_empty() { String::new() } else { format!("v=0\r\nc=IN IP4 10.0.0.1\r\n{lines}") };
        self.sends(tag, start, cseq, SDP, &body)
    }

    fn sends(&mut self, tag: &str, start: &str, cseq: &str, kind: &str, body: &str) -> Option<Direction> {
        let is_response = start.starts_with("SIP/");
        let other = if tag == "ann" { "bob" } else { "ann" };
        let (from, to) = if is_response { (other, tag) } else { (tag, other) };
        // The first INVITE knows no tag of Bob's.
        let to = if cseq == "1 INVITE" && !is_response { String::new() } else { format!(";tag={to}") };
        let text = format!(
            "{start}\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK{}\r\nFrom: <sip:a@h>;tag={from}\r\nTo: <sip:b@h>{to}\r\n\
             Call-ID: one\r\nCSeq: {cseq}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            cseq.replace(' ', ""),
            body.len(),
        );
        let (ann, bob) = (Endpoint::v4([10, 0, 0, 1], 5060), Endpoint::v4([10, 0, 0, 2], 5060));
        let flow = if tag == "ann" { Flow { src: ann, dst: bob } } else { Flow { src: bob, dst: ann } };
        self.time = Nanos(self.time.0 + 1_000_000_000);
        let at = Sighting { time: self.time, number: 1, flow };
        let message = Message::parse(text.as_bytes()).unwrap();
        self.negotiation.take(at, &message, &"one".into(), &mut self.known, &mut self.media)
    }

    fn invite(&mut self, cseq: u32, lines: &str) -> Option<Direction> {
        self.says("ann", "INVITE sip:b@h SIP/2.0", &format!("{cseq} INVITE"), lines)
    }

    fn answer(&mut self, code: u16, cseq: u32, lines: &str) {
        self.says("bob", &format!("SIP/2.0 {code} X"), &format!("{cseq} INVITE"), lines);
    }

    /// Ports that are announced once the grace has passed.
    fn ports(&mut self) -> Vec<u16> {
        self.time = Nanos(self.time.0 + GRACE.0);
        self.media.advance(self.time);
        (4_000..4_100).step_by(2).filter(|port| self.line(*port) != MediaId::UNANNOUNCED).collect()
    }

    fn line(&self, port: u16) -> MediaId {
        let elsewhere = Endpoint::v4([192, 0, 2, 1], 9);
        self.media.lookup(&Flow { src: elsewhere, dst: Endpoint::v4([10, 0, 0, 1], port) })
    }

    fn agreed(&self) -> Vec<(bool, bool, bool)> {
        let said = |agreed: &Agreement| (agreed.caller_sends, agreed.called_sends, agreed.is_fax);
        self.known.agreements.iter().map(said).collect()
    }
}

#[test]
fn an_offer_stands_beside_what_is_in_force_until_it_is_answered() {
    let mut talk = Talk::new();
    talk.invite(1, &audio(4000));
    talk.answer(200, 1, &audio(4010));
    talk.invite(2, &audio(4002));
    assert_eq!(talk.ports(), [4000, 4002, 4010]);
    talk.answer(200, 2, &audio(4012));
    assert_eq!(talk.ports(), [4002, 4012]);
    let ended: Vec<_> = talk.known.lines.iter().map(|line| line.ended.is_some()).collect();
    assert_eq!(ended, [true, true, false, false]);
}

#[test]
fn a_refused_reinvite_leaves_what_was_in_force() {
    let mut talk = Talk::new();
    talk.invite(1, &audio(4000));
    talk.answer(200, 1, &audio(4010));
    let before = talk.line(4000);
    // Another codec on the same port, and then another port.
    talk.invite(2, "m=audio 4000 RTP/AVP 8\r\n");
    assert_ne!(talk.line(4000), before);
    talk.answer(488, 2, "");
    assert_eq!((talk.ports(), talk.line(4000)), (vec![4000, 4010], before));
    talk.invite(3, &audio(4002));
    talk.answer(491, 3, "");
    assert_eq!((talk.ports(), talk.line(4000)), (vec![4000, 4010], before));
}

#[test]
fn a_late_offer_is_answered_by_ack_and_one_in_a_reliable_response_by_prack() {
    let mut talk = Talk::new();
    talk.invite(1, "");
    talk.answer(200, 1, &audio(4010));
    talk.says("ann", "ACK sip:b@h SIP/2.0", "1 ACK", &audio(4000));
    assert_eq!((talk.ports(), talk.agreed()), (vec![4000, 4010], vec![(true, true, false)]));
    assert_eq!(
        talk.known.lines.iter().map(|line| line.side).collect::<Vec<_>>(),
        [Side::Called, Side::Caller]
    );

    let mut talk = Talk::new();
    talk.invite(1, "");
    talk.answer(183, 1, &audio(4010));
    talk.says("ann", "PRACK sip:b@h SIP/2.0", "2 PRACK", "m=audio 4000 RTP/AVP 0\r\na=sendonly\r\n");
    assert_eq!((talk.ports(), talk.agreed()), (vec![4000, 4010], vec![(true, false, false)]));
    // A second offer, by UPDATE before the answer (RFC 3311).
    talk.says("ann", "UPDATE sip:b@h SIP/2.0", "3 UPDATE", &audio(4004));
    talk.says("bob", "SIP/2.0 200 OK", "3 UPDATE", &audio(4010));
    assert_eq!((talk.ports(), talk.agreed().len()), (vec![4004, 4010], 2));
}

#[test]
fn early_media_of_a_fork_that_does_not_answer_ends() {
    let mut talk = Talk::new();
    talk.invite(1, &audio(4000));
    talk.says("carol", "SIP/2.0 183 X", "1 INVITE", &audio(4020));
    talk.answer(183, 1, &audio(4010));
    assert_eq!(talk.ports(), [4000, 4010, 4020], "both may be heard");
    talk.answer(200, 1, &audio(4010));
    assert_eq!(talk.ports(), [4000, 4010]);
}

#[test]
fn a_line_that_the_answer_refuses_is_not_waited_for() {
    let mut talk = Talk::new();
    talk.invite(1, &format!("{}m=video 4002 RTP/AVP 31\r\n", audio(4000)));
    assert_eq!(talk.ports(), [4000, 4002]);
    talk.answer(200, 1, &format!("{}m=video 0 RTP/AVP 31\r\n", audio(4010)));
    assert_eq!((talk.ports(), talk.known.refused), (vec![4000, 4010], 1));
}

#[test]
fn hold_is_told_and_a_direction_that_both_want_is_agreed() {
    let mut talk = Talk::new();
    assert_eq!(talk.invite(1, &audio(4000)), Some(Direction::SendRecv));
    talk.answer(200, 1, &audio(4010));
    assert_eq!(talk.invite(2, "m=audio 4000 RTP/AVP 0\r\na=sendonly\r\n"), Some(Direction::SendOnly));
    talk.answer(200, 2, "m=audio 4010 RTP/AVP 0\r\na=recvonly\r\n");
    assert_eq!(talk.invite(3, "m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n"), Some(Direction::SendOnly));
    talk.answer(200, 3, &audio(4010));
    talk.invite(4, &audio(4000));
    talk.answer(200, 4, &audio(4010));
    assert_eq!(talk.agreed(), [(true, true, false), (true, false, false), (true, true, false)]);
}

#[test]
fn fax_keeps_the_line_of_the_audio_whose_port_it_takes() {
    let mut talk = Talk::new();
    talk.invite(1, &audio(4000));
    talk.answer(200, 1, &audio(4010));
    let before = talk.line(4000);
    talk.invite(2, "m=audio 0 RTP/AVP 0\r\nm=image 4000 udptl t38\r\n");
    talk.answer(200, 2, "m=audio 0 RTP/AVP 0\r\nm=image 4012 udptl t38\r\n");
    assert_eq!((talk.ports(), talk.line(4000)), (vec![4000, 4012], before));
    assert_eq!(talk.agreed(), [(true, true, false), (false, false, true)]);
    assert!(talk.known.has_fax());
}

#[test]
fn candidates_that_trickle_in_belong_to_their_line() {
    let mut talk = Talk::new();
    talk.invite(1, "m=audio 4000 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 UDP 1 10.0.0.1 4030 typ host\r\n");
    let before = talk.line(4030);
    assert_eq!(before, talk.line(4000));
    let fragment = "m=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:2 1 UDP 1 10.0.0.1 4040 typ srflx raddr 1.1.1.1 rport 1\r\n\
                    a=end-of-candidates\r\n";
    talk.sends("ann", "INFO sip:b@h SIP/2.0", "2 INFO", "application/trickle-ice-sdpfrag", fragment);
    let after = talk.line(4040);
    assert_eq!((talk.line(4000), talk.line(4030)), (after, after));
    assert_ne!(after, before);
    talk.answer(200, 1, &audio(4010));
    assert_eq!(talk.ports(), [4000, 4010, 4030, 4040]);
}

#[test]
fn a_caller_who_is_heard_alone_has_his_last_two_offers() {
    let mut talk = Talk::new();
    for cseq in 1..6 {
        talk.invite(cseq, &audio(4000 + 2 * u16::try_from(cseq).unwrap()));
    }
    assert_eq!((talk.ports(), talk.agreed()), (vec![4008, 4010], vec![]));
}

#[test]
fn parties_without_number_stay_bounded_and_the_oldest_go() {
    let mut talk = Talk::new();
    talk.invite(1, &audio(4000));
    for n in 0..40 {
        talk.says(&format!("branch{n}"), "SIP/2.0 183 X", "1 INVITE", &audio(4002 + 2 * n));
    }
    assert_eq!(talk.negotiation.parties.len(), MAX_PARTIES);
    assert_eq!(talk.ports().len(), MAX_PARTIES);
}
