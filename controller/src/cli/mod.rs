//! The command line: what was typed becomes a request, its answer becomes text or JSON, an error an exit code.

mod args;
mod backend;
mod client;
mod config;
mod groups;
mod incident;
mod lists;
mod preview;
#[cfg(test)]
mod reference;
mod replay;
mod runbook;
mod services;
mod show;
mod signatures;
mod terminal;
mod uninstall;
mod watch;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use floodwall_common::config::Mode;
use floodwall_common::cookie::CookieMode;
use floodwall_common::limits::{LimitKey, LimitName, Rate};
use floodwall_common::lists::List;
use serde::Serialize;

use self::args::{
    Amplifiers, Cli, Cookies, FragmentPolicy, Global, Limits, MetricsAddress, ModeName, Policy, Run, SetLimit, Verb,
    metrics_address,
};
use self::backend::Backend;
use crate::api::{
    AmplifiersChange, CookiesChange, LimitView, LimitsChange, ModeChange, PolicyEntry, RateView, ReloadRequest,
    Reloaded, Status,
};
use crate::configuration::{
    self, Change, Configuration, DEFAULT_METRICS, DEFAULT_PATH, LastGood, LogFormat, Quantity, READ_GROUP, Source,
    save_limit,
};
use crate::control::{limit_key, limit_name};
use crate::daemon;
use crate::daemon::access::Token;
use crate::doctor::{Diagnosis, Severity, diagnose};
use crate::exit::{Exit, Failure, exit_of};
use crate::peers::Peer;
use crate::{history, lockout, peers};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&anyhow::Error::from(error)),
    };
    let global = cli.global.clone();
    let done = runtime.block_on(run(cli));
    if let Some(details) = backend::changed_maps(&global.bpffs).filter(|_| done.is_ok()) {
        record(&global, details);
    }
    match done {
        Ok(exit) => exit.into(),
        Err(error) if error.is::<ReaderGone>() => Exit::Done.into(),
        Err(error) => complain(&error),
    }
}

/// Writes down what this process has changed without a daemon.
fn record(global: &Global, details: Vec<Change>) {
    let change = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let entry = history::Entry::of_this_process("maps", change).from(peers::caller(std::process::id() as i32));
    let entry = entry.with(details).because(global.why.clone());
    if let Err(error) = history::append(&global.history, &entry) {
        let _ = writeln!(io::stderr(), "floodwall: done, but not written to {}: {error}", global.history.display());
    }
}

/// What is wrong with the command line, or the help that it asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let printed = error.print();
    match (asked, printed) {
        (true, Ok(())) => Exit::Done.into(),
        (true, Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done.into(),
        (true, Err(_)) => Exit::Failed.into(),
        (false, _) => Exit::Usage.into(),
    }
}

fn complain(error: &anyhow::Error) -> ExitCode {
    // Nobody left to tell is no reason to panic.
    let _ = writeln!(io::stderr(), "floodwall: {}", crate::exit::describe(error));
    exit_of(error).into()
}

/// Whoever read standard output has read enough: `floodwall deny list | head -1`. No error; but a socket that closes is.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
struct ReaderGone;

async fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.global.watch {
        None => once(cli).await,
        Some(seconds) => watch::run(cli, seconds).await,
    }
}

