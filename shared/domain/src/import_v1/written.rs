//! The file's JSON with nothing lost of its numbers. A parsed one has forgotten how it was written: `1e6`, `1.50`, and all
//! digits past the seventeenth, which an id may have.

use std::collections::BTreeMap;

use serde_json::{Error, Number, Value, value::RawValue};

use super::doubled::doubled;

/// The file, its tables, their rows: what is in a column stands below these.
const OF_FILE: usize = 3;
/// A list of `{key, value}`, and one of these.
const OF_COLUMN: usize = 2;

/// What a JSON text holds, and what of it a [`Value`] has no room for.
#[derive(Debug)]
pub struct Document {
    pub(super) value: Value,
    /// Paths of the names that their objects have twice.
    pub(super) doubled: Vec<String>,
}

/// Of something in which each name is there once, or has been seen to be.
impl From<Value> for Document {
    fn from(value: Value) -> Self {
        Self { value, doubled: Vec::new() }
    }
}

/// As any parser does, but for columns that hold a number which would come out as another text: each is the text that it is
/// written as. So is a whole document in a column; columns may hold documents as texts anyway.
///
/// # Errors
/// What is not JSON.
pub fn read_json(text: &str) -> Result<Document, Error> {
    Ok(Document { value: written(text, OF_FILE)?, doubled: doubled(text) })
}

/// A JSON document in a text of a column; as [`read_json`].
pub(super) fn document(text: &str) -> Result<Document, Error> {
    Ok(Document { value: written(text, OF_COLUMN)?, doubled: doubled(text) })
}

fn written(text: &str, levels: usize) -> Result<Value, Error> {
    if !loses(text) {
        return serde_json::from_str(text);
    }
    let text = serde_json::from_str::<&RawValue>(text)?.get();
    match text.as_bytes().first() {
        Some(b'{') if levels > 0 => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            let members = members.into_iter().map(|(name, raw)| Ok((name, written(raw.get(), levels - 1)?)));
            members.collect::<Result<_, Error>>().map(Value::Object)
        }
        Some(b'[') if levels > 0 => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            items.into_iter().map(|raw| written(raw.get(), levels - 1)).collect::<Result<_, Error>>().map(Value::Array)
        }
        Some(_) | None => Ok(Value::String(text.to_owned())),
    }
}

/// Whether a number outside of its strings would be written in another way.
fn loses(text: &str) -> bool {
    let (mut in_string, mut rest) = (false, text);
    while let Some(at) = rest.find(|c: char| c == '"' || in_string && c == '\\' || !in_string && is_of_number(c)) {
        let found = &rest[at..];
        if let Some(after) = found.strip_prefix('"') {
            in_string = !in_string;
            rest = after;
        } else if in_string {
            // What is escaped, if it is not the end of something that is no JSON.
            let escaped = found.chars().nth(1).map_or(0, char::len_utf8);
            rest = &found[1 + escaped..];
        } else {
            let end = found.find(|c: char| !is_of_number(c)).unwrap_or(found.len());
            let number = &found[..end];
            // `true` and its like have letters of an exponent.
            let begins = number.starts_with(|c: char| c == '-' || c.is_ascii_digit());
            if begins && serde_json::from_str::<Number>(number).map_or(true, |parsed| parsed.to_string() != number) {
                return true;
            }
            rest = &found[end..];
        }
    }
    false
}

fn is_of_number(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_that_a_parser_would_change_are_texts() {
        let check = |text: &str, expect: Value| assert_eq!(read_json(text).unwrap().value, expect, "{text}");
        check(
            r#"{"t":[{"a":1,"b":-1.5,"c":true,"d":null,"e":"1e6"}]}"#,
            json!({"t": [{"a": 1, "b": -1.5, "c": true, "d": null, "e": "1e6"}]}),
        );
        check(
            r#"{"t": [ {"id": 12345678901234567890123, "a": 1e6, "b": 1.50 , "c": 2, "d": -0, "e\"1.50": "\\\"1.50"} ]}"#,
            json!({"t": [{"id": "12345678901234567890123", "a": "1e6", "b": "1.50", "c": 2, "d": "-0", "e\"1.50": "\\\"1.50"}]}),
        );
        // A document stays one, with all that it holds.
        check(
            r#"{"t": [{"json": {"b": [1.50, "x"], "a": 1}, "list": [1e6]}, {"json": {"a": 1}}]}"#,
            json!({"t": [{"json": r#"{"b": [1.50, "x"], "a": 1}"#, "list": "[1e6]"}, {"json": {"a": 1}}]}),
        );
        check("1e999", json!("1e999"));
        for wrong in ["", "{", "[1.50", "1.50.2", "\"\\", "{\"a\":1.50,}", "-"] {
            assert!(read_json(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_document_in_a_column_is_read_the_same_way() {
        let check = |text: &str, expect: Value| assert_eq!(document(text).unwrap().value, expect, "{text}");
        check(r#"{"A": 1e6, "B": "x"}"#, json!({"A": "1e6", "B": "x"}));
        check(
            r#"[{"key": "A", "value": 1.50}, {"key": "B", "value": 1}]"#,
            json!([{"key": "A", "value": "1.50"}, {"key": "B", "value": 1}]),
        );
    }

    proptest! {
        #[test]
        fn what_a_parser_reads_is_read(text in r#"(\{"a":|\}|\[|\]|,"b":|,|"x\\"1.50"|-?[0-9]{1,3}(\.[0-9]{1,2})?(e[0-9])?|true|null| ){0,12}"#) {
            if serde_json::from_str::<Value>(&text).is_ok() {
                prop_assert!(read_json(&text).is_ok(), "{text}");
            }
        }

        #[test]
        fn no_text_is_too_strange(text in r#"([\{\}\[\],:"\\0-9eE+.-]|\PC){0,60}"#) {
            let _ = read_json(&text);
        }
    }
}
