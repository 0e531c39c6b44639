//! `voxlab`: the lab and the traffic generator, behind `cargo xtask lab` and `cargo xtask traffic`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Calls and traffic to try voxprobe on.
#[derive(Parser)]
#[command(name = "voxlab", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Place real calls through a gateway made of network namespaces and watch them with the probe.
    Lab(voxlab::command::Options),
    /// Send RTP of many streams out of an interface, from inside the kernel.
    Traffic(voxlab::traffic::Options),
    Throughput(voxlab::throughput::Options),
    Bench(voxlab::bench::Options),
    /// Run a program to its end and print what it took, as JSON: for `bench`.
    #[command(name = voxlab::bench::process::BETWEEN, hide = true)]
    Taken(voxlab::bench::process::Options),
    Conformance(voxlab::conformance::Options),
    Story(voxlab::story::command::Options),
    Bulk(voxlab::story::bulk::Options),
    Scenes(voxlab::scenes::command::Options),
    Crowd(voxlab::scenes::crowd::Options),
    /// Measure what the XDP program costs per frame, over one that does nothing.
    XdpCost,
    /// Measure what finding copies costs per RTP frame, over the same work without it.
    DedupCost,
    /// Measure what a packet costs the analysis core, by the number of streams that it holds.
    CoreCost(voxlab::core_cost::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Lab(options) => voxlab::command::run(&options),
        Command::Traffic(options) => voxlab::traffic::run(&options),
        Command::Throughput(options) => voxlab::throughput::run(&options),
        Command::Bench(options) => voxlab::bench::run(&options),
        Command::Taken(options) => voxlab::bench::process::between(&options),
        Command::Conformance(options) => voxlab::conformance::run(&options),
        Command::Story(options) => voxlab::story::command::run(&options),
        Command::Scenes(options) => voxlab::scenes::command::run(&options),
        Command::Crowd(options) => voxlab::scenes::crowd::run(&options),
        Command::Bulk(options) => voxlab::story::bulk::run(&options),
        Command::XdpCost => voxlab::cost::run(),
        Command::DedupCost => voxlab::dedup_cost::run(),
        Command::CoreCost(options) => voxlab::core_cost::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
