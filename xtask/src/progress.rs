//! One line per long step: what runs, for how long, and on a terminal its latest line of output.
//!
//! The whole output of a step is kept and shown only if it fails: an installation's ten screens say nothing
//! to the person who waits for it, and everything to the one whose machine refused.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Of a failed step's output, the lines that are shown: the cause is near the end.
const SHOWN_LINES: usize = 60;

/// Between two repaints of the running step, and of a "still at it" line where no terminal is.
const REPAINT: Duration = Duration::from_millis(200);
const STILL_RUNNING: Duration = Duration::from_secs(30);

/// Says something that is not a step.
pub(crate) fn note(text: &str) {
    eprintln!("  {text}");
}

/// Runs `command` as a step called `title`.
pub(crate) fn step(title: &str, command: &mut Command) -> Result<()> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {} ({title})", name(command)))?;

    let (sender, lines) = mpsc::channel();
    let readers = [
        child.stdout.take().map(|stream| forward(stream, sender.clone())),
        child.stderr.take().map(|stream| forward(stream, sender)),
    ];

    let mut display = Display::new(title, started);
    let mut output = Vec::new();
    loop {
        match lines.recv_timeout(REPAINT) {
            Ok(line) => {
                display.latest(&line);
                output.push(line);
            }
            Err(RecvTimeoutError::Timeout) => display.tick(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    for reader in readers.into_iter().flatten() {
        let _ = reader.join();
    }
    let status = child.wait().with_context(|| format!("cannot wait for {title}"))?;
    display.finish(status.success());
    if status.success() {
        return Ok(());
    }
    let hidden = output.len().saturating_sub(SHOWN_LINES);
    for line in output.iter().skip(hidden) {
        eprintln!("      {line}");
    }
    bail!("{title}: {} ended with {status}", name(command))
}

/// Runs `command` with the terminal as its own: for programs that show progress themselves.
pub(crate) fn shown(title: &str, command: &mut Command) -> Result<()> {
    let started = Instant::now();
    eprintln!("  ..     {title}");
    let status = command.status().with_context(|| format!("cannot start {} ({title})", name(command)))?;
    Display::new_quiet(title, started).finish(status.success());
    if !status.success() {
        bail!("{title}: {} ended with {status}", name(command));
    }
    Ok(())
}

fn forward(stream: impl Read + Send + 'static, sender: Sender<String>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        // Lossy: compilers and package tools may print in any locale's encoding.
        for line in BufReader::new(stream).split(b'\n').map_while(std::io::Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    })
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// The line that the running step owns.
struct Display<'a> {
    title: &'a str,
    started: Instant,
    terminal: bool,
    latest: String,
    next_notice: Duration,
}

impl<'a> Display<'a> {
    fn new(title: &'a str, started: Instant) -> Self {
        let display = Self::new_quiet(title, started);
        if !display.terminal {
            eprintln!("  ..     {title}");
        }
        display
    }

    fn new_quiet(title: &'a str, started: Instant) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { title, started, terminal, latest: String::new(), next_notice: STILL_RUNNING }
    }

    fn latest(&mut self, line: &str) {
        // Cargo and apt repaint with carriage returns; the last piece is what a terminal would show.
        let piece = line.rsplit('\r').next().unwrap_or(line).trim();
        if !piece.is_empty() {
            self.latest.clear();
            self.latest.extend(piece.chars().filter(|c| !c.is_control()).take(60));
        }
        self.tick();
    }

    fn tick(&mut self) {
        let elapsed = self.started.elapsed();
        if self.terminal {
            eprint!("\r\x1b[K  {:>4} s  {}  \x1b[2m{}\x1b[0m", elapsed.as_secs(), self.title, self.latest);
            let _ = std::io::stderr().flush();
        } else if elapsed >= self.next_notice {
            self.next_notice += STILL_RUNNING;
            eprintln!("  {:>4} s  {}: {}", elapsed.as_secs(), self.title, self.latest);
        }
    }

    fn finish(&self, success: bool) {
        let (clear, word) =
            (if self.terminal { "\r\x1b[K" } else { "" }, if success { "ok" } else { "FAILED" });
        eprintln!("{clear}  {word:<6} {} ({:.1} s)", self.title, self.started.elapsed().as_secs_f64());
    }
}
