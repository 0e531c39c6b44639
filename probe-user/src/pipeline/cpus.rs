//! Which CPU each thread of the data path has, by configuration.
//!
//! A thread that is moved loses its caches, and one that shares its CPU loses its time: `--cpus` gives the receive thread and
//! each shard one of their own, and keeps the rest of the probe off them. That nothing else runs there is for the system to
//! see to (`isolcpus=`, a cpuset, the affinity of interrupts).
//!
//! Memory comes from the NUMA node whose CPU asks for it. So what a thread uses is asked for by that thread (its streams, when they
//! come), or while whoever asks for it is on its CPU: BPF rings and the frames of AF_XDP are the receive thread's.
//! Which CPU is near to the network card is the operator's to know; the start of the log says both nodes.

use std::fmt;
use std::fs;
use std::io;
use std::str::FromStr;
use std::thread::{self, JoinHandle};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use thiserror::Error;

/// CPUs in the order in which threads get them: the receive thread, then the shards. None: threads run where they may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpus(Vec<usize>);

/// Why a thread cannot have its CPU.
#[derive(Debug, Error)]
pub enum CpuError {
    /// No list.
    #[error("\"{0}\" is no list of CPUs: write 2,4-6")]
    Syntax(String),
    /// Two threads would share it.
    #[error("CPU {0} is named twice, and each thread needs one of its own")]
    Twice(usize),
    /// Too few or too many.
    #[error(
        "{named} named, {needed} needed: one for the receive thread and, with 2 or more, one for each of the --shards"
    )]
    Count {
        /// CPUs named.
        named: usize,
        /// Threads.
        needed: usize,
    },
    /// The machine does not have it.
    #[error("there is no CPU {cpu} online, only {online}")]
    Absent {
        /// Which.
        cpu: usize,
        /// Those that are.
        online: String,
    },
    /// A cpuset keeps it from this process.
    #[error("this process may not run on CPU {cpu}: its cpuset does not have it")]
    Forbidden {
        /// Which.
        cpu: usize,
    },
    /// The kernel refuses.
    #[error("cannot run on CPU {cpu}")]
    Refused {
        /// Which.
        cpu: usize,
        /// Why.
        #[source]
        error: io::Error,
    },
}

impl FromStr for Cpus {
    type Err = CpuError;

    /// As `taskset --cpu-list` and the kernel write it: `2,4-6`.
    fn from_str(list: &str) -> Result<Self, CpuError> {
        let syntax = || CpuError::Syntax(list.to_owned());
        let number = |text: &str| text.parse().ok().filter(|cpu| *cpu < CpuSet::MAX_CPU).ok_or_else(syntax);
        let mut cpus = Vec::new();
        for range in list.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(syntax());
            }
            for cpu in first..=last {
                if cpus.contains(&cpu) {
                    return Err(CpuError::Twice(cpu));
                }
                cpus.push(cpu);
            }
        }
        Ok(Self(cpus))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&numbers.join(", "))
    }
}

impl Cpus {
    /// None named?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is there one for the receive thread and each of so many shards, and may this process run on them?
    ///
    /// # Errors
    /// [`CpuError`]; nothing has changed.
    pub fn check(&self, shards: usize) -> Result<(), CpuError> {
        let needed = if shards > 1 { 1 + shards } else { 1 };
        if !self.is_empty() && self.0.len() != needed {
            return Err(CpuError::Count { named: self.0.len(), needed });
        }
        for &cpu in &self.0 {
            Home::on(cpu)?;
        }
        Ok(())
    }

    /// Takes this thread, and those that it starts, off them, if there are others that it may run on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn avoid(&self) -> io::Result<()> {
        let mut others = sched_getaffinity(None)?;
        self.0.iter().for_each(|cpu| others.unset(*cpu));
        if others.count() > 0 { Ok(sched_setaffinity(None, &others)?) } else { Ok(()) }
    }

    /// The receive thread's.
    pub(super) fn receiver(&self) -> Option<usize> {
        self.0.first().copied()
    }

    /// A shard's, from 0.
    pub(super) fn shard(&self, index: usize) -> Option<usize> {
        self.0.get(1 + index).copied()
    }

    /// Who is where, and how far from the network cards. Nothing if nobody has a place.
    pub fn describe(&self, interfaces: &[String]) -> Option<String> {
        let receiver = self.receiver()?;
        let shards = match self.0.get(1..) {
            Some([_, ..]) => format!(", shards on {}", Self(self.0.iter().skip(1).copied().collect())),
            _ => String::new(),
        };
        let Some(node) = node_of_cpu(receiver) else {
            return Some(format!("receiving on CPU {receiver}{shards}"));
        };
        let far = |name: &String| {
            let its = node_of_interface(name).filter(|its| *its != node)?;
            Some(format!("; {name} is at node {its}: a CPU of that node would be nearer"))
        };
        let far: String = interfaces.iter().filter_map(far).collect();
        Some(format!("receiving on CPU {receiver} (NUMA node {node}){shards}{far}"))
    }
}

/// This thread is on one CPU as long as this lives, and then where it was.
pub(super) struct Home(CpuSet);

