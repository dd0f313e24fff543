//! Lists, a page at a time.

use serde::Serialize;

use crate::form::{Form, number_text, within};

const DEFAULT_LIMIT: u64 = 50;
const MAX_LIMIT: u64 = 200;

/// Which part of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQuery {
    /// 1 to 200, default 50.
    pub limit: usize,
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
}

impl PageQuery {
    /// Takes `limit` and `cursor`; other parameters are the list's own.
    pub fn read(form: &mut Form) -> Self {
        let limit =
            form.defaulted("limit", DEFAULT_LIMIT, |text: String| number_text(&text).and_then(within(1, MAX_LIMIT)));
        let cursor = form.nullable("cursor", None, Ok);
        Self { limit: usize::try_from(limit).expect("at most 200"), cursor }
    }
}

/// One page; `next_cursor` is null on the last.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    pub data: Vec<T>,
    pub next_cursor: Option<String>,
}