async fn once(cli: Cli) -> anyhow::Result<Exit> {
    let global = &cli.global;
    match cli.verb {
        Verb::Run(options) => return start(global, options).await,
        Verb::Status => return status(global).await,
        Verb::Limits(verb) => limits(global, verb).await?,
        Verb::Mode { mode, trial } => return set_mode(global, mode, trial.seconds()).await,
        Verb::Confirm => print(global, &Backend::find(global).await?.confirm().await?, show::mode)?,
        Verb::Stop => {
            if let Some(status) = Backend::stop(global).await? {
                print(global, &status, show::mode)?;
            }
        }
        Verb::Resume => print(global, &Backend::find(global).await?.resume().await?, show::mode)?,
        Verb::Policy(verb) => policy(global, verb).await?,
        Verb::Amplifiers(verb) => amplifiers(global, verb).await?,
        Verb::Service(verb) => services::run(global, verb).await?,
        Verb::Group(verb) => groups::run(global, verb).await?,
        Verb::Fragments { policy } => fragments(global, policy).await?,
        Verb::Cookies(verb) => cookies(global, verb).await?,
        Verb::Lockdown { state, force } => services::lockdown(global, state, force).await?,
        Verb::Signature(verb) => signatures::run(global, verb).await?,
        Verb::Allow(verb) => lists::run(global, List::Allow, verb).await?,
        Verb::Deny(verb) => lists::run(global, List::Deny, verb).await?,
        Verb::Top { by, number } => {
            let path = format!("/api/v1/top?by={}&n={number}", by.label());
            let top = Backend::daemon(global).await?.get(&path).await?;
            print(global, &top, show::top)?;
        }
        Verb::Explain { source } => {
            let path = format!("/api/v1/explain?source={source}");
            let explanation = Backend::daemon(global).await?.get(&path).await?;
            print(global, &explanation, show::explain)?;
        }
        Verb::Incident(verb) => incident::run(global, verb).await?,
        Verb::Replay(options) => replay::run(global, &options)?,
        Verb::Doctor { interfaces, named } => return doctor(global, &[interfaces, named].concat()).await,
        Verb::Runbook { name } => write_out(&runbook::text(name.as_deref())?)?,
        Verb::Audit => return audit(global).await,
        Verb::Drill(verb) => incident::drill(global, verb).await?,
        Verb::Config(verb) => return config::run(global, &verb),
        Verb::History { number } => {
            let view = Backend::find(global).await?.history(&global.history, number).await?;
            print(global, &view, show::history)?;
        }
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "floodwall", &mut text);
            write_out(&String::from_utf8_lossy(&text))?;
        }
        Verb::Man { directory } => {
            let cannot =
                |error| Failure::new(Exit::Failed, format!("cannot write to {}: {error}", directory.display()));
            std::fs::create_dir_all(&directory).map_err(cannot)?;
            clap_mangen::generate_to(Cli::command(), &directory).map_err(cannot)?;
        }
        Verb::Reload(trial) => {
            let request = ReloadRequest { confirm_s: trial.seconds() };
            let reloaded: Reloaded = Backend::daemon(global).await?.post("/api/v1/reload", &request).await?;
            print(global, &reloaded, show::reloaded)?;
        }
        Verb::Metrics => write_out(&Backend::find(global).await?.metrics().await?)?,
        Verb::Detach { interface } => {
            let detached = Backend::find(global).await?.detach(interface.as_deref()).await?;
            if detached.is_empty() {
                let text = "nothing is attached here".to_owned();
                return Err(Failure::new(Exit::Environment, text).hint("floodwall status").into());
            }
            print(global, &detached, |names| format!("detached: {}\n", names.join(", ")))?;
        }
        Verb::Uninstall { purge } => uninstall::run(global, purge).await?,
    }
    Ok(Exit::Done)
}

