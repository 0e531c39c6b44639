//! How far big files have been read, on a terminal; nothing where none looks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use voxprobe::capture::file::Progress;

/// Files below this are read before anybody could look.
const SHOWN_FROM: u64 = 64 << 20;
/// Between two repaints.
const REPAINT: Duration = Duration::from_millis(100);

/// The bar of the file that is being read. Gone when dropped, before anything else is printed.
#[derive(Debug, Default)]
pub(super) struct Bars {
    running: Option<Running>,
}

/// A bar, and the thread that moves it.
#[derive(Debug)]
struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Bars {
    /// The next file was opened.
    pub(super) fn follow(&mut self, path: &Path, progress: Progress) {
        self.stop();
        if progress.size < SHOWN_FROM {
            return;
        }
        // Drawn on standard error, and only if that is a terminal.
        let bar = ProgressBar::new(progress.size).with_message(path.display().to_string());
        if let Ok(style) = ProgressStyle::with_template(
            "{msg} [{bar:30}] {percent:>3} % of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} to go",
        ) {
            bar.set_style(style.progress_chars("=> "));
        }
        if bar.is_hidden() {
            return;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let show = move || {
            while !stopped.load(Ordering::Relaxed) {
                bar.set_position(progress.read().min(progress.size));
                thread::park_timeout(REPAINT);
            }
            bar.finish_and_clear();
        };
        // Without a thread there is no bar, and nothing else is lost.
        let thread = thread::Builder::new().name("vox-progress".to_owned()).spawn(show);
        self.running = thread.ok().map(|thread| Running { stop, thread });
    }

    fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            stop.store(true, Ordering::Relaxed);
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.stop();
    }
}
