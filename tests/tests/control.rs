//! The control plane of a live probe ends when it is told to, with its report, whatever becomes of its log.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use voxlab::netns::{LabName, Namespace};
use voxlab::privileges::root_for;
use voxlab::probe::{Probe, output_within};

#[test]
fn a_full_disk_under_the_log_costs_lines_and_not_the_report() -> Result<()> {
    if !root_for("a_full_disk_under_the_log_costs_lines_and_not_the_report") {
        return Ok(());
    }
    let namespace = Namespace::create(&LabName::unique()?, "full")?;
    let report = std::env::temp_dir().join(format!("voxprobe-full-{}.json", std::process::id()));
    let path = report.to_str().context("a path in UTF-8")?;
    let args = "run --iface lo --interval 200ms --for 2s --log /dev/full --report";
    let command = Probe::command(&namespace, args.split(' ').chain([path]))?;
    let started = Instant::now();
    let output = output_within(command, Duration::from_secs(30))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let json = fs::read(&report);
    let _ = fs::remove_file(&report);
    assert!(output.status.success(), "{}: {said}", output.status);
    assert!(started.elapsed() >= Duration::from_secs(2), "it ended before its time: {said}");
    assert_eq!(said.matches("cannot write to the log").count(), 1, "{said}");
    assert!(said.contains("could not be written"), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&json.context("no report")?)?;
    assert_eq!(report["capture"]["sources"][0], "lo");
    Ok(())
}

#[test]
fn an_unread_pipe_does_not_keep_sigint_from_ending_it() -> Result<()> {
    if !root_for("an_unread_pipe_does_not_keep_sigint_from_ending_it") {
        return Ok(());
    }
    let namespace = Namespace::create(&LabName::unique()?, "stall")?;
    let (reader, writer) = std::io::pipe()?;
    // SAFETY: the descriptor is open, and the operation takes an integer.
    let size = unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    ensure!(size == 4096, "the pipe holds {size} bytes");
    let args = "run --iface lo --interval 100ms --log-format json";
    let mut command = Probe::command(&namespace, args.split(' '))?;
    command.stdout(writer);
    let mut probe = Probe::spawn(command)?;
    // What waits grows with every interval, until the next line has no room.
    let deadline = Instant::now() + Duration::from_secs(40);
    let mut waiting = (0, Instant::now());
    while waiting.0 < 2048 || waiting.1.elapsed() < Duration::from_secs(1) {
        ensure!(probe.ended()?.is_none() && Instant::now() < deadline, "{} bytes wait", waiting.0);
        thread::sleep(Duration::from_millis(50));
        let mut bytes: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int, and `bytes` is one.
        let done = unsafe { libc::ioctl(reader.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
        ensure!(done == 0, "FIONREAD fails");
        if bytes != waiting.0 {
            waiting = (bytes, Instant::now());
        }
    }
    probe.signal(Signal::INT)?;
    let status = probe.wait(Duration::from_secs(5))?;
    assert!(status.success(), "{status}");
    drop(reader);
    Ok(())
}

#[test]
fn a_cpu_that_is_not_there_is_an_error_that_says_which_are() -> Result<()> {
    if !root_for("a_cpu_that_is_not_there_is_an_error_that_says_which_are") {
        return Ok(());
    }
    let namespace = Namespace::create(&LabName::unique()?, "nocpu")?;
    let refused = |args: &str| -> Result<String> {
        let output = output_within(Probe::command(&namespace, args.split(' '))?, Duration::from_secs(30))?;
        ensure!(!output.status.success(), "{args} was taken");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let said = refused("run --iface lo --cpus 1023")?;
    assert!(said.contains("there is no CPU 1023 online, only 0"), "{said}");
    let said = refused("run --iface lo --shards 2 --cpus 0")?;
    assert!(said.contains("1 named, 3 needed"), "{said}");
    let said = refused("run --iface lo --cpus 0-x")?;
    assert!(said.contains("write 2,4-6"), "{said}");
    Ok(())
}

#[test]
fn figures_for_prometheus_lie_in_a_file_while_it_runs() -> Result<()> {
    if !root_for("figures_for_prometheus_lie_in_a_file_while_it_runs") {
        return Ok(());
    }
    let namespace = Namespace::create(&LabName::unique()?, "prom")?;
    namespace.configure(&["link set lo up"])?;
    let path = std::env::temp_dir().join(format!("voxprobe-{}.prom", std::process::id()));
    let args = "run --iface lo --interval 100ms --metrics";
    let command = Probe::command(&namespace, args.split(' ').chain(path.to_str()))?;
    let mut probe = Probe::spawn(command)?;
    let deadline = Instant::now() + Duration::from_secs(40);
    let matched = "\nvoxprobe_frames_matched_total ";
    loop {
        ensure!(probe.ended()?.is_none() && Instant::now() < deadline, "no figure of what it was sent");
        namespace.within(|| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
            socket.send_to(b"OPTIONS sip:a@127.0.0.1 SIP/2.0\r\n\r\n", "127.0.0.1:5060")
        })??;
        let text = fs::read_to_string(&path).unwrap_or_default();
        if text.split_once(matched).is_some_and(|(_, rest)| !rest.starts_with("0\n")) {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let status = probe.finish()?;
    assert!(status.success(), "{status}");
    assert!(!path.exists(), "figures of a probe that has ended");
    Ok(())
}

#[test]
fn figures_that_cannot_be_written_are_an_error_before_anything_is_attached() -> Result<()> {
    let binary = Probe::binary()?;
    let mut command = std::process::Command::new(binary);
    command.args("run --iface lo --metrics /no/such/folder/voxprobe.prom".split(' '));
    let output = output_within(command, Duration::from_secs(30))?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write the metrics to /no/such/folder/voxprobe.prom"), "{said}");
    Ok(())
}
