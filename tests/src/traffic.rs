//! RTP of many streams out of an interface, from inside the kernel, at up to millions of packets a second.
//!
//! The sending is done by a BPF program (`probe-ebpf/src/traffic.rs`) under BPF_PROG_TEST_RUN with live frames. It
//! is one system call that lasts as long as the traffic does, so it has a thread of its own, which a signal ends.
//! What was sent is known exactly, in total and by stream.
//!
//! The receiving end of a veth pair accepts such frames only with an XDP program of its own attached. Frames that
//! the pair could not take (its queue holds 256) are dropped by it and counted as `tx_dropped` of the sender.

use std::os::unix::thread::JoinHandleExt as _;
use std::path::PathBuf;
use std::sync::Once;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, MapData};
use aya::programs::Xdp;
use aya::{EbpfLoader, TestRun as _, TestRunAttrs, TestRunOptions};
use probe_ebpf::generator::{self, Progress};

/// The object that `cargo xtask build-ebpf` makes.
const OBJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/traffic-bpf");
/// Frames in flight: the kernel's own default, and its NAPI budget.
const BATCH: u32 = 64;
/// What ends the system call. Any signal with a handler does.
const STOP: libc::c_int = libc::SIGUSR2;

/// What to send.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Streams, in turns.
    pub streams: u32,
    /// Frames a second, all streams together; `None` for as many as the kernel can.
    pub rate_pps: Option<u64>,
    /// Frames after which nothing more is sent.
    pub limit: Option<u64>,
    /// Bytes of RTP payload: 160 are 20 ms of G.711.
    pub payload_bytes: u16,
    /// Destination MAC.
    pub dst_mac: [u8; 6],
    /// Source MAC.
    pub src_mac: [u8; 6],
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            streams: 1,
            rate_pps: None,
            limit: None,
            payload_bytes: 160,
            dst_mac: [2, 0, 0, 0, 0, 2],
            src_mac: [2, 0, 0, 0, 0, 1],
        }
    }
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Frames given to the interface.
    pub frames: u64,
    /// From the first to the last of them.
    pub elapsed: Duration,
    /// Frames that were not due and went round again.
    pub held_back: u64,
    streams: u32,
}

impl Sent {
    /// Frames of one stream.
    pub fn of_stream(&self, index: u32) -> u64 {
        let (each, rest) = (self.frames / u64::from(self.streams), self.frames % u64::from(self.streams));
        each + u64::from(u64::from(index) < rest)
    }

    /// Frames a second.
    pub fn rate_pps(&self) -> f64 {
        self.frames as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// A generator that is sending. Stops when dropped.
pub struct Generator {
    thread: Option<JoinHandle<Result<()>>>,
    progress: Array<MapData, [u64; Progress::WORDS]>,
    streams: u32,
}

impl Generator {
    /// Starts to send out of the interface with this index, in the namespace of the calling thread.
    pub fn start(ifindex: u32, spec: &Spec) -> Result<Self> {
        ensure!(spec.streams > 0, "no streams to send");
        let template = template(spec);
        let image = kernel_spec(spec, &template).to_ne_bytes();
        let object = object()?;
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .override_global("SPEC", &image[..], true)
            .load(&object)
            .context("cannot create the generator's maps")?;
        let program: &mut Xdp = ebpf
            .program_mut("voxlab_traffic")
            .context("no program voxlab_traffic in the object")?
            .try_into()?;
        program.load().context("cannot load the generator")?;
        let map = ebpf.take_map("PROGRESS").context("no map PROGRESS in the object")?;
        let progress = Array::try_from(map)?;
        handle_signal();
        let thread = thread::Builder::new().name("voxlab-traffic".into()).spawn(move || {
            let program: &mut Xdp = ebpf
                .program_mut("voxlab_traffic")
                .context("no program voxlab_traffic in the object")?
                .try_into()?;
            send(program, ifindex, &template)
        })?;
        Ok(Self { thread: Some(thread), progress, streams: spec.streams })
    }

    /// What was sent so far.
    pub fn sent(&self) -> Result<Sent> {
        let [started_ns, last_ns, frames, held_back, _] = self.progress.get(&0, 0)?;
        Ok(Sent {
            frames,
            elapsed: Duration::from_nanos(last_ns.saturating_sub(started_ns)),
            held_back,
            streams: self.streams,
        })
    }

    /// Lets it send for a while, or until it has sent `frames`, then stops it.
    pub fn run(self, duration: Duration, frames: u64) -> Result<Sent> {
        let deadline = Instant::now() + duration;
        while Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5).min(deadline.saturating_duration_since(Instant::now())));
            if self.sent()?.frames >= frames || self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
                break;
            }
        }
        self.stop()
    }

    /// Stops it. What it has sent is final then.
    pub fn stop(mut self) -> Result<Sent> {
        self.end()?;
        self.sent()
    }

    fn end(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // The signal may arrive just before the call begins or between two of them: repeat it.
        while !thread.is_finished() {
            // SAFETY: the thread has not been joined, so its handle is valid; the signal has a handler.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), STOP) };
            thread::sleep(Duration::from_millis(1));
        }
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// The generator's BPF object.
pub(crate) fn object() -> Result<Vec<u8>> {
    let path = std::env::var_os("VOXLAB_TRAFFIC_OBJECT").map_or_else(|| OBJECT.into(), PathBuf::from);
    std::fs::read(&path)
        .with_context(|| format!("cannot read {}: `cargo xtask build-ebpf` makes it", path.display()))
}

/// The one long system call.
fn send(program: &mut Xdp, ifindex: u32, template: &[u8]) -> Result<()> {
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let words = [0, u32::try_from(template.len())?, 0, ifindex, 0, 0];
    let context: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    let run = program.test_run(TestRunOptions {
        data_in: Some(template),
        ctx_in: Some(&context),
        repeat: i32::MAX.cast_unsigned(),
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::new()
    });
    match run {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = format!("{error:?}");
            if text.contains("EINTR") || text.contains("Interrupted") {
                return Ok(());
            }
            bail!("BPF_PROG_TEST_RUN with live frames out of interface {ifindex}: {error:?}")
        }
    }
}

