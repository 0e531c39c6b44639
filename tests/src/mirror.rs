//! More taps in the lab: every frame that reaches the gateway, once more at a mirror port or in a remote capture.
//!
//! ```text
//!   phones0, pbx0 ─▶ read where they leave ─┬─▶ span0 ─▶ mir0      as each tap sees it (story::taps)
//!                                           └─▶ remote capture ─▶ TCP through the gateway (remote)
//! ```
//!
//! By default there is one tap, the story's: another destination MAC, and an IP ID of zero, as if a second device on
//! the path had written the header anew. A copy comes some tens of microseconds after the frame: the time that it
//! takes a thread to wake and send it. Frames are read where they leave the phones and the PBX, so that each crossing
//! of the gateway gives exactly one copy a tap. Only UDP is mirrored: a mirror of ARP would confuse, and one of the
//! remote capture would feed on itself.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

use crate::dissect;
use crate::frames::Datagram;
use crate::link::RawSocket;
use crate::remote::{Captured, RemoteCapture};
use crate::story::taps::{Step, Tap};
use crate::topology::Topology;

const MAX_FRAME: usize = 9216;

/// What a lab has besides the gateway's own interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MirrorPlan {
    /// Taps at the mirror port.
    pub taps: Vec<Tap>,
    /// A remote capture of the first tap and of those at the mirror port, through the gateway.
    pub rpcap: bool,
}

impl MirrorPlan {
    /// Nothing more.
    pub const NONE: Self = Self { taps: Vec::new(), rpcap: false };

    /// One tap at the mirror port, after one step.
    pub fn after(step: Step) -> Self {
        Self { taps: vec![Tap::after(step)], rpcap: false }
    }

    /// Two taps and the remote capture of both: each frame four times.
    pub fn story() -> Self {
        Self { rpcap: true, ..Self::after(Step::ReEmitted) }
    }

    /// Is anything mirrored?
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

impl FromStr for MirrorPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rpcap, taps): (Vec<_>, Vec<_>) = text.split(',').partition(|name| *name == "rpcap");
        Ok(Self {
            taps: taps.into_iter().map(str::parse).collect::<Result<_, _>>()?,
            rpcap: !rpcap.is_empty(),
        })
    }
}

/// Copies frames until dropped.
#[derive(Debug)]
pub struct Mirror {
    stop: Arc<AtomicBool>,
    copied: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
    /// Ends after the threads that feed it.
    _remote: Option<RemoteCapture>,
}

/// One direction's copies.
struct Copier {
    reader: RawSocket,
    writer: RawSocket,
    plan: MirrorPlan,
    remote: Option<std::sync::mpsc::Sender<Captured>>,
    counted: u32,
}

impl Mirror {
    /// Starts copying. `topology` must have been made with a mirror port.
    pub fn start(topology: &Topology, plan: &MirrorPlan) -> Result<Self> {
        let span = topology.span.as_ref().context("this lab has no mirror port")?;
        let remote = plan.rpcap.then(|| RemoteCapture::start(topology)).transpose()?;
        let (stop, copied) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut threads = Vec::new();
        for (namespace, interface) in [(&topology.phones, "phones0"), (&topology.pbx, "pbx0")] {
            let reader = namespace.within(|| RawSocket::reader(interface))??;
            reader.set_timeout(Duration::from_millis(100)).context("cannot bound the mirror's wait")?;
            let writer = span.within(|| RawSocket::writer("span0"))??;
            let mut copier = Copier {
                reader,
                writer,
                plan: plan.clone(),
                remote: remote.as_ref().map(RemoteCapture::input),
                counted: 0,
            };
            let (stop, copied) = (Arc::clone(&stop), Arc::clone(&copied));
            let copy = move || copier.run(&stop, &copied);
            let thread = thread::Builder::new().name(format!("mirror-{interface}")).spawn(copy);
            threads.push(thread.context("cannot start the mirror's thread")?);
        }
        Ok(Self { stop, copied, threads, _remote: remote })
    }

    /// Frames copied so far, those in the remote capture included.
    pub fn copied(&self) -> u64 {
        self.copied.load(Ordering::Relaxed)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Copier {
    fn run(&mut self, stop: &AtomicBool, copied: &AtomicU64) {
        let mut frame = vec![0; MAX_FRAME];
        while !stop.load(Ordering::Relaxed) {
            match self.reader.receive_outgoing(&mut frame) {
                Ok(Some(length)) => {
                    if let Some(datagram) = frame.get(..length).and_then(dissect::datagram) {
                        copied.fetch_add(self.copy(&datagram), Ordering::Relaxed);
                    }
                }
                Ok(None) => {}
                // The interface is gone: so is the lab.
                Err(_) => return,
            }
        }
    }

    /// Shows a datagram to all taps; how often it was.
    fn copy(&mut self, datagram: &Datagram) -> u64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.counted = self.counted.wrapping_add(1);
        let mut copies = 0;
        let mut frames = vec![datagram.ethernet()];
        for (at, tap) in (1..).zip(&self.plan.taps).filter(|(_, tap)| tap.shows(datagram)) {
            let frame = tap.view(datagram, at, time_ns, self.counted).0.ethernet();
            copies += u64::from(self.writer.send(&frame).is_ok());
            if !tap.is_tunnelled() {
                frames.push(frame);
            }
        }
        for bytes in frames {
            let captured = Captured { time_ns, bytes };
            copies += u64::from(self.remote.as_ref().is_some_and(|remote| remote.send(captured).is_ok()));
        }
        copies
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{rtp, udp};

    #[test]
    fn a_plan_is_taps_and_perhaps_a_remote_capture() {
        assert_eq!("re-emitted,rpcap".parse(), Ok(MirrorPlan::story()));
        assert_eq!("vlan".parse(), Ok(MirrorPlan::after(Step::Vlan)));
        let plan: MirrorPlan = "routed,vlan+erspan2".parse().expect("two taps");
        assert_eq!(plan.taps.iter().map(|tap| tap.steps.len()).collect::<Vec<_>>(), [1, 2]);
        assert!("wormhole".parse::<MirrorPlan>().is_err_and(|error| error.contains("re-emitted")));
    }

    #[test]
    fn a_re_emitted_copy_differs_in_destination_mac_ip_id_and_header_checksum_only() {
        let original = rtp().over(udp().ip_id(0x1234)).ethernet();
        let datagram = dissect::datagram(&original).expect("a UDP datagram");
        let copy = Tap::after(Step::ReEmitted).view(&datagram, 1, 0, 1).0.ethernet();

        let headers = etherparse::SlicedPacket::from_ethernet(&copy).expect("still a packet");
        let Some(etherparse::NetSlice::Ipv4(ip)) = headers.net else { panic!("still IPv4") };
        assert_eq!(ip.header().identification(), 0);
        assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
        assert_ne!(copy[..6], original[..6]);
        let mut differing: Vec<usize> = (0..copy.len()).filter(|&at| copy[at] != original[at]).collect();
        differing.retain(|at| !(0..6).contains(at) && !(18..20).contains(at) && !(24..26).contains(at));
        assert_eq!(differing, [0_usize; 0]);
    }
}
