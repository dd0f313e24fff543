//! Which digest a tag stands for, asked of the image's registry (OCI distribution specification, "Pulling manifests").
//!
//! A registry is a stranger: it is asked by name alone, within a time limit, and no redirect of its is followed. Of its
//! answers so much is read as a manifest may be long. Credentials go to the registry itself, or to the token server that it
//! names, and only over `https` or inside this machine.

mod challenge;
mod manifest;
mod token;
mod unresolved;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use reqwest::{
    Client, ClientBuilder, Response, Url,
    header::{HeaderMap, HeaderValue},
    redirect::Policy,
};
use tidegate_domain::{
    image::{DOCKER_HUB, Digest, ImageName, RegistryServer, Version},
    job::Credentials,
};
use tokio::{sync::OnceCell, time::timeout};

pub use unresolved::Unresolved;

/// Where the Hub's API is; its name in images is another.
const HUB_API: &str = "registry-1.docker.io";

/// A client of every registry. It keeps connections, and neither tokens nor answers.
#[derive(Debug)]
pub struct Registry {
    limit: Duration,
    /// Made late: loading the system's root certificates is most of a cold start.
    far: OnceCell<Client>,
    near: OnceCell<Client>,
}

impl Registry {
    /// `limit` is for one call of [`Registry::digest`] with all that it asks.
    pub fn new(limit: Duration) -> Self {
        Self { limit, far: OnceCell::new(), near: OnceCell::new() }
    }

    /// What the version stands for now. A digest stands for itself, and nobody is asked.
    ///
    /// `credentials` are used if the registry asks for some and they are for this registry.
    ///
    /// # Errors
    /// [`Unresolved`] says what is the matter; none of them repeats a credential, a token, or what the registry said.
    pub async fn digest(
        &self,
        image: &ImageName,
        version: &Version,
        credentials: Option<&Credentials>,
    ) -> Result<Digest, Unresolved> {
        let tag = match version {
            Version::Tag(tag) => tag,
            Version::Digest(digest) => return Ok(digest.clone()),
        };
        let credentials = credentials.filter(|credentials| credentials.server == *image.server());
        match timeout(self.limit, self.resolve(image, tag, credentials)).await {
            Ok(resolved) => resolved,
            Err(_) => Err(Unresolved::away("it took longer than the time limit")),
        }
    }

    /// Without TLS, and without a proxy, only if that stays inside this machine.
    async fn client(&self, url: &Url) -> Result<&Client, Unresolved> {
        let built = if url.scheme() == "http" && is_loopback(url) {
            self.near.get_or_try_init(async || near().build()).await
        } else {
            self.far.get_or_try_init(async || builder().https_only(true).build()).await
        };
        built.map_err(Unresolved::http)
    }
}

fn builder() -> ClientBuilder {
    Client::builder().user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION"))).redirect(Policy::none())
}

/// `localhost` is this machine, whatever a resolver says. The port is the URL's.
fn near() -> ClientBuilder {
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    builder().no_proxy().resolve_to_addrs("localhost", &addresses.map(|address| SocketAddr::new(address, 0)))
}

/// `https`, but for a registry of this machine, as Docker has it.
fn api(server: &RegistryServer) -> Result<Url, Unresolved> {
    let host = if server.as_str() == DOCKER_HUB { HUB_API } else { server.as_str() };
    let unusable = |_| Unresolved::Malformed("the registry's name is not one of a host");
    let url = Url::parse(&format!("https://{host}/v2/")).map_err(unusable)?;
    if is_loopback(&url) { Url::parse(&format!("http://{host}/v2/")).map_err(unusable) } else { Ok(url) }
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

/// A body of at most `max_bytes`.
async fn body(mut answer: Response, max_bytes: usize) -> Result<Vec<u8>, Unresolved> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(Unresolved::http)? {
        if body.len() + chunk.len() > max_bytes {
            return Err(Unresolved::Malformed("it is longer than it may be"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(HeaderValue::to_str).and_then(Result::ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_registry_of_this_machine_is_asked_without_tls() {
        let check = |image: &str, expect: &str| {
            let image = ImageName::parse(image).unwrap();
            assert_eq!(api(image.server()).unwrap().as_str(), expect, "{image}");
        };
        check("nginx", "https://registry-1.docker.io/v2/");
        check("docker.io/library/nginx", "https://registry-1.docker.io/v2/");
        check("registry.example.com:5000/shop/app", "https://registry.example.com:5000/v2/");
        check("10.0.0.1:5000/shop/app", "https://10.0.0.1:5000/v2/");
        check("localhost.example.com/app", "https://localhost.example.com/v2/");
        check("127.0.0.1.example.com/app", "https://127.0.0.1.example.com/v2/");
        check("localhost:5000/app", "http://localhost:5000/v2/");
        check("127.0.0.1:5000/app", "http://127.0.0.1:5000/v2/");
        check("127.1.2.3/app", "http://127.1.2.3/v2/");
    }
}
