//! Registries and token servers that are as they should be, and some that are not.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as expected")]

mod fake;

use std::{error::Error, fmt::Write as _, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{Response, header::WWW_AUTHENTICATE},
};
use fake::{Fake, Seen, answer, endless, hanging};
use tidegate_domain::{
    image::{Digest, ImageName, RegistryServer, Version},
    job::Credentials,
    secret::Secret,
};
use tidegate_registry::{Registry, Unresolved};
use tokio::time::timeout;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;
/// `printf '{"schemaVersion":2}' | sha256sum`
const DIGEST: &str = "sha256:bafebd36189ad3688b7b3915ea55d461e0bfcfbdde11e54b0a123999fb6be50f";
const OTHER: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// With what base64 and URLs treat specially.
const PASSWORD: &str = "p?>~ä+/=:word";
/// `ci:` and the password, in UTF-8 and base64.
const BASIC: &str = "Basic Y2k6cD8+fsOkKy89OndvcmQ=";
/// Of every call that has to end by itself.
const AMPLE: Duration = Duration::from_mins(1);

fn credentials(server: &str) -> Credentials {
    Credentials {
        server: RegistryServer::parse(server).unwrap(),
        username: "ci".to_owned(),
        password: Secret::new(PASSWORD.to_owned()),
    }
}

fn v1() -> Version {
    Version::parse("v1").unwrap()
}

async fn ask(fake: &Fake, credentials: Option<&Credentials>) -> Result<Digest, Unresolved> {
    ask_within(AMPLE, fake, credentials).await
}

async fn ask_within(limit: Duration, fake: &Fake, credentials: Option<&Credentials>) -> Result<Digest, Unresolved> {
    let image = ImageName::parse(&format!("{}/shop/app", fake.server())).unwrap();
    Registry::new(limit).digest(&image, &v1(), credentials).await
}

async fn ask_with_password(fake: &Fake) -> Result<Digest, Unresolved> {
    ask(fake, Some(&credentials(&fake.server()))).await
}

#[track_caller]
fn check_malformed(asked: Result<Digest, Unresolved>, why: &str) {
    match asked {
        Err(Unresolved::Malformed(said)) => assert!(said.contains(why), "{said}"),
        other => panic!("{why}: {other:?}"),
    }
}

fn digest(digest: &str) -> Response<Body> {
    answer(200, &[("content-type", INDEX), ("docker-content-digest", digest)], "")
}

fn manifest(headers: &[(&str, &str)]) -> Response<Body> {
    answer(200, headers, MANIFEST)
}

fn challenge(challenge: &str) -> Response<Body> {
    answer(401, &[(WWW_AUTHENTICATE.as_str(), challenge)], "")
}

#[tokio::test]
async fn a_public_image_is_asked_for_once_and_without_credentials() {
    let fake = Fake::start(|_| digest(DIGEST)).await;
    assert_eq!(ask_with_password(&fake).await.unwrap().as_str(), DIGEST);
    let seen = fake.seen();
    let [Seen { method, target, authorization, accept, host: _ }] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((method.as_str(), target.as_str(), authorization), ("HEAD", "/v2/shop/app/manifests/v1", &None));
    for kind in [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ] {
        assert!(accept.contains(kind), "{accept}");
    }
}

#[tokio::test]
async fn a_digest_stands_for_itself() {
    let fake = Fake::start(|_| digest(OTHER)).await;
    let image = ImageName::parse(&format!("{}/shop/app", fake.server())).unwrap();
    let asked = Registry::new(AMPLE).digest(&image, &Version::parse(DIGEST).unwrap(), None).await;
    assert_eq!(asked.unwrap().as_str(), DIGEST);
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn without_a_digest_in_the_head_it_is_computed_from_the_manifest() {
    for head in [200, 400, 405, 501] {
        let fake = Fake::start(move |seen| match seen.method.as_str() {
            "HEAD" => answer(head, &[], ""),
            _ => manifest(&[("content-type", "application/vnd.oci.image.index.v1+json; charset=utf-8")]),
        });
        assert_eq!(ask(&fake.await, None).await.unwrap().as_str(), DIGEST, "{head}");
    }
}

#[tokio::test]
async fn a_digest_that_is_none_or_not_the_manifests_is_refused() {
    let sha512 = format!("sha512:{}", "0".repeat(128));
    for wrong in ["", "sha256:12", &sha512, "latest", &DIGEST.to_uppercase()] {
        let told = wrong.to_owned();
        let fake = Fake::start(move |_| digest(&told)).await;
        check_malformed(ask(&fake, None).await, "SHA-256");
    }
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "HEAD" => answer(405, &[], ""),
        _ => manifest(&[("content-type", INDEX), ("docker-content-digest", OTHER)]),
    });
    check_malformed(ask(&fake.await, None).await, "not that of its manifest");
    for kind in ["text/html", "", "application/vnd.docker.distribution.manifest.v1+prettyjws"] {
        let fake = Fake::start(move |_| manifest(&[("content-type", kind)])).await;
        check_malformed(ask(&fake, None).await, "not a manifest");
    }
}

