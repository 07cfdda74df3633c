//! The `ringway` command.

use std::process::ExitCode;

use clap::Parser;
use ringway::admin::{self, Address, Answer};
use ringway::cli::{
    AdminArgs, CheckArgs, Cli, Command, ConfigArgs, DetachArgs, DiffArgs, DoctorArgs, DoctorTopic, DsrCommand,
    ExplainArgs, ImportArgs, ImportCommand, RunArgs, SchemaArgs, StatusArgs,
};
use ringway::control::lenient::LastGood;
use ringway::control::provider::{Provider, SystemResolver};
use ringway::control::read::ProcessEnvironment;
use ringway::control::{self, effective, inventory, schema};
use ringway::server::{self, Options, RunError};
use ringway::{diff, doctor, explain as explanation, import, sys, term, xdp};

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
        Command::Dsr(DsrCommand::Status(args)) => dsr_status(&args),
        Command::Dsr(DsrCommand::Flows(args)) => dsr_flows(&args),
        Command::Dsr(DsrCommand::Detach(args)) => dsr_detach(&args),
        Command::Explain(args) => explain(args),
        Command::Diff(args) => difference(&args),
        Command::Schema(args) => print_schema(&args),
        Command::Import(ImportCommand::IngressNginx(args)) => import(args),
    }
}

