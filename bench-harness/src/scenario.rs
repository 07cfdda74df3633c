//! Scenarios: what load goes through a proxy, from files in `perf/scenarios`.
//!
//! A file holds what its cases have in common; each `[[case]]` adds to it and overrides it, table by table.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Context as _, Failure, Result};
use crate::load::{Direction, Protocol, Tls};

/// A scenario file.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// The file's name without its ending.
    pub(crate) name: String,
    pub(crate) title: String,
    /// What the scenario is to show.
    pub(crate) why: String,
    pub(crate) cases: Vec<Case>,
}

/// One load with everything filled in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) title: String,
    pub(crate) protocol: Protocol,
    /// TLS between the load and the proxy.
    #[serde(default)]
    pub(crate) tls: Tls,
    /// Features beyond the protocol that a contender must list under `serves`.
    #[serde(default)]
    pub(crate) requires: Vec<String>,
    /// Contenders that take part; all that can, where there are none.
    #[serde(default)]
    pub(crate) contenders: Vec<String>,
    #[serde(default = "default_rounds")]
    pub(crate) rounds: usize,
    /// Seconds of each round in which figures are taken, and before.
    #[serde(default = "default_seconds")]
    pub(crate) seconds: f64,
    #[serde(default = "default_warmup")]
    pub(crate) warmup: f64,
    #[serde(default)]
    pub(crate) load: Load,
    #[serde(default)]
    pub(crate) origin: Origin,
    /// Values for the configuration templates.
    #[serde(default)]
    pub(crate) proxy: toml::Table,
    #[serde(default)]
    pub(crate) event: Option<Event>,
}

fn default_rounds() -> usize {
    6
}

fn default_seconds() -> f64 {
    0.5
}

fn default_warmup() -> f64 {
    0.2
}

/// Options of the load generator.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) connection_per_request: bool,
    pub(crate) pipeline: usize,
    pub(crate) streams: usize,
    pub(crate) body: usize,
    pub(crate) path: String,
    pub(crate) vary: u64,
    pub(crate) headers: Vec<String>,
    pub(crate) direction: Direction,
    pub(crate) rate: Option<Rate>,
    pub(crate) idle: bool,
    pub(crate) timeout: f64,
    pub(crate) sources: Vec<std::net::IpAddr>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            connections: 64,
            connection_per_request: false,
            pipeline: 1,
            streams: 1,
            body: 128,
            path: "/{body}".to_owned(),
            vary: 1,
            headers: Vec::new(),
            direction: Direction::Down,
            rate: None,
            idle: false,
            timeout: 2.0,
            sources: Vec::new(),
        }
    }
}

/// The rate of an open loop.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Rate {
    /// Requests per second.
    Fixed(f64),
    /// A share of what the best of these contenders reached in a closed loop just before.
    Share {
        /// 0 to 1.
        share: f64,
        /// Contenders that set the measure.
        of: Vec<String>,
    },
}

/// Options of the origin.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Origin {
    pub(crate) delay_ms: u64,
    pub(crate) chunked: bool,
    pub(crate) lie: Option<String>,
}

/// Something that happens to the proxy while the load runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    pub(crate) action: Action,
    /// Seconds from one to the next.
    pub(crate) every: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Action {
    /// The contender reads its configuration again.
    Reload,
}

impl Case {
    /// What a contender has to be able to do.
    pub(crate) fn features(&self) -> Vec<String> {
        let mut all = vec![self.mode().to_owned()];
        match self.protocol {
            Protocol::Http2 => all.push("http2".to_owned()),
            Protocol::Grpc => all.push("grpc".to_owned()),
            _ => {}
        }
        if self.tls != Tls::Off {
            all.push("tls".to_owned());
        }
        if self.event.as_ref().is_some_and(|event| event.action == Action::Reload) {
            all.push("reload".to_owned());
        }
        all.extend(self.requires.iter().cloned());
        all
    }

    /// The layer that the proxy works on, as the templates call it.
    pub(crate) fn mode(&self) -> &'static str {
        match self.protocol {
            Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => "http",
            Protocol::TcpEcho | Protocol::TlsHello | Protocol::TcpBulk => "tcp",
            Protocol::UdpEcho => "udp",
        }
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.rounds == 0 || self.rounds > 1000 {
            return Err("rounds is 1 to 1,000".to_owned());
        }
        if let Some(Rate::Share { share, of }) = &self.load.rate
            && (of.is_empty() || !(0.0..=1.0).contains(share))
        {
            return Err("a rate's share is 0 to 1, and of names at least one contender".to_owned());
        }
        if self.event.as_ref().is_some_and(|event| !event.every.is_finite() || event.every < 0.01) {
            return Err("an event's every is at least 0.01 seconds".to_owned());
        }
        Ok(())
    }
}

