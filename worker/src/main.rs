//! The worker as a process.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use tidegate_aws::{clients::Clients, env, host_side::HostSide};
use tidegate_worker::{config::Config, docker::Engine, perform::Host, work};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

/// Runs the containers of one host, as the control plane orders.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, env = env::WORKER_CONFIG, default_value = "/etc/tidegate/worker.toml")]
    config: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let filter = std::env::var(env::LOG).ok().and_then(|text| text.parse().ok());
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(std::io::stderr)
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new("info")))
        .init();
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = &*error, "the worker cannot run");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::read(&arguments.config)?;
    let clients = Clients::from_environment_in(config.region.clone()).await;
    let engine = Engine::connect(config.docker_host.as_deref())?;
    let host = Host {
        engine,
        installation: config.table.clone(),
        tenant: config.tenant.clone(),
        name: config.host.clone(),
        policy: config.policy(),
    };
    let side = HostSide::new(&clients, config.host_config());
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
    });
    tracing::info!(host.name = %config.host, tenant = %config.tenant, "started");
    work::run(host, side, config.settings(), stopped).await?;
    tracing::info!("stopped");
    Ok(())
}
