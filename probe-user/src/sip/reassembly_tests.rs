use super::*;
use crate::packet::Endpoint;

type Order = Streams<u64, ()>;

const MS: u64 = 1_000_000;

fn flow(port: u16) -> Flow {
    Flow { src: Endpoint::v4([10, 0, 0, 1], port), dst: Endpoint::v4([10, 0, 0, 2], 5060) }
}

/// Takes a segment, and gives all that becomes readable by it.
fn take(order: &mut Order, seq: u32, payload: &[u8]) -> Vec<u8> {
    let mut read = match order.accept(flow(1), seq, payload, || seq == BEGIN, Nanos(0), 0) {
        Accepted::Next(fresh) => fresh.to_vec(),
        Accepted::Before => payload.to_vec(),
        Accepted::Full => {
            order.give_up(&flow(1));
            Vec::new()
        }
        Accepted::Held | Accepted::Old => Vec::new(),
    };
    while let Some(early) = order.follow(&flow(1)) {
        read.extend_from_slice(&early.bytes);
    }
    read
}

/// Near the wrap.
const BEGIN: u32 = u32::MAX - 3;

/// The number of byte `at` of the stream.
fn seq(at: u32) -> u32 {
    BEGIN.wrapping_add(at)
}

#[test]
fn every_order_of_five_segments_gives_the_stream() {
    let text = b"0123456789";
    let mut orders = vec![vec![]];
    for _ in 0..5 {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<u32>| {
                (0..5).filter(|n| !order.contains(n)).map(|n| [&order[..], &[n]].concat()).collect::<Vec<_>>()
            })
            .collect();
    }
    assert_eq!(orders.len(), 120);
    for order in orders {
        let mut streams = Order::default();
        let read: Vec<u8> = order
            .iter()
            .flat_map(|n| take(&mut streams, seq(2 * n), &text[2 * *n as usize..][..2]))
            .collect();
        assert_eq!(read, text, "{order:?}");
        assert_eq!((streams.size(), streams.figures().gaps), ((1, 0), 0));
    }
}

#[test]
fn overlaps_are_cut_on_both_sides_and_old_segments_add_nothing() {
    let mut streams = Order::default();
    assert_eq!(take(&mut streams, seq(0), b"abcd"), b"abcd");
    assert_eq!(take(&mut streams, seq(0), b"abcd"), b"");
    assert_eq!(take(&mut streams, seq(2), b"cdef"), b"ef");
    // Early, twice, and once more with a part of another.
    assert_eq!(take(&mut streams, seq(8), b"ijkl"), b"");
    assert_eq!(take(&mut streams, seq(9), b"jkl"), b"");
    assert_eq!(take(&mut streams, seq(10), b"klmn"), b"");
    assert_eq!(take(&mut streams, seq(5), b"fghij"), b"ghijklmn");
    assert_eq!(take(&mut streams, seq(3), b"defghijklmnop"), b"op");
    let figures = streams.figures();
    assert_eq!((figures.retransmissions, figures.out_of_order, figures.gaps), (2, 2, 0));
    assert_eq!(streams.size(), (1, 0));
}

#[test]
fn a_gap_is_given_up_when_it_is_old_or_too_much_waits_behind_it() {
    let mut streams = Order::default();
    take(&mut streams, seq(0), b"ab");
    streams.accept(flow(1), seq(4), b"ef", || false, Nanos(0), 7);
    streams.accept(flow(1), seq(8), b"ij", || false, Nanos(300 * MS), 8);
    assert_eq!(streams.overdue(Nanos(500 * MS)), None);
    assert_eq!(streams.overdue(Nanos(501 * MS)), Some(flow(1)));
    assert!(!streams.give_up(&flow(1)));
    let early = streams.follow(&flow(1)).unwrap();
    assert_eq!((&early.bytes[..], early.tag), (&b"ef"[..], 7));
    assert!(streams.follow(&flow(1)).is_none());
    // The second gap is as old as what waits behind it, not as the first.
    assert_eq!(streams.overdue(Nanos(800 * MS)), None);
    assert_eq!(streams.any_waiting(), Some(flow(1)));
    streams.give_up(&flow(1));
    assert_eq!(streams.follow(&flow(1)).unwrap().tag, 8);
    assert_eq!((streams.any_waiting(), streams.figures().gaps), (None, 2));

    for size in [1, 4096] {
        let mut streams = Order::default();
        take(&mut streams, seq(0), b"ab");
        let mut at = 4;
        let payload = vec![b'x'; size];
        while take(&mut streams, seq(at), &payload).is_empty() {
            assert!(streams.size().1 <= MAX_EARLY_BYTES && streams.figures().out_of_order <= 64);
            at += u32::try_from(size).unwrap() + 1;
        }
        assert_eq!(streams.figures().gaps, 1);
    }
}

