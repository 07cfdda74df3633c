//! The command line.

use clap::{Parser, Subcommand};

use crate::failure::Result;
use crate::{compare, load, origin, process, report, splice};

/// Load generator, origin, and interleaved comparison of proxies.
#[derive(Debug, Parser)]
#[command(name = "bench-harness", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put load on a target and check every answer.
    Load(load::Plan),
    /// Serve what load asks for, over HTTP, TCP and UDP.
    Origin(origin::Options),
    /// Measure contenders side by side, in interleaved rounds.
    Compare(compare::Options),
    /// Keep one contender under a scenario's load, for a profiler: prints its process id once the warm-up is over.
    Hold(compare::Hold),
    /// Start origin and contenders without a load, for other load generators: prints name, process id and URL of each.
    Serve(compare::Serve),
    /// Write HTML and Markdown from saved results, or compare two results.
    Report(report::Options),
    /// Relay TCP by a bare loop of epoll and splice: the reference for bulk.
    SpliceRelay(splice::Options),
    /// Become another program, pinned and ended with its parent.
    #[command(hide = true)]
    Exec(process::Exec),
}

/// Reads the command line and carries it out.
pub(crate) fn run() -> Result<()> {
    match Cli::parse().command {
        Command::Load(plan) => load::command(&plan),
        Command::Origin(options) => origin::command(&options),
        Command::Compare(options) => compare::command(&options),
        Command::Hold(options) => compare::hold(&options),
        Command::Serve(options) => compare::serve(&options),
        Command::Report(options) => report::command(&options),
        Command::SpliceRelay(options) => splice::command(&options),
        Command::Exec(exec) => exec.run(),
    }
}