/// Flags count more than the file, and that more than the defaults.
async fn start(global: &Global, options: Run) -> anyhow::Result<Exit> {
    let found = Source::find(global.config.as_deref());
    let kept = LastGood::beside(&global.history).instead_of(global.config.as_deref());
    let is_kept = kept.is_some();
    let source = if is_kept { kept } else { found? };
    let file = source.as_ref().map(|source| source.configuration.clone()).unwrap_or_default();
    let metrics = match (options.metrics, &file.metrics) {
        (Some(metrics), _) => metrics,
        (None, Some(text)) => metrics_address(text)
            .map_err(|text| Failure::new(Exit::Configuration, format!("metrics: it is not {text}")))?,
        (None, None) => MetricsAddress(Some(DEFAULT_METRICS)),
    };
    let metrics = metrics.0;
    let public = options.metrics_public || file.metrics_public == Some(true);
    if let Some(address) = metrics.filter(|address| !address.ip().is_loopback() && !public) {
        let text = format!("--metrics {address} is not a loopback address: others could read it");
        return Err(Failure::new(Exit::Usage, text).hint("--metrics 127.0.0.1:9557, or add --metrics-public").into());
    }
    let api = api(&options, &file)?;
    log_to_stderr(options.log_json || file.log == Some(LogFormat::Json));
    if is_kept {
        let file = global.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        tracing::error!(
            file = %file.display(),
            "the configuration file is gone: this start takes what came in force last, but its mode, which stays what it is, monitor \
             after a reboot. Put the file back, then `floodwall reload`"
        );
    }
    let respond = file.policies(options.respond);
    let (probe, canary) = (file.probe != Some(false), file.canary != Some(false));
    let interfaces =
        if options.interfaces.is_empty() { file.interfaces.unwrap_or_default() } else { options.interfaces };
    daemon::run(daemon::Options {
        interfaces,
        allow_generic: options.allow_generic || file.allow_generic == Some(true),
        egress_hook: options.egress_hook,
        respond,
        probe,
        canary,
        history: global.history.clone(),
        file: global.config.clone(),
        source,
        mode: options.mode.and_then(|mode| Mode::from_label(mode.label())),
        confirm_s: options.confirm.map(|time| time.as_secs()),
        bpffs: global.bpffs.clone(),
        socket: global.socket.clone(),
        metrics,
        api,
        read_group: file.read_group.unwrap_or_else(|| READ_GROUP.to_owned()),
        detach_on_exit: options.detach_on_exit,
    })
    .await?;
    Ok(Exit::Done)
}

/// Where the whole API is served, and what a caller has to show.
fn api(options: &Run, file: &Configuration) -> Result<Option<(SocketAddr, Token)>, Failure> {
    let address = match (options.api, &file.api) {
        (Some(address), _) => address,
        (None, Some(text)) => {
            metrics_address(text).map_err(|text| Failure::new(Exit::Configuration, format!("api: it is not {text}")))?
        }
        (None, None) => return Ok(None),
    };
    let token_file = options.api_token_file.as_deref().or(file.api_token_file.as_deref());
    address.0.map(|address| Token::find(token_file).map(|token| (address, token))).transpose()
}

/// Structured logs; `RUST_LOG` says how much.
fn log_to_stderr(json: bool) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if json {
        builder.json().init()
    } else {
        builder.with_ansi(terminal::has_colours(&io::stderr())).with_target(false).init()
    }
}

async fn status(global: &Global) -> anyhow::Result<Exit> {
    let status = Backend::find(global).await?.status().await?;
    print(global, &status, show::status)?;
    Ok(exit_of_status(&status))
}

fn exit_of_status(status: &Status) -> Exit {
    match (status.attached, status.mode.as_str()) {
        (false, _) => Exit::NotAttached,
        (true, "enforce") => Exit::Done,
        (true, _) => Exit::NotEnforcing,
    }
}

async fn set_mode(global: &Global, mode: ModeName, confirm_s: Option<u64>) -> anyhow::Result<Exit> {
    let change = ModeChange { mode: mode.label().to_owned(), confirm_s };
    let status = Backend::find(global).await?.set_mode(&change).await?;
    print(global, &status, show::mode)?;
    Ok(Exit::Done)
}

async fn doctor(global: &Global, interfaces: &[String]) -> anyhow::Result<Exit> {
    let diagnosis = diagnose(&global.bpffs, global.config.as_deref(), interfaces).await?;
    const HEADS: [&str; 3] = [
        "READY: nothing stands in the way",
        "READY, with less than there could be",
        "NOT READY: mend what is marked with !! first",
    ];
    judge(global, &diagnosis, HEADS)
}

async fn audit(global: &Global) -> anyhow::Result<Exit> {
    const HEADS: [&str; 3] =
        ["GOOD: nothing to mend", "TO LOOK AT: what is marked with !", "TO MEND: what is marked with !! first"];
    judge(global, &Backend::daemon(global).await?.get("/api/v1/audit").await?, HEADS)
}

