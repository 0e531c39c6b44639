//! `voxlab xdp-cost`: what the XDP program costs per frame, over one that does nothing.
//!
//! BPF_PROG_TEST_RUN repeats a program on one frame and gives the mean; its own overhead is the same for the empty
//! program and is subtracted. Each case is the median of many rounds, taken in turns with the empty program, as
//! the machine may be busy with something else. Records go into a ring that is emptied between rounds, so that what is
//! measured is the writing of a record and not its loss.

use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions};
use probe_ebpf::Config;
use probe_ebpf::config::MediaRule;
use probe_ebpf::record::KernelLoss;
use voxprobe::capture::live::{LiveCapture, LiveOptions, Mode, Records as _};
use voxprobe::capture::xsk::MirrorOptions;
use voxprobe::packet::{Endpoint, Flow};

use crate::frames::{invite, rtp, sip, tcp, udp};
use crate::traffic;
use crate::tunnels::{gre, gtp, tunnel, vxlan};

const ROUNDS: usize = 31;
const RING_BYTES: u32 = 32 << 20;

/// A kind of frame to measure.
struct Case {
    name: &'static str,
    rule: MediaRule,
    frame: Vec<u8>,
    /// Bytes of the ring that its record takes; zero for none.
    record_bytes: u32,
    /// Media sessions of buckets below it are shed.
    shed_below: u32,
    mode: Mode,
}

fn cases() -> Vec<Case> {
    let media = rtp().varied(160).over(udp());
    let dns = udp().ports(20_000, 53).payload(&[0x12; 40]).ethernet();
    let web = tcp().ports(20_000, 443).payload(&[0; 1_300]);
    let https = tcp().ports(20_000, 443).payload(&[0; 1_400]).ethernet();
    let event = rtp().payload(&[1, 10, 0, 160]).over(udp()).ethernet();
    let rpcap = tcp().ports(2002, 40_000).payload(&[0; 1_400]).ethernet();
    let arp = [&[0xff; 6][..], &[2; 6], &[8, 6], &[0; 46]].concat();
    let icmp = udp().protocol(1).payload(&[8; 64]);
    let case = |name, rule, frame, record_bytes| Case {
        name,
        rule,
        frame,
        record_bytes,
        shed_below: 0,
        mode: Mode::Tap,
    };
    let mirrored = |name, frame| Case {
        mode: Mode::Mirror(MirrorOptions::DEFAULT),
        ..case(name, MediaRule::Range, frame, 0)
    };
    let (src, dst) = (Endpoint::v4([10, 0, 0, 1], 20_000), Endpoint::v4([10, 0, 0, 2], 30_000));
    let bucket = u32::from(Flow { src, dst }.bucket());
    let shedding = |name, record_bytes, shed_below| Case {
        shed_below,
        ..case(name, MediaRule::Range, media.ethernet(), record_bytes)
    };
    vec![
        case("ARP", MediaRule::Range, arp, 0),
        case("TCP", MediaRule::Range, https.clone(), 0),
        case("other UDP (DNS)", MediaRule::Range, dns.clone(), 0),
        case("ICMP", MediaRule::Range, icmp.ethernet(), 0),
        case("ICMP over IPv6", MediaRule::Range, icmp.clone().v6().protocol(58).ethernet(), 0),
        case("RTP, by range", MediaRule::Range, media.ethernet(), 64),
        case("RTP, announced", MediaRule::Announced, media.ethernet(), 64),
        shedding("RTP, while others are shed", 64, bucket),
        shedding("RTP, shed", 0, bucket + 1),
        case("RTP under a VLAN tag, by range", MediaRule::Range, media.clone().vlan(100).ethernet(), 64),
        case("RTP over IPv6, by range", MediaRule::Range, media.clone().v6().ethernet(), 128),
        case("RTP over IPv6, announced", MediaRule::Announced, media.clone().v6().ethernet(), 128),
        case("RTP, checksum left to the card", MediaRule::Range, media.clone().checksum(0).ethernet(), 64),
        case("SIP, 900 bytes", MediaRule::Range, sip(&invite(900)).ethernet(), 1_024),
        case("RTP of a telephone event", MediaRule::Range, event, 96),
        case("RTP in GRE", MediaRule::Range, gre(&media.ip()).over(tunnel()).ethernet(), 320),
        case("RTP in VXLAN", MediaRule::Range, vxlan(&media.ethernet()).over(tunnel()).ethernet(), 320),
        case("RTP in rpcap over TCP", MediaRule::Range, rpcap, 1_536),
        case("TCP in GRE", MediaRule::Range, gre(&web.ip()).over(tunnel()).ethernet(), 0),
        case("TCP in VXLAN", MediaRule::Range, vxlan(&web.ethernet()).over(tunnel()).ethernet(), 0),
        case("TCP in GTP-U", MediaRule::Range, gtp(&web.ip()).over(tunnel()).ethernet(), 0),
        case("TCP under two MPLS labels", MediaRule::Range, web.mpls(&[16, 17]).ethernet(), 0),
        mirrored("mirror port: TCP", https),
        mirrored("mirror port: other UDP (DNS)", dns),
        // What a redirect costs is not measured here: a test run repeats a program on one frame, before which there is room for
        // metadata only a few times.
        mirrored("mirror port: RTP without a socket", media.ethernet()),
    ]
}

