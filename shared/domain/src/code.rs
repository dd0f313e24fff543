//! Every code that a request can be refused or held with, and what to do about it. The page `infra/validation-codes.md` is
//! made from this table.

/// A stable name of one fault, reason or end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// As answers, the history and comments on issues have it.
    pub code: &'static str,
    /// What is wrong, in one sentence.
    pub meaning: &'static str,
    /// What to do, in one sentence.
    pub hint: &'static str,
    /// The HTTP status of the answer that carries it. An issue, which has no answer, hears it in a comment.
    pub status: u16,
}

const fn code(code: &'static str, status: u16, meaning: &'static str, hint: &'static str) -> Code {
    Code { code, meaning, hint, status }
}

/// In the order of the pipeline.
pub const CODES: &[Code] = &[
    // The request as a whole.
    code("unknown-field", 422, "The request has a field that there is none of.", "Remove it, or correct its name."),
    code("wrong-type", 422, "A field has another JSON type than it must have.", "Send the type that the answer names."),
    code("duplicate", 422, "Something is there twice.", "Send it once."),
    code("too-large", 422, "An issue is longer than what is read of one.", "Leave out what the form does not ask for."),
    code("missing", 422, "A field or a required parameter is not there.", "Send a value for it."),
    code(
        "undeclared",
        422,
        "The application does not declare a parameter of this name.",
        "Declare it in the application, or leave it out.",
    ),
    code(
        "more-faults",
        422,
        "The request has more faults than an answer lists.",
        "Mend those that are listed, and send it again.",
    ),
    // Values by their type.
    code(
        "format-string",
        422,
        "The text holds NUL, or another control character where only one line is taken.",
        "Remove it, or declare the parameter with `multiline`.",
    ),
    code("format-number", 422, "The value is not a finite number.", "Write it as JSON does: `30`, `-1.5`, `1e6`."),
    code("format-boolean", 422, "The value is neither `true` nor `false`.", "Use one of the two."),
    code(
        "format-json",
        422,
        "The value is not JSON of at most 64 KiB and 32 levels.",
        "Check quotes, commas and brackets, or make it smaller.",
    ),
    code(
        "format-email",
        422,
        "The value is not an e-mail address.",
        "Write it as in `name@example.com`, in ASCII; use `xn--…` for other letters of a domain.",
    ),
    code(
        "format-ip",
        422,
        "The value is not an IP address, or not an IPv4 address where only that is taken.",
        "Write four numbers from 0 to 255 without leading zeros, or an IPv6 address without a zone.",
    ),
    code(
        "reserved-address",
        422,
        "The address is set aside by the IANA registries, such as loopback, link local or documentation.",
        "Use an address of a private network or a public one.",
    ),
    code(
        "format-domain",
        422,
        "The value is not a domain name below a public suffix.",
        "Write the whole name, as in `registry.example.com`.",
    ),
    code(
        "format-host",
        422,
        "The value is not an address or domain name with or without a port.",
        "Write `host`, `host:8080` or `[fd00::1]:8080`.",
    ),
    code(
        "format-url",
        422,
        "The value is not a plain http or https URL.",
        "Write `https://host:8443/path`, without user name, fragment, blank or backslash.",
    ),
    code(
        "format-public-key",
        422,
        "The value is not an RSA or Ed25519 public key that is safe to use.",
        "Send RSA of 2,048 to 8,192 bits as PEM, base64 DER or `ssh-rsa`, or the 32 bytes of an Ed25519 key in base64.",
    ),
    code(
        "private-key",
        422,
        "The value is a private key.",
        "Send the public key instead, and replace the key pair: its private half has left its place.",
    ),
    // Values by their declaration.
    code("too-short", 422, "The value has fewer characters than the declaration allows.", "Send a longer one."),
    code("too-long", 422, "The value has more characters than the declaration allows.", "Send a shorter one."),
    code("unknown-value", 422, "The value is not one of those that the declaration lists.", "Use one of them."),
    code("pattern", 422, "The value does not match the declaration's pattern.", "Send one that matches it as a whole."),
    // The version and what the deployment is made of.
    code(
        "format-version",
        422,
        "The version is neither a tag of an image nor a digest.",
        "Use letters, digits and `_ . -`, at most 128, or `sha256:` and 64 hexadecimal digits; a git tag with `/` or `+` needs another name.",
    ),
    code(
        "version-pattern",
        422,
        "The version does not match the application's `versionPattern`.",
        "Deploy a version that matches it.",
    ),
    code(
        "unknown-host",
        422,
        "The application names hosts that are not registered.",
        "Register them, or change the application's hosts.",
    ),
    code(
        "no-host",
        422,
        "The application's hosts come to none, or to more than 50.",
        "Label or name 1 to 50 hosts that are not being drained.",
    ),
    code(
        "unknown-secret",
        422,
        "A variable refers to a secret that does not exist.",
        "Create the secret, or change the variable.",
    ),
    code(
        "format-template",
        422,
        "A variable has an opening `{{` that is not followed by a name and `}}`.",
        "Write `{{NAME}}` or `{{env.NAME}}`, or `{{{{` for two braces that are meant as they are.",
    ),
    code(
        "unknown-variable",
        422,
        "A variable refers to another one that does not exist, or not in the environment.",
        "Create it, activate the environment that has it, or change the reference.",
    ),
    code(
        "circular-variable",
        422,
        "Variables refer to each other in a circle.",
        "Write one of them without the others.",
    ),
    code(
        "too-many-variables",
        422,
        "The variables of the deployment are too many or too large.",
        "Shorten or remove some.",
    ),
    // Permission and limits.
    code("webhook-disabled", 403, "The application's webhook is switched off.", "Switch it on in the application."),
    code(
        "permission-denied",
        403,
        "Whoever asks may not deploy this application.",
        "Ask its owner for the permission, or to deploy it.",
    ),
    code(
        "frozen",
        409,
        "Set aside for deployments that are stopped for a time; nothing gives it yet.",
        "Wait until the freeze is over, or ask an administrator.",
    ),
    code(
        "rate-limited",
        429,
        "As many requests were accepted within the hour as may be.",
        "Try again after the time in `Retry-After`.",
    ),
    code("queue-full", 503, "As many deployments wait or run as may be.", "Try again after the time in `Retry-After`."),
    code(
        "validation-timeout",
        503,
        "The checks took longer than 5 seconds, and nothing was done.",
        "Try again after the time in `Retry-After`; an issue is tried again by itself.",
    ),
    // Reasons to ask the owner.
    code(
        "public-address",
        202,
        "A value leads to an address on the public internet.",
        "Wait for the owner's decision, or use an address of a private network.",
    ),
    code(
        "domain-address",
        202,
        "A value leads to a domain name, which may stand for any address.",
        "Wait for the owner's decision, or use an address of a private network.",
    ),
    code(
        "always",
        202,
        "The parameter, the application or the environment is never used without a decision.",
        "Wait for the owner's decision.",
    ),
    // What became of the decision.
    code("approval-denied", 200, "The owner rejected the deployment.", "Ask the owner why, and send another request."),
    code(
        "approval-timed-out",
        200,
        "Nobody decided before the deadline.",
        "Send the request again, and tell the owner.",
    ),
    code(
        "approval-stale",
        409,
        "What would run has changed since the decision was asked for.",
        "Look at the deployment again, and decide on its new hash.",
    ),
];

