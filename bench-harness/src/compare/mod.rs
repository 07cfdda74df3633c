//! Measures contenders in interleaved rounds: A B C A B C, so that whatever the machine does in a minute happens to all.
//!
//! Every contender has the same cores to itself; load generator and origin share the others. All contenders of a case
//! run from its beginning to its end and wait, idle, while another is measured.

mod stage;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use stage::Stage;

use crate::contender::{self, Contender};
use crate::failure::{Context as _, Failure, Result};
use crate::histogram::Latencies;
use crate::load::{Outcome, Plan};
use crate::machine::{self, Machine};
use crate::process::{self, Process, Scratch, catch_interrupts};
use crate::report;
use crate::result::{CaseResult, ContenderResult, Results, Round, Unit};
use crate::scenario::{Action, Case, Rate, Scenario};

/// What `compare` and `hold` have in common.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Common {
    /// Directory of contenders.
    #[arg(long, default_value = "bench-harness/contenders", value_name = "DIR")]
    contenders: PathBuf,
    /// Runs another program for a contender; may be repeated. With `--contender new=ringway --program new=PATH` two
    /// builds are compared.
    #[arg(long, value_name = "CONTENDER=PATH")]
    program: Vec<String>,
    /// Cores of the contender. Default: the first.
    #[arg(long, value_delimiter = ',', value_name = "CORE,...")]
    proxy_cores: Vec<usize>,
    /// Cores of load generator and origin. Default: all others. The same as the contender's, where those are named too:
    /// all share them then, as on a machine that is too small for everybody, and throughput is of everything together.
    #[arg(long, value_delimiter = ',', value_name = "CORE,...")]
    load_cores: Vec<usize>,
    /// The first of the ports on 127.0.0.1 that are used. Default: some that are free.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Cases of the scenario; all, where none is given; may be repeated.
    #[arg(long, value_name = "NAME")]
    case: Vec<String>,
    /// Seconds of a round instead of the scenario's.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
}

/// The `compare` command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// A scenario file, or the name of one in perf/scenarios.
    #[arg(long, value_name = "FILE")]
    scenario: PathBuf,
    /// A contender, or NAME=CONTENDER; may be repeated. Default: all that are shipped. `direct` always takes part.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    contender: Vec<String>,
    #[command(flatten)]
    common: Common,
    /// Rounds instead of the scenario's. A verdict needs six.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Where SCENARIO.json, .html and .md go. Default: target/bench.
    #[arg(long, default_value = "target/bench", value_name = "DIR")]
    out: PathBuf,
}

/// The `hold` command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Hold {
    /// A scenario file, or the name of one in perf/scenarios; the first case, unless --case names another.
    #[arg(long, value_name = "FILE")]
    scenario: PathBuf,
    /// The contender.
    #[arg(long, value_name = "NAME", default_value = "ringway")]
    contender: String,
    #[command(flatten)]
    common: Common,
}

/// The `serve` command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Serve {
    /// A scenario file, or the name of one in perf/scenarios; the first case, unless --case names another.
    #[arg(long, value_name = "FILE")]
    scenario: PathBuf,
    /// A contender, or NAME=CONTENDER; may be repeated. Default: all that are shipped.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    contender: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// The environment of a run.
#[derive(Debug)]
struct Place {
    proxy_cores: Vec<usize>,
    load_cores: Vec<usize>,
    port: Option<u16>,
    scratch: Scratch,
}

impl Common {
    fn place(&self) -> Result<Place> {
        let all = machine::cores();
        let proxy = if self.proxy_cores.is_empty() { all[..1].to_vec() } else { self.proxy_cores.clone() };
        let rest: Vec<usize> = all.iter().copied().filter(|core| !proxy.contains(core)).collect();
        let load = match (self.load_cores.is_empty(), rest.is_empty()) {
            (false, _) => self.load_cores.clone(),
            (true, false) => rest,
            (true, true) => {
                return Err(Failure::new("one core is not enough: the load needs cores of its own (--load-cores)"));
            }
        };
        for core in proxy.iter().chain(&load) {
            if !all.contains(core) {
                return Err(Failure::new(format!("core {core} is not one that this process may use: {all:?}")));
            }
        }
        let same = proxy.len() == load.len() && proxy.iter().all(|core| load.contains(core));
        if let Some(core) = proxy.iter().find(|core| load.contains(core))
            && !same
        {
            return Err(Failure::new(format!(
                "core {core} cannot be both the proxy's and the load's, unless they share all of theirs"
            )));
        }
        Ok(Place { proxy_cores: proxy, load_cores: load, port: self.port, scratch: Scratch::new()? })
    }