/// A handler that does nothing: a signal without one would end the process, an ignored one not the call.
fn handle_signal() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: all zeros is a valid sigaction: no flags (so calls are not restarted), empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = nothing as *const () as usize;
        // SAFETY: `action` is valid and its handler does nothing, which is safe at any point.
        unsafe { libc::sigaction(STOP, &raw const action, std::ptr::null_mut()) };
    });
}

/// A frame with zero wherever the program writes.
fn template(spec: &Spec) -> Vec<u8> {
    let udp_len = 8 + 12 + spec.payload_bytes;
    let mut frame = Vec::with_capacity(generator::FRAME + usize::from(spec.payload_bytes));
    frame.extend(spec.dst_mac);
    frame.extend(spec.src_mac);
    frame.extend([0x08, 0x00]);
    // IPv4: version and header length, DSCP EF, total length, identification, don't fragment, TTL, UDP.
    frame.extend([0x45, 0xb8]);
    frame.extend((20 + udp_len).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend([10, 99, 0, 0]);
    frame.extend([10, 98, 0, 1]);
    // UDP: ports, length, checksum.
    frame.extend([0, 0, 0, 0]);
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    // RTP: version 2, payload type 0; sequence number, timestamp and SSRC are the program's.
    frame.extend([0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend((0..spec.payload_bytes).map(|i| i.to_be_bytes()[1] ^ 0xd5));
    frame
}

fn kernel_spec(spec: &Spec, template: &[u8]) -> generator::Spec {
    let ip_sum = generator::sum(&template[14..34]);
    // Pseudo-header: addresses, protocol, UDP length.
    let udp_len = u32::from(u16::from_be_bytes([template[38], template[39]]));
    let udp_sum = generator::sum(&template[26..34]) + 17 + udp_len + generator::sum(&template[34..]);
    generator::Spec {
        rate_pps: spec.rate_pps.unwrap_or(0),
        limit: spec.limit.unwrap_or(u64::MAX),
        streams: spec.streams,
        ip_sum,
        udp_sum,
        timestamp_step: timestamp_step(spec),
    }
}

/// So many streams at such a rate send no oftener than this. If their timestamps said that they do, every packet would come later
/// than the one before: a network that no probe is made for.
fn timestamp_step(spec: &Spec) -> u32 {
    const CLOCK_RATE: u64 = 8_000;
    // Flat out it is more, and packets that come sooner than they say are as good as those in time.
    const FLAT_PPS: u64 = 1_000_000;
    let rate_pps = spec.rate_pps.unwrap_or(FLAT_PPS).max(1);
    let step = (CLOCK_RATE * u64::from(spec.streams)).div_ceil(rate_pps);
    u32::try_from(step).unwrap_or(u32::MAX).max(generator::LEAST_STEP)
}

/// `voxlab traffic`: sends RTP and says how much.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Interface to send out of.
    #[arg(long, value_name = "NAME")]
    pub iface: String,
    /// Streams, in turns.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub streams: u32,
    /// Packets a second, all streams together, or `flat` for as many as the kernel can.
    #[arg(long, default_value = "flat")]
    pub rate: Rate,
    /// How long.
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
}

/// A rate of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// As many as the kernel can.
    Flat,
    /// Packets a second.
    Pps(u64),
}

impl Rate {
    /// Packets a second; `None` is as many as the kernel can.
    pub fn pps(self) -> Option<u64> {
        match self {
            Self::Flat => None,
            Self::Pps(pps) => Some(pps),
        }
    }
}

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "flat" => Ok(Self::Flat),
            number => match number.parse() {
                Ok(pps) if pps > 0 => Ok(Self::Pps(pps)),
                _ => Err("a number of packets a second, or `flat`".into()),
            },
        }
    }
}