#[test]
fn a_first_segment_that_is_no_beginning_waits_for_the_one_before_it() {
    let mut streams = Order::default();
    assert_eq!(take(&mut streams, seq(2), b"cd"), b"");
    assert_eq!(take(&mut streams, seq(4), b"ef"), b"");
    assert_eq!(take(&mut streams, seq(0), b"ab"), b"abcdef");
    assert_eq!(*streams.figures(), TcpFigures { out_of_order: 1, ..TcpFigures::default() });

    let mut streams = Order::default();
    assert_eq!(take(&mut streams, seq(2), b"cd"), b"");
    assert_eq!(streams.overdue(Nanos(501 * MS)), Some(flow(1)));
    streams.give_up(&flow(1));
    assert_eq!(streams.follow(&flow(1)).unwrap().bytes, b"cd");
    assert_eq!((streams.figures().mid_stream, streams.figures().gaps), (1, 0));
    // What comes after all from before it was never seen, so it is not old; but what overlaps it is.
    assert_eq!(take(&mut streams, seq(0), b"ab"), b"ab");
    assert_eq!(take(&mut streams, seq(0), b"ab"), b"");
    assert_eq!(streams.figures().retransmissions, 1);
}

#[test]
fn a_segment_far_from_its_stream_is_of_another_connection() {
    let mut streams = Order::default();
    take(&mut streams, seq(0), b"ab");
    assert!(!streams.is_another(&flow(1), seq(2 + WINDOW)) && !streams.is_another(&flow(2), 0));
    assert!(streams.is_another(&flow(1), seq(3 + WINDOW)) && streams.is_another(&flow(1), seq(0) - WINDOW));
    streams.keep(&flow(1), b"unfinished", Needs::More, &[]);
    streams.accept(flow(1), seq(9), b"early", || false, Nanos(0), 0);
    streams.restart(&flow(1));
    assert_eq!(streams.size(), (1, 0));
}

#[test]
fn an_unfinished_message_is_looked_at_again_when_it_can_have_ended() {
    let mut streams = Order::default();
    let join = |streams: &mut Order, bytes: &'static [u8]| {
        let readable = streams.join(&flow(1), Cow::Borrowed(bytes), 3)?;
        Some((readable.bytes.into_owned(), readable.parts))
    };
    take(&mut streams, seq(0), b"ab");
    assert!(streams.keep(&flow(1), b"ab\r\n", Needs::EmptyLine, &[1]));
    assert_eq!(join(&mut streams, b"\r"), None);
    assert_eq!(join(&mut streams, b"\nc"), Some((b"ab\r\n\r\nc".to_vec(), vec![1, 3])));
    assert!(streams.keep(&flow(1), b"ab", Needs::Bytes(5), &[1]));
    assert_eq!(join(&mut streams, b"cd"), None);
    assert_eq!(streams.size().1, 4);
    assert_eq!(join(&mut streams, b"e"), Some((b"abcde".to_vec(), vec![1, 3])));
    assert_eq!(streams.size().1, 0);
    assert!(!streams.keep(&flow(1), &vec![0; MAX_UNFINISHED + 1], Needs::More, &[]));
}

#[test]
fn a_flood_of_streams_stays_bounded_and_spares_those_in_use() {
    let mut streams = Order::default();
    let half = vec![b'x'; 1024];
    take(&mut streams, seq(0), b"ab");
    for n in 0..400_000_u32 {
        let flow = Flow { src: Endpoint::v4(n.to_be_bytes(), 9), ..flow(1) };
        streams.accept(flow, 0, b"x", || true, Nanos(0), 0);
        if n % 2 == 0 {
            streams.keep(&flow, &half, Needs::More, &[]);
        } else if streams.accept(flow, 9, &half, || false, Nanos(0), 0) == Accepted::Full {
            streams.give_up(&flow);
            streams.follow(&flow);
        }
        if n % 50_000 == 0 {
            take(&mut streams, seq(2 + n / 50_000), b"c");
        }
        let (count, held) = streams.size();
        assert!(count <= MAX_STREAMS && held <= MAX_HELD);
    }
    assert_eq!(streams.figures().retransmissions, 0, "the one in use was never forgotten");
    assert!(streams.figures().given_up > 0);
    assert!(streams.waiting.len() <= MAX_STREAMS && streams.candidates.len() <= MAX_STREAMS);
    assert_eq!(streams.held, streams.by_flow.values().map(Stream::held).sum::<usize>());
}
