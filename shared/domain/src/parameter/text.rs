//! `string`

use super::Verdict;
use crate::invalid::Invalid;

/// Most characters of a `string` whose declaration says nothing.
pub const MAX_LENGTH: u32 = 4_096;

pub(super) fn check(text: &str, multiline: bool) -> Result<Verdict, Invalid> {
    if text.contains('\0') {
        return Err(Invalid::new(
            "format-string",
            "contains a NUL character",
            "remove it: an environment cannot hold it",
        ));
    }
    if !multiline && text.chars().any(char::is_control) {
        let why = "contains a line break or another control character";
        return Err(Invalid::new("format-string", why, "remove it, or declare the parameter with multiline"));
    }
    Ok(Verdict::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_for_several_lines_and_nul_for_nobody() {
        let taken = |text: &str| [check(text, false).is_ok(), check(text, true).is_ok()];
        for text in ["", " ", "a b", "ü€😀", "\u{2028}", "$(rm -rf /)", "' OR 1=1 --", "<script>"] {
            assert_eq!(taken(text), [true, true], "{text:?}");
        }
        for text in ["a\nb", "\r", "\t", "\u{1b}[31m", "\u{7f}", "\u{85}"] {
            assert_eq!(taken(text), [false, true], "{text:?}");
        }
        assert_eq!(taken("a\0"), [false, false]);
    }
}
