use probe_ebpf::Endpoints;

use super::*;
use crate::sip::sdp::Description;

const SECOND: u64 = 1_000_000_000;

fn line(port: u16, formats: &str) -> MediaLine {
    let text = format!("v=0\nc=IN IP4 10.0.0.1\nm=audio {port} RTP/AVP {formats}\n");
    Description::parse(text.as_bytes()).lines.remove(0)
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint::v4([10, 0, 0, 1], port)
}

fn to(port: u16) -> Flow {
    Flow { src: Endpoint::v4([10, 9, 9, 9], 9), dst: endpoint(port) }
}

fn from(port: u16) -> Flow {
    Flow { src: endpoint(port), dst: Endpoint::v4([10, 9, 9, 9], 9) }
}

fn call(name: &str) -> Arc<str> {
    name.into()
}

#[test]
fn destination_is_asked_first_then_source() {
    let mut table = MediaTable::default();
    let a = table.announce(&call("a"), &line(5000, "0"), Nanos(1), 1).unwrap();
    let b = table.announce(&call("a"), &line(6000, "0"), Nanos(1), 2).unwrap();
    assert_eq!((table.lookup(&to(5000)), table.lookup(&from(6000))), (a, b));
    assert_eq!(table.lookup(&Flow { src: endpoint(6000), dst: endpoint(5000) }), a);
    assert_eq!(table.lookup(&to(7000)), MediaId::UNANNOUNCED);
    assert!(table.is_announced(&endpoint(5001).key()), "RTCP");
    assert!(!table.is_announced(&endpoint(5002).key()));
}

#[test]
fn announcing_again_keeps_the_id_and_other_formats_make_a_new_one() {
    let mut table = MediaTable::default().followed();
    let first = table.announce(&call("a"), &line(5000, "0"), Nanos(1), 1).unwrap();
    assert_eq!(table.announce(&call("a"), &line(5000, "0"), Nanos(2), 2), Some(first));
    let second = table.announce(&call("a"), &line(5000, "8"), Nanos(3), 3).unwrap();
    assert_ne!(first, second);
    assert_eq!((table.lookup(&to(5000)), table.len()), (second, 1));
    assert_eq!(table.info(first).unwrap().formats[0].payload_type, 0, "past ids keep their description");
    let kernel = table.drain_changes().collect::<Vec<_>>();
    assert_eq!(
        &kernel[..2],
        [EndpointChange::Added(endpoint(5000)), EndpointChange::Added(endpoint(5001))],
        "an endpoint that stays announced is not taken out in between"
    );
    let state = replay(&kernel);
    assert_eq!(state, [endpoint(5000), endpoint(5001)]);
}

#[test]
fn ended_line_stays_for_the_grace_and_a_new_offer_keeps_it() {
    let mut table = MediaTable::default().followed();
    let id = table.announce(&call("a"), &line(5000, "0"), Nanos(0), 1).unwrap();
    table.withdraw(id, Nanos(SECOND));
    table.advance(Nanos(5 * SECOND));
    assert_eq!(table.lookup(&to(5000)), id);
    table.announce(&call("a"), &line(5000, "0"), Nanos(5 * SECOND), 2);
    table.advance(Nanos(60 * SECOND));
    assert_eq!(table.lookup(&to(5000)), id, "announced again within the grace");
    table.withdraw(id, Nanos(60 * SECOND));
    table.advance(Nanos(65 * SECOND));
    assert_eq!((table.lookup(&to(5000)), table.len()), (MediaId::UNANNOUNCED, 0));
    assert_eq!(replay(&table.drain_changes().collect::<Vec<_>>()), []);
    table.reopen(id, Nanos(66 * SECOND));
    assert_eq!((table.lookup(&to(5000)), table.len()), (id, 1));
}

#[test]
fn withdrawing_a_past_line_leaves_its_successor() {
    let mut table = MediaTable::default();
    let old = table.announce(&call("a"), &line(5000, "0"), Nanos(0), 1).unwrap();
    let new = table.announce(&call("b"), &line(5000, "0"), Nanos(1), 2).unwrap();
    table.withdraw(old, Nanos(2));
    table.advance(Nanos(60 * SECOND));
    assert_eq!((table.lookup(&to(5000)), table.lookup(&to(5001))), (new, new));
}

#[test]
fn guessed_rtcp_port_never_takes_an_rtp_port() {
    let mut table = MediaTable::default();
    let odd = table.announce(&call("a"), &line(5001, "0"), Nanos(0), 1).unwrap();
    table.announce(&call("b"), &line(5000, "0"), Nanos(1), 2);
    assert_eq!(table.lookup(&to(5001)), odd);
    let later = table.announce(&call("c"), &line(5002, "0"), Nanos(2), 3).unwrap();
    assert_eq!(table.lookup(&to(5002)), later, "an RTP port takes a guessed RTCP port");
}

