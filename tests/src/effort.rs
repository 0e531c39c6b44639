//! CPU time of a run, whoever it is charged to.
//!
//! ```text
//!   generator ─▶ veth ─▶ softirq: program, tap of a recorder, stack ─▶ receiver
//!   └────── charged to the generator's thread, or to ksoftirqd ────┘   └ charged to itself
//! ```
//!
//! Most of what a receiver costs is spent before it runs. The kernel charges that to whoever sends, so a receiver's own CPU time
//! says little; what both and `ksoftirqd` took together, less what a run without a receiver takes, says it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

/// A measurement that has begun.
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    recorder: Option<u32>,
    at_begin: Reading,
}

/// CPU time between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Effort {
    /// This process: the generator with the softirqs that it runs, and the probe if it is in here.
    pub own: Duration,
    /// Another process that records.
    pub recorder: Duration,
    /// `ksoftirqd` of all CPUs.
    pub softirq: Duration,
    /// All CPUs of the machine, by the time that they were not idle.
    pub machine: Duration,
    /// How long it was.
    pub elapsed: Duration,
}

impl Effort {
    /// What the run took, all together.
    pub fn total(&self) -> Duration {
        self.own + self.recorder + self.softirq
    }

    /// What others took meanwhile. Much of it makes the run's own figures worthless.
    pub fn others(&self) -> Duration {
        self.machine.saturating_sub(self.total())
    }

    /// The same in percent of one CPU.
    pub fn others_percent(&self) -> f64 {
        self.others().as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9) * 100.0
    }
}

impl Meter {
    /// Begins, with a process that records beside this one, or without.
    pub fn start(recorder: Option<u32>) -> Self {
        Self { began: Instant::now(), recorder, at_begin: Reading::now(recorder) }
    }

    /// What was spent since.
    pub fn stop(&self) -> Effort {
        let (before, after) = (self.at_begin, Reading::now(self.recorder));
        let cpus = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
        let (idle, elapsed) = (after.idle.saturating_sub(before.idle), self.began.elapsed());
        Effort {
            own: after.own.saturating_sub(before.own),
            recorder: after.recorder.saturating_sub(before.recorder),
            softirq: after.softirq.saturating_sub(before.softirq),
            machine: (elapsed * cpus).saturating_sub(idle),
            elapsed,
        }
    }
}

/// CPU time of all threads that a process has now (proc(5), `schedstat`: nanoseconds on a CPU). Zero if there is none.
pub fn cpu_of_process(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| cpu_of_task(&task.path())).sum()
}

/// CPU time of the task that has this folder of proc(5).
pub(crate) fn cpu_of_task(folder: &Path) -> Option<Duration> {
    let text = fs::read_to_string(folder.join("schedstat")).ok()?;
    Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
}

/// What was spent since the machine or the process began.
#[derive(Clone, Copy, Debug)]
struct Reading {
    own: Duration,
    recorder: Duration,
    softirq: Duration,
    /// All CPUs together.
    idle: Duration,
}

impl Reading {
    fn now(recorder: Option<u32>) -> Self {
        let own = clock_gettime(ClockId::ProcessCPUTime);
        Self {
            // The threads that ended are in it.
            own: Duration::try_from(own).unwrap_or_default(),
            recorder: recorder.map(cpu_of_process).unwrap_or_default(),
            softirq: softirq(),
            idle: idle(&fs::read_to_string("/proc/stat").unwrap_or_default()),
        }
    }
}

/// CPU time of the kernel's threads for softirqs that nobody had time for. Zero where they cannot be seen, in a container.
fn softirq() -> Duration {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_ksoftirqd = |folder: &Path| {
        fs::read_to_string(folder.join("comm")).is_ok_and(|comm| comm.starts_with("ksoftirqd/"))
    };
    let kernel_threads = processes.map(|process| process.path()).filter(|folder| is_ksoftirqd(folder));
    kernel_threads.filter_map(|folder| cpu_of_task(&folder)).sum()
}

/// Time in which a CPU did nothing here: idle, waiting for a disk, or taken by the host (proc(5), `stat`).
fn idle(stat: &str) -> Duration {
    let mut ticks = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let mut field = |skipped| ticks.nth(skipped).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    let (idle, iowait, stolen) = (field(3), field(0), field(2));
    Duration::from_millis((idle + iowait + stolen) * 1_000 / clock_ticks_per_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_what_is_not_worked() {
        let hertz = clock_ticks_per_second();
        let stat = format!("cpu  1 2 3 {} {} 6 7 {} 0 0\ncpu0 9 9 9 9 9\n", hertz, 2 * hertz, 4 * hertz);
        assert_eq!(idle(&stat), Duration::from_secs(7));
        assert_eq!(idle(""), Duration::ZERO);
    }

    #[test]
    fn what_this_process_does_is_its_own() {
        let meter = Meter::start(Some(std::process::id()));
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(30) {
            std::hint::spin_loop();
        }
        let Effort { own, recorder, .. } = meter.stop();
        // On a busy machine this thread gets a part of the time only.
        assert!(own > Duration::from_millis(1), "{own:?}");
        assert!(recorder > Duration::from_millis(1), "{recorder:?}");
    }

    #[test]
    fn what_is_left_of_the_machine_is_that_of_others() {
        let ms = Duration::from_millis;
        let spent = Effort { own: ms(10), recorder: ms(20), softirq: ms(5), ..Effort::default() };
        let effort = Effort { machine: ms(40), elapsed: ms(50), ..spent };
        assert_eq!((effort.total(), effort.others()), (ms(35), ms(5)));
        assert!((effort.others_percent() - 10.0).abs() < 1e-9);
        assert_eq!(Effort { machine: ms(30), ..effort }.others(), ms(0));
    }

    #[test]
    fn a_process_that_is_not_there_took_nothing() {
        assert_eq!(cpu_of_process(u32::MAX), Duration::ZERO);
    }
}
