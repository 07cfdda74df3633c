//! The load generator.
//!
//! Threads share nothing but a few atomics: each has an event loop, a share of the connections and of the rate, and a
//! recorder of its own. The main thread opens and closes the window in which figures are taken and reads the watched
//! processes at both ends, so that CPU time and requests belong to exactly the same time.

mod http1;
mod http2;
mod outcome;
mod plan;
mod schedule;
mod tcp;
mod tls;
mod udp;
mod worker;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

pub(crate) use http1::id_text;
pub(crate) use outcome::{Fault, Outcome, Watched};
pub(crate) use plan::{Direction, Plan, Protocol, Tls};
use worker::{Record, Shared};

use crate::failure::{Context as _, Failure, Result};
use crate::histogram::Latencies;
use crate::{machine, proc};

/// The `load` command.
pub(crate) fn command(plan: &Plan) -> Result<()> {
    let outcome = run(plan)?;
    let mut out = std::io::stdout().lock();
    if plan.json {
        serde_json::to_writer(&mut out, &outcome).context(|| "cannot write the result".to_owned())?;
        writeln!(out).context(|| "cannot write the result".to_owned())?;
    } else {
        outcome.print(&mut out, plan.protocol == Protocol::TcpBulk).context(|| "cannot print the result".to_owned())?;
    }
    let first = outcome.first_fault.as_deref().unwrap_or("unknown");
    if outcome.lies() > 0 {
        return Err(Failure::bad_outcome(format!("wrong answers, so the figures are worth nothing: {first}")));
    }
    if outcome.requests == 0 && outcome.bytes == 0 {
        return Err(Failure::bad_outcome(format!("nothing was answered: {first}")));
    }
    Ok(())
}

fn watched(plan: &Plan) -> Result<Vec<(String, u32)>> {
    let parse = |text: &String| {
        let (name, pid) = text.split_once('=')?;
        Some((name.to_owned(), pid.parse().ok()?))
    };
    let list = plan.watch.iter().map(|text| {
        parse(text).ok_or_else(|| Failure::new(format!("--watch {text}: expected NAME=PID, such as proxy=1234")))
    });
    list.collect()
}

/// Makes the run and returns what it found.
pub(crate) fn run(plan: &Plan) -> Result<Outcome> {
    plan.check()?;
    let watch = watched(plan)?;
    machine::need_descriptors(plan.descriptors())?;
    let tls = tls::client_config(plan)?;
    let shared = Arc::new(Shared::new(plan.count));
    let (report, reports) = channel();
    for index in 0..plan.threads {
        let share = plan.connections / plan.threads + usize::from(index < plan.connections % plan.threads);
        let core = (!plan.cores.is_empty()).then(|| plan.cores[index % plan.cores.len()]);
        let (plan, shared, report, tls) = (plan.clone(), Arc::clone(&shared), report.clone(), tls.clone());
        let work = move || {
            let ran = core
                .map_or(Ok(()), machine::pin)
                .and_then(|()| worker::run(plan, index, share, shared, tls, report.clone()));
            if let Err(failure) = ran {
                let _main_is_gone = report.send(Record::failed(&failure.to_string()));
            }
        };
        std::thread::Builder::new().name(format!("load-{index}")).spawn(work).context(|| "no thread".to_owned())?;
    }
    drop(report);
    conduct(plan, &shared, &reports, &watch)
}

/// Waits on the channel of reports, since a sleeping main thread would not hear of workers that end early.
fn wait(reports: &Receiver<Record>, time: Duration, into: &mut Vec<Record>, all: usize) -> bool {
    let until = Instant::now() + time;
    while into.len() < all {
        match reports.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(record) => into.push(record),
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => return true,
        }
    }
    true
}