/// The row of a code.
pub fn find(code: &str) -> Option<&'static Code> {
    CODES.iter().find(|row| row.code == code)
}

/// The page `infra/validation-codes.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Codes\n\n\
         What a request is refused or held with, and what to do about it. Made from `shared/domain/src/code.rs`; a test of\n\
         that file keeps both the same.\n\n\
         A refused request has every fault at once, each with its field, a message and a suggestion, and never with the\n\
         value. Codes are stable; the words beside them are not. The status is that of the answer that carries the code: 202\n\
         for what waits for a decision, and 200 for what became of one, which is told to those who ask for the deployment.\n\n\
         | code | status | meaning | what to do |\n\
         | --- | --- | --- | --- |\n",
    );
    for Code { code, meaning, hint, status } in CODES {
        page.extend(["| `", code, "` | ", &status.to_string(), " | ", meaning, " | ", hint, " |\n"]);
    }
    page
}

#[cfg(test)]
mod tests {
    use std::{
        env, fs,
        path::{Path, PathBuf},
        time::Duration,
    };

    use super::*;
    use crate::{approval::ReasonCode, refusal};

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra/validation-codes.md");

    #[test]
    fn the_page_says_what_the_table_says() {
        if env::var_os("TIDEGATE_BLESS").is_some() {
            fs::write(PAGE, markdown()).unwrap();
        }
        let page = fs::read_to_string(PAGE).unwrap_or_default();
        assert!(
            page == markdown(),
            "the page is behind: TIDEGATE_BLESS=1 cargo test -p tidegate-domain code:: writes it"
        );
    }