    fn programs(&self) -> Result<BTreeMap<String, PathBuf>> {
        let pairs = self.program.iter().map(|text| {
            let (name, path) = text
                .split_once('=')
                .ok_or_else(|| Failure::new(format!("--program {text}: expected CONTENDER=PATH")))?;
            Ok((name.to_owned(), PathBuf::from(path)))
        });
        pairs.collect()
    }

    fn cases(&self, scenario: &Scenario, rounds: Option<usize>) -> Result<Vec<Case>> {
        let mut chosen = Vec::new();
        for name in &self.case {
            let found = scenario.cases.iter().find(|case| case.name == *name);
            let known = || scenario.cases.iter().map(|case| case.name.as_str()).collect::<Vec<_>>().join(", ");
            chosen.push(
                found.ok_or_else(|| {
                    Failure::new(format!("{} has no case {name}: known are {}", scenario.name, known()))
                })?,
            );
        }
        if chosen.is_empty() {
            chosen = scenario.cases.iter().collect();
        }
        let adapt = |case: &Case| {
            let mut case = case.clone();
            case.rounds = rounds.unwrap_or(case.rounds).max(1);
            case.seconds = self.seconds.unwrap_or(case.seconds);
            case
        };
        Ok(chosen.into_iter().map(adapt).collect())
    }
}

/// Contenders that take part in a case, and those that do not with the reason.
type Line = Vec<std::result::Result<Contender, (String, String)>>;

fn line_up(asked: &[String], common: &Common) -> Result<Line> {
    let programs = common.programs()?;
    let mut names = asked.to_vec();
    let mut only_standard = false;
    if names.is_empty() {
        names = contender::names(&common.contenders)?;
        only_standard = true;
    }
    if !names.iter().any(|name| name == "direct") {
        names.push("direct".to_owned());
    }
    // The direct way first: it shows whether the load side is fit for what comes.
    names.sort_by_key(|name| name != "direct");
    let mut line: Line = Vec::new();
    let name_of = |each: &std::result::Result<Contender, (String, String)>| match each {
        Ok(found) => found.name.clone(),
        Err((name, _)) => name.clone(),
    };
    for asked in &names {
        let found = Contender::find(asked, &common.contenders, &programs)?;
        if only_standard && found.as_ref().is_ok_and(|found| !found.is_standard()) {
            continue;
        }
        let found = found.map_err(|(name, missing)| {
            say(&format!("{name} is left out: {}", missing.0));
            (name, missing.0)
        });
        if line.iter().any(|other| name_of(other) == name_of(&found)) {
            return Err(Failure::new(format!(
                "two contenders are named {}: give one another name, NAME=CONTENDER",
                name_of(&found)
            )));
        }
        line.push(found);
    }
    for name in programs.keys() {
        if !line.iter().any(|each| name_of(each) == *name) {
            return Err(Failure::new(format!("--program {name}=...: no contender of this name takes part")));
        }
    }
    Ok(line)
}

/// A line for whoever waits.
fn say(line: &str) {
    use std::io::Write as _;
    let _nobody_reads = writeln!(std::io::stderr(), "{line}");
}

/// Carries out `compare`.
pub(crate) fn command(options: &Options) -> Result<()> {
    let scenario = Scenario::read(&options.scenario)?;
    let cases = options.common.cases(&scenario, options.rounds)?;
    let line = line_up(&options.contender, &options.common)?;
    std::fs::create_dir_all(&options.out).context(|| format!("cannot make {}", options.out.display()))?;
    catch_interrupts()?;
    let place = options.common.place()?;
    machine::pin_to(&place.load_cores)?;
    let mut results = Results {
        format: Results::FORMAT,
        scenario: scenario.name.clone(),
        title: scenario.title.clone(),
        why: scenario.why.clone(),
        date: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
        commit: commit(),
        command: command_line(),
        machine: Machine::here(),
        proxy_cores: place.proxy_cores.clone(),
        load_cores: place.load_cores.clone(),
        cases: Vec::new(),
    };
    for case in &cases {
        results.cases.push(run_case(&scenario, case, &line, &place)?);
    }
    report::save(&results, &options.out)?;
    say(&format!("written: {}", options.out.join(format!("{}.json, .html, .md", scenario.name)).display()));
    let liars: Vec<String> = results
        .cases
        .iter()
        .flat_map(|case| &case.contenders)
        .filter_map(|contender| Some(format!("{}: {}", contender.name, contender.disqualified.as_ref()?)))
        .collect();
    if liars.is_empty() { Ok(()) } else { Err(Failure::bad_outcome(liars.join("; "))) }
}

