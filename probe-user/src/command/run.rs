//! `voxprobe run`: the control plane of a live probe.
//!
//! One tokio thread: signals, the clock, the kernel's log, and the health log. The data path has its own threads
//! (see [`voxprobe::pipeline`]) and never waits for this one, which in turn never waits for who reads the log.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use voxprobe::capture::clock::{Reading, WallClock, monotonic_ns};
use voxprobe::capture::live::{KernelLog, LiveOptions, LogLevel, Mode, XdpMode};
use voxprobe::capture::xsk::MirrorOptions;
use voxprobe::packet::Nanos;
use voxprobe::pipeline::cpus::{self, Cpus};
use voxprobe::pipeline::live::{Options, Probe};
use voxprobe::report::exposition::Exposition;
use voxprobe::report::health::{Entry, Format};
use voxprobe::report::log::{LogError, LogWriter};
use voxprobe::report::monitor::{Monitor, Stamped};
use voxprobe::report::{json, text, words};

use super::overload::Overload;
use super::quality::Quality;
use super::{Filter, tunnels};

/// How often events are taken while there are any.
const LOOK: Duration = Duration::from_millis(50);
/// How often it is looked for one: what a reader of the log may wait for a line. Each look is a wake-up, or two with what the
/// timers of the runtime are sorted by.
const IDLE_LOOK: Duration = Duration::from_millis(200);
/// Events taken at one look, so that signals are served however many come: 160,000 a second at least, the lines of
/// 1,000,000 streams in 7 s.
const LOOK_EVENTS: usize = 16_384;
/// How long a look waits for the log to take lines. An interval of many streams is more than its queue holds.
const LOG_PATIENCE: Duration = Duration::from_millis(200);
/// How long the end waits for a log that takes nothing.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// Watch interfaces: the stream health log, until Ctrl-C
///
/// Frames are only looked at: every one passes unchanged, and if voxprobe dies, traffic flows. With --mode mirror, for
/// ports that carry only copies, what is ours is taken from the host instead. Needs root, or the capabilities CAP_BPF,
/// CAP_NET_ADMIN and CAP_PERFMON; with --mode mirror also CAP_NET_RAW and CAP_IPC_LOCK.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Interface to watch; once for each
    #[arg(long = "iface", value_name = "IF", required = true)]
    interfaces: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    quality: Quality,
    #[command(flatten)]
    overload: Overload,
    /// Watch also what leaves through the interfaces (tcx, kernel 6.6)
    #[arg(long)]
    egress: bool,
    /// What becomes of frames that are ours
    #[arg(long, value_enum, default_value_t = Take::Tap)]
    mode: Take,
    /// With --mode mirror: take the frames even of an interface that this host uses
    #[arg(long)]
    steal: bool,
    /// With --mode mirror: frames that each queue may hold, a power of two; by default 65,536 shared by all queues, which last
    /// 12 ms at 5 Mpps
    #[arg(long, value_name = "N")]
    frames: Option<u32>,
    /// With --mode mirror: poll the driver for so long at each look, on a core of its own, instead of by interrupts
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    busy_poll: Duration,
    /// Where in the receive path to attach
    #[arg(long, value_enum, default_value_t = Xdp::Auto)]
    xdp: Xdp,
    /// Log to a file, reopened on SIGHUP, instead of standard output
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Form of the log
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Write figures of the whole probe to a file for Prometheus (node_exporter's textfile collector), replaced at each interval
    #[arg(long, value_name = "FILE.prom")]
    metrics: Option<PathBuf>,
    /// How often each stream reports
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Stop by itself after this time
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    stop_after: Option<Duration>,
    /// Write the final report as JSON, in the form of `analyze --json`
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Stream lines an interval in the text log, worst first; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 100)]
    lines: usize,
    /// Each CPU's two rings, of RTP and of the rest, in KiB, a power of two; 8 MiB last 130 ms at 1 Mpps
    #[arg(long, value_name = "KIB", default_value_t = 8192)]
    ring_size: u32,
    /// Threads that hold streams; 1 means the receiving one
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: u16,
    /// CPUs of its own for the receiving thread and, from 2 on, for each of the --shards, in this order: 2,4-6. The rest of
    /// the probe keeps off them
    #[arg(long, value_name = "LIST")]
    cpus: Option<Cpus>,
    /// Streams held at once; one takes about 3 KiB, and 6 more where several taps see it
    #[arg(long, value_name = "N", default_value_t = 131_072, value_parser = super::at_least_one)]
    max_streams: usize,
    /// A stream silent for so long has ended
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    idle: Duration,
}

