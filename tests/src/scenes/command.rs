//! `voxlab scenes`: lists the scenes, or writes one of them and the truth about it.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::Scene;
use crate::story::taps::Tap;
use crate::story::{Recording, Rpcap};

/// Writes a scene of SIP calls, with the truth about each call as JSON.
///
/// Without a name: the list of scenes.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Which one.
    #[arg(requires = "out")]
    name: Option<String>,
    /// Print names, and what they show.
    #[arg(long)]
    list: bool,
    /// The same seed gives the same files.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// More taps besides the first, as in `voxlab story`.
    #[arg(long, value_delimiter = ',', value_name = "TAP,...")]
    copies: Vec<Tap>,
    /// A remote capture (rpcap, TCP port 2002) of all taps that are no tunnels is captured as well.
    #[arg(long)]
    rpcap: bool,
    /// The capture (pcapng).
    #[arg(long, value_name = "FILE", requires = "name")]
    out: Option<PathBuf>,
    /// The truth (JSON).
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
}

/// Runs `voxlab scenes`.
pub fn run(options: &Options) -> Result<()> {
    let (Some(name), Some(out)) = (&options.name, &options.out) else {
        for Scene { name, about, .. } in Scene::all() {
            println!("{name:<20} {about}");
        }
        return Ok(());
    };
    let Some(scene) = Scene::named(name) else {
        bail!("{name}: no such scene; `voxlab scenes --list` prints them");
    };
    let rpcap = options.rpcap.then(Rpcap::default);
    let recording = Recording { taps: options.copies.clone(), rpcap, ..Recording::default() };
    let played = scene.play(options.seed, &recording);
    played.story.write(out)?;
    if let Some(path) = &options.truth {
        let create = || -> std::io::Result<()> {
            let mut file = BufWriter::new(File::create(path)?);
            serde_json::to_writer_pretty(&mut file, &played.truth)?;
            file.flush()
        };
        create().with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!(
        "{}: {} frames; {} calls, {} SIP messages, {} streams",
        out.display(),
        played.story.frames.len(),
        played.truth.calls.len(),
        played.truth.messages,
        played.truth.streams.len(),
    );
    Ok(())
}
