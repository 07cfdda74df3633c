//! Results as they are saved: one JSON file per scenario. The rounds are the truth; comparisons can be made from them
//! again, and are saved beside them for whoever reads the file with other tools.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::failure::{Context as _, Failure, Result};
use crate::load::{Fault, Protocol};
use crate::machine::Machine;
use crate::stats::{Goal, Ratio, Spread, median};

/// The version of this form. A reader refuses others.
const FORMAT: u32 = 1;

/// A measurement counts as disturbed when others had more than this share of its cores. The kernel's own threads, the
/// harness and the clock ticks by which cores are accounted stay below it.
const FOREIGN: f64 = 0.10;

/// A core counts as saturated from this share on.
const SATURATED: f64 = 0.90;

/// What one run of `compare` found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) format: u32,
    pub(crate) scenario: String,
    pub(crate) title: String,
    pub(crate) why: String,
    /// When it began, UTC.
    pub(crate) date: String,
    /// The commit of the working tree, with `+` where it had changes.
    pub(crate) commit: String,
    /// The command that repeats it.
    pub(crate) command: String,
    pub(crate) machine: Machine,
    pub(crate) proxy_cores: Vec<usize>,
    pub(crate) load_cores: Vec<usize>,
    pub(crate) cases: Vec<CaseResult>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CaseResult {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) protocol: Protocol,
    pub(crate) unit: Unit,
    pub(crate) connections: usize,
    pub(crate) seconds: f64,
    /// Requests per second of an open loop.
    pub(crate) rate: Option<f64>,
    /// The load command, for the first contender.
    pub(crate) load: String,
    pub(crate) contenders: Vec<ContenderResult>,
    pub(crate) comparisons: Vec<Comparison>,
}

/// What CPU time is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    Request,
    Message,
    Datagram,
    Connection,
    /// A GiB of payload; CPU is then in seconds.
    Gib,
    /// An idle connection: no CPU, but memory.
    Idle,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Message => "message",
            Self::Datagram => "datagram",
            Self::Connection => "connection",
            Self::Gib => "GiB",
            Self::Idle => "idle connection",
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ContenderResult {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) version: String,
    /// What it is a build or mode of.
    pub(crate) family: String,
    /// No proxy: the floor.
    pub(crate) direct: bool,
    /// Why it took no part.
    pub(crate) skipped: Option<String>,
    /// What was wrong with its answers; its figures are worth nothing.
    pub(crate) disqualified: Option<String>,
    pub(crate) rounds: Vec<Round>,
    /// Percent of requests and microseconds, over all rounds.
    pub(crate) curve: Vec<(f64, f64)>,
}

/// One contender in one round.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Round {
    /// Seconds from the start of the case to the start of this round.
    pub(crate) at: f64,
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) due: u64,
    pub(crate) unfinished: u64,
    /// CPU seconds of the process tree; the parts are in kernel ticks.
    pub(crate) cpu: f64,
    pub(crate) user: f64,
    pub(crate) system: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// Bytes at the end, and how many came during the round.
    pub(crate) anonymous: u64,
    pub(crate) pss: u64,
    pub(crate) growth: i64,
    /// How busy the proxy's cores and the load's cores were, 0 to 1, with everything that ran there.
    pub(crate) proxy_busy: f64,
    pub(crate) load_busy: f64,
    pub(crate) steal: f64,
    /// Share of all these cores' time that went to processes that are no part of the measurement.
    #[serde(default)]
    pub(crate) foreign: f64,
    /// CPU seconds of load generator and origin.
    pub(crate) load_cpu: f64,
    pub(crate) origin_cpu: f64,
    pub(crate) handshakes: u64,
    pub(crate) resumed: u64,
    pub(crate) faults: BTreeMap<Fault, u64>,
    pub(crate) first_fault: Option<String>,
    /// Times that the scenario's event happened.
    pub(crate) events: u64,
}

/// A figure that contenders are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Figure {
    /// CPU time per unit: µs, or seconds per GiB.
    Cpu,
    /// Units per second.
    Throughput,
    P50,
    P99,
    P999,
    Max,
    /// Anonymous memory, bytes.
    Anonymous,
    /// Growth of anonymous memory per idle connection, bytes.
    PerConnection,
}

/// All, the primary ones first.
pub(crate) const FIGURES: [Figure; 8] = [
    Figure::Cpu,
    Figure::PerConnection,
    Figure::Throughput,
    Figure::P50,
    Figure::P99,
    Figure::P999,
    Figure::Max,
    Figure::Anonymous,
];

impl Figure {
    pub(crate) fn goal(self) -> Goal {
        if self == Self::Throughput { Goal::More } else { Goal::Less }
    }

    /// Whether the load side can spoil it.
    fn depends_on_load_side(self) -> bool {
        !matches!(self, Self::Cpu | Self::Anonymous | Self::PerConnection)
    }

