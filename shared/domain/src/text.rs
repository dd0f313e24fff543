//! Characters that are not what they look like.

/// Whether it turns the direction of the text around it, or takes no room: two names that differ in such a character alone
/// look the same, and one can be made to look like another. The joiners, which some scripts are written with, do neither.
/// <https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing>
pub fn is_deceptive(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    )
}

/// Whether it can stand in a name or in a text of one line.
pub fn fits_a_line(c: char) -> bool {
    !c.is_control() && !is_deceptive(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scripts_need_fits_and_what_deceives_does_not() {
        for fits in ['a', 'é', '\u{301}', '中', 'ש', '\u{200c}', '\u{200d}', '👪', '*', ' '] {
            assert!(fits_a_line(fits), "{fits:?}");
        }
        for none in ['\n', '\0', '\u{85}', '\u{200b}', '\u{200f}', '\u{202e}', '\u{2066}', '\u{2028}', '\u{feff}'] {
            assert!(!fits_a_line(none), "{none:?}");
        }
    }
}
