//! Byte streams: every way in which a capture can mangle one, and everything that somebody might send on purpose.

use super::*;
use crate::packet::Endpoint;

/// A packet message of `length` bytes whose frame is not IP, numbered.
fn message(number: u32, length: usize) -> Vec<u8> {
    let frame = length - 28;
    let words = [1, 2, u32::try_from(frame).unwrap(), u32::try_from(frame).unwrap(), number];
    let payload = u32::try_from(frame + 20).unwrap().to_be_bytes();
    [&[0, 7, 0, 0], &payload[..], &words.map(u32::to_be_bytes).concat(), &vec![0xab; frame]].concat()
}

/// The same with an IP packet in Ethernet: such a header proves itself.
fn proven(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = message(number, length);
    bytes[28 + 12..28 + 14].copy_from_slice(&[8, 0]);
    bytes[28 + 14..28 + 18].copy_from_slice(&[0x45, 0, 0, 28]);
    bytes
}

fn key(port: u16) -> Key {
    let flow = Flow { src: Endpoint::v4([10, 0, 0, 1], 2002), dst: Endpoint::v4([10, 0, 0, 2], port) };
    Key { flow, path: Encapsulation::NONE, carrier: Carrier::NONE }
}

fn take(streams: &mut Streams, seq: u32, payload: &[u8]) -> Vec<u32> {
    let mut messages = Messages::default();
    streams.take(key(1), Framing::Rpcap, (seq, 0), payload, &mut messages);
    let mut numbers = Vec::new();
    while let Some(range) = messages.next() {
        numbers.push(u32::from_be_bytes(messages.bytes[range][24..28].try_into().unwrap()));
    }
    numbers
}

#[test]
fn headers_without_end_are_not_all_looked_through_with_each_segment() {
    // Each claims a frame of 65,535 bytes, and no header stands where it would end.
    let lie = message(0, 28 + 65_535);
    let lies: Vec<u8> = lie[..28].iter().copied().cycle().skip(3).take(100_000).collect();
    let mut streams = Streams::default();
    let (mut seq, mut looks, mut before) = (1, 0, 0);
    for piece in lies.chunks(25) {
        assert_eq!(take(&mut streams, seq, piece), [0; 0]);
        seq += 25;
        let look_at = streams.by_key[&key(1)].runs[0].look_at;
        looks += u32::from(look_at != before);
        before = look_at;
    }
    assert!((1..150).contains(&looks), "{looks} looks in 4,000 segments");
    // What is true is found behind it, a sixteenth later at most; the last lie may be believed, as a true header stands behind it.
    let mut found = Vec::new();
    for number in 1..400 {
        let truth = proven(number, 300);
        let (first, second) = truth.split_at(200);
        for half in [first, second] {
            found.extend(take(&mut streams, seq, half));
            seq += u32::try_from(half.len()).unwrap();
        }
    }
    found.retain(|number| *number != 0);
    assert_eq!(found, (1..400).collect::<Vec<_>>());
}

/// A stream of messages, and its bytes from `base` on in pieces: sequence number and payload.
fn pieces(count: u32, base: u32, size: usize) -> Vec<(u32, Vec<u8>)> {
    let stream: Vec<u8> =
        (0..count).flat_map(|number| proven(number, 90 + (number as usize * 37) % 200)).collect();
    let mut seq = base;
    stream
        .chunks(size)
        .map(|chunk| {
            let at = seq;
            seq = advanced(seq, chunk.len());
            (at, chunk.to_vec())
        })
        .collect()
}

#[test]
fn any_order_of_segments_gives_every_message_once() {
    let pieces = pieces(60, u32::MAX - 3_000, 333);
    // The first is where the stream begins; the rest in groups of five, turned round, each twice.
    let (first, rest) = pieces.split_first().unwrap();
    for group in [1, 2, 3, 5] {
        let mut streams = Streams::default();
        let mut got = take(&mut streams, first.0, &first.1);
        for group in rest.chunks(group) {
            for (seq, payload) in group.iter().rev().chain(group) {
                got.extend(take(&mut streams, *seq, payload));
            }
        }
        got.sort_unstable();
        assert_eq!(got, (0..60).collect::<Vec<_>>(), "groups of {group}");
    }
}

#[test]
fn retransmissions_that_are_cut_differently_give_nothing_new() {
    let mut streams = Streams::default();
    let got: Vec<_> =
        pieces(40, 7, 100).iter().flat_map(|(seq, payload)| take(&mut streams, *seq, payload)).collect();
    assert_eq!(got.len(), 40);
    for size in [90, 700, 1460] {
        for (seq, payload) in pieces(40, 7, size) {
            assert_eq!(take(&mut streams, seq, &payload), [0; 0], "pieces of {size}");
        }
    }
    // Message by message, whole.
    let mut seq = 7;
    for number in 0..40 {
        let bytes = proven(number, 90 + (number as usize * 37) % 200);
        assert_eq!(take(&mut streams, seq, &bytes), [0; 0]);
        seq = advanced(seq, bytes.len());
    }
}

#[test]
fn a_message_of_one_octet_a_segment_is_read_when_its_last_comes() {
    let mut streams = Streams::default();
    let bytes = proven(9, 120);
    let got: Vec<_> = (0_u32..).zip(&bytes).map(|(at, octet)| take(&mut streams, at, &[*octet])).collect();
    assert!(got.iter().take(119).all(Vec::is_empty));
    assert_eq!(got[119], [9]);
}