#[tokio::test]
async fn a_password_is_sent_if_it_is_asked_for() {
    let start = || {
        Fake::start(|seen| match seen.authorization.as_deref() {
            Some(BASIC) => digest(DIGEST),
            _ => challenge(r#"Basic realm="registry""#),
        })
    };
    let fake = start().await;
    assert_eq!(ask_with_password(&fake).await.unwrap().as_str(), DIGEST);
    assert_eq!(fake.seen().len(), 2);
    let refused = ask(&fake, None).await.unwrap_err();
    assert!(matches!(refused, Unresolved::Denied { with_credentials: false }), "{refused:?}");

    // Nor to one that they are not for.
    let fake = start().await;
    let refused = ask(&fake, Some(&credentials("registry.example.com"))).await.unwrap_err();
    assert!(matches!(refused, Unresolved::Denied { with_credentials: false }), "{refused:?}");
    assert!(fake.seen().iter().all(|seen| seen.authorization.is_none()));
}

#[tokio::test]
async fn what_a_registry_asks_for_may_be_said_at_its_root_alone() {
    let at_the_root = |root: fn() -> Response<Body>| {
        Fake::start(move |seen| match (seen.target.as_str(), seen.authorization.as_deref()) {
            ("/v2/", _) => root(),
            (_, Some(BASIC)) => digest(DIGEST),
            _ => answer(401, &[], ""),
        })
    };
    let fake = at_the_root(|| challenge(r#"Basic realm="registry""#)).await;
    assert_eq!(ask_with_password(&fake).await.unwrap().as_str(), DIGEST);
    let refused = ask(&fake, None).await.unwrap_err();
    assert!(matches!(refused, Unresolved::Denied { with_credentials: false }), "{refused:?}");

    for silent in [at_the_root(|| answer(200, &[], "{}")), at_the_root(|| answer(404, &[], ""))] {
        let refused = ask_with_password(&silent.await).await.unwrap_err();
        assert!(matches!(refused, Unresolved::Denied { with_credentials: true }), "{refused:?}");
    }
    check_malformed(ask_with_password(&at_the_root(|| answer(401, &[], "")).await).await, "neither");
    let elsewhere = at_the_root(|| answer(307, &[("location", "/v2/other")], "")).await;
    check_malformed(ask_with_password(&elsewhere).await, "points elsewhere");
}

#[tokio::test]
async fn what_is_refused_is_not_asked_for_again_and_again() {
    for asked_for in ["Basic realm=\"registry\"", "Bearer realm=\"http://{self}/token\""] {
        for head in [401, 405] {
            let fake = Fake::start(move |seen| {
                if seen.target.starts_with("/token") {
                    answer(200, &[], r#"{"token":"a"}"#)
                } else if seen.authorization.is_some() && seen.method == "HEAD" && head != 401 {
                    answer(head, &[], "")
                } else {
                    challenge(&asked_for.replace("{self}", &seen.host))
                }
            });
            let fake = fake.await;
            let refused = ask_with_password(&fake).await.unwrap_err();
            assert!(matches!(refused, Unresolved::Denied { with_credentials: true }), "{refused:?}");
            assert!(fake.seen().len() <= 4, "{:?}", fake.seen());
        }
    }
}

/// A registry that wants tokens of this server for it.
async fn with_tokens_of(server: &Fake, token: &'static str) -> Fake {
    let challenged = format!(
        r#"Bearer realm="http://{}/token?a=b",service="registry",scope="repository:shop/app:pull""#,
        server.server()
    );
    Fake::start(move |seen| match seen.authorization.as_deref() {
        Some(authorization) if authorization == format!("Bearer {token}") => digest(DIGEST),
        _ => challenge(&challenged),
    })
    .await
}

#[tokio::test]
async fn a_token_server_gets_the_password_and_the_registry_the_token() {
    for given in
        [r#"{"token":"t0","expires_in":60}"#, r#"{"access_token":"t0"}"#, r#"{"token":"","access_token":"t0"}"#]
    {
        let tokens = Fake::start(move |_| answer(200, &[], given)).await;
        let fake = with_tokens_of(&tokens, "t0").await;
        assert_eq!(ask_with_password(&fake).await.unwrap().as_str(), DIGEST, "{given}");
        let [asked] = &tokens.seen()[..] else { panic!("{:?}", tokens.seen()) };
        assert_eq!(asked.target, "/token?a=b&service=registry&scope=repository%3Ashop%2Fapp%3Apull");
        assert_eq!(asked.authorization.as_deref(), Some(BASIC));
        assert!(fake.seen().iter().all(|seen| seen.authorization.as_deref() != Some(BASIC)));

        // Without credentials a token is had as well, for what is public.
        assert_eq!(ask(&fake, None).await.unwrap().as_str(), DIGEST);
        assert_eq!(tokens.seen()[1].authorization, None);
    }
}

#[tokio::test]
async fn a_token_serves_for_the_second_request_too() {
    let tokens = Fake::start(|_| answer(200, &[], r#"{"token":"t0"}"#)).await;
    let challenged = format!(r#"Bearer realm="http://{}/token""#, tokens.server());
    let fake = Fake::start(move |seen| match (seen.method.as_str(), seen.authorization.as_deref()) {
        (_, None) => challenge(&challenged),
        ("HEAD", Some(_)) => answer(405, &[], ""),
        (_, Some(_)) => manifest(&[("content-type", INDEX)]),
    });
    assert_eq!(ask_with_password(&fake.await).await.unwrap().as_str(), DIGEST);
    assert_eq!(tokens.seen().len(), 1);
}

#[tokio::test]
async fn a_token_server_may_refuse_fail_or_answer_anything() {
    let check = async |status: u16, body: &'static str| {
        let tokens = Fake::start(move |_| answer(status, &[("location", "/other")], body)).await;
        let asked = ask_with_password(&with_tokens_of(&tokens, "t0").await).await;
        assert_eq!(tokens.seen().len(), 1, "no redirect is followed");
        asked.unwrap_err()
    };
    for status in [401, 403] {
        assert!(matches!(check(status, "").await, Unresolved::Denied { with_credentials: true }), "{status}");
    }
    for status in [429, 500, 503] {
        assert!(matches!(check(status, "").await, Unresolved::Away { .. }), "{status}");
    }
    for status in [301, 307, 308, 400, 404] {
        assert!(matches!(check(status, "").await, Unresolved::Malformed(_)), "{status}");
    }
    for body in ["", "{}", "[]", "null", r#"{"token":null}"#, r#"{"token":""}"#, r#"{"token":"a\r\nb: c"}"#, "\u{0}"] {
        assert!(matches!(check(200, body).await, Unresolved::Malformed(_)), "{body}");
    }
}

#[tokio::test]
async fn no_redirect_is_followed() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = Fake::start(|_| digest(OTHER)).await;
        let location = format!("http://{}/v2/shop/app/manifests/v1", elsewhere.server());
        let fake = Fake::start(move |seen| match seen.authorization {
            Some(_) => answer(status, &[("location", &location)], ""),
            None => challenge(r#"Basic realm="registry""#),
        });
        check_malformed(ask_with_password(&fake.await).await, "points elsewhere");
        assert!(elsewhere.seen().is_empty(), "{:?}", elsewhere.seen());
    }
}

#[tokio::test]
async fn a_tag_that_does_not_exist_is_told_from_all_else() {
    let asked = async |status: u16| {
        let fake = Fake::start(move |_| answer(status, &[], "")).await;
        ask_with_password(&fake).await.unwrap_err()
    };
    assert!(matches!(asked(404).await, Unresolved::NotFound));
    assert!(matches!(asked(403).await, Unresolved::Denied { with_credentials: true }));
    for status in [408, 429, 500, 502, 503] {
        assert!(matches!(asked(status).await, Unresolved::Away { .. }), "{status}");
    }
    // 401 without saying what for.
    for status in [204, 304, 401, 418] {
        assert!(matches!(asked(status).await, Unresolved::Malformed(_)), "{status}");
    }
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_away() {
    let fake = Fake::start(|_| digest(DIGEST)).await;
    let server = fake.server();
    fake.stop().await;
    let image = ImageName::parse(&format!("{server}/shop/app")).unwrap();
    let away = Registry::new(AMPLE).digest(&image, &v1(), Some(&credentials(&server))).await.unwrap_err();
    assert!(matches!(away, Unresolved::Away { .. }), "{away:?}");
    check_silent(&away);
}

#[tokio::test]
async fn whoever_hangs_is_waited_for_no_longer_than_the_limit() {
    let limit = Duration::from_millis(300);
    let hangs_at_the_manifest = Fake::start(|seen| match seen.method.as_str() {
        "HEAD" => answer(405, &[], ""),
        _ => hanging(&[("content-type", INDEX)]),
    });
    let tokens = Fake::start(|_| hanging(&[])).await;
    let silent = Fake::silent().await;
    for fake in [hangs_at_the_manifest.await, with_tokens_of(&tokens, "t0").await, silent] {
        let password = credentials(&fake.server());
        let asked = timeout(AMPLE, ask_within(limit, &fake, Some(&password))).await;
        let away = asked.expect("it ends by itself").unwrap_err();
        assert!(matches!(away, Unresolved::Away { .. }), "{away:?}");
    }
}

#[tokio::test]
async fn a_body_without_end_is_not_read_to_its_end() {
    let fake = Fake::start(|_| endless(&[("content-type", INDEX)])).await;
    check_malformed(ask(&fake, None).await, "longer than it may be");
    let tokens = Fake::start(|_| endless(&[])).await;
    check_malformed(ask_with_password(&with_tokens_of(&tokens, "t0").await).await, "longer than it may be");
    // One that is as long as it may be is a manifest.
    let of_length = async |length: usize| {
        let body = Bytes::from(vec![b' '; length]);
        let fake = Fake::start(move |_| answer(200, &[("content-type", INDEX)], body.clone())).await;
        ask(&fake, None).await
    };
    of_length(4 * 1024 * 1024).await.unwrap();
    check_malformed(of_length(4 * 1024 * 1024 + 1).await, "longer than it may be");
}

/// Neither the error nor what it comes from shows what is secret, or what the registry said.
#[track_caller]
fn check_silent(error: &Unresolved) {
    let mut said = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        write!(said, " {inner} {inner:?}").unwrap();
        cause = inner.source();
    }
    for secret in [PASSWORD, BASIC.trim_start_matches("Basic "), "t0ken", "http://"] {
        assert!(!said.contains(secret), "{secret} is in {said}");
    }
}

#[tokio::test]
async fn no_error_shows_a_secret() {
    for status in [200, 301, 401, 403, 404, 418, 500] {
        let tokens = Fake::start(|_| answer(200, &[], r#"{"token":"t0ken"}"#)).await;
        let challenged = format!(r#"Bearer realm="http://{}/token""#, tokens.server());
        let fake = Fake::start(move |seen| match &seen.authorization {
            Some(told) => answer(status, &[("docker-content-digest", told), ("location", told)], told.clone()),
            None => challenge(&challenged),
        });
        check_silent(&ask_with_password(&fake.await).await.unwrap_err());
        let fake = Fake::start(move |seen| match &seen.authorization {
            Some(told) => answer(status, &[("docker-content-digest", told), ("location", told)], told.clone()),
            None => challenge(r#"Basic realm="registry""#),
        });
        check_silent(&ask_with_password(&fake.await).await.unwrap_err());
    }
    // The token server goes away in the middle of it.
    let tokens = Fake::start(|_| digest(DIGEST)).await;
    let fake = with_tokens_of(&tokens, "t0").await;
    tokens.stop().await;
    let away = ask_with_password(&fake).await.unwrap_err();
    assert!(matches!(away, Unresolved::Away { .. }), "{away:?}");
    check_silent(&away);
}
