//! One request and its answer.

use jiff::{SignedDuration, Timestamp};
use reqwest::{
    Method, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tidegate_domain::{issue::Repository, secret::Secret};
use zeroize::Zeroizing;

use crate::{Github, error::GithubError};

/// A page of comments may be as long as its comments; an error is short.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// <https://docs.github.com/en/rest/about-the-rest-api/api-versions>
const API_VERSION: &str = "2022-11-28";
/// What GitHub asks for where it names no time.
const PAUSE: SignedDuration = SignedDuration::from_mins(1);
/// Its limits are by the hour. A time further away is not believed.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(65);

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    message: String,
}

/// An answer, read whole, with the path of the next page if it is one of a list.
pub(crate) struct Answer<T> {
    pub(crate) body: T,
    pub(crate) has_next: bool,
}

impl Github {
    /// About a repository, with its token. A token that was refused is fetched anew the next time.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        repository: &Repository,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, GithubError> {
        self.ask_page(repository, method, path, body).await.map(|answer| answer.body)
    }

    pub(crate) async fn ask_page<T: DeserializeOwned>(
        &self,
        repository: &Repository,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer<T>, GithubError> {
        let token = self.token(repository).await?;
        let answer = self.answer(method, path, &token, body).await;
        if let Err(GithubError::Denied { status: 401 }) = &answer {
            self.forget_token(repository).await;
        }
        answer
    }

    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: &Secret<String>,
        body: Option<&Value>,
    ) -> Result<T, GithubError> {
        self.answer(method, path, token, body).await.map(|answer| answer.body)
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: &Secret<String>,
        body: Option<&Value>,
    ) -> Result<Answer<T>, GithubError> {
        if let Some(until) = self.limited.until((self.clock)()) {
            return Err(GithubError::RateLimited { until });
        }
        let away = |error: reqwest::Error| GithubError::Away { source: Box::new(error.without_url()) };
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
            .map_err(|_| GithubError::Denied { status: 401 })?;
        bearer.set_sensitive(true);
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.api_url))
            .header(AUTHORIZATION, bearer)
            .header(ACCEPT, "application/vnd.github+json")
            .header("x-github-api-version", API_VERSION);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(away)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = read(response).await?;
        if status.is_success() {
            let body =
                serde_json::from_slice(&bytes).map_err(|_| GithubError::malformed("its answer has another shape"))?;
            return Ok(Answer { body, has_next: has_next(&headers) });
        }
        let Refusal { message } = serde_json::from_slice(&bytes).unwrap_or(Refusal { message: String::new() });
        let refusal = refusal(status, &headers, &message, (self.clock)());
        if let GithubError::RateLimited { until } = &refusal {
            self.limited.note(*until);
        }
        Err(refusal)
    }
}

/// Wiped afterwards: an issue's body may hold what is about to be taken out of it.
async fn read(mut response: Response) -> Result<Zeroizing<Vec<u8>>, GithubError> {
    let mut body = Zeroizing::new(Vec::new());
    while let Some(chunk) =
        response.chunk().await.map_err(|error| GithubError::Away { source: Box::new(error.without_url()) })?
    {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(GithubError::malformed("its answer is too long"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Whether `Link` (RFC 8288) names a next page. Its address is not followed: pages are counted.
fn has_next(headers: &HeaderMap) -> bool {
    let links = headers.get_all("link").iter().filter_map(|value| value.to_str().ok());
    links.flat_map(|links| links.split(',')).any(|link| link.contains("rel=\"next\""))
}

/// By <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>: the first limit answers 403 or
/// 429 with nothing left, the others 403 or 429 with a message, and not always with a time.
fn refusal(status: StatusCode, headers: &HeaderMap, message: &str, now: Timestamp) -> GithubError {
    let number = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<i64>().ok());
    let limited = |until: Timestamp| {
        let latest = now + LONGEST_PAUSE;
        GithubError::RateLimited { until: until.clamp(now + SignedDuration::from_secs(1), latest) }
    };
    let seconds = number("retry-after").map(|seconds| now + SignedDuration::from_secs(seconds.clamp(1, 86_400)));
    let reset = number("x-ratelimit-reset").and_then(|second| Timestamp::from_second(second).ok());
    let is_used_up = number("x-ratelimit-remaining") == Some(0);
    let message = message.to_ascii_lowercase();
    let is_told = message.contains("rate limit") || message.contains("abuse detection");
    match status.as_u16() {
        403 | 429 if seconds.is_some() => limited(seconds.unwrap_or(now)),
        403 | 429 if is_used_up => limited(reset.unwrap_or(now + PAUSE)),
        429 => limited(now + PAUSE),
        403 if is_told => limited(now + PAUSE),
        401 | 403 => GithubError::Denied { status: status.as_u16() },
        // Deleted.
        410 => GithubError::Gone,
        // Not followed, as the credentials would go along. A repository that was renamed, or something in between that is in
        // trouble: neither is a reason to leave what an issue holds where it is.
        300..=399 => GithubError::malformed("it answers with a redirect"),
        404 => GithubError::NotFound,
        408 | 500..=599 => match seconds {
            Some(until) => limited(until),
            None => GithubError::malformed("it answers with an error of its own"),
        },
        other => GithubError::Refused { status: other },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let check = |status: u16, headers: &[(&'static str, &str)], message: &str, expect: &str| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, HeaderValue::from_str(value).unwrap());
            }
            let got = match refusal(StatusCode::from_u16(status).unwrap(), &map, message, now) {
                GithubError::RateLimited { until } => format!("+{}", until.as_second() - now.as_second()),
                GithubError::Away { .. } => "away".to_owned(),
                GithubError::Gone => "gone".to_owned(),
                GithubError::NotFound => "not found".to_owned(),
                GithubError::Denied { status } => format!("denied {status}"),
                GithubError::Refused { status } => format!("refused {status}"),
                other => format!("{other:?}"),
            };
            assert_eq!(got, expect, "{status} {headers:?} {message}");
        };
        let primary = "API rate limit exceeded for user ID 1.";
        check(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1000300")], primary, "+300");
        check(429, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1000300")], primary, "+300");
        check(403, &[("retry-after", "30")], "You have exceeded a secondary rate limit.", "+30");
        check(403, &[("x-ratelimit-remaining", "14")], "You have exceeded a secondary rate limit.", "+60");
        check(429, &[], "", "+60");
        check(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1")], primary, "+1");
        check(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "9000000")], primary, "+3900");
        check(403, &[("retry-after", "-5")], primary, "+1");
        check(403, &[("x-ratelimit-remaining", "4999")], "Resource not accessible by integration", "denied 403");
        check(401, &[], "Bad credentials", "denied 401");
        check(404, &[], "Not Found", "not found");
        check(410, &[], "This issue was deleted", "gone");
        check(301, &[], "Moved Permanently", "away");
        check(302, &[("location", "https://elsewhere.example")], "", "away");
        check(422, &[], "Validation Failed", "refused 422");
        check(502, &[], "Server Error", "away");
        check(503, &[("retry-after", "120")], "", "+120");
    }
}