/// Values of --mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Take {
    /// They are looked at, and pass
    Tap,
    /// They are taken from the host (AF_XDP): for mirror ports
    Mirror,
}

/// Values of --xdp.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Xdp {
    /// In the driver; in the stack where it cannot
    Auto,
    /// In the driver only
    Native,
    /// In the stack only
    Generic,
}

/// Values of --log-format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// A JSON object a line
    Json,
}

impl Run {
    /// Runs until a signal or the end of --for.
    pub(crate) fn execute(&self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("cannot start the control plane")?.block_on(self.control())
    }

    fn options(&self) -> anyhow::Result<Options> {
        if self.interval < Duration::from_millis(100) {
            bail!("--interval: less than 100 ms leaves nothing to measure in one");
        }
        if let Some(path) = self.report.as_ref().filter(|path| !path.exists() || path.is_file()) {
            // Now, not after a night of which it is all that is wanted.
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("cannot write the report to {}", path.display()))?;
        }
        let ring_bytes =
            self.ring_size.checked_mul(1024).filter(|bytes| bytes.is_power_of_two() && *bytes >= 4096);
        let Some(ring_bytes) = ring_bytes else {
            bail!(
                "--ring-size: {} KiB is not a power of two of at least 4 and at most 2,097,152",
                self.ring_size
            );
        };
        let capture = LiveOptions {
            mode: self.mode()?,
            egress: self.egress,
            xdp: match self.xdp {
                Xdp::Auto => XdpMode::Auto,
                Xdp::Native => XdpMode::Native,
                Xdp::Generic => XdpMode::Generic,
            },
            config: self.overload.apply(self.filter.config()?)?,
            ring_bytes,
            log_level: LogLevel::Warn,
            ..LiveOptions::new(self.interfaces.clone())
        };
        Ok(Options {
            capture,
            shards: usize::from(self.shards),
            cpus: self.cpus.clone().unwrap_or_default(),
            max_streams: self.max_streams,
            idle: self.idle,
            interval: self.interval,
            quality: self.quality.settings(),
            leg_headers: self.filter.leg_headers(),
            sheds: self.overload.sheds(),
        })
    }

    fn mode(&self) -> anyhow::Result<Mode> {
        let mirror = MirrorOptions { chunks: self.frames, busy_poll: self.busy_poll, steal: self.steal };
        match self.mode {
            Take::Mirror => Ok(Mode::Mirror(mirror)),
            Take::Tap if mirror == MirrorOptions::DEFAULT => Ok(Mode::Tap),
            Take::Tap => {
                bail!("--steal, --frames and --busy-poll belong to --mode mirror: add it, or leave them out")
            }
        }
    }

    async fn control(&self) -> anyhow::Result<()> {
        let options = self.options()?;
        options.cpus.avoid().context("cannot keep off the CPUs of --cpus")?;
        // Signals first: one that comes while programs are loading must not kill the process half way.
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch SIGTERM")?;
        let mut hangup = signal(SignalKind::hangup()).context("cannot watch SIGHUP")?;
        let mut log = Log::open(self)?;
        let mut probe = Probe::start(&options)?;
        cpus::stand_back().context("cannot stand back behind the data path")?;
        for rung in probe.capture().ladder() {
            log.note(rung.to_string());
        }
        log.note(self.summary(&options));
        options.cpus.describe(&self.interfaces).into_iter().for_each(|line| log.note(line));
        log.note(tunnels::summary(&options.capture.config));
        log.note(self.overload.summary());

        let mut kernel_log = probe.capture().take_logger();
        let shards = usize::from(self.shards).max(1);
        let mut monitor = Monitor::new(Nanos(monotonic_ns()), shards, self.lines_shown())
            .following(probe.shedding().clone());
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut second = interval(Duration::from_secs(1));
        // A time that the clock cannot express is never.
        let end = self.stop_after.and_then(|time| Instant::now().checked_add(time));
        let ended = loop {
            tokio::select! {
                _ = interrupt.recv() => break Ok(()),
                _ = terminate.recv() => break Ok(()),
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => break Ok(()),
                _ = hangup.recv() => log.reopen(),
                _ = second.tick() => {
                    log.follow_clock();
                    // What the programs log is rare, and not urgent: a look a second is enough.
                    for line in kernel_log.iter_mut().flat_map(KernelLog::lines) {
                        log.note(format!("kernel: {line}"));
                    }
                }
                _ = look.tick() => {
                    if log.has_no_reader() || probe.has_failed() {
                        break Ok(());
                    }
                    match take_events(&mut probe, &mut monitor, &mut log) {
                        Ok(0) => look.reset_after(IDLE_LOOK),
                        Ok(_) => {}
                        Err(error) => break Err(error),
                    }
                }
            }
        };
        self.finish(probe, monitor, log).and(ended)
    }

    /// The report first: it must not be lost with a log that cannot be written.
    fn finish(&self, probe: Probe, mut monitor: Monitor, mut log: Log) -> anyhow::Result<()> {
        let outcome = probe.stop(|event| {
            monitor.take(event);
        })?;
        monitor.tell_shedding(|| Ok::<_, anyhow::Error>(outcome.counters.clone()))?;
        let failed = outcome.remains.failed_shards.clone();
        let report = monitor.finish(outcome, &self.interfaces, self.log_format == LogFormat::Text);
        let reported = self.report.as_ref().map_or(Ok(()), |path| {
            let mut text = Vec::new();
            json::document(&mut text, &report).context("cannot form the report")?;
            fs::write(path, text).with_context(|| format!("cannot write the report to {}", path.display()))
        });
        log.begin_last_words();
        monitor.drain().for_each(|entry| log.write(&entry));
        if self.log_format == LogFormat::Text {
            log.write_text(&text::render(&report));
        }
        log.finish();
        reported?;
        if !failed.is_empty() {
            bail!(
                "{} ended by itself, and the run with it; what it held is not in the report. Please report its \
                 message on standard error",
                failed.join(", ")
            );
        }
        Ok(())
    }

    fn lines_shown(&self) -> usize {
        if self.lines == 0 || self.log_format == LogFormat::Json { usize::MAX } else { self.lines }
    }

    fn summary(&self, options: &Options) -> String {
        format!(
            "watching {}; SIP ports {}; every {}; up to {} streams ({} at most); Ctrl-C ends with a report",
            self.interfaces.join(", "),
            ports(&options.capture.config.sip_ports),
            humantime::format_duration(self.interval),
            words::thousands(self.max_streams as u64),
            words::bytes((self.max_streams as u64).saturating_mul(6144)),
        )
    }
}

