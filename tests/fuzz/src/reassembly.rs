//! Segments of a stream whose every byte is known by its place, in any order, cut in any way.
//!
//! What comes out must be bytes of that stream, each at most once, in order; and where no gap was given up all that went in,
//! from the first byte that was read.

use std::borrow::Cow;

use voxprobe::packet::{Endpoint, Flow, Nanos};
use voxprobe::sip::reassembly::{Accepted, Needs, Streams};

use super::Input;

/// Where the stream begins: it wraps soon.
const ISN: u32 = u32::MAX - 1000;
const LENGTH: usize = 1 << 16;

/// Byte `place` of the stream.
fn byte(place: usize) -> u8 {
    (place ^ (place >> 8).wrapping_mul(0x9d)) as u8
}

/// What has come out so far.
#[derive(Default)]
struct Model {
    /// The place of the first byte in order: what lies before it may be read apart, or not at all.
    first: Option<usize>,
    /// The place behind the last byte in order.
    next: Option<usize>,
    gave_up: bool,
    /// Places that came in.
    sent: Vec<bool>,
    read: Vec<bool>,
}

impl Model {
    fn read(&mut self, place: usize, bytes: &[u8]) {
        for (offset, read) in bytes.iter().enumerate() {
            let place = place + offset;
            assert_eq!(*read, byte(place), "at {place}");
            assert!(self.sent[place], "never sent: {place}");
            assert!(!self.read[place], "read twice: {place}");
            self.read[place] = true;
        }
    }

    fn in_order(&mut self, place: usize, bytes: &[u8]) {
        match self.next {
            Some(next) if !self.gave_up => assert_eq!(place, next, "not the next byte"),
            Some(next) => assert!(place >= next, "back from {next} to {place}"),
            None => {}
        }
        self.gave_up = false;
        self.first.get_or_insert(place);
        self.next = Some(place + bytes.len());
        self.read(place, bytes);
    }
}

/// Sends what the input says.
pub fn run(bytes: &[u8]) {
    let flow = Flow { src: Endpoint::v4([10, 0, 0, 1], 9), dst: Endpoint::v4([10, 0, 0, 2], 5060) };
    let mut input = Input(bytes);
    let mut streams: Streams<(usize, usize), u8> = Streams::default();
    let mut model = Model { sent: vec![false; LENGTH], read: vec![false; LENGTH], ..Model::default() };
    let mut time = 0;
    while !input.is_empty() {
        let kind = input.byte();
        time += u64::from(kind >> 4) * 20_000_000;
        let place = usize::from(input.word()) % (LENGTH / 2);
        let length = 1 + usize::from(input.byte()) * if kind & 1 == 0 { 1 } else { 100 };
        let payload: Vec<u8> = (place..place + length).map(byte).collect();
        let seq = ISN.wrapping_add(place as u32);
        assert!(!streams.is_another(&flow, seq), "one connection");
        model.sent[place..place + length].fill(true);
        let is_first = kind & 2 != 0;
        match streams.accept(flow, seq, &payload, || is_first, Nanos(time), (place, length)) {
            Accepted::Next(fresh) => model.in_order(place + length - fresh.len(), fresh),
            Accepted::Before => model.read(place, &payload),
            Accepted::Full => {
                streams.give_up(&flow);
                model.gave_up = true;
            }
            Accepted::Old => assert!(model.sent[place..place + length].iter().all(|sent| *sent)),
            Accepted::Held => {}
        }
        follow(&mut streams, &flow, &mut model);
        while streams.overdue(Nanos(time)).is_some() {
            streams.give_up(&flow);
            model.gave_up = true;
            follow(&mut streams, &flow, &mut model);
        }
        let (count, held) = streams.size();
        assert!(count <= 1 && held <= 256 << 10, "{held} bytes are held");
    }
    while streams.any_waiting().is_some() {
        streams.give_up(&flow);
        model.gave_up = true;
        follow(&mut streams, &flow, &mut model);
    }
    assert_eq!(streams.size().1, 0, "all was given out");
    let figures = streams.figures();
    if figures.gaps == 0 && figures.mid_stream == 0 && figures.retransmissions == 0 {
        let from = model.first.unwrap_or(LENGTH);
        assert!(model.sent[from..] == model.read[from..], "without a gap nothing is lost");
    }
    unfinished(bytes, &flow);
}

fn follow(streams: &mut Streams<(usize, usize), u8>, flow: &Flow, model: &mut Model) {
    while let Some(early) = streams.follow(flow) {
        let (place, length) = early.tag;
        model.in_order(place + length - early.bytes.len(), &early.bytes);
    }
}

/// What is kept of a message and joined to the next bytes is neither lost nor changed.
fn unfinished(bytes: &[u8], flow: &Flow) {
    let mut streams: Streams<(), ()> = Streams::default();
    streams.accept(*flow, 0, b"x", || true, Nanos(0), ());
    let mut kept = Vec::new();
    for chunk in bytes.chunks(7) {
        let needs = match chunk[0] % 3 {
            0 => Needs::More,
            1 => Needs::EmptyLine,
            _ => Needs::Bytes(usize::from(chunk[0])),
        };
        kept.extend_from_slice(chunk);
        if let Some(readable) = streams.join(flow, Cow::Borrowed(chunk), 1) {
            assert_eq!(*readable.bytes, *kept);
            kept.drain(..kept.len() / 2);
            if !streams.keep(flow, &kept, needs, &readable.parts) {
                kept.clear();
            }
        }
        assert_eq!(streams.size().1, kept.len());
    }
}
