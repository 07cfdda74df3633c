//! The proxy under test: the real binary, one process per test.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::client::Client;
use super::eventually;

/// A directory that goes with the test.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringway-it-{}-{next}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

/// The driver that this run of the suite is about.
pub fn driver() -> String {
    std::env::var("RINGWAY_TEST_DRIVER").unwrap_or_else(|_| "io_uring".to_owned())
}

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_ringway")
}

/// How a proxy is started.
pub struct Options {
    pub workers: u32,
    pub arguments: Vec<String>,
    /// `ulimit -n` of the process.
    pub descriptors: Option<u32>,
    /// Not as root, where the tests are.
    pub unprivileged: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: 2, arguments: Vec::new(), descriptors: None, unprivileged: false }
    }
}

/// A running proxy; killed when dropped, its log shown if the test failed.
pub struct Proxy {
    pub child: Child,
    pub directory: Directory,
    /// Of the first listener.
    pub address: String,
}

impl Proxy {
    /// Serves a configuration. `{ip}` in it is replaced by an address of its own.
    pub fn start(yaml: &str) -> Self {
        Self::with(yaml, &Options::default())
    }

    pub fn with(yaml: &str, options: &Options) -> Self {
        let directory = Directory::new();
        let ip = super::address();
        directory.write("config.yaml", &yaml.replace("{ip}", &ip));
        let child = spawn(&directory, options);
        let proxy = Self { child, directory, address: format!("{ip}:8080") };
        eventually("the proxy is ready", || proxy.try_admin("GET", "/readyz").is_some_and(|(status, _)| status == 200));
        let metric = format!("ringway_driver_info{{driver=\"{}\"}}", driver());
        assert!(proxy.metrics().contains(&metric), "not served by {}", driver());
        proxy
    }

    /// Forwards everything on port 8080 to one origin.
    pub fn to(origin: &str) -> Self {
        Self::start(&config(&[origin], ""))
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.address)
    }

    /// The address of another port.
    pub fn port(&self, port: u16) -> String {
        format!("{}:{port}", self.ip())
    }

    pub fn ip(&self) -> &str {
        self.address.rsplit_once(':').unwrap().0
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.0.join("admin.sock")
    }

    pub fn try_admin(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    pub fn admin(&self, method: &str, path: &str) -> (u16, String) {
        self.try_admin(method, path).unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    pub fn metrics(&self) -> String {
        self.admin("GET", "/metrics").1
    }

    /// The sum of a metric's samples whose labels contain all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        sum(&self.metrics(), name, labels)
    }

    /// Waits until a metric has at least a value: counters are written when the work behind an answer is done.
    pub fn expect_metric(&self, name: &str, labels: &[&str], at_least: f64) {
        eventually(&format!("{name} {labels:?} >= {at_least}\n{}", self.log()), || {
            self.metric(name, labels) >= at_least
        });
    }

    pub fn write_config(&self, yaml: &str) {
        // Replaced in one step, as editors and configuration management do.
        let path = self.directory.write("config.yaml.new", &yaml.replace("{ip}", self.ip()));
        std::fs::rename(path, self.directory.0.join("config.yaml")).unwrap();
    }

    pub fn reload(&self, yaml: &str) {
        self.write_config(yaml);
        let (status, body) = self.admin("POST", "/reload");
        assert_eq!(status, 200, "{body}");
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.0.join("log")).unwrap_or_default()
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end.
    pub fn wait(&mut self, seconds: u64) -> Option<i32> {
        let end = std::time::Instant::now() + Duration::from_secs(seconds);
        while std::time::Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("still running after {seconds} s\n{}", self.log());
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Resident anonymous memory in KiB.
    pub fn anonymous_kib(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

pub fn spawn(directory: &Directory, options: &Options) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(directory.0.join("log")).unwrap();
    let mut command = match options.descriptors {
        // The limit is set in the process itself: a shell's `ulimit` would need a shell.
        Some(limit) => {
            let mut command = Command::new("prlimit");
            command.arg(format!("--nofile={limit}:{limit}")).arg(binary());
            command
        }
        // Nobody has no capabilities and can still write to the test's directory.
        None if options.unprivileged && is_root() => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", binary()]);
            std::fs::set_permissions(&directory.0, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
            command
        }
        None => Command::new(binary()),
    };
    command
        .args(["run", "--no-pin", "--driver", &driver(), "--workers", &options.workers.to_string()])
        .arg("--admin")
        .arg(format!("unix:{}", directory.0.join("admin.sock").display()))
        .arg("--config")
        .arg(directory.0.join("config.yaml"))
        .args(&options.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command.spawn().unwrap()
}

pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the proxy at {}\n{}---", self.address, self.log());
        }
    }
}

pub fn sum(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let samples = metrics.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// A gateway with one HTTP listener on port 8080 of `{ip}` and a route of everything to a Backend with these endpoints.
/// `rule` are further lines of the route's one rule, and `more` further documents may follow.
pub fn config(endpoints: &[&str], rule: &str) -> String {
    let mut yaml = gateway("  - {name: web, port: 8080, protocol: HTTP}\n");
    write!(
        yaml,
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: all}}\nspec:\n  parentRefs: [{{name: edge}}]\n  rules:\n  - backendRefs: [{{group: ringway.dev, kind: Backend, name: origin}}]\n{rule}"
    )
    .unwrap();
    yaml + &backend("origin", endpoints)
}

/// A Gateway with these listeners.
pub fn gateway(listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  gatewayClassName: ringway\n  addresses: [{{type: IPAddress, value: \"{{ip}}\"}}]\n  listeners:\n{listeners}"
    )
}

/// A Backend; an endpoint is `IP:PORT`, `unix:PATH` or `echo`.
pub fn backend(name: &str, endpoints: &[&str]) -> String {
    let list: Vec<String> = endpoints
        .iter()
        .map(|endpoint| match (*endpoint, endpoint.strip_prefix("unix:")) {
            ("echo", _) => "{demo: Echo}".to_owned(),
            (_, Some(path)) => format!("{{unix: {path}}}"),
            (tcp, None) => {
                let (ip, port) = tcp.rsplit_once(':').unwrap();
                format!("{{ip: \"{ip}\", port: {port}}}")
            }
        })
        .collect();
    format!(
        "---\napiVersion: ringway.dev/v1alpha1\nkind: Backend\nmetadata: {{name: {name}}}\nspec: {{endpoints: [{}]}}\n",
        list.join(", ")
    )
}

/// A ClientPolicy for the whole Gateway.
pub fn policy(spec: &str) -> String {
    format!(
        "---\napiVersion: ringway.dev/v1alpha1\nkind: ClientPolicy\nmetadata: {{name: clients}}\nspec:\n  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: edge}}]\n{spec}"
    )
}

/// Runs the binary to its end: exit code, standard output, standard error.
pub fn command(arguments: &[&str], directory: &Path) -> (i32, String, String) {
    let output = Command::new(binary()).args(arguments).current_dir(directory).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}
