//! `voxlab story`: writes a generated capture, and the truth about it.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;

use super::scene::Plan;
use super::taps::Tap;
use super::{Recording, Rpcap, Story};

/// Writes a capture of VoIP calls as several taps would see them, with the truth about every frame as JSON.
///
/// The story that voxprobe is made for: `voxlab story --auth --transfer --copies re-emitted --rpcap --out story.pcapng`.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub struct Options {
    /// The same seed gives the same files.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Calls, overlapping.
    #[arg(long, default_value_t = 1)]
    calls: u32,
    /// Length of the talk in each call.
    #[arg(long, default_value = "6s", value_parser = humantime::parse_duration)]
    talk: Duration,
    /// More taps besides the first: same-point, l2-mirror, vlan, routed, re-emitted, nat, mpls, pppoe, or a tunnel (gre, erspan2,
    /// vxlan, ...; an unknown name lists all); several steps of one tap with + between, as in vlan+erspan2.
    #[arg(long, value_delimiter = ',', value_name = "TAP,...")]
    copies: Vec<Tap>,
    /// A remote capture (rpcap, TCP port 2002) of all taps that are no tunnels is captured as well.
    #[arg(long)]
    rpcap: bool,
    /// How late the remote capture is.
    #[arg(long, default_value = "2ms", value_parser = humantime::parse_duration)]
    rpcap_delay: Duration,
    /// The remote capture sends when so much time is over: several frames in a segment, cut anywhere.
    #[arg(long, value_parser = humantime::parse_duration)]
    rpcap_batch: Option<Duration>,
    /// The remote capture sends packets on a second connection, as rpcapd does.
    #[arg(long)]
    rpcap_data: bool,
    /// The remote capture began before this one, which so does not show how it opened.
    #[arg(long)]
    rpcap_mid_stream: bool,
    /// Late answers: timers A, E, G and those of 2xx run out.
    #[arg(long)]
    retransmissions: bool,
    /// Packets that no tap sees, in percent.
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    loss: f64,
    /// Packets that come after the next one, in percent.
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    reorder: f64,
    /// Largest delay of a packet by its sender, in milliseconds.
    #[arg(long, default_value_t = 2.0, value_name = "MS")]
    jitter: f64,
    /// Sightings that each tap misses, in percent; somebody sees each packet.
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    misses: f64,
    /// Calls are challenged (407), and phones register before (401).
    #[arg(long)]
    auth: bool,
    /// Calls are transferred (REFER), with a pause of 1.79 s.
    #[arg(long)]
    transfer: bool,
    /// Calls are held for 1.2 s.
    #[arg(long)]
    hold: bool,
    /// A telephone event in each stream.
    #[arg(long)]
    dtmf: bool,
    /// Over IPv6.
    #[arg(long)]
    ipv6: bool,
    /// Signalling over TCP.
    #[arg(long)]
    tcp: bool,
    /// The timer T1 of both ends, in milliseconds.
    #[arg(long, default_value_t = 500, value_name = "MS")]
    t1: u64,
    /// Offers too long for one frame, and so fragmented.
    #[arg(long)]
    large: bool,
    /// Somebody guesses passwords so often: one Call-ID and CSeq, always another branch.
    #[arg(long, default_value_t = 0)]
    guesses: u32,
    /// How much later than the first tap the others see everything.
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// The first tap is no longer the first to see a packet.
    #[arg(long)]
    shuffled: bool,
    /// Each tap is an interface of its own in the file.
    #[arg(long)]
    interfaces: bool,
    /// The capture (pcapng).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The truth (JSON).
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
}

impl Options {
    fn plan(&self) -> Plan {
        Plan {
            seed: self.seed,
            calls: self.calls,
            packets: u32::try_from(self.talk.as_millis() / 20).unwrap_or(u32::MAX).max(10),
            jitter_ms: self.jitter,
            loss_percent: self.loss,
            reorder_percent: self.reorder,
            retransmissions: self.retransmissions,
            auth: self.auth,
            transfer: self.transfer,
            hold: self.hold,
            dtmf: self.dtmf,
            ipv6: self.ipv6,
            t1_ms: self.t1,
            large: self.large,
            guesses: self.guesses,
            tcp: self.tcp,
        }
    }

    fn recording(&self) -> Recording {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let rpcap = Rpcap {
            delay_ns: nanos(self.rpcap_delay),
            batch_ns: self.rpcap_batch.map_or(0, nanos),
            data_connection: self.rpcap_data,
            mid_stream: self.rpcap_mid_stream,
            ..Rpcap::default()
        };
        Recording {
            taps: self.copies.clone(),
            rpcap: self.rpcap.then_some(rpcap),
            misses_percent: self.misses,
            interfaces: self.interfaces,
            delay_ns: nanos(self.delay),
            shuffled: self.shuffled,
        }
    }
}

/// Runs `voxlab story`.
pub fn run(options: &Options) -> Result<()> {
    let story = Story::new(&options.plan(), &options.recording());
    story.write(&options.out)?;
    if let Some(path) = &options.truth {
        let create = || -> std::io::Result<()> {
            let mut file = BufWriter::new(File::create(path)?);
            serde_json::to_writer_pretty(&mut file, &story.truth)?;
            file.flush()
        };
        create().with_context(|| format!("cannot write {}", path.display()))?;
    }
    let totals = &story.truth.totals;
    println!(
        "{}: {} frames; {} SIP messages ({} sent again by a timer, {} challenges) and {} streams; {} copies",
        options.out.display(),
        totals.frames,
        totals.sip_messages,
        totals.retransmissions,
        totals.auth_challenges,
        story.truth.streams.len(),
        totals.copies,
    );
    Ok(())
}
