//! What is taken when not everything can be.

use std::str::FromStr;

use anyhow::bail;
use clap::{Args, ValueEnum};
use probe_ebpf::Config;
use probe_ebpf::config::MIN_SNAP;
use probe_ebpf::flow::BUCKETS;
use probe_ebpf::record::MAX_PACKET;
use voxprobe::pipeline::shed::{History, sample_floor};

/// Options of `run` for more traffic than the probe can take, or is to take.
#[derive(Debug, Args)]
pub(crate) struct Overload {
    /// What gives way when the probe does not keep up
    #[arg(long, value_enum, default_value_t = Shed::Auto)]
    shed: Shed,
    /// Take the media of one in N sessions only, N up to 256: whole sessions, both directions, and always the same. SIP and
    /// RTCP are taken all the same, and so is what comes in tunnels
    #[arg(long, value_name = "1/N", default_value = "1/1")]
    sample: OneIn,
    /// Bytes taken of a frame that is taken whole: SIP, RTCP, fragments, tunnels. Below some 1,500 the SDP of SIP is cut off,
    /// and media may have no call
    #[arg(long, value_name = "BYTES", default_value_t = MAX_PACKET)]
    snap: usize,
}

/// Values of --shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shed {
    /// Media of whole sessions, as many as it takes; never SIP. What is left out is counted and told
    Auto,
    /// Nothing is chosen: packets of any stream are lost when a ring is full
    Off,
}

impl Overload {
    /// `config` with this.
    pub(super) fn apply(&self, config: Config) -> anyhow::Result<Config> {
        let snap = u16::try_from(self.snap).unwrap_or(u16::MAX);
        if !(usize::from(MIN_SNAP)..=MAX_PACKET).contains(&self.snap) {
            bail!(
                "--snap: {} is not from {MIN_SNAP}, which the headers of SIP need, to {MAX_PACKET}, which a record holds",
                self.snap
            );
        }
        Ok(Config { snap, sampled_below: self.sample.sampled_below(), ..config })
    }

    /// Is media shed when the probe does not keep up?
    pub(super) fn sheds(&self) -> bool {
        self.shed == Shed::Auto
    }

    /// What the start says of it.
    pub(super) fn summary(&self) -> String {
        let shed = match self.shed {
            Shed::Auto => "if the probe does not keep up, it leaves out media of whole sessions, and says so",
            Shed::Off => "if the probe does not keep up, packets of any stream are lost (--shed off)",
        };
        let kept = 100.0 - History::new(u32::from(self.sample.sampled_below())).sampled_out_percent();
        let sample = match self.sample {
            OneIn(1) => String::new(),
            OneIn(n) => format!("; of the media sessions one in {n} is taken, {kept:.1} %"),
        };
        let snap = match self.snap {
            MAX_PACKET => String::new(),
            bytes => format!("; of frames that are taken whole, {bytes} bytes"),
        };
        format!("{shed}{sample}{snap}")
    }
}

/// One in so many, of --sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OneIn(u32);

impl OneIn {
    /// The first bucket that is taken. At least one is, so it fits.
    fn sampled_below(self) -> u8 {
        u8::try_from(sample_floor(self.0)).unwrap_or(u8::MAX)
    }
}

impl FromStr for OneIn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let n = text.trim().strip_prefix("1/").and_then(|n| n.parse().ok());
        n.filter(|n| (1..=BUCKETS).contains(n)).map(Self).ok_or_else(|| {
            format!("{text:?} is not 1/N with N from 1 to {BUCKETS}: 1/4 takes one session in four")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_n_is_that_share_of_the_buckets_and_never_none() {
        let floors = ["1/1", "1/2", "1/4", "1/10", "1/256"].map(|text| text.parse::<OneIn>().unwrap());
        assert_eq!(floors.map(OneIn::sampled_below), [0, 128, 192, 230, 255]);
        for text in ["4", "2/4", "1/0", "1/257", "1/x", ""] {
            assert!(text.parse::<OneIn>().unwrap_err().contains("1/N"), "{text}");
        }
    }

    #[test]
    fn a_snap_that_cuts_headers_or_exceeds_a_record_is_refused() {
        let apply = |snap| Overload { shed: Shed::Auto, sample: OneIn(4), snap }.apply(Config::DEFAULT);
        let config = apply(1_500).unwrap();
        assert_eq!((config.snap, config.sampled_below), (1_500, 192));
        for snap in [511, 16_385, 100_000] {
            assert!(apply(snap).unwrap_err().to_string().starts_with("--snap"), "{snap}");
        }
    }
}