fn conduct(plan: &Plan, shared: &Shared, reports: &Receiver<Record>, watch: &[(String, u32)]) -> Result<Outcome> {
    let mut records = Vec::new();
    let all = plan.threads;
    let patience = Duration::from_secs_f64(plan.timeout) + Duration::from_secs(10);
    if plan.idle {
        // A first few connections make the target allocate what any use of it costs.
        let warm = wait_for(reports, patience, &mut records, all, || shared.opened() >= shared.warm_goal(plan));
        if warm {
            wait(reports, Duration::from_secs(1), &mut records, all);
        }
    } else if plan.count.is_none() {
        wait(reports, Duration::from_secs_f64(plan.warmup), &mut records, all);
    }
    let read = || (proc::cores(), proc::cpu(std::process::id()), read_all(watch));
    let (cores, own, processes) = read();
    let begin = shared.open_window();
    if plan.idle {
        let patience = patience + Duration::from_millis(plan.connections as u64 * 2);
        wait_for(reports, patience, &mut records, all, || shared.opened() >= plan.connections as u64);
    }
    let end = Instant::now() + Duration::from_secs_f64(plan.seconds);
    let mut shown = 0;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let slice = if plan.count.is_some() { Duration::from_secs(1) } else { left.min(Duration::from_secs(1)) };
        if wait(reports, slice, &mut records, all) || (plan.count.is_none() && Instant::now() >= end) {
            break;
        }
        if !plan.quiet {
            let done = shared.done.load(Ordering::Relaxed);
            progress(&format!("{:.0} s: {} per second", shared.now() as f64 / 1e9, done - shown));
            shown = done;
        }
    }
    let closed = shared.close_window();
    let (cores_after, own_after, processes_after) = read();
    if !plan.quiet {
        progress("");
    }
    shared.stop();
    let grace = Duration::from_secs_f64(plan.timeout) + Duration::from_secs(3);
    let proof = if plan.idle { patience + plan.last_turn(plan.connections) } else { Duration::ZERO };
    wait(reports, grace + proof, &mut records, all);
    if records.len() < all {
        return Err(Failure::new("a load thread did not end"));
    }
    let mut outcome = Outcome {
        seconds: (closed - begin) as f64 / 1e9,
        load: own_after.since(own),
        cores: proc::cores_since(&cores_after, &cores),
        ..Outcome::default()
    };
    for (((name, _), before), after) in watch.iter().zip(&processes).zip(&processes_after) {
        let watched = Watched { cpu: after.0.since(before.0), before: before.1, after: after.1 };
        outcome.watched.insert(name.clone(), watched);
    }
    let mut latencies = Latencies::default();
    for record in records {
        if let Some(failure) = record.failure {
            return Err(Failure::new(failure));
        }
        latencies.merge(&record.latencies);
        outcome.requests += record.requests;
        outcome.bytes += record.bytes;
        outcome.due += record.due;
        outcome.unfinished += record.unfinished;
        outcome.handshakes += record.handshakes;
        outcome.resumed += record.resumed;
        for (fault, times) in record.faults {
            *outcome.faults.entry(fault).or_default() += times;
        }
        outcome.first_fault = outcome.first_fault.or(record.first_fault);
    }
    outcome.latency = latencies.counts();
    Ok(outcome)
}

fn read_all(watch: &[(String, u32)]) -> Vec<(proc::Cpu, proc::Memory)> {
    watch.iter().map(|(_, pid)| (proc::cpu(*pid), proc::memory(*pid))).collect()
}

/// Waits until something holds, all workers have ended (`false`), or patience is at its end (`false`).
fn wait_for(
    reports: &Receiver<Record>,
    patience: Duration,
    records: &mut Vec<Record>,
    all: usize,
    holds: impl Fn() -> bool,
) -> bool {
    let until = Instant::now() + patience;
    while !holds() {
        if Instant::now() > until || wait(reports, Duration::from_millis(20), records, all) {
            return false;
        }
    }
    true
}

/// Shows how far it is, on a terminal only.
fn progress(line: &str) {
    use std::io::IsTerminal as _;
    let mut err = std::io::stderr();
    if err.is_terminal() {
        let _nobody_reads = write!(err, "\r\x1b[K{line}").and_then(|()| err.flush());
    }
}

/// Whether an HTTP origin or proxy answers a request, and rightly: with what it answered otherwise.
pub(crate) fn probe(plan: &Plan) -> std::result::Result<(), String> {
    let once = Plan {
        connections: 1,
        threads: 1,
        pipeline: 1,
        streams: 1,
        rate: None,
        count: Some(1),
        idle: false,
        timeout: 2.0,
        cores: Vec::new(),
        watch: Vec::new(),
        quiet: true,
        ..plan.clone()
    };
    let outcome = if once.protocol == Protocol::TcpBulk {
        run(&Plan { count: None, warmup: 0.0, seconds: 0.1, ..once })
    } else {
        run(&once)
    };
    match outcome {
        Ok(outcome) if outcome.faults() == 0 && outcome.requests + outcome.bytes > 0 => Ok(()),
        Ok(outcome) => Err(outcome.first_fault.unwrap_or_else(|| "no answer in time".to_owned())),
        Err(failure) => Err(failure.to_string()),
    }
}

/// The address a connection comes from, if the plan names some.
fn source(plan: &Plan, index: usize) -> Option<std::net::IpAddr> {
    (!plan.source.is_empty()).then(|| plan.source[index % plan.source.len()])
}

fn connect_error(target: SocketAddr, error: &std::io::Error) -> String {
    format!("connect to {target}: {error}")
}