/// Shows findings, and makes the worst of them the exit code.
fn judge(global: &Global, diagnosis: &Diagnosis, heads: [&str; 3]) -> anyhow::Result<Exit> {
    print(global, diagnosis, |diagnosis| show::diagnosis(diagnosis, heads))?;
    Ok(match diagnosis.severity {
        Severity::Good => Exit::Done,
        Severity::Warning => Exit::NotEnforcing,
        Severity::Problem => Exit::NotAttached,
    })
}

async fn policy(global: &Global, verb: Policy) -> anyhow::Result<()> {
    let backend = Backend::find(global).await?;
    let view = match verb {
        Policy::Show => backend.policies().await?,
        Policy::Set { reason, verdict } => {
            let entry = PolicyEntry { reason, verdict: verdict.label().to_owned(), default: None };
            backend.set_policy(&entry).await?
        }
    };
    print(global, &view, show::policies)
}

async fn amplifiers(global: &Global, verb: Amplifiers) -> anyhow::Result<()> {
    let backend = Backend::find(global).await?;
    let change = match verb {
        Amplifiers::List => None,
        Amplifiers::Add { ports } => Some(AmplifiersChange { add: ports, ..Default::default() }),
        Amplifiers::Remove { ports } => Some(AmplifiersChange { remove: ports, ..Default::default() }),
        Amplifiers::Reset => Some(AmplifiersChange { reset: true, ..Default::default() }),
    };
    let view = match change {
        None => backend.amplifiers().await?,
        Some(change) => backend.change_amplifiers(&change).await?,
    };
    print(global, &view, show::amplifiers)
}

async fn cookies(global: &Global, verb: Cookies) -> anyhow::Result<()> {
    let backend = Backend::find(global).await?;
    let (mode, answers) = match verb {
        Cookies::Show => return print(global, &backend.cookies().await?, show::cookies),
        Cookies::Off => (CookieMode::Off, None),
        Cookies::Auto(answers) => (CookieMode::Auto, answers.answers_pps),
        Cookies::Always(answers) => (CookieMode::Always, answers.answers_pps),
    };
    let answers = answers.map(|per_second| RateView { per_second, burst: per_second });
    let change = CookiesChange { mode: mode.label().to_owned(), answers };
    print(global, &backend.set_cookies(&change).await?, show::cookies)
}

async fn limits(global: &Global, verb: Limits) -> anyhow::Result<()> {
    let view = match verb {
        Limits::Show => Backend::find(global).await?.limits().await?,
        Limits::Set(set) => set_limit(global, &set).await?,
        Limits::Preview(limit) => return preview::run(global, &limit).await,
        Limits::Reset { names, group } => {
            let names: Vec<_> = names.iter().map(|name| limit_name(name)).collect::<Result<_, _>>()?;
            if let Some(group) = group {
                return print(global, &groups::reset(global, &group, &names).await?, groups::show);
            }
            let named = LimitKey::all().filter(|key| names.contains(&key.name));
            let limits = named.map(|key| LimitView::new(key, key.default_limits())).collect();
            let change = LimitsChange { generation: None, limits, force: false };
            Backend::find(global).await?.change_limits(&change).await?
        }
    };
    print(global, &view, show::limits)
}

/// A policy of fragments is their limit per source: the default, zero, or none.
async fn fragments(global: &Global, policy: FragmentPolicy) -> anyhow::Result<()> {
    let key = LimitKey::from(LimitName::Fragment);
    let packets = match policy {
        FragmentPolicy::Limit => key.default_limits().packets,
        FragmentPolicy::Drop => Rate::Block,
        FragmentPolicy::Pass => Rate::Off,
    };
    let limits = floodwall_common::limits::Limits { packets, bytes: Rate::Off };
    let change = LimitsChange { generation: None, limits: vec![LimitView::new(key, limits)], force: true };
    print(global, &Backend::find(global).await?.change_limits(&change).await?, show::limits)
}

