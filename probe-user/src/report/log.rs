//! Where log lines go: the terminal, a pipe, or a file that can be rotated under us.
//!
//! Writing has a thread of its own behind a bounded queue: a reader that stalls, or a disk that is full, costs
//! lines, which are counted, and never the probe its signals or its report.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use thiserror::Error;

/// Lines that may wait to be written: a quarter of a megabyte of text.
const QUEUE: usize = 1024;

/// Why the log cannot be written.
#[derive(Debug, Error)]
pub enum LogError {
    /// The file does not open.
    #[error("cannot open the log file {path}", path = path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system refuses what the log's thread needs.
    #[error("cannot start the log's thread")]
    Start(#[source] io::Error),
    /// A line could not be written. Said of the first only; those after it are counted.
    #[error("cannot write to the log")]
    Write(#[source] io::Error),
}

impl LogError {
    /// Has the reader of a pipe gone away, so that nobody will ever read a line again?
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Write(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// A destination of lines. Each line is one write, so that `tail -f` and several writers see whole lines.
#[derive(Debug)]
pub struct LogWriter {
    to: Sender<Message>,
    troubles: Receiver<LogError>,
    progress: Arc<Progress>,
    thread: JoinHandle<()>,
    colour: bool,
    /// The queue was full at the last line: the next does not wait.
    stalled: bool,
    given: u64,
    dropped: u64,
    told: u64,
}

/// What the thread is told.
#[derive(Debug)]
enum Message {
    Line(String),
    Reopen,
}

/// What the thread tells. Statistics only: nothing else is published by them, so relaxed is enough.
#[derive(Debug, Default)]
struct Progress {
    written: AtomicU64,
    failed: AtomicU64,
    failing: AtomicBool,
}

impl LogWriter {
    /// Standard output, in colour where it is a terminal and NO_COLOR is not set.
    ///
    /// # Errors
    /// [`LogError::Start`].
    pub fn stdout() -> Result<Self, LogError> {
        let colour = io::stdout().is_terminal()
            && anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
        // A descriptor of our own: what fails must not stay in the buffer that `Stdout` shares.
        let file = io::stdout().as_fd().try_clone_to_owned().map_err(LogError::Start)?;
        Self::start(None, file.into(), colour)
    }

    /// A file, appended to.
    ///
    /// # Errors
    /// [`LogError::Open`], [`LogError::Start`].
    pub fn file(path: &Path) -> Result<Self, LogError> {
        Self::start(Some(path.to_owned()), open(path)?, false)
    }

    fn start(path: Option<PathBuf>, file: File, colour: bool) -> Result<Self, LogError> {
        let (to, lines) = bounded(QUEUE);
        let (tell, troubles) = bounded(16);
        let progress = Arc::new(Progress::default());
        let target = Target { path, file, torn: false, troubles: tell, progress: Arc::clone(&progress) };
        let thread = thread::Builder::new()
            .name("vox-log".to_owned())
            .spawn(move || target.run(&lines))
            .map_err(LogError::Start)?;
        Ok(Self { to, troubles, progress, thread, colour, stalled: false, given: 0, dropped: 0, told: 0 })
    }

    /// Opens the file anew, after `logrotate` moved it and after the lines given so far. False if it is to be asked
    /// again, because the queue is full. If the file does not open, the old one stays in use.
    pub fn reopen(&mut self) -> bool {
        self.to.try_send(Message::Reopen).is_ok()
    }

    /// Does the destination show colours?
    pub fn has_colour(&self) -> bool {
        self.colour
    }

    /// Gives one line to be written. If the queue is full it waits until `patience` for room, but only once: until
    /// there is room again, lines are dropped at once, and counted.
    pub fn line(&mut self, text: String, patience: Instant) {
        self.given += 1;
        let line = Message::Line(text);
        let taken = if self.stalled {
            self.to.try_send(line).is_ok()
        } else {
            self.to.send_deadline(line, patience).is_ok()
        };
        self.stalled = !taken;
        self.dropped += u64::from(!taken);
    }

    /// Waits for room again, even if there was none at the last line.
    pub fn forgive(&mut self) {
        self.stalled = false;
    }

    /// Lines that were lost, each told once, and not before lines can be written again.
    pub fn lost_lines(&mut self) -> Option<u64> {
        if self.progress.failing.load(Ordering::Relaxed) || self.to.len() > QUEUE / 2 {
            return None;
        }
        let lost = self.dropped + self.progress.failed.load(Ordering::Relaxed);
        let news = lost - std::mem::replace(&mut self.told, lost);
        (news > 0).then_some(news)
    }

    /// What went wrong since the last call.
    pub fn troubles(&self) -> impl Iterator<Item = LogError> {
        self.troubles.try_iter()
    }

    /// Waits, but not for longer than `patience`, until all is written. Returns the troubles that were not yet
    /// asked for, and how many of all lines were not written.
    pub fn finish(self, patience: Duration) -> (Vec<LogError>, u64) {
        let Self { to, troubles, progress, thread, stalled, given, .. } = self;
        drop(to);
        // Whoever stalled has been waited for.
        let deadline = Instant::now() + if stalled { Duration::ZERO } else { patience };
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        let unwritten = given - progress.written.load(Ordering::Relaxed);
        (troubles.try_iter().collect(), unwritten)
    }
}

/// The thread's side.
struct Target {
    path: Option<PathBuf>,
    file: File,
    /// The last line was written in part: the next begins with the end of it.
    torn: bool,
    troubles: Sender<LogError>,
    progress: Arc<Progress>,
}

impl Target {
    fn run(mut self, lines: &Receiver<Message>) {
        for message in lines {
            match message {
                Message::Line(line) => self.line(&line),
                Message::Reopen => self.reopen(),
            }
        }
    }

    fn line(&mut self, line: &str) {
        let outcome = self.write(line);
        let Progress { written, failed, failing } = &*self.progress;
        match outcome {
            Ok(()) => {
                written.fetch_add(1, Ordering::Relaxed);
                failing.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                failed.fetch_add(1, Ordering::Relaxed);
                if !failing.swap(true, Ordering::Relaxed) {
                    let _ = self.troubles.try_send(LogError::Write(error));
                }
            }
        }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let start = if self.torn { "\n" } else { "" };
        let bytes = [start, line, "\n"].concat().into_bytes();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    rest = rest.get(count..).unwrap_or_default();
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match open(path) {
            Ok(file) => (self.file, self.torn) = (file, false),
            Err(error) => {
                let _ = self.troubles.try_send(error);
            }
        }
    }
}

fn open(path: &Path) -> Result<File, LogError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|source| LogError::Open { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn written(log: &LogWriter, lines: u64) {
        let deadline = soon();
        while log.progress.written.load(Ordering::Relaxed) < lines {
            assert!(Instant::now() < deadline, "{log:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn after_rotation_lines_go_to_the_new_file() {
        let folder = std::env::temp_dir().join(format!("voxprobe-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, moved) = (folder.join("health.log"), folder.join("health.log.1"));
        let mut log = LogWriter::file(&path).unwrap();
        log.line("before".to_owned(), soon());
        written(&log, 1);
        std::fs::rename(&path, &moved).unwrap();
        log.line("still the old one".to_owned(), soon());
        assert!(log.reopen());
        log.line("after".to_owned(), soon());
        let (troubles, unwritten) = log.finish(Duration::from_secs(10));
        assert!(troubles.is_empty() && unwritten == 0, "{troubles:?}, {unwritten}");
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "before\nstill the old one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = LogWriter::file(Path::new("/nonexistent/health.log")).unwrap_err();
        assert_eq!(error.to_string(), "cannot open the log file /nonexistent/health.log");
    }

    #[test]
    fn a_full_disk_is_told_once_and_its_lines_are_counted() {
        let mut log = LogWriter::file(Path::new("/dev/full")).unwrap();
        (0..5).for_each(|number| log.line(number.to_string(), soon()));
        let (troubles, unwritten) = log.finish(Duration::from_secs(10));
        assert_eq!((troubles.len(), unwritten), (1, 5), "{troubles:?}");
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_a_bounded_wait() {
        let (reader, pipe) = io::pipe().unwrap();
        let file = std::os::fd::OwnedFd::from(pipe).into();
        let mut log = LogWriter::start(None, file, false).unwrap();
        let begin = Instant::now();
        let line = "x".repeat(1_000);
        (0..2_000).for_each(|_| log.line(line.clone(), begin + Duration::from_millis(300)));
        assert_eq!(log.lost_lines(), None, "nobody could read it");
        let (_, unwritten) = log.finish(Duration::from_secs(2));
        assert!(unwritten >= 1_000, "{unwritten}");
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        drop(reader);
    }

    #[test]
    fn a_reader_that_is_gone_is_told_apart() {
        let (reader, pipe) = io::pipe().unwrap();
        drop(reader);
        let mut log = LogWriter::start(None, std::os::fd::OwnedFd::from(pipe).into(), false).unwrap();
        log.line("to nobody".to_owned(), soon());
        let (troubles, _) = log.finish(Duration::from_secs(10));
        assert!(troubles.iter().any(LogError::is_broken_pipe), "{troubles:?}");
    }
}
