//! Lines of JSON on standard error, each with the fields of the job that it belongs to; what panics too.

use std::{error::Error, fmt, panic::PanicHookInfo};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use tidegate_aws::env;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::{
        FmtContext, FormatEvent, FormattedFields,
        format::{JsonFields, Writer},
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt as _,
    registry::{LookupSpan, Scope},
    util::SubscriberInitExt as _,
};

/// From here on all that is told goes into the log.
pub fn start() {
    let wanted = std::env::var(env::LOG).ok().filter(|text| !text.is_empty());
    let filter = wanted.as_deref().map(str::parse::<Targets>);
    let usual = || Targets::new().with_default(tracing::Level::INFO);
    let (filter, wrong) = match filter {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (usual(), Some(error)),
        None => (usual(), None),
    };
    let lines =
        tracing_subscriber::fmt::layer().fmt_fields(JsonFields::new()).event_format(Lines).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines).with(filter).with(never_bodies()).init();
    std::panic::set_hook(Box::new(tell_of_panic));
    if let Some(error) = wrong {
        let error = &error as &dyn Error;
        tracing::warn!(error, "{} is no filter, so `info` is taken; write `info,tidegate=debug`", env::LOG);
    }
}

/// Beside any other filter: libraries that carry requests tell what is in them when they are asked for more than this, a
/// container's environment or an opened work order among it. Each word counts for whatever begins with it.
pub fn never_bodies() -> Targets {
    let carriers = ["bollard", "hyper", "h2", "rustls", "aws_"];
    Targets::new().with_default(LevelFilter::TRACE).with_targets(carriers.map(|carrier| (carrier, LevelFilter::INFO)))
}

/// An error with its reasons, each of which says only its own part.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let reason = error.to_string();
        // Some of other people's repeat their source.
        if !told.contains(&reason) {
            told = format!("{told}: {reason}");
        }
        source = error.source();
    }
    told
}

/// In the middle of whatever it happened in, so with the fields of its job.
///
/// A message that was put together at the time is left out: it may hold what a container has written, or a value that it
/// was given. The place says enough.
fn tell_of_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("not shown");
    let (file, line) = panic.location().map_or(("", 0), |at| (at.file(), at.line()));
    tracing::error!(panic.message = message, panic.file = file, panic.line = line, "a panic");
}

/// `{"timestamp":…,"level":…,"message":…,…,"target":…,"span":{…}}`, the last with the fields of all spans around.
///
/// The formatter of `tracing_subscriber` would leave out why an error happened.
struct Lines;

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, JsonFields> for Lines {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Line::default();
        line.put("timestamp", time);
        line.put("level", event.metadata().level().as_str());
        event.record(&mut line);
        line.put("target", event.metadata().target());
        let mut around = Map::new();
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            around.insert("name".to_owned(), span.name().into());
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<JsonFields>>();
            if let Some(Ok(Value::Object(fields))) = fields.map(|fields| serde_json::from_str(&fields.fields)) {
                around.extend(fields);
            }
        }
        if !around.is_empty() {
            line.put("span", around);
        }
        let line = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

/// In the order in which they were put.
#[derive(Default)]
struct Line(Vec<(&'static str, Value)>);

impl Line {
    fn put(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.push((name, value.into()));
    }
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field.name(), chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        panic,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `tell` writes, and their text.
    fn told(tell: impl FnOnce()) -> (Vec<Value>, String) {
        let written = Written::default();
        let sink = written.clone();
        let lines = tracing_subscriber::fmt::layer()
            .fmt_fields(JsonFields::new())
            .event_format(Lines)
            .with_writer(move || sink.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), tell);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), text)
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the table does not answer")]
    struct Away(#[source] io::Error);

    #[test]
    fn an_error_is_told_with_its_reasons_and_each_line_with_its_spans() {
        let (lines, text) = told(|| {
            let _job = tracing::error_span!("work", deployment.id = "d-1", attempts = 2).entered();
            let _step = tracing::error_span!("step", step = "pull").entered();
            let error = Away(io::Error::other("no\nroute"));
            tracing::warn!(error = &error as &dyn Error, jobs = 3, done = false, what = ?Some(1), "late");
        });
        let [line] = lines.as_slice() else { panic!("{text}") };
        assert!(
            text.starts_with("{\"timestamp\":\"2") && text.contains("\"level\":\"WARN\",\"message\":\"late\""),
            "{text}"
        );
        assert_eq!(line["error"], "the table does not answer: no\nroute");
        assert_eq!((&line["jobs"], &line["done"], &line["what"]), (&3.into(), &false.into(), &"Some(1)".into()));
        let span = serde_json::json!({"name": "step", "deployment.id": "d-1", "attempts": 2, "step": "pull"});
        assert_eq!(line["span"], span);
    }

    #[test]
    fn no_filter_makes_a_library_tell_what_a_request_holds() {
        let written = Written::default();
        let sink = written.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || sink.clone());
        let asked: Targets = "trace,bollard=trace,bollard::docker=trace,aws_smithy_runtime=debug".parse().unwrap();
        let log = tracing_subscriber::registry().with(lines).with(asked).with(never_bodies());
        tracing::subscriber::with_default(log, || {
            tracing::debug!(target: "bollard::docker", "s3cret");
            tracing::trace!(target: "hyper::proto::h1::io", "s3cret");
            tracing::debug!(target: "hyper_util::client", "s3cret");
            tracing::debug!(target: "h2::codec", "s3cret");
            tracing::debug!(target: "rustls::client", "s3cret");
            tracing::debug!(target: "aws_smithy_runtime::client::orchestrator", "s3cret");
            tracing::debug!(target: "aws_sdk_kms::operation", "s3cret");
            tracing::debug!(target: "aws_config", "s3cret");
            tracing::info!(target: "bollard", "said");
            tracing::trace!(target: "tidegate_worker", "said");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        assert_eq!(text.matches("said").count(), 2, "{text}");
    }

    #[test]
    fn a_panic_is_a_line_with_its_job_and_without_what_it_held() {
        let before = panic::take_hook();
        panic::set_hook(Box::new(tell_of_panic));
        let (lines, text) = told(|| {
            let _job = tracing::error_span!("work", deployment.id = "d-1").entered();
            let value = String::from("s3cret-ä");
            let _ = panic::catch_unwind(|| panic!("fixed words"));
            // Between the bytes of a letter; the usual message shows the text.
            let _ = panic::catch_unwind(|| value[..8].len());
        });
        panic::set_hook(before);
        assert_eq!(lines.len(), 2, "{text}");
        for line in &lines {
            assert_eq!((&line["level"], &line["span"]["deployment.id"]), (&"ERROR".into(), &"d-1".into()), "{text}");
            assert!(line["panic.file"].as_str().unwrap().ends_with("logs.rs"), "{text}");
        }
        assert_eq!(lines[0]["panic.message"], "fixed words");
        assert!(!text.contains("s3cret"), "{text}");
    }
}
