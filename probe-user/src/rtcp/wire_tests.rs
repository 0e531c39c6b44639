use proptest::prelude::*;

use super::*;

/// What is said in a datagram, as text.
fn said(payload: &[u8]) -> (Result<u64, Refusal>, Vec<String>) {
    let mut said = Vec::new();
    let read = read(payload, false, |ssrc, statement| {
        let statement = match statement {
            Statement::Sender(info) => format!("sender {:x} {}", info.ntp.middle(), info.rtp),
            Statement::Block(block) => {
                let ReportBlock { ssrc, fraction_lost, cumulative_lost, highest_seq, .. } = block;
                format!("block {ssrc} {fraction_lost} {cumulative_lost} {highest_seq} {}", block.jitter)
            }
            Statement::Name(name) => format!("name {}", String::from_utf8_lossy(name)),
            Statement::Bye(reason) => format!("bye {}", String::from_utf8_lossy(reason.unwrap_or(b"-"))),
            Statement::Answer(answers) => {
                format!("answer {:?}", answers.iter().map(|answer| answer.ssrc).collect::<Vec<_>>())
            }
            Statement::Voip(metrics) => format!("voip {:?} {:?}", metrics.r_factor, metrics.mos_lq),
            Statement::Statistics(summary) => {
                format!("statistics {:?} {:?}", summary.lost, summary.duplicates)
            }
            Statement::ReferenceTime(ntp) => format!("time {:x}", ntp.middle()),
            Statement::Receiver => "receiver".to_owned(),
            Statement::Other => "other".to_owned(),
        };
        said.push(format!("{ssrc}: {statement}"));
    });
    (read, said)
}

