//! The `ringway` command.

use std::process::ExitCode;

use clap::Parser;
use ringway::admin::{self, Address, Answer};
use ringway::cli::{AdminArgs, CheckArgs, Cli, Command, ConfigArgs, RunArgs, StatusArgs};
use ringway::control::provider::SystemResolver;
use ringway::control::read::ProcessEnvironment;
use ringway::control::{self, effective};
use ringway::server::{self, Options, RunError};
use ringway::{doctor, sys, term};

// Per-thread heaps: a worker's blocks are freed where they were made.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Failed at work.
const FAILED: u8 = 1;
/// Bad configuration (EX_USAGE).
const BAD_CONFIG: u8 = 64;

fn main() -> ExitCode {
    // Before the heap grows.
    sys::keep_pages_small();
    match Cli::parse().command {
        Command::Run(args) => run(args),
        Command::Check(args) => check(&args),
        Command::Status(args) => status(&args),
        Command::Reload(args) => tell(&args, "/reload"),
        Command::Drain(args) => tell(&args, "/drain"),
        Command::Doctor(args) => examine(&args),
    }
}

fn run(args: RunArgs) -> ExitCode {
    term::start_log(args.log, args.log_level);
    let options = Options {
        config: args.config.config,
        strict: args.strict,
        workers: args.workers.map(usize::from),
        pin: !args.no_pin,
        driver: args.driver,
        admin: args.admin,
        tls_ticket_keys: args.tls_ticket_keys,
        tls_key_log: args.tls_key_log,
    };
    match server::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ RunError::Config(_)) => {
            term::print_error(&error.to_string());
            BAD_CONFIG.into()
        }
        Err(RunError::Failed(message)) => {
            tracing::error!("{message}");
            FAILED.into()
        }
    }
}

fn load(args: &ConfigArgs, strict: bool) -> control::Loaded {
    let inputs = server::provider(&args.config).read();
    control::load(inputs, strict, &ProcessEnvironment, &mut SystemResolver::default())
}

fn check(args: &CheckArgs) -> ExitCode {
    let loaded = load(&args.config, args.strict);
    term::print_diagnostics(&loaded);
    let Some(accepted) = &loaded.accepted else { return BAD_CONFIG.into() };
    if args.status {
        term::print_value(&accepted.status, args.output, term::conditions_table);
    }
    if args.effective {
        term::print_value(&effective::effective(&accepted.model), args.output, term::yaml);
    }
    if !args.status && !args.effective {
        let sockets = term::many(accepted.model.sockets.len(), "socket");
        let routes = term::many(accepted.model.routes.len(), "route");
        let backends = term::many(accepted.model.backends.len(), "backend");
        term::print(&format!("good: {sockets}, {routes}, {backends}\n"));
    }
    ExitCode::SUCCESS
}

/// Asks the process at the address given, or at the first default one that answers.
fn ask(args: &AdminArgs, method: &str, path: &str) -> Result<Answer, String> {
    let addresses: Vec<Address> = match &args.admin {
        Some(address) => vec![address.clone()],
        None => admin::default_addresses(),
    };
    let mut errors = Vec::new();
    for address in addresses {
        match admin::ask(&address, method, path) {
            Ok(answer) => return Ok(answer),
            Err(error) => errors.push(format!("no answer at {address}: {error}")),
        }
    }
    Err(errors.join("; "))
}

fn status(args: &StatusArgs) -> ExitCode {
    let answer = ask(&args.admin, "GET", "/status")
        .and_then(|answer| serde_json::from_str(&answer.body).map_err(|error| format!("not a status: {error}")));
    match answer {
        Ok(value) => {
            term::print_value(&value, args.output, term::status_table);
            ExitCode::SUCCESS
        }
        Err(error) => {
            term::print_error(&error);
            FAILED.into()
        }
    }
}

fn tell(args: &AdminArgs, path: &str) -> ExitCode {
    match ask(args, "POST", path) {
        Ok(answer) if answer.status == 200 => {
            term::print(&answer.body);
            ExitCode::SUCCESS
        }
        Ok(answer) => {
            term::print_error(answer.body.trim_end());
            FAILED.into()
        }
        Err(error) => {
            term::print_error(&error);
            FAILED.into()
        }
    }
}

fn examine(args: &ConfigArgs) -> ExitCode {
    let loaded = load(args, false);
    let findings = doctor::examine(loaded.accepted.as_ref().map(|accepted| &accepted.model));
    term::print(&doctor::render(&findings));
    if loaded.accepted.is_none() {
        term::print_error("the configuration has errors; `ringway check` shows them");
    }
    let bad = findings.iter().any(|each| each.level == doctor::Level::Bad) || loaded.accepted.is_none();
    if bad { FAILED.into() } else { ExitCode::SUCCESS }
}
