//! `number`

use super::Verdict;
use crate::{
    invalid::Invalid,
    variable::{ValueType, check_value},
};

/// More digits than any number that is meant as one.
const MAX_BYTES: usize = 1_024;

/// As JSON writes it, and without the blanks that JSON allows around it: the text is kept as it is written.
pub(super) fn check(text: &str) -> Result<Verdict, Invalid> {
    let plain = text.len() <= MAX_BYTES && !text.bytes().any(|b| b.is_ascii_whitespace());
    let text = if plain { text } else { "" };
    check_value(ValueType::Number, text).map(|()| Verdict::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_finite_and_as_json_writes_it() {
        for text in ["0", "-0", "30", "-1.5", "1e6", "1E-400", "0.1", "1.7976931348623157e308", &"9".repeat(300)] {
            assert_eq!(check(text), Ok(Verdict::Plain), "{text}");
        }
        let huge = "9".repeat(1_025);
        for text in [
            "", "+1", "01", ".5", "5.", "1e", "0x10", "1_000", "1,5", "NaN", "Infinity", "-", "1e999", "-1e999", " 1",
            "1\n", "1 2", "١", "１", "\"1\"", "null", "true", "[1]", &huge,
        ] {
            assert_eq!(check(text).map_err(|e| e.code), Err("format-number"), "{text:?}");
        }
        assert_eq!(check("1\0").map_err(|e| e.code), Err("format-string"));
    }
}