fn command_line() -> String {
    let arguments = std::env::args()
        .skip(1)
        .map(|argument| if argument.contains(' ') { format!("'{argument}'") } else { argument });
    format!("cargo run --release -p bench-harness -- {}", arguments.collect::<Vec<_>>().join(" "))
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=10", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|list| !list.is_empty());
    if changed { head + "+" } else { head }
}

fn unit(case: &Case) -> Unit {
    use crate::load::Protocol::{Grpc, Http1, Http2, TcpBulk, TcpEcho, TlsHello, UdpEcho};
    match case.protocol {
        _ if case.load.idle => Unit::Idle,
        Http1 | Http2 | Grpc => Unit::Request,
        TcpEcho | TlsHello if case.load.connection_per_request => Unit::Connection,
        TcpEcho | TlsHello => Unit::Message,
        TcpBulk => Unit::Gib,
        UdpEcho => Unit::Datagram,
    }
}

fn run_case(scenario: &Scenario, case: &Case, line: &Line, place: &Place) -> Result<CaseResult> {
    let features = case.features();
    let mut shown = Vec::new();
    let mut taking_part = Vec::new();
    for each in line {
        let skipped = match each {
            Ok(found)
                if !case.contenders.is_empty() && !found.is_direct() && !case.contenders.contains(&found.name) =>
            {
                Some("not in this case".to_owned())
            }
            Ok(found) => found.lacks(&features).map(|missing| missing.0),
            Err((_, why)) => Some(why.clone()),
        };
        let mut entry = match each {
            Ok(found) => ContenderResult {
                name: found.name.clone(),
                title: found.title.clone(),
                version: found.version.clone(),
                family: found.family.clone(),
                direct: found.is_direct(),
                ..ContenderResult::default()
            },
            Err((name, _)) => ContenderResult { name: name.clone(), title: name.clone(), ..ContenderResult::default() },
        };
        if let (None, Ok(found)) = (&skipped, each) {
            taking_part.push(found.clone());
        }
        entry.skipped = skipped;
        shown.push(entry);
    }
    let mut result = CaseResult {
        name: case.name.clone(),
        title: case.title.clone(),
        protocol: case.protocol,
        unit: unit(case),
        connections: case.load.connections,
        seconds: case.seconds,
        rate: None,
        load: String::new(),
        contenders: shown,
        comparisons: Vec::new(),
    };
    if !taking_part.iter().any(|contender| !contender.is_direct()) {
        say(&format!("{}/{}: no proxy can take part", scenario.name, case.name));
        return Ok(result);
    }
    // The proxy has two descriptors per connection; it inherits this limit.
    machine::need_descriptors(case.load.connections as u64 * 2 + 1_100)?;
    let label = format!("{}/{}", scenario.name, case.name);
    let mut stage = Stage::set(case, &taking_part, place, &label)?;
    let rate = calibrate(case, &mut stage, &label)?;
    result.rate = rate;
    let began = Instant::now();
    let mut latencies: BTreeMap<String, Latencies> = BTreeMap::new();
    for round in 0..case.rounds {
        let outcomes = if case.load.idle { stage.all_at_once()? } else { stage.in_turn(rate)? };
        for (name, at, outcome, events) in outcomes {
            let Some(contender) = result.contenders.iter_mut().find(|contender| contender.name == name) else {
                continue;
            };
            if outcome.lies() > 0 {
                let what =
                    format!("{} ({})", outcome.first_fault.clone().unwrap_or_default(), outcome.describe_faults());
                if contender.direct {
                    return Err(Failure::bad_outcome(format!(
                        "{label}: the origin lies, so nothing can be measured: {what}"
                    )));
                }
                say(&format!("{label}: {name} gave wrong answers and is disqualified: {what}"));
                contender.disqualified = Some(what);
                stage.dismiss(&name);
                continue;
            }
            let figures = summarize(&outcome, at.saturating_duration_since(began), events, place, case.load.idle);
            say(&describe(&label, round, case, &name, &figures, result.unit));
            latencies.entry(name).or_default().merge(&outcome.latencies());
            contender.rounds.push(figures);
        }
    }
    result.load = stage.example(rate);
    for contender in &mut result.contenders {
        contender.curve = latencies.get(&contender.name).map(Latencies::curve).unwrap_or_default();
    }
    result.comparisons = result.compare();
    say(&report::markdown::case(&result));
    Ok(result)
}