fn ports(ports: &[u16]) -> String {
    let ports: Vec<_> = ports.iter().filter(|port| **port != 0).map(u16::to_string).collect();
    ports.join(", ")
}

/// Takes the events that wait, up to a bound. Returns how many.
fn take_events(probe: &mut Probe, monitor: &mut Monitor, log: &mut Log) -> anyhow::Result<usize> {
    log.begin_look();
    monitor.tell_shedding(|| probe.capture().counters())?;
    monitor.drain().for_each(|entry| log.write(&entry));
    for taken in 0..LOOK_EVENTS {
        let Ok(event) = probe.events().try_recv() else { return Ok(taken) };
        if monitor.take(event) {
            let counters = probe.capture().counters()?;
            monitor.close(&counters, &probe.occupancies().take());
        }
        monitor.drain().for_each(|entry| log.write(&entry));
    }
    Ok(LOOK_EVENTS)
}

/// The health log with its clock.
struct Log {
    writer: LogWriter,
    /// What makes figures of the entries.
    metrics: Option<Exposition>,
    format: Format,
    clock: WallClock,
    /// Until when a full queue is waited for.
    patience: std::time::Instant,
    is_ending: bool,
    /// SIGHUP came, and the queue had no room for it.
    reopen_again: bool,
    has_no_reader: bool,
}

