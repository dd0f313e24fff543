//! One request to a source and its answer, within bounds.

use std::time::Duration;

use reqwest::{
    Client, ClientBuilder, RequestBuilder,
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
    redirect::Policy,
};
use tidegate_aws::random;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use crate::{ProviderError, field::is_loopback};

const CONNECT: Duration = Duration::from_secs(3);
/// Tries of one request, the first one included.
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Where a source names no time.
const USUAL_PAUSE: Duration = Duration::from_mins(1);
/// A time further away is not believed.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// An answer that is no error of the source's own, read whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) is_json: bool,
    /// Wiped afterwards: it holds values or a token.
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// Of one source. Without TLS, and without a proxy, only inside this machine.
pub(crate) fn client(address: &Url) -> Result<Client, ProviderError> {
    let builder = Client::builder()
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        // Credentials go where somebody has said, and nowhere else.
        .redirect(Policy::none());
    let is_near = address.scheme() == "http" && is_loopback(address);
    if is_near { near(builder) } else { builder.https_only(true) }.build().map_err(ProviderError::http)
}

fn near(builder: ClientBuilder) -> ClientBuilder {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    builder.no_proxy().resolve_to_addrs("localhost", &addresses.map(|address| SocketAddr::new(address, 0)))
}

/// What a request may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) until: Instant,
    pub(crate) max_bytes: usize,
    /// A refusal for being too many, without a time, is tried again.
    pub(crate) insists: bool,
}

/// Sends it until it is answered: again with longer and longer pauses, or when the source says, while there is time.
pub(crate) async fn ask(request: impl Fn() -> RequestBuilder, bounds: Bounds) -> Result<Answer, ProviderError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let (error, after) = match once(request(), bounds).await {
            Ok(Sent::Answered(answer)) => return Ok(answer),
            Ok(Sent::TooMany(None)) if !bounds.insists => {
                return Err(ProviderError::RateLimited { after: USUAL_PAUSE });
            }
            Ok(Sent::TooMany(after)) => (ProviderError::RateLimited { after: after.unwrap_or(USUAL_PAUSE) }, after),
            Ok(Sent::Failed(after)) => (ProviderError::away("it answers with an error of its own"), after),
            Err(error @ ProviderError::Away { .. }) => (error, None),
            Err(other) => return Err(other),
        };
        let pause = after.unwrap_or_else(|| jittered(FIRST_PAUSE * 2_u32.pow(attempt - 1)));
        if attempt == ATTEMPTS || Instant::now() + pause >= bounds.until {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
    }
}

/// From half of it to all of it.
fn jittered(pause: Duration) -> Duration {
    let fraction = f64::from(u16::from_be_bytes(random::bytes())) / f64::from(u16::MAX);
    pause.mul_f64(0.5 + fraction / 2.0)
}

enum Sent {
    Answered(Answer),
    TooMany(Option<Duration>),
    Failed(Option<Duration>),
}

async fn once(request: RequestBuilder, bounds: Bounds) -> Result<Sent, ProviderError> {
    let exchange = async {
        let mut response = request.send().await.map_err(ProviderError::http)?;
        let (status, after) = (response.status().as_u16(), retry_after(response.headers()));
        match status {
            300..=399 => return Err(ProviderError::Redirected),
            429 => return Ok(Sent::TooMany(after)),
            408 | 500..=599 => return Ok(Sent::Failed(after)),
            _ => {}
        }
        let is_json = is_json(response.headers());
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(ProviderError::http)? {
            if body.len() + chunk.len() > bounds.max_bytes {
                return Err(ProviderError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Sent::Answered(Answer { status, is_json, body }))
    };
    match tokio::time::timeout_at(bounds.until, exchange).await {
        Ok(sent) => sent,
        Err(_) => Err(ProviderError::away("it takes too long")),
    }
}

/// In seconds (RFC 9110, 10.2.3); a date is as good as no time, because clocks differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).clamp(Duration::from_secs(1), LONGEST_PAUSE))
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_wait_is_believed_within_reason() {
        let check = |text: &str, expect: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            assert_eq!(retry_after(&headers).map(|after| after.as_secs()), expect, "{text}");
        };
        check("30", Some(30));
        check("0", Some(1));
        check("999999", Some(3_600));
        check("-1", None);
        check("Wed, 21 Oct 2026 07:28:00 GMT", None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