/// One line about a round.
fn describe(label: &str, round: usize, case: &Case, name: &str, figures: &Round, unit: Unit) -> String {
    use crate::result::Figure;
    let of = |figure: Figure| figure.of(figures, unit, case.load.connections, false);
    let cpu = of(Figure::Cpu)
        .filter(|_| name != "direct")
        .map(|cpu| if unit == Unit::Gib { format!(" {cpu:.3} s/GiB") } else { format!(" {cpu:.2} µs") });
    let growth = of(Figure::PerConnection).map(|bytes| format!(" {bytes:.0} B each"));
    let rate = of(Figure::Throughput)
        .map(|rate| if unit == Unit::Gib { format!(" {rate:.2} GiB/s") } else { format!(" {rate:.0}/s") });
    let faults: u64 = figures.faults.values().sum();
    let faults = if faults > 0 {
        format!(" {faults} faults ({})", figures.first_fault.as_deref().unwrap_or("unknown"))
    } else {
        String::new()
    };
    let parts = [cpu, growth, rate].into_iter().flatten().collect::<String>();
    format!("{label} round {}/{} {name}:{parts}{faults}", round + 1, case.rounds)
}

fn summarize(outcome: &Outcome, at: Duration, events: u64, place: &Place, all_at_once: bool) -> Round {
    let busy = |cores: &[usize]| {
        let of: Vec<_> = outcome.cores.iter().filter(|core| cores.contains(&core.core)).collect();
        of.iter().map(|core| core.busy).sum::<f64>() / of.len().max(1) as f64
    };
    let proxy = outcome.watched.get("proxy").copied().unwrap_or_default();
    let origin = outcome.watched.get("origin").copied().unwrap_or_default();
    let quantiles = outcome.latencies().quantiles();
    let growth = i64::try_from(proxy.after.anonymous).unwrap_or(0) - i64::try_from(proxy.before.anonymous).unwrap_or(0);
    // What cores did beyond the processes that were measured.
    let mut all = [&place.proxy_cores[..], &place.load_cores].concat();
    all.sort_unstable();
    all.dedup();
    let busy_seconds = busy(&all) * all.len() as f64 * outcome.seconds;
    let own = proxy.cpu.total + origin.cpu.total + outcome.load.total;
    let foreign = (busy_seconds - own).max(0.0) / (all.len() as f64 * outcome.seconds.max(1e-3));
    Round {
        at: at.as_secs_f64(),
        seconds: outcome.seconds,
        requests: outcome.requests,
        bytes: outcome.bytes,
        due: outcome.due,
        unfinished: outcome.unfinished,
        cpu: proxy.cpu.total,
        user: proxy.cpu.user,
        system: proxy.cpu.system,
        p50: quantiles.p50,
        p99: quantiles.p99,
        p999: quantiles.p999,
        max: quantiles.max,
        anonymous: proxy.after.anonymous,
        pss: proxy.after.pss,
        growth,
        proxy_busy: busy(&place.proxy_cores),
        load_busy: busy(&place.load_cores),
        // Those that idle at the same time would count as each other's.
        foreign: if all_at_once { 0.0 } else { foreign },
        steal: outcome.cores.iter().map(|core| core.steal).fold(0.0, f64::max),
        load_cpu: outcome.load.total,
        origin_cpu: origin.cpu.total,
        handshakes: outcome.handshakes,
        resumed: outcome.resumed,
        faults: outcome.faults.clone(),
        first_fault: outcome.first_fault.clone(),
        events,
    }
}

