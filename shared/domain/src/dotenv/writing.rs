//! From keys and values to a text that reads back as the same, and that a shell takes for the same: it may be sourced.

use crate::variable::VariableKey;

/// Each variable bare where its value needs no quotes, else in single quotes, in which nothing means anything to anybody;
/// else in double ones.
pub fn write<'a>(variables: impl IntoIterator<Item = (&'a VariableKey, &'a str)>) -> String {
    let mut text = String::new();
    for (key, value) in variables {
        text.push_str(key.as_str());
        text.push('=');
        if is_bare(value) {
            text.push_str(value);
        } else if value.contains('\'') || value.contains("\r\n") {
            quote(value, &mut text);
        } else {
            text.extend(["'", value, "'"]);
        }
        text.push('\n');
    }
    text
}

/// What a shell would take for one word, too.
fn is_bare(value: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.,:/@%+=".contains(c);
    value.chars().all(is_plain)
}

/// All that a shell looks at between double quotes is escaped; line breaks are left as they are, because a shell takes `\n`
/// for two characters. Of CRLF there is no form that reads the same for both: files end their lines with it.
fn quote(value: &str, text: &mut String) {
    text.push('"');
    let mut characters = value.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\r' if characters.peek() == Some(&'\n') => text.push_str("\\r"),
            '"' | '\\' | '$' | '`' => text.extend(['\\', c]),
            other => text.push(other),
        }
    }
    text.push('"');
}