#[test]
fn silent_line_expires_and_a_touched_one_stays() {
    let mut table = MediaTable::default();
    let quiet = table.announce(&call("a"), &line(5000, "0"), Nanos(0), 1).unwrap();
    let busy = table.announce(&call("b"), &line(6000, "0"), Nanos(0), 2).unwrap();
    table.touch(busy, MAX_SILENCE);
    table.advance(Nanos(MAX_SILENCE.0 + 1));
    assert_eq!((table.lookup(&to(5000)), table.lookup(&to(6000))), (MediaId::UNANNOUNCED, busy));
    assert_eq!((table.expired(), table.info(quiet).is_some()), (1, true));
}

#[test]
fn full_table_evicts_the_most_silent_and_counts_it() {
    let mut table = MediaTable::new(8).followed();
    let ids: Vec<_> =
        (0..8).map(|n| table.announce(&call("a"), &line(5000 + 2 * n, "0"), Nanos(10), 1).unwrap()).collect();
    for (n, id) in (0..).zip(&ids) {
        table.touch(*id, Nanos(if n == 5 { 11 } else { 20 }));
    }
    table.announce(&call("b"), &line(9000, "0"), Nanos(30), 2).unwrap();
    assert_eq!((table.len(), table.evicted()), (8, 1));
    assert_eq!(table.lookup(&to(5010)), MediaId::UNANNOUNCED);
}

#[test]
fn flood_of_announcements_stays_bounded_and_the_kernel_map_follows() {
    let mut table = MediaTable::new(1000).followed();
    let mut state = std::collections::BTreeSet::new();
    for n in 0..200_000_u64 {
        let address = Endpoint::v4(
            [10, 0, u8::try_from(n >> 8 & 0xff).unwrap(), u8::try_from(n & 0xff).unwrap()],
            4000,
        );
        let port = 4000 + 2 * u16::try_from(n % 17_000).unwrap();
        let wanted = MediaLine {
            endpoint: Some(Endpoint { port, ..address }),
            rtcp: Some(Endpoint { port: port + 1, ..address }),
            ..line(4, "0")
        };
        table.announce(&call("flood"), &wanted, Nanos(n), n);
        for change in table.drain_changes() {
            match change {
                EndpointChange::Added(endpoint) => assert!(state.insert(endpoint), "added once"),
                EndpointChange::Removed(endpoint) => assert!(state.remove(&endpoint), "removed once"),
            }
        }
    }
    assert_eq!((table.len(), state.len()), (1000, 2000));
    assert!(table.slots.len() <= SLOTS as usize);
    assert!(state.iter().all(|endpoint| table.is_announced(&endpoint.key())));
}

fn replay(changes: &[EndpointChange]) -> Vec<Endpoint> {
    let mut state = std::collections::BTreeSet::new();
    for change in changes {
        match change {
            EndpointChange::Added(endpoint) => state.insert(*endpoint),
            EndpointChange::Removed(endpoint) => state.remove(endpoint),
        };
    }
    state.into_iter().collect()
}

fn stranger(port: u16) -> Endpoint {
    Endpoint::v4([203, 0, 113, 5], port)
}

#[test]
fn whoever_sends_to_a_line_is_the_other_party_and_receives_there_too() {
    let mut table = MediaTable::default().followed();
    let ann = table.announce(&call("a"), &line(5000, "0"), Nanos(1), 1).unwrap();
    let bob = table.announce(&call("a"), &line(6000, "8"), Nanos(1), 2).unwrap();
    table.pair(ann, bob);
    assert_eq!(table.attribute(&Flow { src: stranger(61_234), dst: endpoint(5000) }, Nanos(2)), ann);
    // Ann sends from a port that nobody announced, to where Bob was found to be.
    let back = Flow { src: Endpoint::v4([10, 0, 0, 9], 7), dst: stranger(61_234) };
    assert_eq!(table.attribute(&back, Nanos(3)), bob, "with the formats that Bob wants to receive");
    // A third and a fourth address: only the last two are kept.
    for port in [2, 3] {
        table.attribute(&Flow { src: stranger(port), dst: endpoint(5000) }, Nanos(4));
    }
    let at = |port| Flow { src: stranger(9), dst: stranger(port) };
    let known: Vec<_> = [61_234, 2, 3].map(|port| table.lookup(&at(port))).into();
    assert_eq!(known, [MediaId::UNANNOUNCED, bob, bob]);
    table.withdraw(ann, Nanos(5));
    table.withdraw(bob, Nanos(5));
    table.advance(Nanos(60 * SECOND));
    assert_eq!(replay(&table.drain_changes().collect::<Vec<_>>()), []);
}

#[test]
fn without_an_answer_a_stranger_belongs_to_the_line_that_he_sends_to() {
    let mut table = MediaTable::default();
    let ann = table.announce(&call("a"), &line(5000, "0"), Nanos(1), 1).unwrap();
    table.attribute(&Flow { src: stranger(4), dst: endpoint(5000) }, Nanos(2));
    assert_eq!(table.lookup(&Flow { src: stranger(9), dst: stranger(4) }), ann);
    // What is sent to its RTCP port proves nothing.
    table.attribute(&Flow { src: stranger(5), dst: endpoint(5001) }, Nanos(2));
    assert_eq!(table.lookup(&Flow { src: stranger(9), dst: stranger(5) }), MediaId::UNANNOUNCED);
}