/// The rate of an open loop, measured where the scenario asks for a share; and whether the origin can carry it.
fn calibrate(case: &Case, stage: &mut Stage<'_>, label: &str) -> Result<Option<f64>> {
    let rate = match &case.load.rate {
        None => return Ok(None),
        Some(Rate::Fixed(rate)) => *rate,
        Some(Rate::Share { share, of }) => {
            let mut best = 0.0_f64;
            let chosen: Vec<String> = stage.proxies().into_iter().filter(|name| of.contains(name)).collect();
            // Where none of those takes part, all do that take part: the slowest sets the measure.
            let chosen = if chosen.is_empty() { stage.proxies() } else { chosen };
            for name in &chosen {
                let outcome = stage.closed(name, 1.0)?;
                best = best.max(outcome.requests as f64 / outcome.seconds);
            }
            let rate = (best * share / 100.0).round() * 100.0;
            say(&format!(
                "{label}: {rate:.0} per second, {:.0} % of what the best of {} reached",
                share * 100.0,
                chosen.join(" and ")
            ));
            rate.max(1.0)
        }
    };
    let direct = stage.closed("direct", 0.5)?;
    let reached = direct.requests as f64 / direct.seconds;
    if reached < rate * 1.05 {
        return Err(Failure::new(format!(
            "{label}: the origin is too slow: asked directly it answers {reached:.0} per second, and the scenario needs {rate:.0}"
        )));
    }
    Ok(Some(rate))
}

/// Starts origin and contenders of a case and keeps them until it is interrupted.
pub(crate) fn serve(options: &Serve) -> Result<()> {
    use std::io::Write as _;
    let scenario = Scenario::read(&options.scenario)?;
    let case = options.common.cases(&scenario, None)?.swap_remove(0);
    let line = line_up(&options.contender, &options.common)?;
    catch_interrupts()?;
    let place = options.common.place()?;
    machine::need_descriptors(case.load.connections as u64 * 2 + 1_100)?;
    let label = format!("{}/{}", scenario.name, case.name);
    let able = line.into_iter().flatten().filter(|one| one.lacks(&case.features()).is_none()).collect::<Vec<_>>();
    let stage = Stage::set(&case, &able, &place, &label)?;
    let mut out = std::io::stdout().lock();
    for (name, pid, url) in stage.addresses() {
        writeln!(out, "{name}\t{pid}\t{url}").context(|| "cannot print the addresses".to_owned())?;
    }
    out.flush().context(|| "cannot print the addresses".to_owned())?;
    say("serving until Ctrl-C");
    loop {
        if process::pause(Duration::from_millis(100)).is_err() {
            return Ok(());
        }
    }
}

/// Carries out `hold`: one contender under a scenario's load for a while, for a profiler to look at.
pub(crate) fn hold(options: &Hold) -> Result<()> {
    use std::io::Write as _;
    let scenario = Scenario::read(&options.scenario)?;
    let case = options.common.cases(&scenario, None)?.swap_remove(0);
    let programs = options.common.programs()?;
    let found = Contender::find(&options.contender, &options.common.contenders, &programs)?
        .map_err(|(name, missing)| Failure::new(format!("{name}: {}", missing.0)))?;
    if found.is_direct() {
        return Err(Failure::new("direct is no process to look at"));
    }
    if let Some(missing) = found.lacks(&case.features()) {
        return Err(Failure::new(format!("{}: {}", found.name, missing.0)));
    }
    catch_interrupts()?;
    let place = options.common.place()?;
    machine::pin_to(&place.load_cores)?;
    machine::need_descriptors(case.load.connections as u64 * 2 + 1_100)?;
    let label = format!("{}/{}", scenario.name, case.name);
    let direct = Contender::find("direct", &options.common.contenders, &programs)?
        .map_err(|(name, missing)| Failure::new(format!("{name}: {}", missing.0)))?;
    let mut stage = Stage::set(&case, &[direct, found.clone()], &place, &label)?;
    let rate = calibrate(&case, &mut stage, &label)?;
    let outcome = stage.measure(&found.name, rate, case.seconds, |pid| {
        let mut out = std::io::stdout().lock();
        let said = writeln!(out, "{pid}").and_then(|()| out.flush());
        said.context(|| "cannot print the process id".to_owned())
    })?;
    let mut out = std::io::stderr().lock();
    outcome.0.print(&mut out, unit(&case) == Unit::Gib).context(|| "cannot print the result".to_owned())
}