/// Puts `over` on top of `under`: tables are merged, everything else is replaced.
fn merge(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => merge(under, over),
            (_, value) => drop(under.insert(key, value)),
        }
    }
}

impl Scenario {
    /// Reads a file; a name without a slash or ending is one of `perf/scenarios`.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let shipped = PathBuf::from(format!("perf/scenarios/{}.toml", path.display()));
        let path = if !path.exists() && shipped.exists() { &shipped } else { path };
        let text = std::fs::read_to_string(path).context(|| format!("cannot read the scenario {}", path.display()))?;
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self::parse(&name, &text).map_err(|why| Failure::new(format!("{}: {why}", path.display())))
    }

    fn parse(name: &str, text: &str) -> std::result::Result<Self, String> {
        let mut common: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut take = |key: &str| match common.remove(key) {
            None => Ok(String::new()),
            Some(toml::Value::String(text)) => Ok(text),
            Some(_) => Err(format!("{key} is text")),
        };
        let (title, why) = (take("title")?, take("why")?);
        let cases = match common.remove("case") {
            None => vec![toml::Table::new()],
            Some(toml::Value::Array(list)) if !list.is_empty() => list
                .into_iter()
                .map(|case| case.try_into().map_err(|_not_a_table| "each [[case]] is a table".to_owned()))
                .collect::<std::result::Result<_, String>>()?,
            Some(_) => return Err("case is a list of tables: [[case]]".to_owned()),
        };
        let mut found: Vec<Case> = Vec::new();
        for over in cases {
            let mut whole = common.clone();
            merge(&mut whole, over);
            let mut case: Case = whole.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
            if case.name.is_empty() {
                case.name = "all".to_owned();
            }
            if case.title.is_empty() {
                case.title = format!("{title}: {}", case.name);
            }
            case.check().map_err(|why| format!("case {}: {why}", case.name))?;
            if found.iter().any(|other| other.name == case.name) {
                return Err(format!("two cases are named {}", case.name));
            }
            found.push(case);
        }
        Ok(Self { name: name.to_owned(), title, why, cases: found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_override_what_they_have_in_common() {
        let text = r#"
            title = "T"
            why = "W"
            protocol = "http1"
            seconds = 3
            [load]
            connections = 7
            body = 9
            [proxy]
            routes = 1
            [[case]]
            name = "a"
            [[case]]
            name = "b"
            seconds = 4.5
            load = { body = 10, rate = 5 }
            proxy.routes = 2
            [[case]]
            name = "c"
            load.rate = { share = 0.5, of = ["x"] }
        "#;
        let found = Scenario::parse("t", text).unwrap();
        let [a, b, c] = &found.cases[..] else { panic!("{found:?}") };
        assert_eq!((a.load.connections, a.load.body, a.seconds, a.rounds), (7, 9, 3.0, default_rounds()));
        assert_eq!((b.load.connections, b.load.body, b.seconds), (7, 10, 4.5));
        assert_eq!(b.load.rate, Some(Rate::Fixed(5.0)));
        assert_eq!(c.load.rate, Some(Rate::Share { share: 0.5, of: vec!["x".to_owned()] }));
        assert_eq!(b.proxy["routes"].as_integer(), Some(2));
        assert_eq!(a.title, "T: a");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("protocol = 'http1'\nconections = 5", "conections"),
            ("protocol = 'http1'\n[load]\nconections = 5", "conections"),
            ("protocol = 'http9'", "http9"),
            ("title = 'x'", "protocol"),
            ("protocol = 'http1'\nrounds = 0", "rounds"),
            ("protocol = 'http1'\n[[case]]\nname = 'a'\n[[case]]\nname = 'a'", "two cases"),
            ("protocol = 'http1'\nload.rate = { share = 2, of = ['x'] }", "share"),
            ("protocol = 'http1'\nevent = { action = 'reload', every = 0 }", "every"),
            ("protocol = ", "TOML"),
        ] {
            let error = Scenario::parse("t", text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn shipped_scenarios_can_be_read() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perf/scenarios");
        let mut count = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let scenario = Scenario::read(&entry.unwrap().path()).unwrap();
            assert!(!scenario.title.is_empty() && !scenario.why.is_empty(), "{}", scenario.name);
            count += 1;
        }
        assert!(count > 5);
    }
}
