//! The worker as a process.

use std::{
    fmt::Display,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tidegate_aws::{call_log::CallLog, clients::Clients, env, host_side::HostSide};
use tidegate_worker::{
    check,
    config::{Config, DEFAULT_PATH, Faults},
    docker::Engine,
    install::{self, Install},
    logs,
    perform::Host,
    status_page,
    systemd::ServiceManager,
    vitals::Vitals,
    work,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Runs the containers of one host, as the control plane orders.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file [default: /etc/tidegate/worker.toml, which may be absent if the environment says all]
    #[arg(long, global = true, env = env::WORKER_CONFIG)]
    config: Option<PathBuf>,
    /// Without one, it works
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tells all that is missing or wrong on this host, and changes nothing
    Check,
    /// Makes this program a service of systemd, with a user of its own and a configuration file to fill in
    Install(Install),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let named = arguments.config.as_deref();
    match arguments.command {
        Some(Command::Check) => {
            let file = named.unwrap_or(Path::new(DEFAULT_PATH));
            let report = Box::pin(check::check(Config::read(named), file)).await;
            say(&report);
            if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Some(Command::Install(install)) => match install::install(&install, named) {
            Ok(told) => {
                say(&told);
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        None => {
            logs::start();
            match run(named).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tell(&*error);
                    ExitCode::FAILURE
                }
            }
        }
    }
}

/// To a person, who may have stopped reading.
fn say(told: &dyn Display) {
    let _ = writeln!(io::stdout(), "{told}");
}

/// One line for each fault of the configuration.
fn tell(error: &(dyn std::error::Error + 'static)) {
    let Some(Faults(faults)) = error.downcast_ref::<Faults>() else {
        tracing::error!(error, "the worker cannot run");
        return;
    };
    for fault in faults {
        tracing::error!(fault = %fault, "the configuration is not right");
    }
}

async fn run(named: Option<&Path>) -> Result<(), Box<dyn std::error::Error>> {
    // Before anything else: as the first process of a container it would otherwise be deaf to them.
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Later ones change nothing: the handlers stay, and nobody listens.
        stop.send_replace(true);
        tracing::info!("told to stop");
    });
    let config = Config::read(named)?;
    let calls = CallLog::default();
    let vitals = Vitals::new(calls.clone(), ServiceManager::from_environment());
    if let Some(address) = config.metrics_listen {
        tokio::spawn(status_page::serve(address, vitals.clone()));
    }
    let clients = Clients::for_worker(config.region.clone(), calls).await;
    let engine = Engine::connect(config.docker_host.as_deref())?;
    let (side, settings) = (HostSide::new(&clients, config.host_config()), config.settings());
    tracing::info!(host.name = %config.host, tenant = %config.tenant, version = env!("CARGO_PKG_VERSION"), "started");
    let host =
        Host { engine, installation: config.table, tenant: config.tenant, name: config.host, policy: config.policy };
    work::run(host, side, settings, vitals, stopped).await?;
    tracing::info!("stopped");
    Ok(())
}
