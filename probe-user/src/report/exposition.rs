//! Figures of the whole probe in Prometheus' text form, as a file for node_exporter's textfile collector.
//!
//! A file, and no port: a probe on a gateway should not listen. It is made of the health log's entries, so that the two cannot
//! differ: each summary replaces the file in one step, and a reader sees the figures of one interval. There is no series for each
//! stream or call, whose number is for who sends to choose; the log and the report have those.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use thiserror::Error;

use super::health::{Entry, Status, SummaryEntry};
use crate::pipeline::account::Loss;

/// What every name begins with.
const NAMESPACE: &str = "voxprobe";

/// Why there is no exposition.
#[derive(Debug, Error)]
pub enum ExpositionError {
    /// The file cannot be written.
    #[error("cannot write the metrics to {path}", path = path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Prometheus refuses a name.
    #[error("cannot form the metrics")]
    Form(#[from] prometheus::Error),
}

/// See the module. The file is gone when this is: figures of a probe that has ended are nobody's.
#[derive(Debug)]
pub struct Exposition {
    path: PathBuf,
    /// Where it is written before it takes the place of the one before. The collector reads only what ends in `.prom`.
    beside: PathBuf,
    registry: Registry,
    figures: Figures,
    is_failing: bool,
}

#[derive(Debug)]
struct Figures {
    matched: IntCounter,
    analysed: IntCounter,
    lost: IntCounterVec,
    in_flight: IntGauge,
    ring_peak: Gauge,
    shed: Gauge,
    streams: IntGaugeVec,
    calls: IntGauge,
    findings: IntCounterVec,
    events_dropped: IntCounter,
    announcements_given_up: IntCounter,
    written: Gauge,
}

impl Exposition {
    /// Writes the first file, in which nothing has been seen yet.
    ///
    /// # Errors
    /// [`ExpositionError`]; nothing is left behind.
    pub fn new(path: &Path) -> Result<Self, ExpositionError> {
        let registry = Registry::new_custom(Some(NAMESPACE.to_owned()), None)?;
        let figures = Figures::registered(&registry)?;
        figures.set(&SummaryEntry::default());
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let this =
            Self { path: path.to_owned(), beside: beside.into(), registry, figures, is_failing: false };
        this.write()?;
        Ok(this)
    }

    /// Takes an entry of the health log. A summary is written at once.
    ///
    /// # Errors
    /// [`ExpositionError`], of several failures in a row the first; the next summary tries again.
    pub fn hear(&mut self, entry: &Entry) -> Result<(), ExpositionError> {
        match entry {
            Entry::Finding(finding) => self.figures.findings.with_label_values(&[finding.id]).inc(),
            Entry::Summary(summary) => {
                self.figures.set(summary);
                let written = self.write();
                let has_failed = std::mem::replace(&mut self.is_failing, written.is_err());
                return written.or_else(|error| if has_failed { Ok(()) } else { Err(error) });
            }
            _ => {}
        }
        Ok(())
    }

    fn write(&self) -> Result<(), ExpositionError> {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.figures.written.set(since_1970.as_secs_f64());
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        fs::write(&self.beside, text)
            .and_then(|()| fs::rename(&self.beside, &self.path))
            .map_err(|source| ExpositionError::Write { path: self.path.clone(), source })
    }
}

impl Drop for Exposition {
    fn drop(&mut self) {
        // What is not there need not go.
        let _ = fs::remove_file(&self.beside);
        let _ = fs::remove_file(&self.path);
    }
}

impl Figures {
    #[rustfmt::skip] // A table.
    fn registered(to: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            matched: counter(to, "frames_matched_total", "Frames taken for analysis.")?,
            analysed: counter(to, "frames_analysed_total", "Frames of those that were analysed.")?,
            lost: counters(to, "frames_lost_total", "Frames of those that were not analysed.", "reason")?,
            in_flight: registered(to, IntGauge::new("frames_in_flight", "Frames of those neither analysed nor lost yet."))?,
            ring_peak: gauge(to, "ring_peak_ratio", "The fullest that any ring was in the interval; at 1 frames are lost.")?,
            shed: gauge(to, "shed_ratio", "Media sessions left out because of overload.")?,
            streams: registered(to, IntGaugeVec::new(
                Opts::new("streams", "Streams heard in the interval, by the worst that applies to each."),
                &["status"],
            ))?,
            calls: registered(to, IntGauge::new("calls", "Calls in progress."))?,
            findings: counters(to, "findings_total", "Findings told.", "id")?,
            events_dropped: counter(to, "events_dropped_total", "Events dropped because the control plane was behind: log lines are missing.")?,
            announcements_given_up: counter(to, "announcements_given_up_total", "Announced media that had no room: its streams may have no call.")?,
            written: gauge(to, "written_timestamp_seconds", "When these figures were written, since 1970.")?,
        })
    }

    /// Every reason and status has its series from the start: an alert on one that is missing would never come.
    #[expect(clippy::cast_precision_loss, reason = "a percentage")]
    fn set(&self, summary: &SummaryEntry) {
        advance(&self.matched, summary.matched);
        advance(&self.analysed, summary.analysed);
        for loss in Loss::ALL {
            let frames = summary.losses.get(loss.name()).copied().unwrap_or(0);
            advance(&self.lost.with_label_values(&[loss.name()]), frames);
        }
        self.in_flight.set(clamped(summary.in_flight));
        self.ring_peak.set(summary.ring_peak_percent as f64 / 100.0);
        self.shed.set(summary.shed_percent / 100.0);
        for status in Status::ALL {
            let streams = summary.by_status.get(status.word()).copied().unwrap_or(0);
            self.streams.with_label_values(&[status.word()]).set(clamped(streams));
        }
        self.calls.set(clamped(summary.calls));
        advance(&self.events_dropped, summary.events_dropped);
        advance(&self.announcements_given_up, summary.announcements_given_up);
    }
}