/// A packet: count or subtype, type, and its body, whose length becomes the header's.
fn packet(count: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let words = u16::try_from(body.len() / 4).unwrap();
    [&[0x80 | count, kind][..], &words.to_be_bytes(), body].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Sender 1 at NTP aaaa:bbbb, with one block about sender 2: 3/256 lost, -2 in all, highest 70,000, jitter 40.
fn sender_report() -> Vec<u8> {
    let info = [1, 0x1234_aaaa, 0xbbbb_0000, 16_000, 100, 16_000];
    let block = [2, 0x03ff_fffe, 70_000, 40, 0x5555_6666, 0x0000_8000];
    packet(1, 200, &words(&[&info[..], &block].concat()))
}

/// Sender 1 is called "a@b": one item, its end, and two octets of filling.
fn names() -> Vec<u8> {
    packet(1, 202, &[0, 0, 0, 1, 1, 3, b'a', b'@', b'b', 0, 0, 0])
}

#[test]
fn a_compound_says_what_each_packet_says() {
    let bye = packet(1, 203, &[0, 0, 0, 1, 4, b'd', b'o', b'n', b'e', 0, 0, 0]);
    let (read, said) = said(&[sender_report(), names(), bye].concat());
    assert_eq!(read, Ok(0));
    assert_eq!(said, ["1: sender aaaabbbb 16000", "1: block 2 3 -2 70000 40", "1: name a@b", "1: bye done"]);
}

#[test]
fn extended_reports_are_read_whatever_their_number_of_answers() {
    let time = words(&[0x0400_0002, 0x1234_aaaa, 0xbbbb_0000]);
    let answers = words(&[0x0500_0006, 7, 8, 9, 10, 11, 12]);
    // Flags: lost and duplicates; numbers 100 to 200.
    let statistics = words(&[0x06c0_0009, 2, 0x0064_00c8, 5, 6, 0, 0, 0, 0, 0]);
    let body = [words(&[1]), time, answers, statistics].concat();
    let (read, said_first) = said(&packet(0, 207, &body));
    assert_eq!(read, Ok(0));
    assert_eq!(said_first, ["1: time aaaabbbb", "1: answer [7, 10]", "1: statistics Some(5) Some(6)"]);
    // 10 of 256 lost, then R 93, external R unavailable, MOS-LQ 4.1, MOS-CQ unavailable.
    let metrics = words(&[0x0700_0008, 2, 0x0a00_0000, 0, 0, 0x1010_7f10, 0x5d7f_297f, 0, 0]);
    let (_, said) = said(&packet(0, 207, &[words(&[1]), metrics].concat()));
    assert_eq!(said, ["1: voip Some(93) Some(4.1)"]);
}

#[test]
fn reduced_size_and_padding_are_read() {
    assert_eq!(said(&names()), (Ok(0), vec!["1: name a@b".to_owned()]));
    let mut padded = packet(1, 202, &[0, 0, 0, 1, 1, 3, b'a', b'@', b'b', 0, 0, 0, 0, 0, 0, 4]);
    padded[0] |= 0x20;
    assert_eq!(said(&padded), (Ok(0), vec!["1: name a@b".to_owned()]));
    *padded.last_mut().unwrap() = 0;
    assert_eq!(said(&padded), (Ok(1), vec![]));
}

#[test]
fn a_second_chunk_whose_ssrc_begins_with_zeros_is_found() {
    let chunks = [&[0, 0, 0, 1, 1, 2, b'a', b'b', 0, 0, 0, 0][..], &[0, 0, 0, 2, 1, 1, b'c', 0]].concat();
    assert_eq!(said(&packet(2, 202, &chunks)).1, ["1: name ab", "2: name c"]);
}

#[test]
fn letters_are_never_read_as_a_report_block() {
    // A receiver report that claims a block and has none, and the SDES that would be taken for it.
    let lying = packet(1, 201, &words(&[9]));
    let (read, said) = said(&[lying, names()].concat());
    assert_eq!((read, said), (Ok(1), vec!["1: name a@b".to_owned()]));
}

#[test]
fn what_contradicts_itself_is_not_plausible() {
    let sane = ReportBlock { cumulative_lost: 5, highest_seq: 100, jitter: 10, ..ReportBlock::default() };
    assert!(sane.is_plausible());
    // 113 million ms at 8 kHz, as "@b.c" would be; more lost than sent; held for a day.
    assert!(!ReportBlock { jitter: u32::from_be_bytes(*b"@b.c"), ..sane }.is_plausible());
    assert!(!ReportBlock { cumulative_lost: 200, ..sane }.is_plausible());
    assert!(!ReportBlock { delay: 86_400 << 16, ..sane }.is_plausible());
}

#[test]
fn srtcp_is_recognised_and_nothing_in_it_is_believed() {
    // The header and SSRC in the clear, noise, then E and index 1, and a tag of ten octets.
    let mut encrypted = sender_report();
    encrypted[8..].iter_mut().zip(1_u8..).for_each(|(octet, noise)| *octet = noise.wrapping_mul(151));
    encrypted.extend_from_slice(&[0x80, 0, 0, 1]);
    encrypted.extend_from_slice(&[0x5a; 10]);
    assert_eq!(said(&encrypted), (Err(Refusal::Encrypted), vec![]));
    // AES-GCM: the tag first, the word last.
    let mut gcm = sender_report();
    gcm.extend_from_slice(&[0x5a; 16]);
    gcm.extend_from_slice(&[0x80, 0, 0, 1]);
    assert_eq!(said(&gcm), (Err(Refusal::Encrypted), vec![]));
}

#[test]
fn lengths_that_do_not_add_up_are_refused_as_a_whole() {
    let mut short = sender_report();
    short.pop();
    assert_eq!(said(&short), (Err(Refusal::Malformed), vec![]));
    let mut other_version = [sender_report(), names()].concat();
    other_version[52] = 0x41;
    assert_eq!(said(&other_version), (Err(Refusal::Malformed), vec![]));
    assert_eq!(said(&[]), (Err(Refusal::Malformed), vec![]));
    assert_eq!(read(&sender_report(), true, |_, _| panic!("it is cut")), Err(Refusal::Cut));
}

proptest! {
    /// Random octets under headers that let them in.
    #[test]
    fn no_bytes_make_it_panic(
        packets in prop::collection::vec((0_u8..64, 192_u8..224, prop::collection::vec(any::<u32>(), 0..24)), 1..5),
        extra in prop::collection::vec(any::<u8>(), 0..16),
    ) {
        let mut datagram = Vec::new();
        for (first, kind, body) in packets {
            let mut packet = packet(0, kind, &words(&body));
            packet[0] |= first;
            datagram.extend(packet);
        }
        let _ = said(&datagram);
        datagram.extend(extra);
        let _ = said(&datagram);
    }

    /// The same for blocks of extended reports, whose types and lengths are likely ones.
    #[test]
    fn no_extended_blocks_make_it_panic(
        blocks in prop::collection::vec((0_u8..9, any::<u8>(), 0_u16..12, prop::collection::vec(any::<u32>(), 0..12)), 0..5),
    ) {
        let mut body = words(&[1]);
        for (kind, specific, length, content) in blocks {
            body.extend([kind, specific]);
            body.extend(length.to_be_bytes());
            body.extend(words(&content));
        }
        let _ = said(&packet(0, 207, &body));
    }
}
