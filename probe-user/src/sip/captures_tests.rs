//! Real captures against tshark's `sip,stat`, which counts copies as messages: method by method, code by code.
//!
//! The reader here knows only plain Ethernet, cooked and raw frames, so that signalling is tested without the decoder;
//! captures with tunnels and fragments are tested end to end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pcap_parser::{Linktype, PcapBlockOwned, PcapError};
use probe_ebpf::parse::{Fragment, Layers, TCP, UDP, ethernet, network};

use super::*;
use crate::packet::{Carrier, Encapsulation, Endpoint, Tap, Vlans};
use crate::sip::calls::CallState;
use crate::sip::totals::Repeats;

/// Not compared here, each with its reason.
const LEFT_OUT: [(&str, &str); 7] = [
    ("arkime+arkime__arkime_synthetic.pcap", "tunnels"),
    ("arkime+arkime__gtp-iphone.pcap", "GTP-U"),
    ("dotpcap+packetnet__udp-ip-fragmented.pcap", "fragments"),
    ("ntop+nDPI__gre.pcapng", "GRE, pcapng"),
    ("zeek+zeek__wireshark.pcap", "fragments"),
    ("seladb+PcapPlusPlus__sip_reqs.pcap", "PPPoE; and tshark drops a BYE that ends within a header name"),
    (
        "ntop+nDPI__fuzz-2006-06-26-2594.pcap",
        "fuzzed: tshark drops a message at a value that it cannot dissect",
    ),
];

/// The folder of shared captures, beside the workspace or where the environment says.
fn shared_captures() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("VOXPROBE_SHARED_CAPTURES").map(PathBuf::from) {
        assert!(named.is_dir(), "VOXPROBE_SHARED_CAPTURES: {} is no folder", named.display());
        return Some(named);
    }
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
    if beside.is_dir() {
        return Some(beside);
    }
    eprintln!("skipped: {} is not there; set VOXPROBE_SHARED_CAPTURES", beside.display());
    None
}

fn read(path: &Path) -> Signalling {
    let file = std::fs::File::open(path).unwrap();
    let mut reader = pcap_parser::create_reader(1 << 20, file).unwrap();
    let mut probe = Signalling::default();
    let (mut number, mut link) = (0, Linktype::ETHERNET);
    loop {
        match reader.next() {
            Ok((used, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => link = header.network,
                    PcapBlockOwned::Legacy(packet) => {
                        number += 1;
                        let micros = u64::from(packet.ts_sec) * 1_000_000 + u64::from(packet.ts_usec);
                        frame(&mut probe, number, Nanos(micros * 1000), link, packet.data);
                    }
                    PcapBlockOwned::NG(_) => panic!("pcapng needs the decoder's reader"),
                }
                reader.consume(used);
            }
            Err(PcapError::Eof) => return probe,
            Err(PcapError::Incomplete(_)) => reader.refill().unwrap(),
            Err(error) => panic!("{}: {error:?}", path.display()),
        }
    }
}

fn frame(probe: &mut Signalling, number: u64, time: Nanos, link: Linktype, data: &[u8]) {
    let layers = match link {
        Linktype::ETHERNET => ethernet(data),
        Linktype::RAW | Linktype::IPV4 => network(data, 0x0800, 0),
        Linktype::LINUX_SLL => network(data, u16::from_be_bytes([data[14], data[15]]), 16),
        Linktype::NULL => network(data, 0x0800, 4),
        other => panic!("link type {other:?}"),
    };
    let Some(layers) = layers.ok().filter(|layers| layers.fragment == Fragment::None) else { return };
    let (transport, header) = match layers.protocol {
        UDP => (Transport::Udp, 8),
        TCP => {
            let at = layers.transport;
            let seq = u32::from_be_bytes(data[at + 4..at + 8].try_into().unwrap());
            (Transport::Tcp { seq }, usize::from(data[at + 12] >> 4) * 4)
        }
        _ => return,
    };
    let end = data.len().min(layers.transport + usize::from(layers.transport_len));
    let Some(payload) = data.get(layers.transport + header..end).filter(|p| !p.is_empty()) else { return };
    let is_sip = [layers.src_port, layers.dst_port].iter().any(|port| matches!(port, 5060 | 5080));
    if !is_sip && !payload.windows(7).any(|bytes| bytes == b"SIP/2.0") {
        return;
    }
    let evidence = Evidence {
        tap: Tap::new(0, false),
        dst_mac: data[..6].try_into().unwrap(),
        src_mac: data[6..12].try_into().unwrap(),
        vlans: Vlans::default(),
        ttl: data[layers.ip + 8],
        tos: data[layers.ip + 1],
        ip_id: u16::from_be_bytes([data[layers.ip + 4], data[layers.ip + 5]]),
        encapsulation: Encapsulation::NONE,
        carrier: Carrier::NONE,
    };
    probe.observe(time, number, flow(data, &layers), transport, &evidence, payload);
}

