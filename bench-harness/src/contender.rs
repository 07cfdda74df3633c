//! Contenders: what is measured, from directories that anyone can add to.
//!
//! A directory holds `contender.toml` and templates of configuration files (minijinja). Templates see:
//! `name`, `dir` (where rendered files are), `mode` (`http`, `tcp` or `udp`), `listen_ip`, `listen_port`, `origin_ip`,
//! `origin_port`, `workers`, `connections`, `spare_descriptors` (allowed beyond two for each of these, at most 4,000),
//! `speaks` (the load's protocol), `h2c_upstream`,
//! `proxy` (the scenario's table of that name), and with TLS `tls.certificate`,
//! `tls.key`, `tls.bundle` (PEM files; the bundle is both in one).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::failure::{Context as _, Failure, Result};
use crate::load::Protocol;

/// `contender.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    /// Its name for people.
    title: String,
    /// The program: a name that is looked up, or a path. None: the load goes straight to the origin.
    program: Option<String>,
    /// Arguments, which are templates.
    #[serde(default)]
    arguments: Vec<String>,
    /// Arguments that make it print its version.
    #[serde(default)]
    version: Vec<String>,
    /// Templates of files, rendered under the same names; `../other/file` is another contender's.
    #[serde(default)]
    files: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// What it can do: `http`, `tcp`, `udp`, `tls`, `reload`, and what scenarios name under `requires`.
    serves: Vec<String>,
    reload: Option<Reload>,
    /// Contenders of one family are builds or modes of the same program, and not each other's peers.
    family: Option<String>,
    /// Left out unless it is asked for by name.
    #[serde(default)]
    on_demand: bool,
    /// How it is installed, for whoever lacks it.
    #[serde(default)]
    install: String,
}

/// How a contender is made to read its configuration again.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reload {
    /// A signal to its first process.
    Signal(String),
    /// A command, whose parts are templates.
    Command(Vec<String>),
}

/// A contender that was found.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    /// The name it was asked for by, which may be another than its directory's.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) version: String,
    pub(crate) family: String,
    directory: PathBuf,
    description: Description,
    program: Option<PathBuf>,
}

/// What a scenario needs and a contender lacks, or the program that is missing.
#[derive(Debug, Clone)]
pub(crate) struct Missing(pub(crate) String);

/// Everything that templates see.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) mode: &'static str,
    pub(crate) listen_ip: std::net::IpAddr,
    pub(crate) listen_port: u16,
    pub(crate) origin_ip: std::net::IpAddr,
    pub(crate) origin_port: u16,
    pub(crate) workers: usize,
    /// Requests (connections, of TCP) at a time.
    pub(crate) connections: usize,
    /// Descriptors that may be opened beyond two for each of these, but for what every program needs.
    pub(crate) spare_descriptors: u64,
    pub(crate) speaks: Protocol,
    /// Whether the origin is to be spoken to in HTTP/2, by prior knowledge.
    pub(crate) h2c_upstream: bool,
    pub(crate) proxy: toml::Table,
    pub(crate) tls: Option<Certificate>,
}

/// How many descriptors a limit leaves beside two for each connection and those that every program needs; more than
/// 4,000 help nobody, and each costs some a table's entry.
pub(crate) fn spare_descriptors(limit: u64, connections: usize) -> u64 {
    limit.saturating_sub(500 + 2 * connections as u64).min(4_000)
}

/// How a contender is started.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
}

/// Files of a certificate made for one run.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Certificate {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) bundle: PathBuf,
}

/// Where programs are looked up, before PATH and behind it.
fn search_path() -> Vec<PathBuf> {
    let mut all = vec![PathBuf::from("target/bench-peers/bin")];
    all.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    // Debian keeps servers out of users' paths.
    all.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    all
}

fn find_program(program: &str) -> Option<PathBuf> {
    let candidates = if program.contains('/') {
        vec![PathBuf::from(program)]
    } else {
        search_path().into_iter().map(|directory| directory.join(program)).collect()
    };
    candidates.into_iter().find(|path| path.is_file())?.canonicalize().ok()
}

/// Names of the contenders in a directory.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(directory)
        .context(|| format!("cannot read the contenders in {} (--contenders)", directory.display()))?;
    let mut all: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("contender.toml").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    all.sort();
    Ok(all)
}