    pub(crate) fn of(self, round: &Round, unit: Unit, connections: usize, direct: bool) -> Option<f64> {
        let gib = round.bytes as f64 / (1_u64 << 30) as f64;
        let latency = |value: f64| (unit != Unit::Gib && unit != Unit::Idle && value > 0.0).then_some(value);
        let value = match self {
            Self::Cpu if direct || unit == Unit::Idle => return None,
            Self::Cpu if unit == Unit::Gib => round.cpu / gib,
            Self::Cpu => round.cpu * 1e6 / round.requests as f64,
            Self::Throughput if unit == Unit::Idle => return None,
            Self::Throughput if unit == Unit::Gib => gib / round.seconds,
            Self::Throughput => round.requests as f64 / round.seconds,
            Self::P50 => return latency(round.p50),
            Self::P99 => return latency(round.p99),
            Self::P999 => return latency(round.p999),
            Self::Max => return latency(round.max),
            Self::Anonymous if direct => return None,
            Self::Anonymous => round.anonymous as f64,
            Self::PerConnection if direct || unit != Unit::Idle => return None,
            // Those opened beforehand were there already. Where not all others were, the growth is of fewer.
            Self::PerConnection => {
                let opened = (connections - (connections / 2).min(64)) as u64;
                if round.requests * 100 < opened * 99 {
                    return None;
                }
                round.growth as f64 / opened as f64
            }
        };
        value.is_finite().then_some(value)
    }
}

/// What limited a contender's throughput.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bottleneck {
    /// Its own cores were busy.
    Proxy,
    /// Load generator and origin were: throughput and latency say nothing about it.
    LoadSide,
    /// Neither: the scenario fixes the rate, or has too few requests in flight.
    Neither,
    /// Others were using the machine: throughput and latency say nothing, and CPU figures less than they could.
    Disturbed,
}

/// A contender's figure beside the best of the others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Comparison {
    pub(crate) contender: String,
    pub(crate) figure: Figure,
    /// The best of the other proxies in this figure. Builds and modes of the same program are no peers.
    pub(crate) peer: String,
    /// None where the load side was the bottleneck of either, or others used the machine.
    pub(crate) ratio: Option<Ratio>,
}

impl ContenderResult {
    pub(crate) fn took_part(&self) -> bool {
        self.skipped.is_none() && self.disqualified.is_none() && !self.rounds.is_empty()
    }

    pub(crate) fn values(&self, figure: Figure, case: &CaseResult) -> Vec<f64> {
        let of = |round| figure.of(round, case.unit, case.connections, self.direct);
        self.rounds.iter().filter_map(of).collect()
    }

    pub(crate) fn spread(&self, figure: Figure, case: &CaseResult) -> Option<Spread> {
        Spread::of(&self.values(figure, case))
    }

    pub(crate) fn middle(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(&self.rounds.iter().map(of).collect::<Vec<_>>()).unwrap_or(0.0)
    }

    pub(crate) fn bottleneck(&self) -> Bottleneck {
        let (proxy, load) = (self.middle(|round| round.proxy_busy), self.middle(|round| round.load_busy));
        if self.middle(|round| round.foreign) > FOREIGN {
            Bottleneck::Disturbed
        } else if !self.direct && proxy >= SATURATED {
            Bottleneck::Proxy
        } else if load >= SATURATED {
            Bottleneck::LoadSide
        } else {
            Bottleneck::Neither
        }
    }

    /// Whether throughput and latency say nothing about the contender.
    pub(crate) fn is_spoilt(&self) -> bool {
        matches!(self.bottleneck(), Bottleneck::LoadSide | Bottleneck::Disturbed)
    }

    pub(crate) fn faults(&self) -> BTreeMap<Fault, u64> {
        let mut all = BTreeMap::new();
        for (fault, times) in self.rounds.iter().flat_map(|round| &round.faults) {
            *all.entry(*fault).or_default() += times;
        }
        all
    }
}

impl CaseResult {
    pub(crate) fn find(&self, name: &str) -> Option<&ContenderResult> {
        self.contenders.iter().find(|contender| contender.name == name)
    }

    /// The figure that decides.
    pub(crate) fn primary(&self) -> Figure {
        if self.unit == Unit::Idle { Figure::PerConnection } else { Figure::Cpu }
    }

    /// Compares every proxy with the best of the others, in every figure.
    pub(crate) fn compare(&self) -> Vec<Comparison> {
        let proxies: Vec<&ContenderResult> =
            self.contenders.iter().filter(|contender| contender.took_part() && !contender.direct).collect();
        let mut all = Vec::new();
        for figure in FIGURES {
            for ours in &proxies {
                let others = proxies.iter().filter(|other| other.family != ours.family);
                let best =
                    others.filter_map(|other| Some((other, other.spread(figure, self)?.median))).min_by(|a, b| {
                        match figure.goal() {
                            Goal::Less => a.1.total_cmp(&b.1),
                            Goal::More => b.1.total_cmp(&a.1),
                        }
                    });
                let Some((peer, _)) = best else { continue };
                if ours.spread(figure, self).is_none() {
                    continue;
                }
                all.push(Comparison {
                    contender: ours.name.clone(),
                    figure,
                    peer: peer.name.clone(),
                    ratio: self.ratio(ours, peer, figure),
                });
            }
        }
        all
    }

