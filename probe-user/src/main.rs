//! The `voxprobe` command: see `voxprobe --help`.

mod command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Passive VoIP probe: stream health, duplicates and calls, live or from a capture file.
#[derive(Debug, Parser)]
#[command(name = "voxprobe", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(command::run::Run),
    Analyze(command::analyze::Analyze),
    Calls(command::calls::Calls),
    Flow(command::flow::Flow),
    Dedup(command::dedup::Dedup),
}

/// Exit codes: 0 done, 1 it could not be done (a bad value of an option included), 2 the command line is not
/// understood.
fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(run) => run.execute(),
        Command::Analyze(analyze) => analyze.execute(),
        Command::Calls(calls) => calls.execute(),
        Command::Flow(flow) => flow.execute(),
        Command::Dedup(dedup) => dedup.execute(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The reader went away, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("voxprobe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