#[test]
fn an_announcement_takes_a_learned_address_and_a_literal_table_learns_none() {
    let mut table = MediaTable::default();
    table.announce(&call("a"), &line(5000, "0"), Nanos(1), 1).unwrap();
    table.attribute(&Flow { src: endpoint(6000), dst: endpoint(5000) }, Nanos(2));
    let later = table.announce(&call("b"), &line(6000, "0"), Nanos(3), 2).unwrap();
    assert_eq!(table.lookup(&to(6000)), later);

    let mut literal = MediaTable::default().literal();
    let candidate = Candidate { endpoint: stranger(1), is_rtcp: false };
    let wanted = MediaLine { candidates: vec![candidate], ..line(5000, "0") };
    literal.announce(&call("a"), &wanted, Nanos(1), 1).unwrap();
    literal.attribute(&Flow { src: stranger(4), dst: endpoint(5000) }, Nanos(2));
    for port in [1, 4] {
        assert_eq!(literal.lookup(&Flow { src: stranger(9), dst: stranger(port) }), MediaId::UNANNOUNCED);
    }
}

#[test]
fn of_two_calls_with_one_endpoint_the_later_has_it_and_the_earlier_gets_it_back() {
    let mut table = MediaTable::default().followed();
    let first = table.announce(&call("a"), &line(5000, "0"), Nanos(1), 1).unwrap();
    let second = table.announce(&call("b"), &line(5000, "0"), Nanos(2), 2).unwrap();
    assert_eq!((table.lookup(&to(5000)), table.len()), (second, 1));
    table.withdraw(second, Nanos(3));
    table.advance(Nanos(60 * SECOND));
    assert_eq!((table.lookup(&to(5000)), table.len()), (first, 1), "its call goes on");
    assert_eq!(replay(&table.drain_changes().collect::<Vec<_>>()).len(), 2);
    // Here the earlier call ends first, so nothing comes back.
    let third = table.announce(&call("c"), &line(5000, "0"), Nanos(61 * SECOND), 3).unwrap();
    table.withdraw(first, Nanos(62 * SECOND));
    table.withdraw(third, Nanos(63 * SECOND));
    table.advance(Nanos(120 * SECOND));
    assert_eq!((table.lookup(&to(5000)), table.len()), (MediaId::UNANNOUNCED, 0));
}

#[test]
fn candidates_push_out_no_line() {
    let mut table = MediaTable::new(100).followed();
    for n in 0..70 {
        let candidates =
            (0..16).map(|port| Candidate { endpoint: stranger(16 * n + port + 1), is_rtcp: false });
        let wanted = MediaLine { candidates: candidates.collect(), ..line(5000 + 2 * n, "0") };
        table.announce(&call("a"), &wanted, Nanos(u64::from(n)), 1).unwrap();
    }
    assert_eq!((table.len(), table.evicted()), (70, 0));
    assert_eq!(replay(&table.drain_changes().collect::<Vec<_>>()).len(), 2 * 70 + 50);
    assert_eq!(table.endpoints_refused(), 16 * 70 - 50);
}

/// Descriptions made for the purpose: 128 payload types each.
#[test]
fn descriptions_are_bounded_in_bytes_and_the_oldest_past_one_goes_first() {
    let formats: Vec<_> = (0..128).map(|number| number.to_string()).collect();
    let formats = formats.join(" ");
    let mut table = MediaTable::new(100);
    let announce = |table: &mut MediaTable, n: u16| {
        let at = Nanos(u64::from(n) * SECOND);
        let id = table.announce(&call("flood"), &line(1_000 + 4 * n, &formats), at, u64::from(n)).unwrap();
        let held: usize = table.slots.iter().map(|slot| slot.info.held_bytes()).sum();
        assert_eq!(held, table.held_bytes);
        assert!(held <= 200 * LINE_BYTES, "{held} bytes after {n}");
        id
    };
    // One after the other: each is over before the next begins.
    let mut ids = Vec::new();
    for n in 0..200 {
        let id = announce(&mut table, n);
        ids.push(id);
        table.withdraw(id, Nanos(u64::from(n) * SECOND));
        table.advance(Nanos((u64::from(n) + 6) * SECOND));
    }
    let known: Vec<_> = ids.iter().map(|id| table.info(*id).is_some()).collect();
    let kept = known.iter().filter(|is_known| **is_known).count();
    assert!((100..150).contains(&kept) && known.is_sorted(), "{kept}: {known:?}");
    assert_eq!(table.evicted(), 0);
    // None of those that are gone comes back.
    table.reopen(ids[0], Nanos(300 * SECOND));
    assert!((table.info(ids[0]), table.len()) == (None, 0));
    // All at once: there is no room for as many as of ordinary ones.
    for n in 200..400 {
        announce(&mut table, n);
    }
    assert!((80..=100).contains(&table.len()), "{}", table.len());
    assert_eq!(table.evicted(), 200 - table.len() as u64);
}