    #[test]
    fn a_code_is_there_once_and_says_everything() {
        for (i, row) in CODES.iter().enumerate() {
            assert!(CODES[..i].iter().all(|other| other.code != row.code), "{} is there twice", row.code);
            assert!(row.code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", row.code);
            assert!([200, 202, 403, 409, 422, 429, 503].contains(&row.status), "{}", row.code);
            for text in [row.meaning, row.hint] {
                assert!(text.ends_with('.') && !text.contains('|') && !text.contains('\n'), "{}: {text}", row.code);
            }
            assert_eq!(find(row.code), Some(row));
        }
        assert_eq!(find("nosuchcode"), None);
    }

    /// The codes that the shipped part of a source gives: `Invalid::new("…"`.
    fn given_by(source: &str) -> Vec<&str> {
        let shipped = source.split("#[cfg(test)]\nmod tests").next().unwrap();
        let calls = shipped.split("Invalid::new(").skip(1);
        calls.filter_map(|call| call.trim_start().strip_prefix('"')?.split('"').next()).collect()
    }

    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn every_code_that_checks_of_parameters_give_is_in_the_table() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut paths = sources(&folder.join("parameter"));
        // What is wrong with a declaration is told to whoever registers it, not to a request.
        paths.retain(|path| !path.ends_with("declaring.rs"));
        assert!(paths.len() > 15, "{paths:?}");
        paths.extend([folder.join("parameter.rs"), folder.join("variable.rs")]);
        paths.extend(sources(&folder.join("variable")).into_iter().filter(|path| !path.ends_with("tests.rs")));
        for path in paths {
            for code in given_by(&fs::read_to_string(&path).unwrap()) {
                // The names of keys and references are the administration's.
                let of_requests = !["format-key", "format-secret-ref", "unescaped-secret-ref"].contains(&code);
                assert!(!of_requests || find(code).is_some(), "{code} of {} is missing", path.display());
            }
        }
        assert_eq!(given_by("Invalid::new(\n  \"a-b\", x)\n#[cfg(test)]\nmod tests { Invalid::new(\"c\") }"), ["a-b"]);
    }

    #[test]
    fn every_reason_to_refuse_or_to_ask_is_in_the_table() {
        let refusals = [
            refusal::Reason::WebhookDisabled,
            refusal::Reason::PermissionDenied,
            refusal::Reason::RateLimited { full: Vec::new(), retry_after: Duration::ZERO },
            refusal::Reason::QueueFull { retry_after: Duration::ZERO },
            refusal::Reason::TimedOut,
        ];
        for refusal in refusals {
            assert!(find(refusal.code()).is_some(), "{refusal:?}");
        }
        for reason in [ReasonCode::PublicAddress, ReasonCode::DomainAddress, ReasonCode::Always] {
            let name = serde_json::to_value(reason).unwrap();
            assert!(find(name.as_str().unwrap()).is_some(), "{reason:?}");
        }
    }
}
