//! A capture without its copies, or with each of them named.
//!
//! ```text
//!   file ─▶ analysis ─▶ class of every frame ─┐
//!   file ─▶ blocks ──────────────────────────▶ judge ─▶ file without a name ─▶ named
//! ```
//!
//! The file is read twice: what a frame is may show only later. The output appears whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use thiserror::Error;

use super::offline::{AnalyzeError, Options, analyze_and_classify};
use crate::capture::file::Progress;
use crate::capture::file::rewrite::{self, Fate};
use crate::dedup::{Classes, FrameClass};
use crate::report::words;

/// Why there is no output.
#[derive(Debug, Error)]
pub enum DedupError {
    /// The input cannot be analysed.
    #[error(transparent)]
    Analyze(#[from] AnalyzeError),
    /// The input comes but once.
    #[error("the input is read twice, so it cannot be standard input: save it first")]
    Stream,
    /// Input and output are one file.
    #[error("{path} is the input: a capture is not overwritten; give another name", path = path.display())]
    SameFile {
        /// Which.
        path: PathBuf,
    },
    /// The output is there, and is a device, a pipe or a folder: a file would take its place.
    #[error("{path} is no regular file and is not replaced; give the name of a file", path = path.display())]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// The second reading failed.
    #[error("cannot copy {path}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write {path}", path = path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Frames of the input.
    pub frames: u64,
    /// Copies, by cause; of which none is in the output unless they are annotated.
    pub copies: BTreeMap<&'static str, u64>,
    /// Retransmissions, which stay.
    pub retransmissions: u64,
}

impl Summary {
    /// All copies.
    pub fn total(&self) -> u64 {
        self.copies.values().sum()
    }
}

/// Writes `output`: `input` without copies, or, if `annotate`, all of it with a comment at each copy and retransmission.
///
/// # Errors
/// [`DedupError`]; then there is no output, and what was there before still is.
pub fn dedup(
    input: &Path,
    output: &Path,
    options: &Options,
    annotate: bool,
    mut opened: impl FnMut(&Path, Progress),
) -> Result<Summary, DedupError> {
    if input == Path::new("-") {
        return Err(DedupError::Stream);
    }
    if is_same_file(input, output) {
        return Err(DedupError::SameFile { path: output.to_owned() });
    }
    if fs::metadata(output).is_ok_and(|meta| !meta.is_file()) {
        return Err(DedupError::NotAFile { path: output.to_owned() });
    }
    let paths = [input.to_owned()];
    let (report, classes) = analyze_and_classify(&paths, options, &mut opened)?;
    let frames = report.capture.packets;
    let mut summary = Summary { frames, ..Summary::default() };
    let unreadable = |source| DedupError::Read { path: input.to_owned(), source };
    let (source, progress) = rewrite::open(input).map_err(unreadable)?;
    opened(input, progress);
    let unwritable = |source| DedupError::Write { path: output.to_owned(), source };
    let draft = Draft::beside(output).map_err(unwritable)?;
    let judge = |number| summary.judge(&classes, number, annotate);
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            unwritable(source)
        }
        _ => unreadable(source),
    };
    rewrite::rewrite(source, BufWriter::with_capacity(1 << 20, &draft.file), frames, judge)
        .map_err(failed)?;
    draft.publish(output).map_err(unwritable)?;
    Ok(summary)
}

impl Summary {
    fn judge(&mut self, classes: &Classes, number: u64, annotate: bool) -> Fate {
        let class = classes.resolved(number);
        match class {
            FrameClass::Copy { cause, .. } => *self.copies.entry(cause.label()).or_default() += 1,
            FrameClass::OldCopy => *self.copies.entry("unexplained").or_default() += 1,
            FrameClass::Retransmission { .. } => self.retransmissions += 1,
            _ => {}
        }
        match (annotate, class.is_copy()) {
            (false, true) => Fate::Remove,
            (false, false) => Fate::Keep,
            (true, _) => comment(class, classes.part(number)).map_or(Fate::Keep, Fate::Comment),
        }
    }
}

/// What is said of a frame; nothing of those that are new.
fn comment(class: FrameClass, part: Option<u64>) -> Option<String> {
    let text = match class {
        FrameClass::Copy { of, cause, differs, delay_ns } => {
            let why = words::difference(cause, differs, f64::from(delay_ns) / 1e3);
            format!("copy of frame {of}: {why}")
        }
        FrameClass::OldCopy => "copy: its original is too long ago to be named".to_owned(),
        FrameClass::Retransmission { of, timer } => {
            format!("retransmission of frame {of}: timer {} (RFC 3261)", timer.name())
        }
        FrameClass::Echo { of } => format!("sent again as frame {of}: what it answers was sent again"),
        FrameClass::Unscheduled { of } => {
            format!("sent again as frame {of}: no timer of RFC 3261 explains when")
        }
        FrameClass::AuthRetry => "the request again, with the credentials that were asked for".to_owned(),
        FrameClass::TcpRetransmission => "TCP sent this again".to_owned(),
        _ => return None,
    };
    Some(match part {
        Some(whole) => format!("part of frame {whole}: {text}"),
        None => text,
    })
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    matches!((identity(a), identity(b)), (Ok(a), Ok(b)) if a == b)
}

/// What becomes the output, or goes. It has no name until it is whole, so that nothing is left of it however the process
/// ends. Only where the file system makes no such file it is a hidden one beside the output.
struct Draft {
    file: File,
    path: PathBuf,
    is_named: bool,
}

impl Draft {
    fn beside(output: &Path) -> io::Result<Self> {
        let name = output.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        let path = output.with_file_name(hidden);
        // Of a run that was killed: in a container, each has the same process number.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(file) = without_name(&path) {
            return Ok(Self { file, path, is_named: false });
        }
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path, is_named: true })
    }

    fn publish(mut self, output: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        if !self.is_named {
            linkat(CWD, descriptor(&self.file), CWD, &self.path, AtFlags::SYMLINK_FOLLOW)?;
            self.is_named = true;
        }
        fs::rename(&self.path, output)?;
        self.is_named = false;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.is_named {
            // It may be gone, or the disk: either way there is nothing more to do.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A file that can be given the name `path` later.
fn without_name(path: &Path) -> Option<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(folder, flags, Mode::from_raw_mode(0o666)).ok()?);
    // Where there is no /proc, as in a bare chroot, it could not be named.
    descriptor(&file).exists().then_some(file)
}

/// Where an open file is found without a name.
fn descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn an_output_has_no_name_before_it_is_whole() {
        let folder = std::env::temp_dir().join(format!("voxprobe-draft-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let output = folder.join("out.pcapng");
        fs::write(&output, b"before").unwrap();
        let names = || fs::read_dir(&folder).unwrap().count();
        let draft = Draft::beside(&output).unwrap();
        (&draft.file).write_all(b"whole").unwrap();
        assert_eq!((names(), fs::read(&output).unwrap()), (1, b"before".to_vec()));
        draft.publish(&output).unwrap();
        assert_eq!((names(), fs::read(&output).unwrap()), (1, b"whole".to_vec()));
        fs::remove_dir_all(&folder).unwrap();
    }
}