impl Contender {
    /// Finds one by `NAME`, or by `ALIAS=NAME` for a second build of the same; `programs` override what is run.
    pub(crate) fn find(
        asked: &str,
        directory: &Path,
        programs: &BTreeMap<String, PathBuf>,
    ) -> Result<std::result::Result<Self, (String, Missing)>> {
        let (name, kind) = asked.split_once('=').unwrap_or((asked, asked));
        let sane =
            |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !sane(name) {
            return Err(Failure::new(format!("{name:?} cannot be a contender's name")));
        }
        let home = directory.join(kind);
        if !sane(kind) || !home.join("contender.toml").is_file() {
            let known = names(directory)?;
            let near = known.iter().find(|known| strsim::damerau_levenshtein(known, kind) <= 2);
            let hint = near.map_or_else(|| format!("known are {}", known.join(", ")), |near| format!("is it {near}?"));
            return Err(Failure::new(format!("there is no contender {kind}: {hint}")));
        }
        let path = home.join("contender.toml");
        let text = std::fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))?;
        let description: Description = toml::from_str(&text).context(|| format!("{}", path.display()))?;
        let overridden = programs.get(name);
        let wanted = overridden.map(|path| path.display().to_string()).or_else(|| description.program.clone());
        let program = match &wanted {
            None => None,
            Some(wanted) => match find_program(wanted) {
                Some(found) => Some(found),
                None => {
                    let how = if description.install.is_empty() {
                        String::new()
                    } else {
                        format!(" ({})", description.install)
                    };
                    return Ok(Err((name.to_owned(), Missing(format!("{wanted} is missing{how}")))));
                }
            },
        };
        let version = program.as_ref().map_or_else(String::new, |program| version(program, &description.version));
        let title = if name == kind { description.title.clone() } else { format!("{} ({name})", description.title) };
        let family = description.family.clone().unwrap_or_else(|| kind.to_owned());
        Ok(Ok(Self { name: name.to_owned(), title, version, family, directory: home, description, program }))
    }

    /// Whether the load goes straight to the origin.
    pub(crate) fn is_direct(&self) -> bool {
        self.program.is_none()
    }

    /// Whether it takes part without having been asked for.
    pub(crate) fn is_standard(&self) -> bool {
        !self.description.on_demand
    }

    /// What it cannot do of what a scenario needs.
    pub(crate) fn lacks(&self, features: &[String]) -> Option<Missing> {
        let lacking: Vec<&str> =
            features.iter().filter(|feature| !self.description.serves.contains(feature)).map(String::as_str).collect();
        (!lacking.is_empty()).then(|| Missing(format!("does not serve {}", lacking.join(", "))))
    }

    fn render(&self, setting: &Setting, text: &str, what: &str) -> Result<String> {
        let mut environment = minijinja::Environment::new();
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::SemiStrict);
        environment.set_keep_trailing_newline(true);
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.render_str(text, setting).map_err(|error| {
            let line = error.line().map_or_else(String::new, |line| format!(":{line}"));
            let detail = error.detail().unwrap_or_default().to_owned();
            Failure::new(format!("{what}{line}: {}: {detail}", error.kind()))
        })
    }

    /// Writes its files and returns the command that starts it; none for the direct way.
    pub(crate) fn prepare(&self, setting: &Setting) -> Result<Option<Start>> {
        let Some(program) = &self.program else { return Ok(None) };
        for file in &self.description.files {
            let from = self.directory.join(file);
            let text = std::fs::read_to_string(&from).context(|| format!("cannot read {}", from.display()))?;
            let text = self.render(setting, &text, &from.display().to_string())?;
            let name = Path::new(file).file_name().map_or_else(|| PathBuf::from(file), PathBuf::from);
            let to = setting.dir.join(name);
            std::fs::write(&to, text).context(|| format!("cannot write {}", to.display()))?;
        }
        let what = self.directory.join("contender.toml").display().to_string();
        let arguments = self.description.arguments.iter();
        let arguments = arguments
            .map(|text| self.render(setting, text, &what))
            .filter(|text| !text.as_ref().is_ok_and(String::is_empty));
        let environment = self.description.environment.iter();
        let environment = environment.map(|(name, text)| Ok((name.clone(), self.render(setting, text, &what)?)));
        Ok(Some(Start {
            program: program.clone(),
            arguments: arguments.collect::<Result<_>>()?,
            environment: environment.collect::<Result<_>>()?,
        }))
    }

    /// Makes it read its configuration again.
    pub(crate) fn reload(&self, setting: &Setting, pid: u32) -> Result<()> {
        let what = || format!("cannot reload {}", self.name);
        match &self.description.reload {
            None => Err(Failure::new(format!("{}: contender.toml has no reload", self.name))),
            Some(Reload::Signal(name)) => {
                use rustix::process::Signal;
                let signal = match name.as_str() {
                    "HUP" => Signal::HUP,
                    "USR1" => Signal::USR1,
                    "USR2" => Signal::USR2,
                    _ => return Err(Failure::new(format!("{}: reload by {name}: HUP, USR1 or USR2", self.name))),
                };
                let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
                let pid = pid.ok_or_else(|| Failure::new(what()))?;
                rustix::process::kill_process(pid, signal).context(what)
            }
            Some(Reload::Command(parts)) => {
                let parts: Vec<String> =
                    parts.iter().map(|text| self.render(setting, text, "contender.toml")).collect::<Result<_>>()?;
                let mut parts = parts.into_iter();
                let program = match parts.next() {
                    Some(program) if program == "self" => self.program.clone().unwrap_or_default(),
                    Some(program) => find_program(&program).unwrap_or_else(|| program.into()),
                    None => return Err(Failure::new(what())),
                };
                let output = Command::new(program).args(parts).output().context(what)?;
                if output.status.success() {
                    return Ok(());
                }
                Err(Failure::new(format!("{}: {}", what(), String::from_utf8_lossy(&output.stderr).trim())))
            }
        }
    }
}

