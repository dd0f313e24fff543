//! What it takes to judge a request: the whole gate, dry, against Debian's `webhook` that checks an HMAC over the body and
//! runs `/bin/true`. Both on loopback, in turns, called by the same client in the same way.
//!
//! The gate reads its table anew for every request (an embedded stand-in here, in the same process): token, application,
//! hosts, settings and variables, and judges version and parameters. The other knows one key, and no application.

use std::{
    error::Error,
    fmt::Write as _,
    fs,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_domain::secret::Secret;
use tidegate_local::stack::{Options, Stack};

type Failure = Box<dyn Error>;

/// Callers at a time, and requests of each in a turn.
const CALLERS: usize = 4;
const REQUESTS: usize = 100;
/// Each side has so many, one after the other's.
const TURNS: usize = 5;
/// The gate is at least so fast: requests a second, as a part of the other's.
const LEAST_RATE: f64 = 0.1;

#[tokio::main]
async fn main() -> ExitCode {
    if !is_there() {
        eprintln!("Debian's webhook is not installed; install it with: apt-get install webhook");
        return ExitCode::from(2);
    }
    match Box::pin(run()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("validation-speed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_there() -> bool {
    let asked = Command::new("webhook").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// One side's request, the same each time, and what it took.
struct Side {
    url: String,
    headers: Vec<(&'static str, String)>,
    body: String,
    /// Seconds of each request.
    took: Vec<f64>,
    /// Seconds of all turns.
    total: f64,
}

impl Side {
    fn new(url: String, headers: Vec<(&'static str, String)>, body: String) -> Self {
        Self { url, headers, body, took: Vec::new(), total: 0.0 }
    }

    async fn turn(&mut self, http: &reqwest::Client) -> Result<(), Failure> {
        let begun = Instant::now();
        let callers = join_all((0..CALLERS).map(|_| self.caller(http))).await;
        self.total += begun.elapsed().as_secs_f64();
        for took in callers {
            self.took.extend(took?);
        }
        Ok(())
    }

    async fn caller(&self, http: &reqwest::Client) -> Result<Vec<f64>, Failure> {
        let mut took = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            let mut request = http.post(&self.url).header("content-type", "application/json").body(self.body.clone());
            for (name, value) in &self.headers {
                request = request.header(*name, value);
            }
            let begun = Instant::now();
            request.send().await?.error_for_status()?.bytes().await?;
            took.push(begun.elapsed().as_secs_f64());
        }
        Ok(took)
    }

    fn rate(&self) -> f64 {
        f64::from(u32::try_from(self.took.len()).unwrap_or(u32::MAX)) / self.total
    }

    /// Milliseconds that so many of 100 requests took at most.
    fn percentile(&self, of_hundred: usize) -> f64 {
        let mut sorted = self.took.clone();
        sorted.sort_by(f64::total_cmp);
        let index = (sorted.len() * of_hundred / 100).min(sorted.len().saturating_sub(1));
        sorted.get(index).copied().unwrap_or_default() * 1_000.0
    }
}

async fn run() -> Result<bool, Failure> {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
    let stack = Box::pin(Stack::start(Options {
        admin_password: Some(Secret::new("of-a-benchmark".to_owned())),
        worker: false,
        sweeps: false,
        syncs: false,
        ..Options::throw_away()
    }))
    .await?;
    let mut ours = tidegate(&http, &stack.url()).await?;
    let (_webhook, mut theirs) = webhook(&http).await?;
    // Connections, caches and data keys are warm on both sides.
    let (mut first, mut second) = (side_like(&ours), side_like(&theirs));
    first.turn(&http).await?;
    second.turn(&http).await?;
    for _ in 0..TURNS {
        ours.turn(&http).await?;
        theirs.turn(&http).await?;
    }
    stack.stop().await;
    let rate = ours.rate() / theirs.rate();
    println!(
        "figure: requests a second: the gate {:.0}, webhook with HMAC and /bin/true {:.0}, ratio {rate:.2} (at least {LEAST_RATE})",
        ours.rate(),
        theirs.rate()
    );
    for of_hundred in [50, 99] {
        let (mine, other) = (ours.percentile(of_hundred), theirs.percentile(of_hundred));
        println!("figure: p{of_hundred}: the gate {mine:.1} ms, webhook {other:.1} ms, ratio {:.2}", mine / other);
    }
    println!(
        "figure: {CALLERS} callers, {} requests of each side; the gate as tests are built, not a release build",
        CALLERS * REQUESTS * TURNS
    );
    Ok(rate >= LEAST_RATE)
}

fn side_like(side: &Side) -> Side {
    Side::new(side.url.clone(), side.headers.clone(), side.body.clone())
}

/// An application with parameters of several types, and a request that passes.
async fn tidegate(http: &reqwest::Client, url: &str) -> Result<Side, Failure> {
    let sign_in = json!({"username": "admin", "password": "of-a-benchmark"});
    let signed_in: Value =
        http.post(format!("{url}/api/v2/auth/login")).json(&sign_in).send().await?.error_for_status()?.json().await?;
    let token = signed_in["token"].as_str().ok_or("no token")?.to_owned();
    let post = async |path: &str, body: Value| -> Result<Value, Failure> {
        let sent = http.post(format!("{url}/api/v2/{path}")).bearer_auth(&token).json(&body).send().await?;
        Ok(sent.error_for_status()?.json().await?)
    };
    let project = post("projects", json!({"key": "bench", "name": "Bench"})).await?["id"].clone();
    let parameters = json!([
        {"name": "EMAIL", "type": "email"}, {"name": "SERVER", "type": "host"}, {"name": "API", "type": "url"},
        {"name": "KEY", "type": "public_key"}]);
    let application = json!({"projectId": project, "name": "bench", "image": "registry.example.com/shop/bench",
        "hosts": {"names": ["local"]}, "versionPattern": r"v\d+", "parameters": parameters});
    let application = post("applications", application).await?;
    let body = json!({"applicationId": application["id"], "token": application["webhookToken"], "version": "v1",
        "variables": {"EMAIL": "ops@example.org", "SERVER": "10.1.2.3:21116", "API": "https://10.1.2.3/api",
            "KEY": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="}});
    Ok(Side::new(format!("{url}/webhook/validate"), Vec::new(), body.to_string()))
}

/// Ends with its owner.
struct Running {
    process: Child,
    _folder: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn webhook(http: &reqwest::Client) -> Result<(Running, Side), Failure> {
    let folder = tempfile::tempdir()?;
    let secret = "of-a-benchmark";
    let hooks = json!([{
        "id": "validate",
        "execute-command": "/bin/true",
        "include-command-output-in-response": true,
        "trigger-rule": {"match": {"type": "payload-hmac-sha256", "secret": secret,
            "parameter": {"source": "header", "name": "X-Signature"}}},
    }]);
    let file = folder.path().join("hooks.json");
    fs::write(&file, hooks.to_string())?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let process = Command::new("webhook")
        .arg("-hooks")
        .arg(&file)
        .args(["-ip", "127.0.0.1", "-port", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let running = Running { process, _folder: folder };
    let url = format!("http://127.0.0.1:{port}");
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let mut answers = false;
    for _ in 0..200 {
        ticks.tick().await;
        answers = http.get(&url).send().await.is_ok();
        if answers {
            break;
        }
    }
    if !answers {
        return Err("webhook does not answer".into());
    }
    let body = json!({"version": "v1"}).to_string();
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body.as_bytes());
    let mut hex = "sha256=".to_owned();
    for byte in signature.as_ref() {
        write!(hex, "{byte:02x}")?;
    }
    Ok((running, Side::new(format!("{url}/hooks/validate"), vec![("X-Signature", hex)], body)))
}
