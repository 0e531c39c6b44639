use probe_ebpf::{Config, MediaRule};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::decode::Decoder;

/// RTP of a flow, with as much payload, and so much of the frame captured.
#[derive(Clone, Debug)]
struct Sent {
    flow: u16,
    interface: u16,
    link: LinkType,
    second: u8,
    seq: u16,
    payload: usize,
    captured: usize,
    checksum: Checksum,
    /// Octets that are not as they should be, and in which bits.
    damage: Vec<(usize, u8)>,
}

#[derive(Clone, Copy, Debug)]
enum Checksum {
    Some(u16),
    None,
    /// Left to the network card.
    Partial,
}

impl Sent {
    fn of(flow: u16, seq: u16) -> Self {
        let checksum = Checksum::Some(seq.wrapping_mul(31) | 1);
        let (link, damage) = (LinkType::Ethernet, Vec::new());
        Self { flow, interface: 0, link, second: 8, seq, payload: 160, captured: 2_000, checksum, damage }
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { flow, second, seq, payload, captured, checksum, damage, .. } = self;
        let word = |number: usize| u16::try_from(number).unwrap().to_be_bytes();
        let udp_len = word(8 + 12 + payload);
        let [low, high] = flow.to_le_bytes();
        let source = [10, 0, high, low];
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
        bytes.extend([0x45, 0xb8]);
        bytes.extend(word(20 + 8 + 12 + payload));
        bytes.extend(seq.wrapping_mul(7).to_be_bytes()); // identification
        bytes.extend([0x40, 0, 64, UDP, 0xab, low]); // flags, TTL, protocol, checksum
        bytes.extend(source);
        bytes.extend([10, 0, 0, 2]);
        bytes.extend([0x4e, 0x20, 0x75, 0x30]); // 20000 to 30000
        bytes.extend(udp_len);
        let partial =
            [u16::from_be_bytes([10, 0]), u16::from_be_bytes([high, low]), 10 << 8, 2, u16::from(UDP)];
        let partial =
            partial.into_iter().map(u32::from).sum::<u32>() + u32::from(u16::from_be_bytes(udp_len));
        bytes.extend(match checksum {
            Checksum::Some(checksum) => checksum.to_be_bytes(),
            Checksum::None => [0, 0],
            Checksum::Partial => u16::try_from(partial % 65_535).unwrap().to_be_bytes(),
        });
        bytes.extend([0x80, *second]);
        bytes.extend(seq.to_be_bytes());
        bytes.extend((u32::from(*seq) * 160).to_be_bytes());
        bytes.extend([1, 2, high, low]);
        bytes.extend((0..*payload).map(|at| at.to_le_bytes()[0] ^ low ^ seq.to_le_bytes()[0]));
        for (at, bits) in damage {
            if let Some(octet) = bytes.get_mut(*at) {
                *octet ^= bits;
            }
        }
        bytes.truncate(*captured);
        bytes
    }
}

fn plain(rule: MediaRule, as_wireshark: bool, rtp_low: u16) -> Plain {
    let config = Config { media_rule: rule as u8, rtp_low, ..Config::DEFAULT };
    Decoder::new(config, as_wireshark).plain()
}

/// What [`Plain`] says, and what the predictor says of the same frame; whether a template said it.
fn both(predictor: &mut Predictor, sent: &Sent, number: u64) -> (Option<RtpPacket>, Option<RtpPacket>, bool) {
    let bytes = sent.bytes();
    let (interface, link) = (sent.interface, sent.link);
    let frame = Frame { time: Nanos(number * 7), number, interface, link, bytes: &bytes, wire_len: 300 };
    let slow = predictor.plain.rtp(&frame).map(|rtp| (rtp.flow.hash(), rtp.packet()));
    let [at, ..] = predictor.ask_ahead(std::iter::once(frame));
    let predicted = predictor.predict(&frame, at).map(|rtp| {
        let mut packet = crate::rtp::testing::packet(number);
        rtp.write_to(&mut packet);
        assert_eq!(packet, rtp.packet(), "whatever was there before");
        (rtp.hash(), packet)
    });
    let by_template = predicted.is_some();
    let fast = predicted.or_else(|| predictor.decode(&frame).map(|rtp| (rtp.flow.hash(), rtp.packet())));
    assert_eq!(slow.map(|(hash, _)| hash), fast.map(|(hash, _)| hash));
    (slow.map(|(_, packet)| packet), fast.map(|(_, packet)| packet), by_template)
}

#[test]
fn frames_of_a_flow_are_decoded_once_whatever_their_lengths_and_types() {
    let mut predictor = Predictor::new(plain(MediaRule::Range, true, 1_024), 1 << 17);
    let mut by_template = Vec::new();
    for (number, (payload, second)) in
        [(160, 8), (160, 8), (33, 0x88), (4, 101), (0, 13), (1_400, 0xe0)].into_iter().enumerate()
    {
        let sent = Sent { second, payload, ..Sent::of(1, 5) };
        let (slow, fast, is_by_template) = both(&mut predictor, &sent, number as u64 + 1);
        assert!(slow.is_some());
        assert_eq!(slow, fast, "{sent:?}");
        by_template.push(is_by_template);
    }
    // Of the fifth there are 54 octets, fewer than are compared.
    assert_eq!(by_template, [false, true, true, true, false, true]);
}

