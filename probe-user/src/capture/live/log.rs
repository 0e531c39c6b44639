//! What the BPF programs log: rare events only, such as the first loss on a CPU.
//!
//! aya-log has a ring of its own and turns its records into those of the `log` crate; here they end in a
//! channel for the control plane, which knows where its log goes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::mpsc::{self, Receiver, Sender};

use aya::Ebpf;
use aya_log::EbpfLogger;

/// What the programs may log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LogLevel {
    /// Nothing.
    Off = 0,
    /// What should never happen.
    Error = 1,
    /// Also the first loss on a CPU, and frames of an unknown interface.
    #[default]
    Warn = 2,
    /// Everything.
    Debug = 4,
}

/// The programs' log. Its descriptor is readable when [`lines`](Self::lines) has something, so it can be awaited
/// with tokio's `AsyncFd`.
pub struct KernelLog {
    logger: EbpfLogger<Lines>,
    lines: Receiver<String>,
}

impl KernelLog {
    pub(crate) fn take_from(ebpf: &mut Ebpf) -> Option<Self> {
        let (sender, lines) = mpsc::channel();
        let logger = EbpfLogger::init_with_logger(ebpf, Lines(sender)).ok()?;
        Some(Self { logger, lines })
    }

    /// What was logged since the last call.
    pub fn lines(&mut self) -> impl Iterator<Item = String> {
        self.logger.flush();
        self.lines.try_iter()
    }
}

impl AsFd for KernelLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.logger.as_fd()
    }
}

impl AsRawFd for KernelLog {
    fn as_raw_fd(&self) -> RawFd {
        self.logger.as_raw_fd()
    }
}

/// Collects lines as aya-log formats them.
struct Lines(Sender<String>);

impl log::Log for Lines {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // Fails only when nobody reads any more.
        let _ = self.0.send(record.args().to_string());
    }

    fn flush(&self) {}
}
