//! Names that an object of a JSON text has twice. A parser takes the last of them, and what stood under the others is gone
//! without a word.

use std::collections::BTreeSet;

use super::row::{below, shown};

/// What has been begun and not ended at some place of a text.
enum Open {
    Object {
        names: BTreeSet<String>,
        /// Of the member that is being read; `None` where a name is next.
        name: Option<String>,
    },
    List {
        index: usize,
    },
}

/// The path of each name that its object has already, in a text that is JSON. Takes no stack for the
/// depth of the text, and does not look at its numbers.
pub(super) fn doubled(text: &str) -> Vec<String> {
    let mut open: Vec<Open> = Vec::new();
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['"', '{', '}', '[', ']', ',']) {
        let (sign, after) = rest[at..].split_at(1);
        rest = after;
        match (sign, open.last_mut()) {
            ("{", _) => open.push(Open::Object { names: BTreeSet::new(), name: None }),
            ("[", _) => open.push(Open::List { index: 0 }),
            ("}" | "]", _) => {
                open.pop();
            }
            (",", Some(Open::Object { name, .. })) => *name = None,
            (",", Some(Open::List { index })) => *index += 1,
            ("\"", within) => {
                let (literal, after) = after.split_at(end_of_string(after));
                rest = after.get(1..).unwrap_or_default();
                if let Some(Open::Object { names, name: name @ None }) = within {
                    let read = unescaped(literal);
                    let again = !names.insert(read.clone());
                    *name = Some(read);
                    if again {
                        found.push(path(&open));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// Where the closing quote of a string is, or the text ends.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    let closing = text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    closing.unwrap_or(text.len())
}

/// `\u0065` and `e` are one name. What stands for no text, such as half a surrogate pair, is the same as itself.
fn unescaped(literal: &str) -> String {
    serde_json::from_str(&format!("\"{literal}\"")).unwrap_or_else(|_| literal.to_owned())
}

fn path(open: &[Open]) -> String {
    open.iter().fold(String::new(), |path, open| match open {
        Open::Object { name, .. } => below(&path, &shown(name.as_deref().unwrap_or_default())),
        Open::List { index } => format!("{path}[{index}]"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_name_is_found_where_its_object_has_it_again() {
        let check = |text: &str, expect: &[&str]| assert_eq!(doubled(text), expect, "{text}");
        for once in [
            "",
            "5",
            r#""a""#,
            r#"{"a":1,"b":1}"#,
            r#"[{"a":1},{"a":1}]"#,
            r#"{"a":{"a":{"a":["a","a"]}}}"#,
            r#"{"a":"\",\"a\":1","b":"a"}"#,
            r#"{"a":"\\","b":["b","b"]}"#,
        ] {
            check(once, &[]);
        }
        check(r#"{"a":1,"a":1}"#, &["a"]);
        check(r#"{"a":1,"a":2,"b":{},"a":3}"#, &["a", "a"]);
        check(r#"{"t":[{"a":1},{"a":[{}],"b":1e999,"a":null}],"t":[]}"#, &["t[1].a", "t"]);
        check(r#"{"e":1,"\u0065":2}"#, &["e"]);
        check(r#"[[{"a":{},"b":"x","a" : {"c":1, "c":2}}]]"#, &["[0][0].a", "[0][0].a.c"]);
        check(r#"{"\ud800":1,"\ud800":2}"#, &["(a name of 6 characters)"]);
        // A value in the place of a name is not told.
        check(r#"{"a secret":1,"a secret":2}"#, &["(a name of 8 characters)"]);
        check(&"[".repeat(1_000_000), &[]);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<i32>().prop_map(Value::from), r#"[ab"\\\[\]{},:]{0,4}"#.prop_map(Value::from)];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(r#"[ab"\\,{]{0,2}"#, inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_a_parser_has_written_has_each_name_once(value in json()) {
            prop_assert_eq!(doubled(&value.to_string()), Vec::<String>::new());
        }

        #[test]
        fn wherever_a_name_is_there_again_it_is_found(before in json(), one in json(), other in json(), after in json()) {
            let text = format!(r#"[{before},{{"x":{one},"y":{before},"x":{other}}},{after}]"#);
            prop_assert_eq!(doubled(&text), ["[1].x"], "{}", text);
        }

        #[test]
        fn no_text_is_too_strange(text in r#"([\{\}\[\],:"\\a]|\PC){0,60}"#) {
            doubled(&text);
        }
    }
}