/// Reads the limit, changes what was named, and writes it back: the generation says whether somebody was faster.
async fn set_limit(global: &Global, set: &SetLimit) -> anyhow::Result<crate::api::LimitsView> {
    let key = limit_key(&set.name, &set.per)?;
    if let Some(group) = set.group.as_deref().filter(|_| set.save) {
        check_in_file(global, group)?;
    }
    let view = Backend::find(global).await?.limits().await?;
    let of_group = view.limits.iter().find(|limit| limit.group == set.group && limit.name == set.name);
    // A group that has none of its own begins with what holds for everybody.
    let of_all = || view.limits.iter().find(|limit| limit.is(key));
    let present = of_group.filter(|_| set.group.is_some()).or_else(of_all);
    let present = present.map_or_else(|| key.default_limits(), LimitView::limits);
    let packets = changed(present.packets, set.pps, set.burst, "--pps", "--burst")?;
    let bytes = changed(present.bytes, set.bps, set.byte_burst, "--bps", "--byte-burst")?;
    let change = LimitView {
        group: set.group.clone(),
        ..LimitView::new(key, floodwall_common::limits::Limits { packets, bytes })
    };
    let change = LimitsChange { generation: Some(view.generation), limits: vec![change], force: set.force };
    lockout::check_limits(&change, || around(global))?;
    let view = Backend::find(global).await?.change_limits(&change).await?;
    if set.save {
        let path = global.config.clone().unwrap_or_else(|| DEFAULT_PATH.into());
        save_limit(&path, key, set.group.as_deref(), floodwall_common::limits::Limits { packets, bytes })?;
        eprintln!("floodwall: written to {}", path.display());
    }
    Ok(view)
}

/// A group that the files do not have would be there without its prefixes after the next reload.
fn check_in_file(global: &Global, group: &str) -> anyhow::Result<()> {
    let source = Source::find(global.config.as_deref())?.unwrap_or_default();
    if source.configuration.groups.iter().flatten().any(|(name, _)| name == group) {
        return Ok(());
    }
    let text = format!("the files have no group '{group}', so that a limit of it cannot be saved. Nothing was changed");
    let hint = format!("write [groups.{group}] with its prefixes into the file first, or leave out --save");
    Err(Failure::new(Exit::Configuration, text).hint(hint).into())
}

/// Peers that somebody would miss, seen from here: this process knows who types.
fn around(global: &Global) -> Vec<Peer> {
    lockout::around(peers::caller(std::process::id() as i32), global.config.as_deref())
}

/// A rate with what was typed. A new rate without a burst gets one second of it.
fn changed(
    present: Rate,
    rate: Option<Quantity>,
    burst: Option<u64>,
    rate_flag: &str,
    burst_flag: &str,
) -> Result<Rate, Failure> {
    configuration::rate((rate, burst), present).ok_or_else(|| {
        let text = format!("{burst_flag} needs a rate to go with");
        Failure::new(Exit::Usage, text).hint(format!("add {rate_flag} <number>"))
    })
}

/// Prints a value: as JSON where that was asked, else as `text` makes it.
fn print<T: Serialize>(global: &Global, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
    let text = match (global.json, global.watch) {
        (false, _) => text(value),
        (true, None) => serde_json::to_string_pretty(value)? + "\n",
        // A line for each answer, so that a program knows where one ends.
        (true, Some(_)) => serde_json::to_string(value)? + "\n",
    };
    write_out(&text)
}

/// Writes to standard output, and says where that failed: `println!` would panic.
fn write_out(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        written => Ok(written?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let present = Rate::Limit { per_second: 100, burst: 50 };
        let change = |rate, burst| changed(present, rate, burst, "--pps", "--burst").ok();
        assert_eq!(change(None, None), Some(present));
        assert_eq!(change(None, Some(7)), Some(Rate::Limit { per_second: 100, burst: 7 }));
        assert_eq!(change(Some(Quantity::PerSecond(9)), None), Some(Rate::Limit { per_second: 9, burst: 9 }));
        assert_eq!(change(Some(Quantity::Off), None), Some(Rate::Off));
        assert_eq!(change(Some(Quantity::PerSecond(0)), None), Some(Rate::Block));
        assert_eq!(change(Some(Quantity::Off), Some(7)), None);
    }
}
