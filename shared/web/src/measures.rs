//! What is measured of requests, for whoever watches the installation: on Lambda in `CloudWatch`'s embedded metric format,
//! elsewhere for Prometheus.

use std::{fmt, io::Write as _, sync::LazyLock};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use serde_json::{Value, json};
use tidegate_aws::{clock, measures::Measured};

/// Content type of [`render`].
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const NAMESPACE: &str = "Tidegate";
/// In seconds: validation may take five.
const DURATIONS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: &'static str,
}

/// Of the whole process. Without callers and sources: `GET /metrics/summary` tells those to people who may read them.
struct Counters {
    registry: Registry,
    validations: Family<ByOutcome, Counter>,
    faults: Family<ByCode, Counter>,
    durations: Histogram,
}

static COUNTERS: LazyLock<Counters> = LazyLock::new(|| {
    let mut registry = Registry::with_prefix("tidegate");
    let (validations, faults) = (Family::<ByOutcome, Counter>::default(), Family::<ByCode, Counter>::default());
    let durations = Histogram::new(DURATIONS);
    registry.register("validations", "Requests that were validated, by outcome", validations.clone());
    registry.register("validation_faults", "Requests with a fault of this code", faults.clone());
    let help = "From the known caller to the outcome";
    registry.register_with_unit("validation_duration", help, Unit::Seconds, durations.clone());
    Counters { registry, validations, faults, durations }
});

/// Whether this process is a function, whose standard output is its log.
static ON_LAMBDA: LazyLock<bool> = LazyLock::new(|| std::env::var_os("AWS_LAMBDA_FUNCTION_NAME").is_some());

/// Tells of one request: names and numbers, never a value, and not who it was.
pub fn emit(measured: &Measured) {
    if *ON_LAMBDA {
        let at_ms = clock::now().as_millisecond();
        let lines: Vec<_> = embedded(measured, at_ms).iter().map(Value::to_string).collect();
        // Nothing is done about a log that cannot be written: the request must not suffer from it.
        let _ = std::io::stdout().lock().write_all((lines.join("\n") + "\n").as_bytes());
    } else {
        let counters = &*COUNTERS;
        counters.validations.get_or_create(&ByOutcome { outcome: measured.outcome.as_str() }).inc();
        counters.durations.observe(measured.duration.as_secs_f64());
        for code in distinct(measured) {
            counters.faults.get_or_create(&ByCode { code }).inc();
        }
    }
}

/// Everything that was emitted in this process, in the text format of `OpenMetrics`, which Prometheus reads.
pub fn render() -> Result<String, fmt::Error> {
    let mut rendered = String::new();
    text::encode(&mut rendered, &COUNTERS.registry)?;
    Ok(rendered)
}

fn distinct(measured: &Measured) -> Vec<&'static str> {
    let mut codes = measured.codes.clone();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// One line for the request, and one for each code, because a line has one value of a dimension
/// (`CloudWatch`, "Embedded metric format specification").
fn embedded(measured: &Measured, at_ms: i64) -> Vec<Value> {
    let about = |dimension: &str, metrics: Value| {
        json!({"Timestamp": at_ms,
            "CloudWatchMetrics": [{"Namespace": NAMESPACE, "Dimensions": [[dimension]], "Metrics": metrics}]})
    };
    let of_request = json!({
        "_aws": about("Outcome", json!([
            {"Name": "Validations", "Unit": "Count"},
            {"Name": "ValidationDuration", "Unit": "Milliseconds"},
        ])),
        "Outcome": measured.outcome.as_str(),
        "Validations": 1,
        "ValidationDuration": measured.duration.as_secs_f64() * 1_000.0,
    });
    let of_code = |code| {
        let metrics = json!([{"Name": "ValidationFaults", "Unit": "Count"}]);
        json!({"_aws": about("Code", metrics), "Code": code, "ValidationFaults": 1})
    };
    [of_request].into_iter().chain(distinct(measured).into_iter().map(of_code)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_aws::measures::Outcome;
    use tidegate_domain::deployment::TriggerKind;

    use super::*;

    fn measured() -> Measured {
        Measured {
            duration: Duration::from_millis(30),
            outcome: Outcome::Rejected,
            codes: vec!["missing", "format-ip", "missing"],
            trigger: TriggerKind::Webhook,
            caller: "application:7".to_owned(),
            source: "192.0.2.7".parse().ok(),
        }
    }

    #[test]
    fn a_line_has_every_metric_and_dimension_that_it_names() {
        let lines = embedded(&measured(), 1_763_800_000_000);
        assert_eq!(lines.len(), 3, "{lines:?}");
        for line in &lines {
            let directive = &line["_aws"]["CloudWatchMetrics"][0];
            assert_eq!(
                (&directive["Namespace"], &line["_aws"]["Timestamp"]),
                (&json!("Tidegate"), &json!(1_763_800_000_000_i64))
            );
            for metric in directive["Metrics"].as_array().unwrap() {
                assert!(line[metric["Name"].as_str().unwrap()].is_number(), "{line}");
            }
            for dimension in directive["Dimensions"][0].as_array().unwrap() {
                assert!(line[dimension.as_str().unwrap()].is_string(), "{line}");
            }
            assert!(!line.to_string().contains("192.0.2.7") && !line.to_string().contains("application:7"), "{line}");
        }
        assert_eq!((&lines[0]["Outcome"], &lines[0]["ValidationDuration"]), (&json!("rejected"), &json!(30.0)));
        assert_eq!((&lines[1]["Code"], &lines[2]["Code"]), (&json!("format-ip"), &json!("missing")));
    }

    #[test]
    fn outcomes_codes_and_durations_are_told_to_prometheus() {
        emit(&measured());
        let told = render().unwrap();
        for line in [
            "tidegate_validations_total{outcome=\"rejected\"} 1",
            "tidegate_validation_faults_total{code=\"missing\"} 1",
            "tidegate_validation_duration_seconds_bucket{le=\"0.05\"} 1",
            "tidegate_validation_duration_seconds_count 1",
            "# EOF",
        ] {
            assert!(told.lines().any(|told| told == line), "{line} in {told}");
        }
        assert!(!told.contains("192.0.2.7"), "{told}");
    }
}