/// The first line of what it says of its version, on either output.
fn version(program: &Path, arguments: &[String]) -> String {
    if arguments.is_empty() {
        return String::new();
    }
    let Ok(output) = Command::new(program).args(arguments).output() else { return String::new() };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    // The first thing that looks like a version number; what surrounds it differs from program to program.
    let words = said.split(|c: char| c.is_whitespace() || "/,()".contains(c));
    let number = words
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()));
    // Without what a distribution adds behind it.
    number.unwrap_or_default().split(['-', '+']).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("contenders")
    }

    fn setting(mode: &'static str, tls: bool) -> Setting {
        let certificate = || Certificate {
            ca: "/c/ca".into(),
            certificate: "/c/crt".into(),
            key: "/c/key".into(),
            bundle: "/c/pem".into(),
        };
        Setting {
            name: "x".to_owned(),
            dir: std::env::temp_dir(),
            mode,
            listen_ip: [127, 0, 0, 1].into(),
            listen_port: 18123,
            origin_ip: [127, 0, 0, 1].into(),
            origin_port: 18456,
            workers: 1,
            connections: 64,
            spare_descriptors: 4_000,
            speaks: Protocol::Http1,
            h2c_upstream: false,
            proxy: toml::Table::new(),
            tls: tls.then(certificate),
        }
    }

    #[test]
    fn unknown_names_are_refused_with_what_is_known() {
        let none = BTreeMap::new();
        let error = Contender::find("ngnix", &shipped(), &none).unwrap_err().to_string();
        assert_eq!(error, "there is no contender ngnix: is it nginx?");
        let error = Contender::find("apache-httpd", &shipped(), &none).unwrap_err().to_string();
        assert!(error.contains("known are ") && error.contains("direct") && error.contains("haproxy"), "{error}");
        assert!(Contender::find("../etc", &shipped(), &none).is_err());
    }

    #[test]
    fn a_missing_program_is_named() {
        let programs = BTreeMap::from([("nginx".to_owned(), PathBuf::from("/nowhere/nginx"))]);
        let (name, missing) = Contender::find("nginx", &shipped(), &programs).unwrap().unwrap_err();
        assert_eq!(name, "nginx");
        assert!(missing.0.starts_with("/nowhere/nginx is missing"), "{missing:?}");
    }

    #[test]
    fn spare_descriptors_are_what_the_limit_leaves() {
        assert_eq!(spare_descriptors(1_000_000, 64), 4_000);
        assert_eq!(spare_descriptors(20_000, 8_000), 3_500);
        assert_eq!(spare_descriptors(17_100, 8_000), 600);
        assert_eq!(spare_descriptors(1_024, 8_000), 0);
    }

    /// Every shipped template renders for everything that its contender says it serves.
    #[test]
    fn shipped_templates_render() {
        let mut rendered = 0;
        for name in names(&shipped()).unwrap() {
            let programs = BTreeMap::from([(name.clone(), PathBuf::from("/bin/true"))]);
            let contender = Contender::find(&name, &shipped(), &programs).unwrap().unwrap();
            for mode in ["http", "tcp", "udp"] {
                for (tls, speaks) in [
                    (false, Protocol::Http1),
                    (true, Protocol::Http1),
                    (false, Protocol::Http2),
                    (true, Protocol::Grpc),
                ] {
                    let mut features = vec![mode.to_owned()];
                    if speaks.is_http2() && mode != "http" {
                        continue;
                    }
                    features.extend(speaks.is_http2().then(|| "http2".to_owned()));
                    features.extend(tls.then(|| "tls".to_owned()));
                    if contender.lacks(&features).is_some() {
                        continue;
                    }
                    if name == "direct" || (mode == "udp" && tls) {
                        continue;
                    }
                    let setting = Setting { speaks, h2c_upstream: speaks == Protocol::Grpc, ..setting(mode, tls) };
                    let files = contender.description.files.iter().map(|file| {
                        let text = std::fs::read_to_string(contender.directory.join(file)).unwrap();
                        contender.render(&setting, &text, file).unwrap()
                    });
                    let arguments = contender.description.arguments.iter();
                    let arguments = arguments.map(|each| contender.render(&setting, each, "arguments").unwrap());
                    let text: String = files.chain(arguments).collect();
                    assert!(text.contains("18123") && text.contains("18456"), "{name} {mode}: {text}");
                    assert_eq!(text.contains("/c/"), tls, "{name} {mode}: {text}");
                    rendered += 1;
                }
            }
        }
        assert!(rendered > 5, "{rendered}");
    }
}