impl Log {
    fn open(run: &Run) -> anyhow::Result<Self> {
        let writer = match &run.log {
            Some(path) => LogWriter::file(path)?,
            None => LogWriter::stdout()?,
        };
        Ok(Self {
            format: Format::new(run.log_format == LogFormat::Json, writer.has_colour()),
            writer,
            metrics: run.metrics.as_deref().map(Exposition::new).transpose()?,
            clock: WallClock::starting_at(Reading::take()),
            patience: std::time::Instant::now() + LOG_PATIENCE,
            is_ending: false,
            reopen_again: false,
            has_no_reader: false,
        })
    }

    /// Writes an entry, stamped with when it was, or else with now.
    fn write(&mut self, stamped: &Stamped) {
        if let Some(lines) = self.writer.lost_lines() {
            let message = format!("{} could not be written before this one", words::count(lines, "log line"));
            self.put(None, &Entry::Start { message });
        }
        self.put(stamped.at, &stamped.entry);
        if let Some(Err(error)) = self.metrics.as_mut().map(|metrics| metrics.hear(&stamped.entry)) {
            say(format!("voxprobe: {:#}; the probe goes on, and tries again", anyhow!(error)));
        }
    }

    fn note(&mut self, message: String) {
        self.write(&Stamped { at: None, entry: Entry::Start { message } });
    }

    fn put(&mut self, at: Option<Nanos>, entry: &Entry) {
        let wall = self.clock.wall(at.unwrap_or_else(|| Reading::take().monotonic));
        let time = Timestamp::from_nanosecond(i128::from(wall.0)).unwrap_or(Timestamp::UNIX_EPOCH);
        let line = self.format.line(time, entry);
        self.put_line(line);
    }

    fn put_line(&mut self, line: String) {
        if self.is_ending {
            self.patience = std::time::Instant::now() + LAST_PATIENCE;
        }
        self.writer.line(line, self.patience);
    }

    fn write_text(&mut self, text: &str) {
        text.lines().for_each(|line| self.put_line(line.to_owned()));
    }

    fn begin_look(&mut self) {
        self.patience = std::time::Instant::now() + LOG_PATIENCE;
        if self.reopen_again {
            self.reopen();
        }
    }

    /// From now on each line waits for a log that still takes some.
    fn begin_last_words(&mut self) {
        // What comes now is of the whole run, and no interval's.
        self.metrics = None;
        self.is_ending = true;
        self.writer.forgive();
    }

    fn reopen(&mut self) {
        self.reopen_again = !self.writer.reopen();
    }

    /// Passes on what went wrong with the log. True if it was a pipe that nobody reads any more.
    fn has_no_reader(&mut self) -> bool {
        for trouble in self.writer.troubles() {
            self.has_no_reader |= trouble.is_broken_pipe();
            complain(trouble);
        }
        self.has_no_reader
    }

    fn follow_clock(&mut self) {
        if let Some(step) = self.clock.update(Reading::take()) {
            let seconds = step.by_ns as f64 / 1e9;
            self.note(format!(
                "the wall clock was set, by {seconds:+.3} s; measurements do not depend on it"
            ));
        }
    }

    fn finish(self) {
        let (troubles, unwritten) = self.writer.finish(LAST_PATIENCE);
        let no_reader = self.has_no_reader || troubles.iter().any(LogError::is_broken_pipe);
        troubles.into_iter().for_each(complain);
        if unwritten > 0 && !no_reader {
            say(format!("voxprobe: {} could not be written", words::count(unwritten, "log line")));
        }
    }
}

/// A log that fails is not the end: it is said, and what it lacks is counted. A reader that went away, as `head`
/// does, is nothing to complain of.
fn complain(trouble: LogError) {
    if trouble.is_broken_pipe() {
        return;
    }
    let goes_on = match trouble {
        LogError::Open { .. } => "the old file stays in use",
        _ => "the probe goes on, and counts the lines that are lost",
    };
    say(format!("voxprobe: {:#}; {goes_on}", anyhow!(trouble)));
}

/// A line on standard error, which may be the same pipe that nobody reads: a moment is all that it gets.
fn say(line: String) {
    let speaker = thread::spawn(move || {
        let _ = writeln!(io::stderr(), "{line}");
    });
    let deadline = std::time::Instant::now() + Duration::from_millis(200);
    while !speaker.is_finished() && std::time::Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
}