fn run(args: RunArgs) -> ExitCode {
    term::start_log(args.log, args.log_level);
    let options = Options {
        config: args.config.config,
        strict: args.strict,
        workers: args.workers.map(usize::from),
        pin: !args.no_pin,
        steer: args.steer,
        driver: args.driver,
        admin: args.admin,
        bpf_directory: args.bpf_dir,
        dsr_detach_on_stop: args.dsr_detach_on_stop,
        tls_ticket_keys: args.tls_ticket_keys,
        session_keys: args.session_keys,
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
    let loaded = if args.strict {
        load(&args.config, true)
    } else {
        let inputs = server::provider(&args.config.config).read();
        control::load_leniently(inputs, &LastGood::default(), &ProcessEnvironment, &mut SystemResolver::default())
    };
    term::print_diagnostics(&loaded);
    let Some(accepted) = &loaded.accepted else { return BAD_CONFIG.into() };
    if args.status {
        term::print_value(&accepted.status, args.output, term::conditions_table);
    }
    if args.effective {
        term::print_value(&effective::effective(&accepted.model), args.output, term::yaml);
    }
    if loaded.errors() > 0 {
        return BAD_CONFIG.into();
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

/// Asks for JSON.
fn ask_json(args: &AdminArgs, path: &str) -> Result<serde_json::Value, String> {
    let answer = ask(args, "GET", path)?;
    if answer.status != 200 {
        return Err(answer.body.trim_end().to_owned());
    }
    serde_json::from_str(&answer.body).map_err(|error| format!("not JSON: {error}"))
}

fn status(args: &StatusArgs) -> ExitCode {
    show(ask_json(&args.admin, "/status"), args, term::status_table)
}

fn dsr_status(args: &StatusArgs) -> ExitCode {
    let found = ask_json(&args.admin, "/status").map(|mut status| status["ringway"]["dsr"].take());
    show(found, args, term::dsr_table)
}

fn dsr_flows(args: &StatusArgs) -> ExitCode {
    show(ask_json(&args.admin, "/dsr/flows"), args, term::flows_table)
}

fn dsr_detach(args: &DetachArgs) -> ExitCode {
    if let Ok(answer) = ask(&args.admin, "POST", "/dsr/detach") {
        return told(&answer);
    }
    match xdp::engine::detach_all(&args.bpf_dir) {
        Ok(()) => {
            term::print("detached: nothing is forwarded (no process answers)\n");
            ExitCode::SUCCESS
        }
        Err(error) => {
            term::print_error(&error.to_string());
            FAILED.into()
        }
    }
}

fn explain(args: ExplainArgs) -> ExitCode {
    let loaded = load(&args.config, false);
    let Some(accepted) = &loaded.accepted else {
        term::print_diagnostics(&loaded);
        return BAD_CONFIG.into();
    };
    // Without a process that answers, the files alone say where it goes.
    let running = ask_json(&args.admin, "/status").ok().map(|mut status| {
        let mut dsr = status["ringway"]["dsr"].take();
        if !dsr.is_null()
            && let Ok(mut flows) = ask_json(&args.admin, "/dsr/flows")
        {
            dsr["flowList"] = flows["flows"].take();
        }
        explanation::Running { dsr, backends: ask_json(&args.admin, "/backends").unwrap_or_default() }
    });
    let output = args.output;
    let question = args.question();
    match explanation::explain(&accepted.model, &question, running.as_ref()) {
        Ok(found) => {
            term::print_value(&found, output, explanation::render);
            ExitCode::SUCCESS
        }
        Err(error) => {
            term::print_error(&error);
            FAILED.into()
        }
    }
}

fn difference(args: &DiffArgs) -> ExitCode {
    let loaded = load(&args.config, false);
    let Some(accepted) = &loaded.accepted else {
        term::print_diagnostics(&loaded);
        return BAD_CONFIG.into();
    };
    match ask_json(&args.admin, "/config") {
        Ok(running) => {
            let mut files = effective::effective(&accepted.model);
            files["objects"] = inventory::to_json(&accepted.objects, true);
            let found = diff::diff(&running, &files);
            term::print_value(&found, args.output, diff::render);
            ExitCode::SUCCESS
        }
        Err(error) => {
            term::print_error(&error);
            FAILED.into()
        }
    }
}

fn print_schema(args: &SchemaArgs) -> ExitCode {
    if args.reference {
        term::print(&schema::reference());
        return ExitCode::SUCCESS;
    }
    let found = args.kind.as_ref().map_or_else(|| Some(schema::all()), |kind| schema::of_kind(kind));
    let Some(found) = found else {
        let kinds: Vec<&str> = schema::kinds().collect();
        term::print_error(&format!("no such kind is read; read are {}", kinds.join(", ")));
        return FAILED.into();
    };
    term::print(&format!("{found:#}\n"));
    ExitCode::SUCCESS
}

fn import(args: ImportArgs) -> ExitCode {
    let inputs = Provider::Files(args.files).read();
    let options = import::Options { gateway: args.gateway, class: args.ingress_class, open: args.open };
    let imported = import::ingress_nginx(inputs, &options);
    let Some(yaml) = &imported.yaml else {
        imported.diagnostics.iter().for_each(|each| term::print_error(&imported.sources.render(each, false)));
        return BAD_CONFIG.into();
    };
    term::print(yaml);
    let attention = &imported.attention;
    attention.iter().for_each(|each| term::print_error(each));
    let (count, left) = (term::many(imported.ingresses, "Ingress"), term::many(attention.len(), "matter"));
    term::print_error(&format!("{count} translated, {left} left to you; the comments in the output say more"));
    ExitCode::SUCCESS
}

fn show(
    found: Result<serde_json::Value, String>,
    args: &StatusArgs,
    table: fn(&serde_json::Value) -> String,
) -> ExitCode {
    match found {
        Ok(value) => {
            term::print_value(&value, args.output, table);
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
        Ok(answer) => told(&answer),
        Err(error) => {
            term::print_error(&error);
            FAILED.into()
        }
    }
}

fn told(answer: &Answer) -> ExitCode {
    if answer.status == 200 {
        term::print(&answer.body);
        return ExitCode::SUCCESS;
    }
    term::print_error(answer.body.trim_end());
    FAILED.into()
}

fn examine(args: &DoctorArgs) -> ExitCode {
    if let Some(vip) = args.server {
        return report(&doctor::dsr::server(vip));
    }
    let loaded = load(&args.config, false);
    let model = loaded.accepted.as_ref().map(|accepted| &accepted.model);
    if args.topic == Some(DoctorTopic::Dsr) {
        if model.is_none_or(|model| model.dsr.is_empty()) {
            // Why there is none may be among them.
            term::print_diagnostics(&loaded);
        }
        return report(&doctor::dsr::balancer(model, &args.bpf_dir));
    }
    let findings = doctor::examine(model);
    term::print(&doctor::render(&findings));
    if loaded.accepted.is_none() {
        term::print_error("the configuration has errors; `ringway check` shows them");
    }
    let bad = findings.iter().any(|each| each.level == doctor::Level::Bad) || loaded.accepted.is_none();
    if bad { FAILED.into() } else { ExitCode::SUCCESS }
}

fn report(findings: &[doctor::Finding]) -> ExitCode {
    term::print(&doctor::render(findings));
    let bad = findings.iter().any(|each| each.level == doctor::Level::Bad);
    if bad { FAILED.into() } else { ExitCode::SUCCESS }
}