/// What a kind of frame costs.
pub struct Cost {
    /// Which kind.
    pub name: &'static str,
    /// Nanoseconds over an empty program.
    pub ns: i64,
    /// What the empty program took, which is the test run's own.
    pub empty_ns: i64,
}

/// Prints the table.
pub fn run() -> Result<()> {
    println!("ns per frame over an empty XDP program, median of {ROUNDS} rounds:");
    for Cost { name, ns, empty_ns } in measure()? {
        println!("  {name:32} {ns:4}   ({} of which {empty_ns} are the test run's own)", ns + empty_ns);
    }
    let mut options = LiveOptions::new(["lo"]);
    options.egress = true;
    let (ingress, egress) = LiveCapture::detached(&options)?.verified_instructions()?;
    options.egress = false;
    options.mode = Mode::Mirror(MirrorOptions::DEFAULT);
    let (mirror, _) = LiveCapture::detached(&options)?.verified_instructions()?;
    println!("verified instructions: ingress {ingress}, egress {}, mirror {mirror}", egress.unwrap_or(0));
    Ok(())
}

/// Measures all kinds of frames.
///
/// # Errors
/// If the programs cannot be loaded.
pub fn measure() -> Result<Vec<Cost>> {
    let mut empty = empty()?;
    let mut costs = Vec::new();
    for case in cases() {
        let mut options = LiveOptions::new(["lo"]);
        options.ring_bytes = RING_BYTES;
        options.mode = case.mode;
        options.config = Config { media_rule: case.rule as u8, ..Config::DEFAULT };
        let mut capture = LiveCapture::detached(&options)?;
        let mut rings = capture.take_rings();
        let mut endpoints = capture.take_endpoints().context("the table is there once")?;
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
        endpoints.insert(Endpoint::v4([10, 0, 0, 2], 30_000));
        let mut shed = capture.take_shed().context("the level is there once")?;
        anyhow::ensure!(shed.set(case.shed_below), "{}: the kernel refuses the level", case.name);
        endpoints.insert(Endpoint::v6(v6.octets(), 30_000));
        let repeat = match case.record_bytes {
            0 => 1_000_000,
            bytes => RING_BYTES / bytes * 9 / 10,
        };
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            without.push(run_empty(&mut empty, &case.frame, repeat.max(100_000))?);
            with.push(capture.test_run(false, &case.frame, repeat)?.mean);
            while rings.as_mut().is_some_and(|rings| rings.poll(65_536, |_| ()) > 0) {}
        }
        let overflowed = capture.counters()?.total().losses[KernelLoss::RingFull as usize] > 0;
        anyhow::ensure!(!overflowed, "{}: the ring overflowed", case.name);
        let (with, without) = (median(with), median(without));
        costs.push(Cost { name: case.name, ns: with - without, empty_ns: without });
    }
    Ok(costs)
}

fn empty() -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new().btf(None).load(&traffic::object()?)?;
    let program: &mut Xdp = ebpf.program_mut("voxlab_empty").context("no empty program")?.try_into()?;
    program.load()?;
    Ok(ebpf)
}

fn run_empty(ebpf: &mut Ebpf, frame: &[u8], repeat: u32) -> Result<Duration> {
    let program: &mut Xdp = ebpf.program_mut("voxlab_empty").context("no empty program")?.try_into()?;
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
    Ok(program.test_run(options)?.duration)
}

/// In nanoseconds, which is all that the kernel tells.
fn median(mut times: Vec<Duration>) -> i64 {
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    i64::try_from(middle.as_nanos()).unwrap_or(i64::MAX)
}
