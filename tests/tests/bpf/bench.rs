//! The programs, loaded, and what must hold of a frame that is run through them.

use std::thread;
use std::time::Duration;

use probe_ebpf::config::MediaRule;
use probe_ebpf::record::KernelLoss;
use probe_ebpf::slots::GRACE_NS;
use probe_ebpf::{Config, EndpointKey, Endpoints, Verdict, classify};
use voxprobe::capture::live::{
    KernelCounters, KernelEndpoints, LiveCapture, LiveOptions, Mode, Records as _, RingReader,
};
use voxprobe::capture::xsk::MirrorOptions;
use voxprobe::packet::Endpoint;
use voxprobe::sip::{EndpointChange, Signalling};

use crate::frames::ETHERNET_HEADER;
use crate::records::{expected, mirrored, own};

const XDP_PASS: u32 = 2;
const TCX_NEXT: u32 = u32::MAX;
/// What the kernel test-runs a classifier on: a whole network header, and no more than a page with headroom.
const CLASSIFIER_FRAMES: std::ops::RangeInclusive<usize> = ETHERNET_HEADER + 40..=3_000;

/// The programs of one configuration, and the host's side of it.
pub(crate) struct Bench {
    pub(crate) capture: LiveCapture,
    rings: RingReader,
    config: Config,
    pub(crate) endpoints: KernelEndpoints,
    pub(crate) known: Known,
}

/// The endpoint table on the host.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) announced: Vec<EndpointKey>,
    pub(crate) carriers: Vec<EndpointKey>,
}

impl Endpoints for Known {
    fn is_announced(&self, key: &EndpointKey) -> bool {
        self.announced.contains(key)
    }

    fn is_carrier(&self, key: &EndpointKey) -> bool {
        self.carriers.contains(key)
    }
}

impl Bench {
    pub(crate) fn new(config: Config, announced: &[Endpoint]) -> Self {
        let mut options = LiveOptions::new(["lo"]);
        options.egress = true;
        options.config = config;
        // As the loader does.
        let config = config.looking_inside();
        options.ring_bytes = 1 << 16;
        let mut capture = LiveCapture::detached(&options).unwrap();
        let rings = capture.take_rings().unwrap();
        let mut endpoints = capture.take_endpoints().unwrap();
        for endpoint in announced {
            assert!(endpoints.insert(*endpoint));
        }
        let announced = announced.iter().map(Endpoint::key).collect();
        Self { capture, rings, config, endpoints, known: Known { announced, ..Known::default() } }
    }

    /// Hands on what the signalling announced and took back.
    pub(crate) fn follow(&mut self, signalling: &mut Signalling) {
        for change in signalling.media_mut().drain_changes() {
            match change {
                EndpointChange::Added(endpoint) => {
                    assert!(self.endpoints.insert(endpoint));
                    self.known.announced.push(endpoint.key());
                }
                EndpointChange::Removed(endpoint) => {
                    assert!(self.endpoints.remove(endpoint));
                    self.known.announced.retain(|known| *known != endpoint.key());
                }
            }
        }
    }

    pub(crate) fn rule(rule: MediaRule) -> Self {
        Self::new(Config { media_rule: rule as u8, ..Config::DEFAULT }, &[])
    }

    /// Runs a frame through both programs and checks everything that must hold. Returns the verdict.
    pub(crate) fn check(&mut self, name: &str, frame: &[u8]) -> Verdict {
        let (verdict, layers) = classify::ethernet(frame, &self.config, &self.known);
        for egress in [false, true] {
            if egress && !CLASSIFIER_FRAMES.contains(&frame.len()) {
                continue;
            }
            let before = self.capture.counters().unwrap();
            let run = self
                .capture
                .test_run(egress, frame, 1)
                .unwrap_or_else(|error| panic!("{name} ({} bytes, egress {egress}): {error}", frame.len()));
            assert_eq!(run.returned, if egress { TCX_NEXT } else { XDP_PASS }, "{name}: what was returned");
            assert!(run.frame == frame, "{name}: the frame was changed (egress {egress})");
            let after = self.capture.counters().unwrap();
            assert_eq!(moved(&before, &after), [(egress, verdict)], "{name}: {}", hex(frame));
            let mut records = Vec::new();
            // A record is handed out when it has an age.
            thread::sleep(Duration::from_nanos(2 * GRACE_NS));
            self.rings.poll(100, |record| records.push(own(record)));
            let expected: Vec<_> = expected(frame, verdict, layers.as_ref(), egress).into_iter().collect();
            assert_eq!(records, expected, "{name}: {}", hex(frame));
            assert_eq!(after.lost(), 0);
            if !egress && verdict.is_matched() {
                assert_eq!(mirrored(frame, verdict, layers.as_ref()), expected, "{name}: as mirrored");
            }
        }
        verdict
    }
}

/// The program of a mirror port without sockets, so that it passes every frame.
pub(crate) struct Mirror {
    pub(crate) capture: LiveCapture,
    config: Config,
}

impl Mirror {
    pub(crate) fn rule(rule: MediaRule) -> Self {
        let config = Config { media_rule: rule as u8, ..Config::DEFAULT };
        let mut options = LiveOptions::new(["lo"]);
        (options.mode, options.config) = (Mode::Mirror(MirrorOptions::DEFAULT), config);
        let mut capture = LiveCapture::detached(&options).unwrap();
        assert!(capture.take_rings().is_none(), "a mirror port has sockets, no rings");
        // As the loader does.
        Self { capture, config: config.looking_inside() }
    }

    /// Runs a frame through the program and checks everything that must hold. Returns the verdict.
    pub(crate) fn check(&mut self, name: &str, frame: &[u8]) -> Verdict {
        let (verdict, _) = classify::ethernet(frame, &self.config, &Known::default());
        let before = self.capture.counters().unwrap();
        let run = self.capture.test_run(false, frame, 1).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(run.returned, XDP_PASS, "{name}");
        assert!(run.frame == frame, "{name}: the frame was changed");
        let after = self.capture.counters().unwrap();
        assert_eq!(moved(&before, &after), [(false, verdict)], "{name}: {}", hex(frame));
        let lost = |counters: &KernelCounters| counters.total().losses[KernelLoss::NoSocket as usize];
        assert_eq!(lost(&after) - lost(&before), u64::from(verdict.is_matched()), "{name}");
        verdict
    }
}

/// Which counters moved between two readings, each once per step.
fn moved(before: &KernelCounters, after: &KernelCounters) -> Vec<(bool, Verdict)> {
    let mut moved = Vec::new();
    for (before, after) in before.taps.iter().zip(&after.taps) {
        for verdict in Verdict::ALL {
            let count = |counters: &probe_ebpf::record::Counters| counters.verdicts[verdict as usize];
            let steps = count(&after.counters) - count(&before.counters);
            moved.extend((0..steps).map(|_| (after.egress, verdict)));
        }
    }
    assert_eq!(before.unknown, after.unknown, "a frame of an unknown interface");
    moved
}

fn hex(frame: &[u8]) -> String {
    let bytes: Vec<_> = frame.iter().take(160).map(|byte| format!("{byte:02x}")).collect();
    bytes.concat()
}