/// Runs `voxlab traffic`.
pub fn run(options: &Options) -> Result<()> {
    let interfaces = voxprobe::capture::live::interfaces().context("cannot list interfaces")?;
    let interface = interfaces
        .iter()
        .find(|interface| interface.name == options.iface)
        .with_context(|| format!("there is no interface {}", options.iface))?;
    let spec = Spec { streams: options.streams, rate_pps: options.rate.pps(), ..Spec::default() };
    let sent = Generator::start(interface.index, &spec)?.run(options.duration, u64::MAX)?;
    println!(
        "sent {} frames of {} streams out of {} in {:.3} s: {:.3} Mpps",
        sent.frames,
        options.streams,
        options.iface,
        sent.elapsed.as_secs_f64(),
        sent.rate_pps() / 1e6
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program writes, done by hand.
    fn filled(spec: &Spec, stream: &generator::Stream) -> Vec<u8> {
        let mut frame = template(spec);
        let kernel = kernel_spec(spec, &frame);
        let mut put = |at: usize, bytes: &[u8]| frame[at..at + bytes.len()].copy_from_slice(bytes);
        put(18, &stream.ip_id.to_be_bytes());
        put(24, &kernel.ip_checksum(stream).to_be_bytes());
        put(28, &stream.src_low.to_be_bytes());
        put(34, &stream.port.to_be_bytes());
        put(36, &stream.port.to_be_bytes());
        put(40, &kernel.udp_checksum(stream).to_be_bytes());
        put(44, &stream.seq.to_be_bytes());
        put(46, &stream.timestamp.to_be_bytes());
        put(50, &stream.ssrc.to_be_bytes());
        frame
    }

    #[test]
    fn packets_never_come_later_than_their_timestamps_say() {
        let step = |streams, rate_pps| timestamp_step(&Spec { streams, rate_pps, ..Spec::default() });
        assert_eq!(step(1_024, Some(250_000)), 160);
        // 17 packets a second each: 58.8 ms.
        assert_eq!(step(100_000, Some(1_700_000)), 471);
        assert_eq!(step(100_000, None), 800);
        assert_eq!(step(1, None), 160);
    }

    #[test]
    fn checksums_of_generated_frames_are_right() {
        for payload_bytes in [0, 1, 20, 160] {
            let spec = Spec { payload_bytes, ..Spec::default() };
            let mut progress =
                Progress { round: 70_000, stream: 40_000, sent: 123_456, ..Progress::default() };
            let stream = progress.next(&generator::Spec { streams: 50_000, ..generator::Spec::IDLE });
            let frame = filled(&spec, &stream);
            let parsed = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(etherparse::NetSlice::Ipv4(ip)) = parsed.net else { panic!("not IPv4") };
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            let Some(etherparse::TransportSlice::Udp(udp)) = parsed.transport else { panic!("not UDP") };
            let expected = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap();
            assert_eq!(udp.checksum(), expected, "payload of {payload_bytes}");
        }
    }

    #[test]
    fn streams_share_what_was_sent_to_the_last_frame() {
        let sent = Sent { frames: 11, elapsed: Duration::from_secs(1), held_back: 0, streams: 4 };
        let counts: Vec<_> = (0..4).map(|index| sent.of_stream(index)).collect();
        assert_eq!(counts, [3, 3, 3, 2]);
    }

    #[test]
    fn a_rate_is_a_positive_number_or_flat() {
        assert_eq!("flat".parse(), Ok(Rate::Flat));
        assert_eq!("1000000".parse(), Ok(Rate::Pps(1_000_000)));
        assert!("0".parse::<Rate>().is_err() && "fast".parse::<Rate>().is_err());
    }
}
