//! What the probe takes while nothing comes: the installed program, beside recorders that sleep until something does.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::{Run, process};
use crate::effort::cpu_of_process;
use crate::netns::{LabName, Namespace};
use crate::probe::Probe;
use crate::throughput;

/// Time to load and attach, and to come to rest.
const SETTLE: Duration = Duration::from_secs(3);

/// Both modes, and a recorder.
pub(super) fn measure(run: &mut Run, duration: Duration) -> Result<()> {
    println!("\nidle, % of a core without any traffic:");
    let voxprobe = Probe::binary()?.to_string_lossy().into_owned();
    let probe = [&voxprobe, "run", "--iface", "far0"];
    let subjects = [
        ("voxprobe-tap", probe.to_vec()),
        ("voxprobe-mirror", [&probe[..], &["--mode", "mirror"]].concat()),
        ("tcpdump", vec!["tcpdump", "-n", "-Z", "root", "-i", "far0", "-w", "/dev/null"]),
    ];
    for (subject, words) in subjects {
        let (program, args) = words.split_first().context("a command has a program")?;
        if *program != voxprobe && !process::is_installed(program) {
            run.leave_out(format!("{subject} is not installed"));
            continue;
        }
        let lab = LabName::unique()?;
        let (near, far) = (Namespace::create(&lab, "near")?, Namespace::create(&lab, "far")?);
        throughput::connect(&near, &far)?;
        let mut command = far.command(program);
        command.args(args);
        let percent = at_rest(&mut command, duration).with_context(|| subject.to_owned())?;
        println!("  {subject:<16} {percent:>6.2}");
        run.note(format!("live/idle/{subject}/cpu"), percent, "% of a core");
    }
    Ok(())
}

/// The part of a core that a program takes once it has started.
fn at_rest(command: &mut Command, duration: Duration) -> Result<f64> {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = quiet.spawn().with_context(|| format!("cannot start {quiet:?}"))?;
    thread::sleep(SETTLE);
    let before = cpu_of_process(child.id());
    thread::sleep(duration);
    let spent = cpu_of_process(child.id()).saturating_sub(before);
    anyhow::ensure!(child.try_wait()?.is_none(), "it ended by itself");
    end(child)?;
    Ok(spent.as_secs_f64() / duration.as_secs_f64() * 100.0)
}

fn end(mut child: Child) -> Result<()> {
    kill_process(Pid::from_child(&child), Signal::INT)?;
    child.wait()?;
    Ok(())
}
