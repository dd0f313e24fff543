//! How a process gets on with AWS over its life: which operations fail, and how far the clocks are apart.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{Intercept, context::FinalizerInterceptorContextRef},
        orchestrator::Metadata,
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::{DateTime, config_bag::ConfigBag, date_time::Format};
use jiff::SignedDuration;

use crate::clock;

/// A condition that does not hold is an answer, not a failure.
const ANSWER: &[u8] = b"ConditionalCheckFailedException";

/// Kept by the clients that it was given to. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct CallLog {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// By operation: `DynamoDB.Query`. There are as many as the process uses.
    errors: BTreeMap<String, u64>,
    clock_offset: Option<SignedDuration>,
}

impl CallLog {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls that failed after all their tries, by operation.
    pub fn errors(&self) -> Vec<(String, u64)> {
        self.seen().errors.iter().map(|(operation, count)| (operation.clone(), *count)).collect()
    }

    /// How much this machine's clock was ahead of AWS's at the last answer, to a second; none before the first.
    pub fn clock_offset(&self) -> Option<SignedDuration> {
        self.seen().clock_offset
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for CallLog {
    fn name(&self) -> &'static str {
        "CallLog"
    }

    fn read_after_execution(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        if let Some(date) = response.and_then(|response| response.headers().get("date"))
            && let Ok(date) = DateTime::from_str(date, Format::HttpDate)
        {
            let ahead = clock::now().as_second().saturating_sub(date.secs());
            self.seen().clock_offset = Some(SignedDuration::from_secs(ahead));
        }
        if matches!(context.output_or_error(), Some(Ok(_))) {
            return Ok(());
        }
        let body = response.and_then(|response| response.body().bytes()).unwrap_or_default();
        if !body.windows(ANSWER.len()).any(|part| part == ANSWER) {
            let operation = config
                .load::<Metadata>()
                .map_or_else(|| "unknown".to_owned(), |metadata| format!("{}.{}", metadata.service(), metadata.name()));
            *self.seen().errors.entry(operation).or_default() += 1;
        }
        Ok(())
    }
}
