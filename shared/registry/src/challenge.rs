//! What a registry asks for when it answers 401 (RFC 7235, and the distribution specification's "Token authentication").

use http_auth::{ChallengeRef, parser::ChallengeParser};
use reqwest::{
    Url,
    header::{HeaderMap, WWW_AUTHENTICATE},
};

use crate::{Unresolved, is_loopback};

/// Of all challenges together, in bytes; no registry comes near.
const MAX_BYTES: usize = 8 * 1024;
/// What a token for reading may allow.
const READING: [&str; 2] = ["pull", "metadata_read"];

/// How to ask again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// With the credentials themselves.
    Basic,
    /// With a token that is fetched here.
    Bearer(Url),
}

impl Challenge {
    /// A token is preferred: the credentials are sent less often. `registry` is who asks, for a repository of its.
    pub(crate) fn read(headers: &HeaderMap, registry: &Url, repository: &str) -> Result<Self, Unresolved> {
        let lists = || headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        if lists().map(str::len).sum::<usize>() > MAX_BYTES {
            return Err(Unresolved::Malformed("what it asks for is longer than it may be"));
        }
        // What comes after a fault in a list is not looked at.
        let challenges: Vec<ChallengeRef<'_>> =
            lists().flat_map(|list| ChallengeParser::new(list).map_while(Result::ok)).collect();
        let asks_for = |scheme: &str| challenges.iter().find(|c| c.scheme.eq_ignore_ascii_case(scheme));
        if let Some(bearer) = asks_for("bearer") {
            return token_url(bearer, registry, repository).map(Self::Bearer);
        }
        match asks_for("basic") {
            Some(_) => Ok(Self::Basic),
            None => Err(Unresolved::Malformed("it asks for neither a password nor a token")),
        }
    }
}

fn token_url(bearer: &ChallengeRef<'_>, registry: &Url, repository: &str) -> Result<Url, Unresolved> {
    let parameter = |wanted: &str| {
        let (_, value) = bearer.params.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
        Some(value.to_unescaped())
    };
    let mut url = parameter("realm")
        .and_then(|realm| Url::parse(&realm).ok())
        .ok_or(Unresolved::Malformed("it names no token server"))?;
    // Only a registry of this machine may send somebody to a server of this machine.
    let is_safe = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url) && is_loopback(registry);
    if !is_safe || !url.username().is_empty() || url.password().is_some() {
        return Err(Unresolved::Malformed("its token server is not one that credentials may go to"));
    }
    url.set_fragment(None);
    let scope = parameter("scope").filter(|scope| is_for_reading(scope));
    let scope = scope.unwrap_or_else(|| format!("repository:{repository}:pull"));
    let mut query = url.query_pairs_mut();
    if let Some(service) = parameter("service") {
        query.append_pair("service", &service);
    }
    query.append_pair("scope", &scope);
    drop(query);
    Ok(url)
}

/// A registry must not get a token for more by telling us to ask for it: with credentials that somebody uses in two places,
/// and a token server that knows both, it could write elsewhere.
fn is_for_reading(scope: &str) -> bool {
    let is_one = |word: &str| {
        word.rsplit_once(':').is_some_and(|(_, actions)| actions.split(',').all(|action| READING.contains(&action)))
    };
    scope.split(' ').all(is_one)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    const FAR: &str = "https://registry.example.com/v2/";
    const NEAR: &str = "http://127.0.0.1:5000/v2/";

    fn read(lists: &[&str], registry: &str) -> Result<Challenge, String> {
        let mut headers = HeaderMap::new();
        for list in lists {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(list).unwrap());
        }
        let read = Challenge::read(&headers, &Url::parse(registry).unwrap(), "shop/app");
        read.map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check(list: &str, registry: &str, url: &str) {
        assert_eq!(read(&[list], registry), Ok(Challenge::Bearer(Url::parse(url).unwrap())), "{list}");
    }

    #[test]
    fn a_token_is_asked_for_as_told() {
        check(
            r#"Bearer realm="https://auth.example.com/token",service="r.example.com",scope="repository:shop/app:pull""#,
            FAR,
            "https://auth.example.com/token?service=r.example.com&scope=repository%3Ashop%2Fapp%3Apull",
        );
        check(
            r#"bearer Realm="https://auth.example.com/token?a=b&c", Scope="repository:x/y:metadata_read,pull registry:z:pull""#,
            FAR,
            "https://auth.example.com/token?a=b&c&scope=repository%3Ax%2Fy%3Ametadata_read%2Cpull+registry%3Az%3Apull",
        );
        check(
            r#"Bearer realm="https://auth.example.com/t#part",service="a&scope=b c""#,
            FAR,
            "https://auth.example.com/t?service=a%26scope%3Db+c&scope=repository%3Ashop%2Fapp%3Apull",
        );
        check(
            r#"Bearer realm="http://localhost:5001/token""#,
            NEAR,
            "http://localhost:5001/token?scope=repository%3Ashop%2Fapp%3Apull",
        );
    }

    #[test]
    fn nobody_gets_a_token_for_more_than_reading() {
        for scope in
            ["repository:shop/app:pull,push", "registry:catalog:*", "repository:a:pull repository:b:push", "", "pull"]
        {
            let list = format!(r#"Bearer realm="https://auth.example.com/t",scope="{scope}""#);
            check(&list, FAR, "https://auth.example.com/t?scope=repository%3Ashop%2Fapp%3Apull");
        }
    }

    #[test]
    fn a_token_server_that_credentials_may_not_go_to_is_refused() {
        let check = |realm: &str, registry: &str| {
            let refused = read(&[&format!(r#"Bearer realm="{realm}",service="s", Basic realm="r""#)], registry);
            assert!(refused.unwrap_err().contains("token server"), "{realm}");
        };
        for registry in [FAR, NEAR] {
            check("http://auth.example.com/token", registry);
            check("http://169.254.169.254/latest/meta-data/", registry);
            check("http://localhost.example.com/token", registry);
            check("ftp://127.0.0.1/token", registry);
            check("file:///etc/passwd", registry);
            check("https://user:word@auth.example.com/token", registry);
            check("/token", registry);
            check("", registry);
        }
        // What listens on this machine is none of a stranger's business.
        check("http://127.0.0.1:9001/token", FAR);
        check("http://[::1]:9001/token", FAR);
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let bearer = r#"Bearer realm="https://auth.example.com/t""#;
        for lists in [&[r#"Basic realm="r""#, bearer][..], &[&format!(r#"Basic realm="r", {bearer}"#)]] {
            assert!(matches!(read(lists, FAR), Ok(Challenge::Bearer(_))), "{lists:?}");
        }
        assert_eq!(read(&[r#"BASIC realm="a \"b\"", charset="UTF-8""#], FAR), Ok(Challenge::Basic));
    }

    #[test]
    fn what_is_no_challenge_is_refused() {
        let long = format!(r#"Basic realm="{}""#, "a".repeat(MAX_BYTES));
        for lists in [&[][..], &[""], &["Digest realm=\"r\", nonce=\"n\""], &["Bearer"], &["=,="], &[&long]] {
            assert!(read(lists, FAR).is_err(), "{lists:?}");
        }
    }
}
