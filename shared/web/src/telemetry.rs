//! Logs: JSON on Lambda, readable lines elsewhere. Never a body, a header or a value.

use std::io::IsTerminal as _;

use tidegate_aws::env;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Starts logging. To be called once, first thing in `main`; a second call does nothing.
pub fn init() {
    let filter = std::env::var(env::LOG).ok().and_then(|text| text.parse().ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::registry().with(filter);
    // Set by Lambda's runtime, which sends standard output to CloudWatch line by line.
    let started = if std::env::var_os("AWS_LAMBDA_FUNCTION_NAME").is_some() {
        let format = tracing_subscriber::fmt::layer().json().flatten_event(true).with_span_list(false);
        subscriber.with(format).try_init()
    } else {
        let ansi = std::io::stderr().is_terminal();
        subscriber.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi)).try_init()
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}
