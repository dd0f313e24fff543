//! What was measured of the last hours.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{RawQuery, State},
};
use jiff::Timestamp;
use serde::Serialize;
use tidegate_aws::measures::{MAX_HOURS, Summary, Tally};
use tidegate_web::{
    Problem,
    auth::Read,
    form::{Form, number_text, within},
};

use crate::{AdminState, call::Call};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    /// Whole hours, and the one that has begun.
    hours: u32,
    from: Timestamp,
    to: Timestamp,
    requests: u64,
    pass_rate: Option<f64>,
    outcomes: BTreeMap<String, u64>,
    triggers: BTreeMap<String, u64>,
    failures: Vec<Failures>,
    callers: Vec<TallyView>,
    sources: Vec<TallyView>,
    duration_ms: Durations,
    deployments: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Failures {
    code: String,
    count: u64,
}

#[derive(Serialize)]
struct TallyView {
    name: String,
    requests: u64,
    rejections: u64,
}

/// See [`Summary::p50_ms`] for how exact they are.
#[derive(Serialize)]
struct Durations {
    p50: Option<f64>,
    p95: Option<f64>,
}

pub(crate) async fn show(
    State(state): State<AdminState>,
    call: Call<Read>,
    RawQuery(query): RawQuery,
) -> Result<Json<View>, Problem> {
    let mut form = Form::of_query(query.as_deref())?;
    let in_range = within(1, u64::from(MAX_HOURS));
    let hours = form.defaulted("hours", 24, |text: String| number_text(&text).and_then(in_range));
    let hours = form.finish(|| u32::try_from(hours).ok())?;
    let summary = state.store.summary(call.tenant(), hours, call.now).await?;
    Ok(Json(view(hours, summary)))
}

fn view(hours: u32, summary: Summary) -> View {
    let tallies = |tallies: Vec<Tally>| {
        let view = |Tally { name, requests, rejections }| TallyView { name, requests, rejections };
        tallies.into_iter().map(view).collect()
    };
    View {
        hours,
        from: summary.from,
        to: summary.to,
        requests: summary.requests,
        pass_rate: summary.pass_rate,
        outcomes: summary.outcomes,
        triggers: summary.triggers,
        failures: summary.codes.into_iter().map(|(code, count)| Failures { code, count }).collect(),
        callers: tallies(summary.callers),
        sources: tallies(summary.sources),
        duration_ms: Durations { p50: summary.p50_ms, p95: summary.p95_ms },
        deployments: summary.deployments,
    }
}