/// What else the frames of a flow may differ in, a template does not hide.
#[test]
fn a_bit_that_is_another_anywhere_in_the_headers_changes_what_it_changes() {
    for checksum in [Checksum::Some(0x1234), Checksum::None, Checksum::Partial] {
        for rule in [MediaRule::Range, MediaRule::Anything] {
            let mut predictor = Predictor::new(plain(rule, true, 10_000), 100);
            let known = Sent { checksum, ..Sent::of(1, 5) };
            for bit in 0..8 * 70 {
                let other = Sent { damage: vec![(bit / 8, 1 << (bit % 8))], ..known.clone() };
                for (sent, number) in [&known, &other, &known].into_iter().zip(1..) {
                    let (slow, fast, _) = both(&mut predictor, sent, number);
                    assert_eq!(slow, fast, "{checksum:?} {rule:?} octet {} bit {}", bit / 8, bit % 8);
                }
            }
        }
    }
}

/// Capture cut anywhere, also where a hash is made of what is left.
#[test]
fn a_frame_is_what_is_left_of_it() {
    for checksum in [Checksum::Some(0x1234), Checksum::None, Checksum::Partial] {
        let mut predictor = Predictor::new(plain(MediaRule::Range, true, 1_024), 1 << 17);
        for payload in [0, 3, 4, 8, 31, 160] {
            for captured in 30..120 {
                let sent = Sent { payload, captured, checksum, ..Sent::of(1, 5) };
                let (slow, fast, _) = both(&mut predictor, &sent, 1);
                assert_eq!(slow, fast, "{sent:?}");
            }
        }
    }
}

#[test]
fn flows_are_known_until_there_are_too_many_and_all_are_told_apart() {
    let mut predictor = Predictor::new(plain(MediaRule::Range, true, 1_024), 40_000);
    let mut known = |flow| {
        let (slow, fast, by_template) = both(&mut predictor, &Sent::of(flow, 9), 1);
        assert!(slow.is_some() && slow == fast, "{flow}");
        by_template
    };
    assert_eq!((0..40_000).chain(0..40_000).filter(|flow| known(*flow)).count(), 40_000);
    // One more, and they are learned anew.
    assert_eq!([40_000, 1, 1].map(&mut known), [false, false, true]);
}

#[test]
fn a_flow_that_is_seen_in_two_places_has_two_templates() {
    let mut predictor = Predictor::new(plain(MediaRule::Range, true, 1_024), 100);
    let mut known = |interface| both(&mut predictor, &Sent { interface, ..Sent::of(1, 9) }, 1).2;
    assert_eq!([0, 1, 0, 1].map(&mut known), [false, false, true, true]);
}

fn sent() -> impl Strategy<Value = Sent> {
    let checksum = prop_oneof![
        4 => any::<u16>().prop_map(Checksum::Some),
        1 => Just(Checksum::None),
        1 => Just(Checksum::Partial),
    ];
    let link = prop_oneof![9 => Just(LinkType::Ethernet), 1 => Just(LinkType::RawIp)];
    let second = prop_oneof![3 => Just(8), 1 => any::<u8>()];
    let captured = prop_oneof![3 => Just(2_000_usize), 1 => 0..100_usize];
    let damage = prop_oneof![
        2 => Just(Vec::new()),
        1 => vec((0..70_usize, prop_oneof![(0..8_u32).prop_map(|bit| 1 << bit), any::<u8>()]), 1..3),
    ];
    let payload = prop_oneof![2 => Just(160_usize), 1 => 0..40_usize, 1 => 0..1_400_usize];
    (0..3_u16, 0..2_u16, link, second, any::<u16>(), payload, captured, checksum, damage).prop_map(
        |(flow, interface, link, second, seq, payload, captured, checksum, damage)| Sent {
            flow,
            interface,
            link,
            second,
            seq,
            payload,
            captured,
            checksum,
            damage,
        },
    )
}

proptest! {
    /// By templates and without, any frames in any order are the same.
    #[test]
    fn a_template_says_what_decoding_says(
        frames in vec(sent(), 1..60),
        rule in prop_oneof![Just(MediaRule::Announced), Just(MediaRule::Range), Just(MediaRule::Anything)],
        as_wireshark: bool,
        rtp_low in prop_oneof![Just(1_024_u16), Just(20_001)],
    ) {
        let mut predictor = Predictor::new(plain(rule, as_wireshark, rtp_low), 3);
        for (sent, number) in frames.iter().zip(1..) {
            let (slow, fast, _) = both(&mut predictor, sent, number);
            prop_assert_eq!(slow, fast, "{:?}", sent);
        }
    }
}