fn clamped(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Counts on up to a total.
fn advance(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn counter(to: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    registered(to, IntCounter::new(name, help))
}

fn counters(to: &Registry, name: &str, help: &str, label: &str) -> Result<IntCounterVec, prometheus::Error> {
    registered(to, IntCounterVec::new(Opts::new(name, help), &[label]))
}

fn gauge(to: &Registry, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
    registered(to, Gauge::new(name, help))
}

fn registered<C: Collector + Clone + 'static>(
    to: &Registry,
    collector: Result<C, prometheus::Error>,
) -> Result<C, prometheus::Error> {
    let collector = collector?;
    to.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A folder of its own, gone at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("voxprobe-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn files(&self) -> usize {
            fs::read_dir(&self.0).unwrap().count()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn summary(matched: u64) -> Entry {
        Entry::Summary(SummaryEntry {
            calls: 2,
            streams: 4,
            by_status: BTreeMap::from([("ok", 3), ("loss", 1)]),
            matched,
            analysed: matched - 7,
            losses: BTreeMap::from([("ring_full", 7)]),
            ring_peak_percent: 50,
            shed_percent: 25.0,
            ..SummaryEntry::default()
        })
    }

    #[test]
    fn each_summary_replaces_the_file_and_the_end_removes_it() {
        let folder = Folder::new("exposition");
        let path = folder.0.join("voxprobe.prom");
        let mut exposition = Exposition::new(&path).unwrap();
        let has = |line: &str| fs::read_to_string(&path).unwrap().lines().any(|its| its == line);
        assert!(has("voxprobe_frames_matched_total 0"), "{}", fs::read_to_string(&path).unwrap());
        assert!(has("voxprobe_frames_lost_total{reason=\"shed\"} 0"));
        for matched in [100, 300] {
            exposition.hear(&summary(matched)).unwrap();
        }
        for line in [
            "# TYPE voxprobe_frames_matched_total counter",
            "voxprobe_frames_matched_total 300",
            "voxprobe_frames_analysed_total 293",
            "voxprobe_frames_lost_total{reason=\"ring_full\"} 7",
            "voxprobe_ring_peak_ratio 0.5",
            "voxprobe_shed_ratio 0.25",
            "voxprobe_streams{status=\"ok\"} 3",
            "voxprobe_streams{status=\"gap\"} 0",
            "voxprobe_calls 2",
        ] {
            assert!(has(line), "{line} is not in\n{}", fs::read_to_string(&path).unwrap());
        }
        assert_eq!(folder.files(), 1);
        drop(exposition);
        assert_eq!(folder.files(), 0);
    }

    #[test]
    fn what_cannot_be_written_is_said_once_and_tried_again() {
        let folder = Folder::new("exposition-gone");
        let inner = folder.0.join("inner");
        fs::create_dir(&inner).unwrap();
        let mut exposition = Exposition::new(&inner.join("voxprobe.prom")).unwrap();
        fs::remove_dir_all(&inner).unwrap();
        let complaints = [100, 200].map(|matched| exposition.hear(&summary(matched)).is_err());
        fs::create_dir(&inner).unwrap();
        exposition.hear(&summary(300)).unwrap();
        assert_eq!(complaints, [true, false]);
        assert!(inner.join("voxprobe.prom").exists());
        assert!(Exposition::new(&folder.0.join("no/such/folder.prom")).is_err());
    }
}
