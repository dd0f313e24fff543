//! Whether a plaintext variable looks like a credential. Rather too often than too seldom: a secret variable works just as
//! a plain one, and a plain one is shown to whoever may read.

/// By the name's words, `PUBLIC_KEY` excepted, or by the value's form.
pub(super) fn looks_like_one(name: &str, value: &str) -> bool {
    name_does(name) || value_does(value)
}

const WORDS: &[&str] = &[
    "AUTH",
    "CREDENTIAL",
    "CREDENTIALS",
    "DSN",
    "JWT",
    "KEY",
    "KEYS",
    "OTP",
    "PASS",
    "PASSPHRASE",
    "PASSWD",
    "PASSWORD",
    "PAT",
    "PIN",
    "PRIVATE",
    "PSK",
    "PWD",
    "SALT",
    "SECRET",
    "SECRETS",
    "SID",
    "SIGNATURE",
    "TOKEN",
    "TOKENS",
];
/// Where several words are written as one: `APIKEY`, `DBPASSWORD`.
const ENDINGS: &[&str] = &["APIKEY", "PASSWORD", "PASSWD", "SECRET", "TOKEN", "CREDENTIALS"];

fn name_does(name: &str) -> bool {
    let words = words(name);
    let is_one = |word: &String| WORDS.contains(&word.as_str()) || ENDINGS.iter().any(|end| word.ends_with(end));
    let public = words.iter().any(|word| word == "PUBLIC" || word == "PUBLISHABLE");
    words.iter().filter(|word| !(public && *word == "KEY")).any(is_one)
}

/// `dbPassword` and `DB_PASSWORD` are `DB` and `PASSWORD`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        let starts = !c.is_alphanumeric() || (was_lower && c.is_uppercase());
        if starts {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_uppercase());
        }
        was_lower = c.is_lowercase() || c.is_ascii_digit();
    }
    words
}

/// What well-known issuers begin their tokens with.
const PREFIXES: &[&str] = &[
    "AIza",
    "AKIA",
    "ASIA",
    "Basic ",
    "Bearer ",
    "SG.",
    "dckr_pat_",
    "dw_",
    "eyJ",
    "gho_",
    "ghp_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "hvs.",
    "npm_",
    "pypi-",
    "rk_live_",
    "sk-",
    "sk_live_",
    "sk_test_",
    "whk_",
    "whsec_",
    "xoxa-",
    "xoxb-",
    "xoxp-",
];

fn value_does(value: &str) -> bool {
    let value = value.trim();
    value.contains("PRIVATE KEY-----")
        || PREFIXES.iter().any(|prefix| value.len() > prefix.len() + 8 && value.starts_with(prefix))
        || has_a_password(value)
        || is_random(value)
}

/// `postgresql://user:password@host`, and what connection strings of other kinds call it.
fn has_a_password(value: &str) -> bool {
    let in_url = value.split_once("://").is_some_and(|(_, rest)| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // A password may hold a slash that nobody escaped.
        let user = authority.rsplit_once('@').or_else(|| rest.rsplit_once('@')).map(|(user, _)| user);
        user.is_some_and(|user| user.contains(':'))
    });
    let lower = value.to_lowercase();
    in_url
        || ["password=", "pwd=", "secret=", "token=", "accountkey=", "api_key=", "apikey="]
            .iter()
            .any(|k| lower.contains(k))
}

/// 32 characters and more of one alphabet, letters and digits mixed: nobody writes that by hand.
fn is_random(value: &str) -> bool {
    let of_alphabet = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_');
    let has = |kind: fn(char) -> bool| value.chars().any(kind);
    let is_path = value.starts_with('/') || value.matches('/').count() > 3;
    value.len() >= 32
        && !is_path
        && value.chars().all(of_alphabet)
        && has(|c| c.is_ascii_digit())
        && has(|c| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_told_by_name_and_by_value() {
        let check = |name: &str, value: &str, expect: bool| {
            assert_eq!(looks_like_one(name, value), expect, "{name}={value}");
        };
        for name in
            ["DB_PASSWORD", "dbPassword", "API_KEY", "APIKEY", "GITHUB_TOKEN", "JWT_SECRET", "SENTRY_DSN", "pwd"]
        {
            check(name, "x", true);
        }
        for name in ["NODE_ENV", "PUBLIC_KEY", "PORT", "MONKEY", "KEYBOARD", "TOKENIZER", "AUTHOR", "PASSIVE"] {
            check(name, "x", false);
        }
        check("DATABASE_URL", "postgresql://shop:pw@db.example.com/shop", true);
        check("DATABASE_URL", "postgresql://shop:p/w@db.example.com/shop", true);
        check("DATABASE_URL", "postgresql://db.example.com:5432/shop", false);
        check("A", "Server=db;Password=x", true);
        check("A", "-----BEGIN RSA PRIVATE KEY-----\nx", true);
        check("A", "ghp_abcdefghijkl", true);
        check("A", &"0123456789abcdef".repeat(2), true);
        check("A", "https://api.example.com/v1/things?page=2", false);
        check("A", "a long sentence with 3 numbers and nothing that would be secret", false);
        check("A", "/usr/local/share/some/long/path/of/a/file1", false);
        check("A", "", false);
    }
}
