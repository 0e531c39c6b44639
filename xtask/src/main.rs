//! The one entry point of the project: what a person types, and what CI runs.
//!
//! `cargo xtask run` and `cargo xtask test` provision what is missing, build the BPF objects and then the rest,
//! so that each is one command on a fresh machine. Everything here is orchestration: it compiles in seconds,
//! because it is the first thing that a newcomer waits for.

mod build;
mod conformance;
mod dist;
mod fuzz;
mod install;
mod progress;
mod run;
mod setup;
mod test;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set up, build, run and test voxprobe.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing to compile for BPF, after saying what and why. Does nothing if all is there.
    Setup(setup::Options),
    /// Compile the BPF programs into `target/bpf/`.
    BuildEbpf,
    /// Compile the BPF programs, then `voxprobe` and `voxlab` around them.
    Build(build::Options),
    /// Run the probe; without `--iface`, in the lab. Everything after `--` goes to `voxprobe run`.
    ///
    /// Examples: `cargo xtask run`, `cargo xtask run -- --iface eth0 --iface eth1 --interval 5s`
    Run {
        /// Arguments for `voxprobe run` (see `voxprobe run --help`).
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// Place real calls through a gateway made of network namespaces and watch them. Ctrl-C removes all of it.
    ///
    /// Arguments go to `voxlab lab`: [--calls N] [--mirror[=TAP,…]] [--seed S] [--for DURATION] [--log-format json] …
    #[command(disable_help_flag = true)]
    Lab {
        /// Arguments for `voxlab lab`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// Generate RTP with a BPF program at a given rate or flat out, counting exactly what was sent.
    ///
    /// Arguments go to `voxlab traffic`.
    #[command(disable_help_flag = true)]
    Traffic {
        /// Arguments for `voxlab traffic`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// Write a generated capture of calls as several taps see them, and the truth about every frame.
    ///
    /// Arguments go to `voxlab story`: --out FILE [--truth FILE] [--seed S] [--copies TAP,…] [--rpcap] [--retransmissions] …
    #[command(disable_help_flag = true)]
    Story {
        /// Arguments for `voxlab story`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// Write a generated capture that is too big for memory, for measurements.
    ///
    /// Arguments go to `voxlab bulk`: --out FILE [--calls N] [--concurrent N] [--talk DURATION] [--copies TAP,…] …
    #[command(disable_help_flag = true)]
    Bulk {
        /// Arguments for `voxlab bulk`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// Write a scene of SIP calls, and the truth about each call.
    ///
    /// Arguments go to `voxlab scenes`: --list, or NAME --out FILE [--truth FILE] [--seed S] [--copies TAP,…] [--rpcap]
    #[command(disable_help_flag = true)]
    Scenes {
        /// Arguments for `voxlab scenes`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// Everything that CI checks: formatting, lints, all three levels of tests, documentation.
    Test(test::Options),
    /// Compare voxprobe with the installed tshark on the same captures, digit by digit.
    ///
    /// Arguments go to `voxlab conformance`: [FILES or folders] [--seeds N] [--packets N] [--voxprobe BINARY] …
    #[command(disable_help_flag = true)]
    Conformance {
        /// Arguments for `voxlab conformance`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// Measure the probe, and every peer that is installed beside it, in one run: parts, files, live, scaling.
    ///
    /// Arguments go to `voxlab bench`: [--only micro,files,live,scale] [--quick] [--json FILE] [--gate] [--peer NAME=COMMAND] …
    #[command(disable_help_flag = true)]
    Bench {
        /// Arguments for `voxlab bench`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// Try what reads SIP with bytes that nobody sent on purpose. Needs cargo-fuzz and a nightly compiler.
    Fuzz(fuzz::Options),
    /// Pack the release binary, its documentation and a systemd unit into `target/dist/`.
    Dist,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Setup(options) => setup::run(&options),
        Task::BuildEbpf => setup::ensure().and_then(|tools| build::ebpf(&tools)),
        Task::Build(options) => setup::ensure().and_then(|tools| build::all(&tools, &options)),
        Task::Run { args } => run::probe(&args),
        Task::Lab { args } => run::voxlab("lab", &args),
        Task::Traffic { args } => run::voxlab("traffic", &args),
        Task::Story { args } => run::voxlab("story", &args),
        Task::Bulk { args } => run::voxlab("bulk", &args),
        Task::Scenes { args } => run::voxlab("scenes", &args),
        Task::Test(options) => test::run(&options),
        Task::Conformance { args } => conformance::run(&args),
        Task::Bench { args } => run::voxlab("bench", &args),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Dist => dist::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
