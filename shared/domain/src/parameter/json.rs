//! `json`

use super::Verdict;
use crate::{
    invalid::Invalid,
    variable::{ValueType, check_value},
};

pub(super) fn check(text: &str) -> Result<Verdict, Invalid> {
    check_value(ValueType::Json, text).map(|()| Verdict::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_at_most_64_kib_and_32_levels() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let objects = |levels: usize| r#"{"a":"#.repeat(levels) + "1" + &"}".repeat(levels);
        let long = |bytes: usize| format!("\"{}\"", "a".repeat(bytes - 2));
        for text in
            ["null", "1", "\"a\"", "[]", r#"{"a":[1,{"b":null}]}"#, " [1]\n", &nested(32), &objects(32), &long(65_536)]
        {
            assert_eq!(check(text), Ok(Verdict::Plain), "{}", text.len());
        }
        // The last are far deeper than a parser that calls itself could go.
        for text in [
            "",
            "{",
            "[1,]",
            "{'a':1}",
            "NaN",
            "[1] 2",
            "// a\n1",
            &nested(33),
            &objects(33),
            &long(65_537),
            &nested(30_000),
            &"[".repeat(60_000),
            &r#"{"a":"#.repeat(12_000),
        ] {
            assert_eq!(check(text).map_err(|e| e.code), Err("format-json"), "{}", text.len());
        }
    }
}
