//! Processes that the harness starts, and that never outlive it.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, set_parent_process_death_signal};

use crate::contender::Start;
use crate::failure::{Context as _, Failure, Result};
use crate::machine;

/// How long a process may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(3);

fn interrupted() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(Arc::default)
}

/// From now on an interrupt is noticed at the next [`pause`], so that everything that was started is ended.
pub(crate) fn catch_interrupts() -> Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(interrupted())).context(|| "no signal handler".to_owned())?;
    }
    Ok(())
}

/// Waits for a moment; fails when the harness has been interrupted.
pub(crate) fn pause(time: Duration) -> Result<()> {
    std::thread::park_timeout(time);
    if interrupted().load(Ordering::Relaxed) { Err(Failure::interrupted()) } else { Ok(()) }
}

/// What becomes the started program: pins itself, asks the kernel to be ended with its parent, and executes.
#[derive(Debug, clap::Args)]
pub(crate) struct Exec {
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
    #[arg(long)]
    parent: u32,
    #[arg(last = true, required = true)]
    command: Vec<PathBuf>,
}

impl Exec {
    pub(crate) fn run(&self) -> Result<()> {
        machine::pin_to(&self.cores)?;
        set_parent_process_death_signal(Some(Signal::TERM)).context(|| "prctl".to_owned())?;
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        if parent != Some(self.parent) {
            return Err(Failure::new("whoever started this is gone"));
        }
        machine::raise_descriptors();
        let error = Command::new(&self.command[0]).args(&self.command[1..]).exec();
        Err(Failure::new(format!("cannot run {}: {error}", self.command[0].display())))
    }
}

/// A started process, with a process group of its own; dropping it ends the whole group.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program on some cores. Its output goes to `DIR/NAME.out`, its errors to `DIR/NAME.log`.
    pub(crate) fn start(name: &str, start: &Start, cores: &[usize], directory: &Path) -> Result<Self> {
        let own = std::env::current_exe().context(|| "cannot find this program".to_owned())?;
        let log = directory.join(format!("{name}.log"));
        let file = |path: &Path| File::create(path).context(|| format!("cannot write {}", path.display()));
        let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
        let child = Command::new(own)
            .args(["exec", "--cores", &cores.join(","), "--parent", &std::process::id().to_string(), "--"])
            .arg(&start.program)
            .args(&start.arguments)
            .envs(&start.environment)
            .stdin(Stdio::null())
            .stdout(file(&directory.join(format!("{name}.out")))?)
            .stderr(file(&log)?)
            .process_group(0)
            .spawn()
            .context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status once it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context(|| format!("cannot wait for {}", self.name))
    }

    /// The last lines that it said.
    pub(crate) fn last_words(&self) -> String {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(2)..];
        if last.is_empty() { "it said nothing".to_owned() } else { last.join(" | ") }
    }

    /// Waits until `ready` says so; an error when the process ends first, or takes longer than `patience`.
    pub(crate) fn wait_until(
        &mut self,
        patience: Duration,
        mut ready: impl FnMut() -> std::result::Result<(), String>,
    ) -> Result<()> {
        let until = Instant::now() + patience;
        loop {
            let why = match ready() {
                Ok(()) => return Ok(()),
                Err(why) => why,
            };
            if let Some(status) = self.ended()? {
                return Err(Failure::new(format!("{} did not start ({status}): {}", self.name, self.last_words())));
            }
            if Instant::now() > until {
                return Err(Failure::new(format!(
                    "{} is not ready after {} s: {why}; it said: {}",
                    self.name,
                    patience.as_secs(),
                    self.last_words()
                )));
            }
            pause(Duration::from_millis(20))?;
        }
    }

    fn group(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(group) = self.group() else { return };
        if matches!(self.child.try_wait(), Ok(None)) {
            let _gone = kill_process(group, Signal::TERM);
            let until = Instant::now() + GRACE;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
                std::thread::park_timeout(Duration::from_millis(5));
            }
        }
        // Whatever is left of it: a program that does not end, or children that it did not wait for.
        let _gone = kill_process_group(group, Signal::KILL);
        let _waited = self.child.wait();
    }
}

/// A directory for the files of one run, removed in the end.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let path = std::env::temp_dir().join(format!("bench-harness-{}-{stamp:x}", std::process::id()));
        std::fs::create_dir(&path).context(|| format!("cannot make {}", path.display()))?;
        // Proxies that give up root have to read their files.
        let _refused = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755));
        Ok(Self(path))
    }

    /// A new directory within.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path).context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _leftover = std::fs::remove_dir_all(&self.0);
    }
}
