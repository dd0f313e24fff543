//! Image references, as OCI's distribution specification and Docker's reference grammar have them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::invalid::Invalid;

/// Docker Hub, for an image that names no host; the same registry as the Hub's old index address.
pub const DOCKER_HUB: &str = "docker.io";

/// The host (and port) of a registry, without scheme or path: `registry.example.com:5000`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegistryServer(String);

impl RegistryServer {
    /// Also takes a URL with an empty path, and the Hub's `https://index.docker.io/v1/`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refused = |why: &str| {
            Invalid::new(
                "format-registry",
                why,
                "use the registry's host and port, for example registry.example.com:5000",
            )
        };
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if matches!(host, "index.docker.io" | "registry-1.docker.io" | DOCKER_HUB)
            && matches!(path, "" | "v1/" | "v1" | "v2/")
        {
            return Ok(Self(DOCKER_HUB.to_owned()));
        }
        if !path.is_empty() {
            return Err(refused("names a path"));
        }
        if !is_host(host) {
            return Err(refused("is not a host name with an optional port"));
        }
        Ok(Self(host.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RegistryServer {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<RegistryServer> for String {
    fn from(server: RegistryServer) -> String {
        server.0
    }
}

impl fmt::Display for RegistryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An image without tag or digest: which of its versions runs is each deployment's business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName {
    server: RegistryServer,
    repository: String,
    written: String,
}

impl ImageName {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refused = |why: &str| {
            Invalid::new("format-image", why, "use registry/path/name in lower case, without tag or digest")
        };
        if text.len() > 255 {
            return Err(refused("is longer than 255 characters"));
        }
        if text.contains('@') {
            return Err(refused("carries a digest; the version is part of each deployment"));
        }
        // As Docker decides it: the first part is a host if it could not be a user's name.
        let (server, path) = match text.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
            Some(_) => (DOCKER_HUB, text.to_owned()),
            None => (DOCKER_HUB, format!("library/{text}")),
        };
        if path.contains(':') {
            return Err(refused("carries a tag; the version is part of each deployment"));
        }
        let server = RegistryServer::parse(server).map_err(|_| refused("names a registry that is not a host"))?;
        if path.is_empty() || !path.split('/').all(is_path_component) {
            return Err(refused("is not an image name"));
        }
        Ok(Self { server, repository: path, written: text.to_owned() })
    }

    /// Whether it was written with its registry. Without, it is the Hub's.
    pub fn names_host(&self) -> bool {
        self.written != self.repository && !self.repository.ends_with(&format!("/{}", self.written))
    }

    /// Where it is pulled from, and the only server that its credentials may go to.
    pub fn server(&self) -> &RegistryServer {
        &self.server
    }

    /// The name on that server: `library/nginx`, `shop/myapp`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `name:tag`, or `name@sha256:…` for a digest.
    pub fn at(&self, version: &Version) -> String {
        match version {
            Version::Tag(tag) => format!("{}:{tag}", self.written),
            Version::Digest(digest) => format!("{}@{digest}", self.written),
        }
    }
}

/// As it was written.
impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written.fmt(f)
    }
}

impl TryFrom<String> for ImageName {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<ImageName> for String {
    fn from(image: ImageName) -> String {
        image.written
    }
}

/// What CI asks for: a tag, or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Version {
    /// `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}` (OCI distribution specification, "Pulling manifests").
    Tag(String),
    Digest(Digest),
}

impl Version {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.starts_with("sha256:") {
            return Digest::parse(text).map(Self::Digest);
        }
        if text.contains(['/', '+']) {
            return Err(Invalid::new(
                "format-version",
                "contains / or +, which an image tag cannot",
                "push the image under a tag of letters, digits, '.', '_' and '-', and deploy that tag",
            ));
        }
        let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let rest = |b: u8| first(b) || b == b'.' || b == b'-';
        let valid = (1..=128).contains(&text.len()) && text.bytes().next().is_some_and(first) && text.bytes().all(rest);
        if !valid {
            return Err(Invalid::new(
                "format-version",
                "is neither an image tag nor a digest",
                "use 1 to 128 letters, digits, '.', '_' and '-', or sha256: and 64 hexadecimal digits",
            ));
        }
        Ok(Self::Tag(text.to_owned()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl TryFrom<String> for Version {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

/// `sha256:` and 64 lower-case hexadecimal digits: what an image is, whatever its tag says tomorrow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let valid = text
            .strip_prefix("sha256:")
            .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        if !valid {
            return Err(Invalid::new(
                "format-version",
                "is not a digest",
                "use sha256: and 64 lower-case hexadecimal digits, as the registry shows it",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Digest {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let port_is_valid = |p: &str| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok_and(|p| p > 0);
    host.len() <= 253 && host.split('.').all(label) && port.is_none_or(port_is_valid)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|s| !s.is_empty());
    text.bytes().next().is_some_and(alphanumeric)
        && text.bytes().last().is_some_and(alphanumeric)
        && separators.into_iter().all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_image_name_says_where_it_is_pulled_from() {
        let check = |text: &str, expect: Option<(&str, &str)>| {
            let image = ImageName::parse(text).ok();
            assert_eq!(image.as_ref().map(|i| (i.server().as_str(), i.repository())), expect, "{text}");
        };
        check("nginx", Some(("docker.io", "library/nginx")));
        check("mycompany/myapp", Some(("docker.io", "mycompany/myapp")));
        check("docker.io/library/nginx", Some(("docker.io", "library/nginx")));
        check("registry.example.com:5000/shop/myapp", Some(("registry.example.com:5000", "shop/myapp")));
        check("localhost/app", Some(("localhost", "app")));
        for (text, names) in [("nginx", false), ("a/b", false), ("docker.io/nginx", true), ("localhost/a", true)] {
            assert_eq!(ImageName::parse(text).unwrap().names_host(), names, "{text}");
        }
        check("127.0.0.1:5000/a__b/c-d.e", Some(("127.0.0.1:5000", "a__b/c-d.e")));
        for refused in [
            "",
            "Nginx",
            "a//b",
            "/a",
            "a/",
            "nginx:1",
            "a@sha256:00",
            "host:99999/a",
            "a___b",
            "a..b",
            "a b",
            "-a",
            "ä",
        ] {
            check(refused, None);
        }
    }

    #[test]
    fn the_hub_has_one_name() {
        for text in ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"] {
            assert_eq!(RegistryServer::parse(text).unwrap().as_str(), DOCKER_HUB);
        }
        assert!(RegistryServer::parse("https://user@registry.example.com").is_err());
        assert!(RegistryServer::parse("registry.example.com/path").is_err());
    }

    #[test]
    fn a_version_is_a_tag_or_a_digest() {
        let hex = "0123456789abcdef".repeat(4);
        let check = |text: &str, valid: bool| assert_eq!(Version::parse(text).is_ok(), valid, "{text}");
        check("v1.2.3", true);
        check("_x", true);
        check(&"a".repeat(128), true);
        check(&format!("sha256:{hex}"), true);
        check(&format!("sha256:{}", hex.to_uppercase()), false);
        check(&"a".repeat(129), false);
        for text in ["", ".a", "-a", "a/b", "v1+2", "a b", "ä", "a\n", "sha256:12"] {
            check(text, false);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_written_back(text in "[a-zA-Z0-9._:/@-]{0,40}") {
            if let Ok(image) = ImageName::parse(&text) {
                prop_assert_eq!(image.to_string(), text.clone());
            }
            if let Ok(version) = Version::parse(&text) {
                prop_assert_eq!(version.to_string(), text);
            }
        }
    }
}
