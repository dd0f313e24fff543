//! The request for a manifest, and the digest in its answer.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use reqwest::{
    Method, Response, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use tidegate_domain::{
    image::{Digest, ImageName},
    job::Credentials,
};

use crate::{Registry, Unresolved, api, body, challenge::Challenge, text, token::basic};

/// As registries have to take one (distribution specification, "Pushing Manifests").
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// An index first: without it a registry would choose a platform for us, and the digest would be that one's alone.
const KINDS: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const DIGEST: &str = "docker-content-digest";

/// The requests of one call.
struct Visit<'a> {
    registry: &'a Registry,
    /// Of the registry's API.
    root: Url,
    url: Url,
    repository: &'a str,
    credentials: Option<&'a Credentials>,
    /// Once the registry has asked for it.
    authorization: Option<HeaderValue>,
}

impl Registry {
    pub(crate) async fn resolve(
        &self,
        image: &ImageName,
        tag: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Digest, Unresolved> {
        let repository = image.repository();
        let root = api(image.server())?;
        let url = root.join(&format!("{repository}/manifests/{tag}"));
        let url = url.map_err(|_| Unresolved::Malformed("the image's name is not one of a path"))?;
        let mut visit = Visit { registry: self, root, url, repository, credentials, authorization: None };
        let answer = visit.ask(Method::HEAD).await?;
        match answer.status().as_u16() {
            200 => {
                if let Some(told) = told(answer.headers())? {
                    return Ok(told);
                }
            }
            // It does not know the method.
            400 | 405 | 501 => {}
            status => return Err(visit.refused(status)),
        }
        let answer = visit.ask(Method::GET).await?;
        match answer.status().as_u16() {
            200 => computed(answer).await,
            status => Err(visit.refused(status)),
        }
    }
}

impl Visit<'_> {
    /// Signed, if the registry wants that.
    async fn ask(&mut self, method: Method) -> Result<Response, Unresolved> {
        let answer = self.send(method.clone()).await?;
        if answer.status().as_u16() != 401 || self.authorization.is_some() {
            return Ok(answer);
        }
        let authorization = match (self.challenge(answer).await?, self.credentials) {
            (Challenge::Bearer(url), credentials) => self.registry.token(url, credentials).await?,
            (Challenge::Basic, Some(credentials)) => basic(credentials)?,
            (Challenge::Basic, None) => return Err(self.refused(401)),
        };
        self.authorization = Some(authorization);
        self.send(method).await
    }

    /// Some registries say what they ask for at the root of the API alone, where Docker looks first.
    async fn challenge(&self, answer: Response) -> Result<Challenge, Unresolved> {
        let answer = if answer.headers().contains_key(WWW_AUTHENTICATE) {
            answer
        } else {
            let client = self.registry.client(&self.root).await?;
            client.get(self.root.clone()).send().await.map_err(Unresolved::http)?
        };
        match answer.status().as_u16() {
            // It says nothing there either.
            200 | 404 => Err(self.refused(401)),
            401 => Challenge::read(answer.headers(), &self.root, self.repository),
            status => Err(self.refused(status)),
        }
    }

    async fn send(&self, method: Method) -> Result<Response, Unresolved> {
        let client = self.registry.client(&self.url).await?;
        let mut request = client.request(method, self.url.clone()).header(ACCEPT, KINDS.join(", "));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        request.send().await.map_err(Unresolved::http)
    }

    fn refused(&self, status: u16) -> Unresolved {
        Unresolved::status(status, self.credentials.is_some())
    }
}

/// What the registry says the digest is.
fn told(headers: &HeaderMap) -> Result<Option<Digest>, Unresolved> {
    if !headers.contains_key(DIGEST) {
        return Ok(None);
    }
    let parsed = text(headers, DIGEST).and_then(|text| Digest::parse(text).ok());
    parsed.map(Some).ok_or(Unresolved::Malformed("its digest is not one of SHA-256"))
}

/// Of the manifest itself, which is what a worker will compare.
async fn computed(answer: Response) -> Result<Digest, Unresolved> {
    let told = told(answer.headers())?;
    let kind = text(answer.headers(), CONTENT_TYPE.as_str()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    // A page that says something else is not an image.
    if !KINDS.iter().any(|known| kind.eq_ignore_ascii_case(known)) {
        return Err(Unresolved::Malformed("it is not a manifest"));
    }
    let body = body(answer, MAX_BYTES).await?;
    let mut text = "sha256:".to_owned();
    for byte in digest::digest(&digest::SHA256, &body).as_ref() {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
    }
    let computed = Digest::parse(&text).expect("this is how a digest is written");
    match told {
        Some(told) if told != computed => Err(Unresolved::Malformed("its digest is not that of its manifest")),
        _ => Ok(computed),
    }
}
