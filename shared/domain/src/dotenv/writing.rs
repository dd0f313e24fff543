//! From keys and values to a text that reads back as the same.

use crate::variable::VariableKey;

/// One line a variable, bare where the value needs no quotes, else in double quotes.
pub fn write<'a>(variables: impl IntoIterator<Item = (&'a VariableKey, &'a str)>) -> String {
    let mut text = String::new();
    for (key, value) in variables {
        text.push_str(key.as_str());
        text.push('=');
        if is_bare(value) {
            text.push_str(value);
        } else {
            quote(value, &mut text);
        }
        text.push('\n');
    }
    text
}

/// What a shell would take for one word, too, so that a file can be sourced.
fn is_bare(value: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.,:/@%+=".contains(c);
    value.chars().all(is_plain)
}

fn quote(value: &str, text: &mut String) {
    text.push('"');
    for c in value.chars() {
        match c {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '"' | '\\' | '$' => text.extend(['\\', c]),
            other => text.push(other),
        }
    }
    text.push('"');
}
