//! Counts AWS calls, and how many of them had to wait for each other.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{
            Intercept,
            context::{BeforeSerializationInterceptorContextRef, FinalizerInterceptorContextRef},
        },
        orchestrator::Metadata,
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::config_bag::{ConfigBag, Layer, Storable, StoreReplace};

/// One call: `DynamoDB.TransactWriteItems`, and when it began and ended.
#[derive(Debug, Clone)]
pub struct Call {
    pub operation: String,
    pub began: Instant,
    pub ended: Instant,
}

/// Collects the calls of the clients that it was given to. Clones share their record.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    calls: Arc<Mutex<Vec<Call>>>,
}

#[derive(Debug)]
struct Began(Instant);
impl Storable for Began {
    type Storer = StoreReplace<Self>;
}

impl Meter {
    /// What was recorded since the last call of this.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The longest chain of calls of which each began after the one before had ended: the sequential round trips.
    pub fn sequential(calls: &[Call]) -> usize {
        let mut by_end: Vec<_> = calls.iter().collect();
        by_end.sort_by_key(|call| call.ended);
        let mut count = 0;
        let mut last_end = None;
        for call in by_end {
            if last_end.is_none_or(|end| call.began >= end) {
                count += 1;
                last_end = Some(call.ended);
            }
        }
        count
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Meter {
    fn name(&self) -> &'static str {
        "Meter"
    }

    fn read_before_execution(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let mut layer = Layer::new("Meter");
        layer.store_put(Began(Instant::now()));
        config.push_layer(layer);
        Ok(())
    }

    fn read_after_execution(
        &self,
        _: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let operation =
            config.load::<Metadata>().map_or_else(|| "unknown".to_owned(), |m| format!("{}.{}", m.service(), m.name()));
        let ended = Instant::now();
        let began = config.load::<Began>().map_or(ended, |b| b.0);
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(Call { operation, began, ended });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn calls_side_by_side_count_once() {
        let start = Instant::now();
        let call = |from, to| Call {
            operation: String::new(),
            began: start + Duration::from_millis(from),
            ended: start + Duration::from_millis(to),
        };
        assert_eq!(Meter::sequential(&[]), 0);
        assert_eq!(Meter::sequential(&[call(0, 5), call(1, 4), call(2, 9)]), 1);
        assert_eq!(Meter::sequential(&[call(0, 5), call(1, 4), call(4, 9), call(9, 10)]), 3);
    }
}