impl Home {
    /// Goes there. A thread that is started meanwhile stays there.
    pub(super) fn on(cpu: usize) -> Result<Self, CpuError> {
        let refused = |error: rustix::io::Errno| CpuError::Refused { cpu, error: error.into() };
        let before = sched_getaffinity(None).map_err(refused)?;
        let mut there = CpuSet::new();
        there.set(cpu);
        match sched_setaffinity(None, &there) {
            Ok(()) => Ok(Self(before)),
            // No CPU of the set is both online and in the cpuset.
            Err(rustix::io::Errno::INVAL) => Err(missing(cpu)),
            Err(error) => Err(refused(error)),
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // It was allowed before. If it no longer is, this thread stays where it is.
        let _ = sched_setaffinity(None, &self.0);
    }
}

fn missing(cpu: usize) -> CpuError {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    match online.trim().parse::<Cpus>() {
        Ok(cpus) if !cpus.0.contains(&cpu) => CpuError::Absent { cpu, online: online.trim().to_owned() },
        _ => CpuError::Forbidden { cpu },
    }
}

/// How much nicer the control plane is: of a CPU that both want it gets a tenth.
const NICER: i32 = 10;

/// Has this thread, and those that it starts from now on, stand back where threads of the data path want the CPU. An interval of
/// 100,000 streams is a second's work for the control plane, and the rings hold a tenth of one.
///
/// # Errors
/// If the kernel refuses.
pub fn stand_back() -> io::Result<()> {
    rustix::process::nice(NICER)?;
    Ok(())
}

/// Starts a thread, on a CPU if it has one.
///
/// # Errors
/// If the system refuses the thread or the CPU.
pub(super) fn spawn<T: Send + 'static>(
    name: String,
    cpu: Option<usize>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let _home = cpu.map(Home::on).transpose().map_err(io::Error::other)?;
    thread::Builder::new().name(name).spawn(work)
}

/// The NUMA node of a CPU, if the kernel knows nodes.
fn node_of_cpu(cpu: usize) -> Option<u32> {
    let entries = fs::read_dir(format!("/sys/devices/system/cpu/cpu{cpu}")).ok()?;
    entries.flatten().find_map(|entry| entry.file_name().to_str()?.strip_prefix("node")?.parse().ok())
}

/// The NUMA node of an interface's device; a virtual one has none.
fn node_of_interface(name: &str) -> Option<u32> {
    let node = fs::read_to_string(format!("/sys/class/net/{name}/device/numa_node")).ok()?;
    node.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_allowed() -> usize {
        let allowed = sched_getaffinity(None).unwrap();
        (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap()
    }

    #[test]
    fn a_list_is_read_as_taskset_reads_it() {
        assert_eq!("2,4-6,0".parse::<Cpus>().unwrap(), Cpus(vec![2, 4, 5, 6, 0]));
        for list in ["", "a", "1,", "3-1", "-1", "1-", "1024", "1 2"] {
            assert!(matches!(list.parse::<Cpus>(), Err(CpuError::Syntax(_))), "{list:?}");
        }
        assert!(matches!("1,0-2".parse::<Cpus>(), Err(CpuError::Twice(1))));
    }

    #[test]
    fn each_thread_has_one_and_none_is_left_over() {
        let cpus = |count| Cpus((0..count).collect());
        let refused = |cpus: Cpus, shards| cpus.check(shards).unwrap_err().to_string();
        assert!(refused(cpus(2), 1).starts_with("2 named, 1 needed"));
        assert!(refused(cpus(2), 2).starts_with("2 named, 3 needed"));
        assert!(Cpus::default().check(64).is_ok());
    }

    #[test]
    fn a_thread_is_where_it_was_put_and_its_maker_where_it_was() {
        let cpu = first_allowed();
        let before = sched_getaffinity(None).unwrap();
        let there = spawn("test".to_owned(), Some(cpu), || sched_getaffinity(None).unwrap()).unwrap();
        let there = there.join().unwrap();
        assert_eq!((there.count(), there.is_set(cpu)), (1, true));
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_named_with_those_that_are() {
        let absent = CpuSet::MAX_CPU - 1;
        let said = Cpus(vec![absent]).check(1).unwrap_err().to_string();
        assert!(said.starts_with(&format!("there is no CPU {absent} online, only 0")), "{said}");
    }

    #[test]
    fn the_rest_of_the_probe_keeps_off_unless_there_is_nowhere_else() {
        // On a thread of its own, as it changes where that runs.
        let thread = thread::spawn(|| {
            let before = sched_getaffinity(None).unwrap();
            let cpu = first_allowed();
            Cpus(vec![cpu]).avoid().unwrap();
            let after = sched_getaffinity(None).unwrap();
            assert_eq!(after.is_set(cpu), before.count() == 1);
            let all = (0..CpuSet::MAX_CPU).filter(|cpu| before.is_set(*cpu)).collect();
            Cpus(all).avoid().unwrap();
            assert_eq!(sched_getaffinity(None).unwrap(), after);
        });
        thread.join().unwrap();
    }
}