#[test]
fn after_a_hole_reading_goes_on_at_the_next_header_that_proves_itself() {
    let stream: Vec<u8> = [proven(0, 200), message(1, 200), message(2, 200), proven(3, 200)].concat();
    let mut streams = Streams::default();
    assert_eq!(take(&mut streams, 0, &stream[..210]), [0]);
    // From inside message 1: message 2 proves itself by the header behind it.
    assert_eq!(take(&mut streams, 300, &stream[300..]), [2, 3]);
    // What was missing comes late.
    assert_eq!(take(&mut streams, 210, &stream[210..300]), [1]);
}

#[test]
fn what_only_looks_like_a_header_in_a_payload_is_not_read() {
    // A frame full of headers, each of which claims more than there is behind it.
    let mut bytes = proven(0, 1_000);
    for at in (100..900).step_by(28) {
        bytes[at..at + 28].copy_from_slice(&message(77, 5_000)[..28]);
    }
    let mut streams = Streams::default();
    // The stream begins inside that frame.
    let mut got = take(&mut streams, 50, &bytes[50..]);
    got.extend(take(&mut streams, 1_000, &proven(1, 200)));
    got.extend(take(&mut streams, 1_200, &proven(2, 200)));
    assert!(!got.contains(&77), "{got:?}");
    assert!(got.ends_with(&[1, 2]) || got.is_empty(), "{got:?}");
}

#[test]
fn lengths_of_four_gibibytes_are_no_messages() {
    let mut streams = Streams::default();
    let mut lying = proven(0, 100);
    lying[4..8].copy_from_slice(&[0xff; 4]);
    for at in 0..100 {
        assert_eq!(take(&mut streams, at * 100, &lying), [0; 0]);
    }
    assert_eq!(take(&mut streams, 10_000, &proven(5, 100)), [5]);
}

#[test]
fn a_million_messages_of_the_least_size_are_read_in_bounded_memory() {
    let mut streams = Streams::default();
    let mut seq = 0_u32;
    let mut got = 0;
    for batch in 0..500_u32 {
        let bytes: Vec<u8> = (0..2_000).flat_map(|at| message(batch * 2_000 + at, 28)).collect();
        got += take(&mut streams, seq, &bytes).len();
        seq = advanced(seq, bytes.len());
    }
    assert_eq!(got, 1_000_000);
    let stream = streams.by_key.values().next().unwrap();
    assert!(stream.read.known.len() <= MAX_REMEMBERED && stream.runs.len() == 1);
}

#[test]
fn floods_of_connections_holes_and_garbage_stay_bounded() {
    let mut streams = Streams::default();
    let mut messages = Messages::default();
    for port in 0..2_000 {
        streams.take(key(port), Framing::Rpcap, (0, 0), &proven(1, 100), &mut messages);
    }
    assert_eq!(streams.by_key.len(), MAX_STREAMS);
    // Every second kilobyte, and never a header.
    let mut streams = Streams::default();
    for at in 0..4_000_u32 {
        take(&mut streams, at * 2_048, &[0x5a; 1_024]);
    }
    let stream = streams.by_key.values().next().unwrap();
    let held: usize = stream.runs.iter().map(|run| run.head.len() + run.tail.len()).sum();
    assert!(stream.runs.len() <= MAX_RUNS && held <= MAX_HELD, "{} {held}", stream.runs.len());
    // And without holes.
    let mut streams = Streams::default();
    for at in 0..4_000_u32 {
        take(&mut streams, at * 1_024, &[0x5a; 1_024]);
    }
    let stream = streams.by_key.values().next().unwrap();
    assert!(stream.runs.iter().map(|run| run.tail.len()).sum::<usize>() <= MAX_HELD);
}

#[test]
fn hep_messages_are_cut_by_their_length() {
    let hep =
        |number: u8| [&b"HEP3\x00\x14"[..], &[0, 0, 0, 1, 0, 7, 2], &[0, 0, 0, 2, 0, 7, number]].concat();
    let stream: Vec<u8> = (0..20).flat_map(hep).collect();
    let mut streams = Streams::default();
    let mut messages = Messages::default();
    let mut got = Vec::new();
    // The capture begins inside the second.
    for (at, chunk) in (0_u32..).zip(stream[25..].chunks(33)) {
        streams.take(key(1), Framing::Hep, (25 + at * 33, 0), chunk, &mut messages);
        while let Some(range) = messages.next() {
            got.push(messages.bytes[range][19]);
        }
    }
    assert_eq!(got, (2..20).collect::<Vec<_>>());
}

#[test]
fn the_frames_that_held_a_message_are_named_when_it_is_complete() {
    let stream: Vec<u8> = (0..3).flat_map(|number| proven(number, 300)).collect();
    let mut streams = Streams::default();
    let mut messages = Messages::default();
    let mut parts = |number: u64, range: std::ops::Range<usize>| {
        let seq = advanced(u32::MAX - 350, range.start);
        streams.take(key(1), Framing::Rpcap, (seq, number), &stream[range], &mut messages);
        streams.take_parts()
    };
    assert_eq!(parts(1, 0..100), [0; 0]);
    assert_eq!(parts(2, 100..200), [0; 0]);
    // Completes the first and begins the second.
    assert_eq!(parts(3, 200..400), [1, 2]);
    assert_eq!(parts(4, 400..900), [3]);
    for number in 5..2_000 {
        parts(number, 400..900);
    }
    assert_eq!(streams.by_key.values().next().unwrap().segments.len(), MAX_SEGMENTS);
}
