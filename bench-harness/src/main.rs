//! A benchmark harness for proxies: a load generator, an origin, and comparisons in interleaved rounds.
//!
//! It knows nothing of Ringway's code and shares none with it. What it measures of every contender, Ringway among
//! them, is the CPU time that the kernel charged to its processes, and what came back over sockets.

mod cli;
mod compare;
mod contender;
mod failure;
mod histogram;
mod load;
mod machine;
mod origin;
mod proc;
mod process;
mod report;
mod result;
mod rt;
mod scenario;
mod splice;
mod stats;
mod sys;
mod wire;

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _nobody_reads = writeln!(std::io::stderr(), "bench-harness: {failure}");
            ExitCode::from(failure.code)
        }
    }
}
