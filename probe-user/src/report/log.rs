//! Where log lines go: the terminal, or a file that can be rotated under us.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

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
    /// A line could not be written.
    #[error("cannot write to the log")]
    Write(#[from] io::Error),
}

/// A destination of lines. Each line is one write, so that `tail -f` and several writers see whole lines.
#[derive(Debug)]
pub struct LogWriter {
    target: Target,
}

#[derive(Debug)]
enum Target {
    Stdout { colour: bool },
    File { path: PathBuf, file: File },
}

impl LogWriter {
    /// Standard output, in colour where it is a terminal and NO_COLOR is not set.
    pub fn stdout() -> Self {
        let colour = io::stdout().is_terminal()
            && anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
        Self { target: Target::Stdout { colour } }
    }

    /// A file, appended to.
    ///
    /// # Errors
    /// [`LogError::Open`].
    pub fn file(path: &Path) -> Result<Self, LogError> {
        Ok(Self { target: Target::File { path: path.to_owned(), file: open(path)? } })
    }

    /// Opens the file anew, after `logrotate` moved it. On failure the old one stays in use.
    ///
    /// # Errors
    /// [`LogError::Open`].
    pub fn reopen(&mut self) -> Result<(), LogError> {
        if let Target::File { path, file } = &mut self.target {
            *file = open(path)?;
        }
        Ok(())
    }

    /// Does the destination show colours?
    pub fn has_colour(&self) -> bool {
        matches!(self.target, Target::Stdout { colour: true })
    }

    /// Writes one line.
    ///
    /// # Errors
    /// [`LogError::Write`].
    pub fn line(&mut self, text: &str) -> Result<(), LogError> {
        let mut line = Vec::with_capacity(text.len() + 1);
        line.extend_from_slice(text.as_bytes());
        line.push(b'\n');
        match &mut self.target {
            Target::Stdout { .. } => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&line)?;
                stdout.flush()?;
            }
            Target::File { file, .. } => file.write_all(&line)?,
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, LogError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|source| LogError::Open { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_rotation_lines_go_to_the_new_file() {
        let folder = std::env::temp_dir().join(format!("voxprobe-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, moved) = (folder.join("health.log"), folder.join("health.log.1"));
        let mut log = LogWriter::file(&path).unwrap();
        log.line("before").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        log.line("still the old one").unwrap();
        log.reopen().unwrap();
        log.line("after").unwrap();
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "before\nstill the old one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = LogWriter::file(Path::new("/nonexistent/health.log")).unwrap_err();
        assert_eq!(error.to_string(), "cannot open the log file /nonexistent/health.log");
    }
}
