use proptest::prelude::*;

use super::*;
use crate::variable::VariableKey;

/// `KEY=value` of each line, or `field code` of each fault.
fn shown(text: &str) -> Result<Vec<String>, Vec<String>> {
    match read("dotenv", text) {
        Ok(lines) => Ok(lines.iter().map(|line| format!("{}={}", line.key, line.value.expose())).collect()),
        Err(faults) => Err(faults.iter().map(|fault| format!("{} {}", fault.field, fault.invalid.code)).collect()),
    }
}

#[track_caller]
fn check(text: &str, expect: &[&str]) {
    assert_eq!(shown(text).unwrap(), expect, "{text:?}");
}

#[test]
fn lines_are_read_as_tools_read_them() {
    check("", &[]);
    check("\n\n# comment\n  # another\nA=1", &["A=1"]);
    check("\u{feff}A=1\r\nB=2\r\n", &["A=1", "B=2"]);
    check("export A=1\nexport\tB=2\nexported=3\n export  C = 4", &["A=1", "B=2", "exported=3", "C=4"]);
    check("A=\nB=  \nC= # comment\nD=#comment", &["A=", "B=", "C=", "D="]);
    check("A= one two  \nB=a#b\nC=a #b\nD=x=y=z", &["A=one two", "B=a#b", "C=a", "D=x=y=z"]);
    check("A=it's\nB=a\"b\"", &["A=it's", "B=a\"b\""]);
    check("A=$HOME ${X}", &["A=$HOME ${X}"]);
}

#[test]
fn quotes_keep_what_is_between_them() {
    check(r"A=' a \n # $b '", &[r"A= a \n # $b "]);
    check(r#"A=" a # b "  # comment"#, &["A= a # b "]);
    check(r#"A="\n\r\t\"\\\$\`""#, &["A=\n\r\t\"\\$`"]);
    check("A=\"one\r\ntwo\nthree\"\nB='x\r\ny'\nC=3", &["A=one\ntwo\nthree", "B=x\ny", "C=3"]);
    check("A=''\nB=\"\"", &["A=", "B="]);
    check("A=\"{\\\"a\\\": 1}\"", &["A={\"a\": 1}"]);
}

#[test]
fn every_bad_line_is_told_by_its_number_and_without_its_text() {
    let text =
        "A=1\nn33dle\n1n33dle=2\nB=\"two\nlines\"\nB=n33dle\nC='x'n33dle\nD=\"\\qn33dle\"\nE=n33dle\0\nF=\"n33dle\nG=3";
    let expect = [
        "dotenv[2] format-dotenv",
        "dotenv[3] format-key",
        "dotenv[6] duplicate",
        "dotenv[7] format-dotenv",
        "dotenv[8] format-dotenv",
        "dotenv[9] format-string",
        "dotenv[10] format-dotenv",
    ];
    assert_eq!(shown(text).unwrap_err(), expect);
    let told = format!("{:?}", read("dotenv", text).unwrap_err());
    assert!(!told.contains("n33dle"), "{told}");
    assert!(!format!("{:?}", read("dotenv", "A=n33dle").unwrap()).contains("n33dle"));
}

#[test]
fn a_line_that_ends_for_some_alone_is_refused_outside_quotes() {
    for other in ['\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'] {
        for text in [
            format!("A=1{other}B=2"),
            format!("A=1{other} \nB=2"),
            format!("A={other}1"),
            format!("# comment{other}A=1"),
            format!("A=1 # comment{other}B=2"),
            format!("A='1' # comment{other}B=2"),
            format!("A=\"1\"{other}B=2"),
        ] {
            assert_eq!(shown(&format!("Z=0\r\n{text}")).unwrap_err(), ["dotenv[2] format-dotenv"], "{text:?}");
        }
        check(&format!("A='1{other}2'\nB=\"1{other}2\""), &[&format!("A=1{other}2"), &format!("B=1{other}2")]);
    }
}

#[test]
fn what_is_written_needs_no_quotes_where_it_can_do_without() {
    let key = |text: &str| VariableKey::parse(text).unwrap();
    let check = |value: &str, expect: &str| {
        assert_eq!(write([(&key("A"), value)]), format!("A={expect}\n"), "{value:?}");
    };
    check("", "");
    check("a-b_c.d/e", "a-b_c.d/e");
    check("http://x.y:80/%20?", "'http://x.y:80/%20?'");
    check("$x\n`y`", "'$x\n`y`'");
    check("it's\n$x `y` \\ \"z\"", "\"it's\n\\$x \\`y\\` \\\\ \\\"z\\\"\"");
    check("a\r\nb\rc", "\"a\\r\nb\rc\"");
}

proptest! {
    #[test]
    fn what_is_written_reads_back_the_same(values in prop::collection::vec(r#"([a-z0-9]|[ \t\r\n\x0b\x0c\u{85}\u{2028}#'"`$\\={}\u{feff}]|\PC){0,20}"#, 0..8)) {
        let keys: Vec<_> = (0..values.len()).map(|index| VariableKey::parse(&format!("K{index}")).unwrap()).collect();
        let text = write(keys.iter().zip(values.iter().map(String::as_str)));
        let read = read("dotenv", &text).unwrap();
        let got: Vec<_> = read.iter().map(|line| line.value.expose().as_str()).collect();
        prop_assert_eq!(got, values);
    }

    #[test]
    fn what_ends_a_line_for_some_ends_no_part_of_a_value(
        before in "[a-z #=]{0,8}",
        other in "[\r\x0b\x0c\u{85}\u{2028}\u{2029}]",
        after in "[A-Za-z #=]{1,8}",
    ) {
        prop_assert_eq!(shown(&format!("A={before}{other}{after}\nB=2")), Err(vec!["dotenv[1] format-dotenv".to_owned()]));
    }

    #[test]
    fn no_text_is_too_strange(text in r#"([A-Z=\n\r'"\\ #\u{feff}\x00]|export |\PC){0,60}"#) {
        let _ = shown(&text);
    }
}
