//! `boolean`

use super::Verdict;
use crate::{
    invalid::Invalid,
    variable::{ValueType, check_value},
};

pub(super) fn check(text: &str) -> Result<Verdict, Invalid> {
    check_value(ValueType::Boolean, text).map(|()| Verdict::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boolean_has_two_spellings() {
        for (text, valid) in [
            ("true", true),
            ("false", true),
            ("True", false),
            ("1", false),
            ("yes", false),
            ("", false),
            (" true", false),
            ("true\n", false),
            ("null", false),
        ] {
            assert_eq!(check(text).map_err(|e| e.code).err(), (!valid).then_some("format-boolean"), "{text:?}");
        }
        assert_eq!(check("true\0").map_err(|e| e.code), Err("format-string"));
    }
}