fn flow(data: &[u8], layers: &Layers) -> Flow {
    let at = |offset: usize, port| {
        let from = layers.ip + offset;
        if layers.v6 {
            Endpoint::v6(data[from..from + 16].try_into().unwrap(), port)
        } else {
            Endpoint::v4(data[from..from + 4].try_into().unwrap(), port)
        }
    };
    let (src, dst) = if layers.v6 { (8, 24) } else { (12, 16) };
    Flow { src: at(src, layers.src_port), dst: at(dst, layers.dst_port) }
}

/// `SIP 180 Ringing : 4 Packets` and `INVITE : 16 Packets`.
fn golden(path: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .filter_map(|line| line.trim().strip_suffix("Packets")?.rsplit_once(':'))
        .map(|(name, count)| {
            let name = name.trim();
            let code = name.strip_prefix("SIP ").and_then(|rest| rest.split(' ').next());
            (code.unwrap_or(name).to_owned(), count.trim().parse().unwrap())
        })
        .collect()
}

#[test]
fn counts_equal_those_of_tshark_when_copies_are_added_back() {
    let Some(shared) = shared_captures() else { return };
    let (mut compared, mut different) = (0, Vec::new());
    for entry in std::fs::read_dir(shared.join("golden")).unwrap() {
        let golden_path = entry.unwrap().path();
        let name = golden_path.file_name().unwrap().to_str().unwrap();
        let Some(name) = name.strip_suffix(".sipstat.txt") else { continue };
        let is_erf = Path::new(name).extension().is_some_and(|extension| extension == "erf");
        if is_erf || LEFT_OUT.iter().any(|(left_out, _)| *left_out == name) {
            continue;
        }
        let (owner, file) = name.split_once("__").unwrap();
        let capture = shared.join(owner).join(file);
        let probe = read(&capture);
        let kinds = &probe.totals().kinds;
        let ours: BTreeMap<_, _> =
            kinds.iter().map(|(kind, tally)| (kind, tally.messages + tally.copies)).collect();
        if ours != golden(&golden_path) {
            different.push((name.to_owned(), ours, golden(&golden_path)));
        }
        compared += 1;
    }
    assert!(different.is_empty(), "name, ours, tshark's: {different:#?}");
    assert!(compared >= 20, "only {compared} captures compared");
}

#[test]
fn fax_call_has_copies_and_no_retransmission() {
    let Some(shared) = shared_captures() else { return };
    let probe = read(&shared.join("ntop+nDPI/FAX-Call-t38-CA-TDM-SIP-FB-1.pcap"));
    let totals = probe.totals();
    assert_eq!((totals.messages, totals.copies), (69, 23), "tshark says 92, and 14 of them resent");
    assert_eq!(totals.repeats, Repeats::default());
    for call in probe.calls().reports() {
        assert_ne!(call.state, CallState::Failed(488), "a refused fax re-INVITE does not end the call");
    }
}

#[test]
fn brute_force_has_no_retransmission() {
    let Some(shared) = shared_captures() else { return };
    let probe = read(&shared.join("CESNET+ipfixprobe/sip.pcap"));
    let totals = probe.totals();
    assert_eq!((totals.messages, totals.copies, totals.auth_challenges), (40, 0, 15));
    assert_eq!(totals.repeats, Repeats::default(), "tshark says 13: each has a branch of its own");
}

#[test]
fn setup_ends_with_the_answer_whatever_comes_around_it() {
    let Some(shared) = shared_captures() else { return };
    for (file, setup_ms, state) in [
        // PRACK, UPDATE.
        ("IvanNardi+pl7m/sip.pcap", 8673.0, CallState::Ended),
        // A challenge first: its time counts, as the caller waits for it too.
        ("MichalCab+ISA/sip.siprtp.pcap", 30.0, CallState::Ended),
        // A second call is still ringing at the end of the capture.
        ("OISF+suricata-verify/public-cloudshark-sip-s0.pcap", 8478.0, CallState::Answered),
        // 200 is captured before 100 and 180.
        (
            "cisco-system-traffic-generator+trex-core/delay_10_sip_video_call_full.pcap",
            19.0,
            CallState::Ended,
        ),
    ] {
        let probe = read(&shared.join(file));
        let calls = probe.calls().reports();
        let found: Vec<_> =
            calls.iter().filter_map(|call| Some((call.setup_ms?.round(), call.state))).collect();
        assert_eq!(found, [(setup_ms, state)], "{file}");
    }
}
