//! What judging costs as its input grows: whatever anybody may send, at a length and at eight times that length. Work that is
//! linear takes eight times as long, quadratic work 64 times.
//!
//! What is compared is the least of several runs, so that what else the machine does is not counted.

use std::{
    collections::BTreeMap,
    hint::black_box,
    process::ExitCode,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tidegate_domain::{
    image::{ImageName, Version},
    issue::{command::Command, form},
    parameter::{self, MAX_DECLARED_LENGTH, Parameter, ParameterType},
    pattern::Pattern,
    token::{Token, TokenKind},
    variable::VariableKey,
};
use tidegate_web::body;

const GROWTH: usize = 8;
/// The longer input takes at most so many times as long as the shorter: linear, and as much again and a half for caches,
/// allocations and the clock.
const MOST: f64 = 2.5 * 8.0;
/// The shorter of each two lengths, in bytes: the longer ones are about the most that names, URLs, keys and texts may have,
/// and the most that a body may.
const LENGTHS: &[usize] = &[31, 128, 256, 2_048, 8_192, 32_768];
/// A run repeats its work for so long, so that the clock's own steps do not count.
const RUN: Duration = Duration::from_micros(200);
/// The least of so many runs counts.
const RUNS: usize = 3;
/// Where the longer seems to take more than this, both are measured anew, so often at most: a machine that was busy
/// elsewhere is not what is looked for.
const SUSPECT: f64 = 1.25 * 8.0;
const AGAIN: usize = 6;

fn main() -> ExitCode {
    let mut holds = true;
    for subject in subjects() {
        let worst = subject.worst();
        println!(
            "figure: {}: at most {:.1} times as long for {GROWTH} times the input ({} of {} bytes; at most {MOST})",
            subject.name, worst.ratio, worst.shape, worst.bytes
        );
        holds &= worst.ratio <= MOST;
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Something that judges what anybody may send.
struct Subject {
    name: String,
    judge: Box<dyn Fn(&str)>,
    /// What passes every step of it. Its time is the least that any input is counted with: a short input that is refused at
    /// its first byte says nothing about a long one that is not.
    ordinary: String,
    shapes: Vec<Shape>,
}

/// Inputs of any length: the unit again and again, between the start and the end.
#[derive(Clone, Copy)]
struct Shape {
    start: &'static str,
    unit: &'static str,
    end: &'static str,
}

impl Shape {
    fn of_length(self, bytes: usize) -> String {
        let room = bytes.saturating_sub(self.start.len() + self.end.len());
        format!("{}{}{}", self.start, self.unit.repeat(room / self.unit.len()), self.end)
    }
}

struct Worst {
    ratio: f64,
    shape: String,
    bytes: usize,
}

impl Subject {
    fn new(name: &str, ordinary: &str, shapes: Vec<Shape>, judge: impl Fn(&str) + 'static) -> Self {
        Self { name: name.to_owned(), judge: Box::new(judge), ordinary: ordinary.to_owned(), shapes }
    }

    fn worst(&self) -> Worst {
        let least = self.least_of(&self.ordinary);
        let mut worst = Worst { ratio: 0.0, shape: String::new(), bytes: 0 };
        for shape in &self.shapes {
            for bytes in LENGTHS {
                let (short, long) = (shape.of_length(*bytes), shape.of_length(bytes * GROWTH));
                // What encloses the units may leave no room for any.
                if long.len() > (GROWTH + 1) * short.len() {
                    continue;
                }
                let ratio = self.ratio(least, &short, &long);
                if ratio > worst.ratio {
                    let shape = format!("{:?}, {:?}, {:?}", shape.start, shape.unit, shape.end);
                    worst = Worst { ratio, shape, bytes: bytes * GROWTH };
                }
            }
        }
        worst
    }

    /// How many times as long the long input takes. An input that takes less than `least` seconds is taken to take them.
    fn ratio(&self, least: f64, short: &str, long: &str) -> f64 {
        let (mut for_short, mut for_long) = (f64::INFINITY, f64::INFINITY);
        let mut ratio = f64::INFINITY;
        for _ in 0..=AGAIN {
            for_short = for_short.min(self.least_of(short));
            for_long = for_long.min(self.least_of(long));
            ratio = for_long / for_short.max(least);
            if ratio <= SUSPECT {
                break;
            }
        }
        ratio
    }

    /// Seconds that one judgement takes.
    fn least_of(&self, input: &str) -> f64 {
        let mut least = f64::INFINITY;
        for _ in 0..RUNS {
            let begun = Instant::now();
            let mut times = 0_u32;
            while begun.elapsed() < RUN {
                (self.judge)(black_box(input));
                times += 1;
            }
            least = least.min(begun.elapsed().as_secs_f64() / f64::from(times));
        }
        least
    }
}

/// Units that mean something to one parser or another, after what makes it look further.
fn shapes(starts: &[(&'static str, &'static str)], units: &[&'static str]) -> Vec<Shape> {
    starts.iter().flat_map(|(start, end)| units.iter().map(|unit| Shape { start, unit, end })).collect()
}

const UNITS: &[&str] = &[
    "a",
    ".",
    "-",
    "a.",
    "a-",
    "@",
    "a@",
    "%",
    "%41",
    ":",
    "::",
    "[",
    "]",
    "0",
    "9",
    "0.",
    "1e",
    "{",
    "{\"a\":",
    "[[",
    "[1],",
    "\"a\",",
    "\\",
    "\"",
    "/",
    "../",
    "?",
    "#",
    "xn--",
    "xn--a.",
    "xn--zca.",
    "é",
    "ü.",
    "。",
    "\u{300}",
    "a\u{300}",
    "\u{200d}",
    "\u{ad}",
    "\u{1160}",
    "😀",
    "\n",
    "\r\n",
    "\0",
    " ",
    "AAAA",
    "AAAA\n",
    "-----BEGIN ",
    "-----BEGIN PUBLIC KEY-----\n",
    "=",
    "ssh-rsa ",
    "ﷺ",
    "１．",
    "0x",
    "&",
];

const ENCLOSED: &[(&str, &str)] = &[
    ("", ""),
    ("http://", ".com/"),
    ("http://a.com/", ""),
    ("https://[", "]:80"),
    ("a@", ".com"),
    ("xn--", ".com"),
    ("\"", "\""),
    ("[", "1]"),
    ("{\"a\":1,", "\"b\":2}"),
    ("ssh-rsa ", ""),
    ("-----BEGIN PUBLIC KEY-----\n", "\n-----END PUBLIC KEY-----\n"),
];

fn subjects() -> Vec<Subject> {
    let mut subjects: Vec<_> = ParameterType::ALL.into_iter().map(of_type).collect();
    subjects.extend(["(a+)+b", r"(\w+\s?)*b", "(a?){50}a{50}b"].map(matching));
    subjects.push(variables());
    subjects.push(Subject::new("version", "v1.2.3", shapes(ENCLOSED, UNITS), |text| {
        let _ = black_box(Version::parse(text));
    }));
    subjects.push(Subject::new("image", "registry.example.com/a/b", shapes(ENCLOSED, UNITS), |text| {
        let _ = black_box(ImageName::parse(text));
    }));
    subjects.push(token());
    subjects.push(json_body());
    subjects.push(issue());
    subjects.push(comment());
    subjects
}

fn of_type(value_type: ParameterType) -> Subject {
    let ordinary = match value_type {
        ParameterType::String => "a text",
        ParameterType::Number => "12.5",
        ParameterType::Boolean => "true",
        ParameterType::Json => "{\"a\":[1,2]}",
        ParameterType::Email => "ops@example.org",
        ParameterType::Ipv4 => "10.1.2.3",
        ParameterType::Ip => "fd00::1",
        ParameterType::Domain => "bücher.example.org",
        ParameterType::Host => "bücher.example.org:443",
        ParameterType::Url => "https://example.org:443/a/b?c=d",
        ParameterType::PublicKey => "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    };
    let parameter =
        Parameter { multiline: true, max_length: Some(MAX_DECLARED_LENGTH), ..Parameter::new(name("A"), value_type) };
    assert!(parameter.check(ordinary).is_ok(), "{ordinary} is no {}", value_type.name());
    Subject::new(value_type.name(), ordinary, shapes(ENCLOSED, UNITS), move |text| {
        let _ = black_box(parameter.check(text));
    })
}

/// A pattern that is exponential where patterns are tried one way after the other.
fn matching(pattern: &str) -> Subject {
    let parameter = Parameter {
        max_length: Some(MAX_DECLARED_LENGTH),
        pattern: Some(Pattern::parse(pattern).expect("a pattern")),
        ..Parameter::new(name("A"), ParameterType::String)
    };
    let shapes = shapes(&[("", ""), ("", "c")], &["a", "ab", "a a"]);
    Subject::new(&format!("string that must match {pattern}"), "aab", shapes, move |text| {
        let _ = black_box(parameter.check(text));
    })
}

/// As many values as a body of the text's length has room for, half of them undeclared.
fn variables() -> Subject {
    let parameters: Vec<_> =
        (0..200).map(|index| Parameter::new(name(&format!("N{index}")), ParameterType::Ip)).collect();
    let shapes = shapes(&[("", "")], &["N"]);
    Subject::new("variables, by their number", "N", shapes, move |text| {
        let names = (0..=text.len() / 16).flat_map(|index| [format!("N{index}"), format!("É{index}")]);
        let given: BTreeMap<String, Value> = names.map(|name| (name, json!("10.0.0.1"))).collect();
        black_box(parameter::judge(&parameters, &given));
    })
}

fn token() -> Subject {
    let ordinary = Token::from_random(TokenKind::Webhook, &[7; 32]).expose().to_owned();
    Subject::new("token", &ordinary, shapes(&[("", ""), ("whk_", ""), ("whk", "_")], UNITS), |text| {
        let _ = black_box(Token::parse(TokenKind::Webhook, text));
    })
}

fn json_body() -> Subject {
    let starts = [
        ("", ""),
        ("{\"variables\":{\"A\":\"", "\"}}"),
        ("{\"variables\":[", "1]}"),
        ("{\"a\":1,", "\"b\":2}"),
        ("{\"applicationId\":", "}"),
    ];
    Subject::new("JSON body", "{\"applicationId\":1,\"version\":\"v1\"}", shapes(&starts, UNITS), |text| {
        let _ = black_box(body::parse(text.as_bytes()));
    })
}

const MARKDOWN: &[&str] = &[
    "### tag\n",
    "### tag\n\nv1\n",
    "### other\n",
    "### ",
    "#",
    "```\n",
    "````\n```\n",
    "`",
    "~~~\n",
    "~",
    "<!--",
    "<!--\n",
    "-->",
    "<!-- -->",
    "/approve a\n",
    "/reject ",
    "_No response_\n",
    "\n",
    " ",
    "a",
    "é\n",
    "\r\n",
    "- ",
    "> ",
];

fn issue() -> Subject {
    let starts = [("", ""), ("### tag\n\n", ""), ("```\n", "\n```\n"), ("### tag\n\n```\n", "\n### tag\n")];
    Subject::new("issue", "### tag\n\nv1\n", shapes(&starts, MARKDOWN), |text| {
        black_box(form::Values::of(text, &["tag", "server", "rs_pub_key"]));
    })
}

fn comment() -> Subject {
    let starts = [("", ""), ("/approve ", ""), ("<!--", ""), ("```\n", "\n```\n/reject no\n")];
    Subject::new("comment", "/approve 0123abcd\n", shapes(&starts, MARKDOWN), |text| {
        black_box(Command::of(text));
    })
}

fn name(text: &str) -> VariableKey {
    VariableKey::parse(text).expect("a name")
}
