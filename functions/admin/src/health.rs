//! Whether what everything needs answers.

use std::time::{Duration, Instant};

use axum::{Json, extract::State};
use serde_json::{Value, json};
use tidegate_web::Problem;
use tokio::sync::Mutex;

use crate::AdminState;

/// Anybody may ask, so the services are asked at most so often.
const KEPT: Duration = Duration::from_secs(5);

/// When the services were asked last, and whether they answered.
#[derive(Default)]
pub(crate) struct LastCheck(Mutex<Option<(Instant, bool)>>);

pub(crate) async fn check(State(state): State<AdminState>) -> Result<Json<Value>, Problem> {
    let mut last = state.last_check.0.lock().await;
    let answers = match *last {
        Some((at, answers)) if at.elapsed() < KEPT => answers,
        Some(_) | None => {
            let checked = state.store.check().await;
            if let Err(error) = &checked {
                tracing::error!(error = error as &dyn std::error::Error, "the health check fails");
            }
            checked.is_ok()
        }
    };
    // The age counts from the question, also where it was answered from memory.
    if last.is_none_or(|(at, _)| at.elapsed() >= KEPT) {
        *last = Some((Instant::now(), answers));
    }
    if answers { Ok(Json(json!({"status": "ok"}))) } else { Err(Problem::away("A service that this needs")) }
}
