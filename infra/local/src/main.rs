//! `tidegate`: the whole system on one machine.

use std::{error::Error, io::IsTerminal as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use tidegate_aws::env;
use tidegate_domain::secret::Secret;
use tidegate_local::{
    demo,
    people::{ADMIN, AdminPassword},
    stack::{self, Stack},
};
use tidegate_worker::logs;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Tidegate on one machine: the API, the schedules and a worker for the local Docker engine, in one process.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Command {
    /// Start everything and run until SIGINT or SIGTERM (the default)
    Up,
    /// Show the main job end to end: three versions, of which the last is refused
    ///
    /// It runs on free ports and keeps no data, whatever the other options say.
    Demo {
        /// Leave the container of the second version running
        #[arg(long)]
        keep: bool,
    },
}

#[derive(Debug, Args)]
struct Options {
    /// Where the API listens
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = "127.0.0.1:8080", global = true, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The folder that keeps the data; created if it is not there
    #[arg(long, env = "TIDEGATE_DATA", default_value = ".tidegate", global = true, value_name = "FOLDER")]
    data: PathBuf,
    /// Password of the user `admin`; without it one is generated on the first start and printed once
    #[arg(long, env = "TIDEGATE_ADMIN_PASSWORD", hide_env_values = true, global = true, value_name = "PASSWORD")]
    admin_password: Option<String>,
    /// Put before every container's name, so that several installations can share one Docker engine
    #[arg(long, env = "TIDEGATE_CONTAINER_PREFIX", default_value = "", global = true, value_name = "TEXT")]
    container_prefix: String,
    /// What callers reach the API under, if there is a proxy before it: `https://deploy.example.com`
    #[arg(long, env = env::PUBLIC_URL, global = true, value_name = "URL")]
    public_url: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Up);
    match command {
        Command::Up => start_logging(),
        // Its story is the output; what goes wrong is part of it.
        Command::Demo { .. } => {}
    }
    let options = stack::Options {
        listen: cli.options.listen,
        data: Some(cli.options.data),
        admin_password: cli.options.admin_password.map(Secret::new),
        container_prefix: cli.options.container_prefix,
        public_url: cli.options.public_url,
        ..stack::Options::throw_away()
    };
    let done = match command {
        Command::Up => up(options).await,
        Command::Demo { keep } => demo::run(&mut std::io::stdout(), keep).await.map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate: {}", one_line(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn up(options: stack::Options) -> Result<(), Box<dyn Error>> {
    let stack = Stack::start(options).await?;
    println!("Tidegate answers on {}", stack.url());
    match stack.admin_password() {
        AdminPassword::Generated(password) => {
            println!("Sign in as `{ADMIN}` with this password, which is shown only now: {}", password.expose());
        }
        AdminPassword::Given | AdminPassword::Unchanged => println!("Sign in as `{ADMIN}`"),
    }
    stack::signalled().await?;
    println!("Tidegate stops");
    stack.stop().await;
    Ok(())
}

/// Readable lines on standard error. The embedded AWS tells each call that it refuses, which its callers do already.
fn start_logging() {
    let filter = std::env::var(env::LOG).ok().and_then(|text| text.parse().ok());
    let quiet =
        || EnvFilter::new("info,awsim_core=off,awsim_kms=error,awsim_sqs=error,dynoxide=off,container_registry=warn");
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let filter = filter.unwrap_or_else(quiet);
    tracing_subscriber::registry().with(lines).with(filter).with(logs::never_bodies()).init();
}

/// An error with its causes.
fn one_line(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