    /// One contender's figure divided by another's, round by round.
    pub(crate) fn ratio(&self, ours: &ContenderResult, peer: &ContenderResult, figure: Figure) -> Option<Ratio> {
        let spoilt = figure.depends_on_load_side() && [ours, peer].iter().any(|contender| contender.is_spoilt());
        if spoilt {
            return None;
        }
        let of = |contender: &ContenderResult, at: usize| {
            figure.of(contender.rounds.get(at)?, self.unit, self.connections, contender.direct)
        };
        let pairs = (0..ours.rounds.len()).filter_map(|at| Some((of(ours, at)?, of(peer, at)?)));
        let (ours, theirs): (Vec<f64>, Vec<f64>) = pairs.unzip();
        Ratio::paired(&ours, &theirs, figure.goal())
    }

    /// A contender beside the best of the others.
    pub(crate) fn comparison(&self, contender: &str, figure: Figure) -> Option<&Comparison> {
        self.comparisons.iter().find(|each| each.contender == contender && each.figure == figure)
    }

    /// The first of a contender's family, where that is another: an older build, or the usual mode.
    pub(crate) fn elder(&self, contender: &ContenderResult) -> Option<&ContenderResult> {
        let mut family = self.contenders.iter().filter(|each| each.took_part() && each.family == contender.family);
        family.next().filter(|elder| elder.name != contender.name)
    }
}

impl Results {
    pub(crate) const FORMAT: u32 = FORMAT;

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let what = || format!("cannot read {}", path.display());
        let text = std::fs::read_to_string(path).context(what)?;
        let value: serde_json::Value = serde_json::from_str(&text).context(what)?;
        if value.get("format").and_then(serde_json::Value::as_u64) != Some(u64::from(FORMAT)) {
            return Err(Failure::new(format!("{}: not a result of format {FORMAT}", path.display())));
        }
        let mut results: Self = serde_json::from_value(value).context(what)?;
        for case in &mut results.cases {
            case.comparisons = case.compare();
        }
        Ok(results)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context(|| "cannot write JSON".to_owned())?;
        std::fs::write(path, text + "\n").context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contender(name: &str, cpu: f64, round: &Round) -> ContenderResult {
        let rounds = (0..6).map(|_| Round { cpu, ..round.clone() }).collect();
        ContenderResult { name: name.to_owned(), family: name.to_owned(), rounds, ..ContenderResult::default() }
    }

    fn case(contenders: Vec<ContenderResult>) -> CaseResult {
        CaseResult {
            name: "a".to_owned(),
            title: "A".to_owned(),
            protocol: Protocol::Http1,
            unit: Unit::Request,
            connections: 1,
            seconds: 1.0,
            rate: None,
            load: String::new(),
            contenders,
            comparisons: Vec::new(),
        }
    }

    fn round() -> Round {
        Round { seconds: 1.0, requests: 1000, p50: 10.0, proxy_busy: 0.99, load_busy: 0.8, ..Round::default() }
    }

    #[test]
    fn a_saturated_load_side_names_no_winner_but_cpu_stays_valid() {
        let starved = Round { proxy_busy: 0.6, load_busy: 1.0, ..round() };
        let case = case(vec![contender("a", 0.5, &starved), contender("b", 0.8, &round())]);
        let compared = case.compare();
        let find = |figure| compared.iter().find(|each| each.contender == "a" && each.figure == figure).unwrap();
        assert!(find(Figure::Throughput).ratio.is_none());
        assert!(find(Figure::P50).ratio.is_none());
        assert_eq!(find(Figure::Cpu).ratio.unwrap().verdict, crate::stats::Verdict::Better);
    }

    #[test]
    fn others_on_the_machine_spoil_throughput_and_latency() {
        let disturbed = Round { foreign: 0.3, ..round() };
        let case = case(vec![contender("a", 0.5, &disturbed), contender("b", 0.8, &round())]);
        assert_eq!(case.contenders[0].bottleneck(), Bottleneck::Disturbed);
        assert!(case.compare().iter().all(|each| each.figure != Figure::Throughput || each.ratio.is_none()));
        assert_eq!(case.contenders[1].bottleneck(), Bottleneck::Proxy);
    }

    #[test]
    fn direct_and_builds_of_the_same_program_are_no_peers() {
        let mut direct = contender("direct", 0.0, &round());
        direct.direct = true;
        let mut new = contender("new", 0.4, &round());
        new.family = "a".to_owned();
        let case = case(vec![direct, contender("a", 0.5, &round()), new, contender("b", 0.8, &round())]);
        let compared = case.compare();
        assert!(compared.iter().all(|each| each.peer != "direct" && each.contender != "direct"));
        let peer = |name: &str| &compared.iter().find(|each| each.contender == name).unwrap().peer;
        assert_eq!((peer("a").as_str(), peer("new").as_str(), peer("b").as_str()), ("b", "b", "new"));
        assert_eq!(case.elder(&case.contenders[2]).map(|elder| elder.name.as_str()), Some("a"));
        assert!(case.elder(&case.contenders[1]).is_none());
    }
}
