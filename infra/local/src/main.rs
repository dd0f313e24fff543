//! `tidegate`: the whole system on one machine.

use std::{error::Error, io::IsTerminal as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use tidegate_aws::env;
use tidegate_domain::secret::Secret;
use tidegate_local::{
    demo,
    import_v1::{self, Credential, Outcome},
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

#[derive(Debug, Subcommand)]
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
    /// Bring over what V1 had, from a dump of its tables as JSON, into a running installation
    ///
    /// Creates what is missing, leaves what is there, and lists what needs a decision. It can be run again at any time.
    /// It calls as `TIDEGATE_TOKEN` (a person's token), or else signs in with the admin password.
    /// Ends with 0 when all is done, with 3 when something needs a decision, with 1 when something failed.
    ImportV1(ImportArgs),
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// V1's tables: a JSON object with an array of rows for each
    file: PathBuf,
    /// Of the installation
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
    /// Who signs in, unless `TIDEGATE_TOKEN` is set
    #[arg(long, default_value = ADMIN, value_name = "NAME")]
    user: String,
    /// What was decided about the questions of an earlier run: JSON, or TOML if it is called *.toml
    #[arg(long, value_name = "FILE")]
    decisions: Option<PathBuf>,
    /// Holds the key that V2's predecessor encrypted secrets with: 32 bytes, hexadecimal or base64
    #[arg(long, value_name = "FILE")]
    old_key_file: Option<PathBuf>,
    /// Takes the new applications' webhook tokens (mode 0600), which are printed otherwise
    #[arg(long, value_name = "FILE")]
    tokens_file: Option<PathBuf>,
    /// Change nothing, say what would be done
    #[arg(long)]
    dry_run: bool,
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

/// How `import-v1` ends when the rest waits for somebody's decision.
const DECISIONS_NEEDED: u8 = 3;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let options = cli.options;
    let done = match cli.command.unwrap_or(Command::Up) {
        Command::Up => {
            start_logging();
            up(stack_options(options)).await.map(|()| ExitCode::SUCCESS)
        }
        // Its story is the output; what goes wrong is part of it.
        Command::Demo { keep } => {
            let told = Box::pin(demo::run(&mut std::io::stdout(), keep)).await;
            told.map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        Command::ImportV1(args) => import(args, options.admin_password).await,
    };
    done.unwrap_or_else(|error| {
        eprintln!("tidegate: {}", one_line(&*error));
        ExitCode::FAILURE
    })
}

fn stack_options(options: Options) -> stack::Options {
    stack::Options {
        listen: options.listen,
        data: Some(options.data),
        admin_password: options.admin_password.map(Secret::new),
        container_prefix: options.container_prefix,
        public_url: options.public_url,
        ..stack::Options::throw_away()
    }
}

async fn import(args: ImportArgs, admin_password: Option<String>) -> Result<ExitCode, Box<dyn Error>> {
    let token = std::env::var(env::TOKEN).ok().filter(|token| !token.is_empty()).map(Secret::new);
    let credential = match (token, admin_password) {
        (Some(token), _) => Credential::Token(token),
        (None, Some(password)) => Credential::Person { user: args.user, password: Secret::new(password) },
        (None, None) => return Err("set TIDEGATE_ADMIN_PASSWORD, or TIDEGATE_TOKEN".into()),
    };
    let options = import_v1::Options {
        file: args.file,
        decisions: args.decisions,
        old_key_file: args.old_key_file,
        tokens_file: args.tokens_file,
        dry_run: args.dry_run,
        url: args.url,
        credential,
    };
    Ok(match import_v1::run(&mut std::io::stdout(), options).await? {
        Outcome::Done => ExitCode::SUCCESS,
        Outcome::DecisionsNeeded => ExitCode::from(DECISIONS_NEEDED),
    })
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
