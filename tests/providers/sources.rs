//! The sources themselves, against fakes that answer as the real ones do.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tidegate_domain::{
    provider::{ProviderType, RemotePath},
    secret::Secret,
};
use tidegate_providers::{Connection, Provider as _, ProviderError, Settings, fields};

use crate::support::{
    fake_infisical::{FakeInfisical, Fate},
    fake_secrets_manager::{FakeSecretsManager, hangs_up},
};

const PATIENCE: Duration = Duration::from_secs(20);

async fn connection(kind: ProviderType, config: &Value, patience: Duration) -> Connection {
    let text = |name: &str| config[name].as_str().map(str::to_owned);
    let of = |is_secret: bool| fields(kind).iter().filter(move |field| field.is_secret == is_secret);
    let texts: BTreeMap<_, _> = of(false).filter_map(|f| Some((f.name.to_owned(), text(f.name)?))).collect();
    let secrets = of(true).filter_map(|f| Some((f.name.to_owned(), Secret::new(text(f.name)?)))).collect();
    Connection::new(kind, Settings { texts, secrets }, patience).await.unwrap()
}

async fn infisical(source: &FakeInfisical) -> Connection {
    connection(ProviderType::Infisical, &source.config(), PATIENCE).await
}

/// Keys and values, or the code of the error; which never holds what it must not.
async fn all(connection: &Connection, path: &str) -> Result<Vec<(String, String)>, &'static str> {
    match connection.all(&RemotePath::parse(path).unwrap()).await {
        Ok(all) => {
            Ok(all.into_iter().map(|e| (e.key, e.value.map_or_else(String::new, |v| v.expose().clone()))).collect())
        }
        Err(error) => {
            let said = format!("{error} {error:?}");
            assert!(!said.contains("canary") && !said.contains("127.0.0.1"), "{said}");
            Err(error.code())
        }
    }
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// Answers the first so many lists so.
fn at_first(source: &FakeInfisical, mut times: usize, fate: impl Fn() -> Fate + Send + 'static) {
    source.judge_by(move |call| {
        if times > 0 && call.line.starts_with("GET") {
            times -= 1;
            return fate();
        }
        Fate::Pass
    });
}

#[tokio::test]
async fn infisical_is_read_folder_by_folder_with_one_login() {
    let source = FakeInfisical::start().await;
    source.set("/", "A", "canary-1");
    source.set("/prod/db", "B", "canary-2");
    let connection = infisical(&source).await;
    connection.check().await.unwrap();
    assert_eq!(all(&connection, "/").await, Ok(vec![pair("A", "canary-1")]));
    assert_eq!(all(&connection, "/prod/db").await, Ok(vec![pair("B", "canary-2")]));
    assert_eq!(all(&connection, "/nowhere").await, Ok(Vec::new()));
    let calls = source.calls();
    assert_eq!(calls.iter().filter(|call| call.line.contains("login")).count(), 1);
    let last = calls.last().unwrap();
    assert_eq!((last.line.as_str(), last.query["expandSecretReferences"].as_str()), ("GET /api/v4/secrets", "true"));
}

#[tokio::test]
async fn a_token_past_its_life_is_renewed_once() {
    let source = FakeInfisical::start().await;
    source.set("/", "A", "canary");
    let connection = infisical(&source).await;
    connection.check().await.unwrap();
    source.revoke_tokens();
    assert_eq!(all(&connection, "/").await, Ok(vec![pair("A", "canary")]));
    assert_eq!(source.logins(), 2);
    at_first(&source, 9, || Fate::Answer(401, Vec::new(), json!({"statusCode": 401, "message": "canary"})));
    assert_eq!(all(&connection, "/").await, Err("permission-denied"));
    assert_eq!(source.logins(), 3);
    // It is used to four fifths of its life: of one second that is over when it has come.
    source.judge_by(|_| Fate::Pass);
    source.tokens_live_for(1);
    source.revoke_tokens();
    let short = infisical(&source).await;
    short.check().await.unwrap();
    crate::support::eventually("a login more", async || {
        short.check().await.unwrap();
        (source.logins() >= 5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_refused_login_is_final() {
    let source = FakeInfisical::start().await;
    let mut config = source.config();
    config["clientSecret"] = "canary-wrong".into();
    let connection = connection(ProviderType::Infisical, &config, PATIENCE).await;
    assert_eq!(all(&connection, "/").await, Err("login-refused"));
    assert_eq!(source.logins(), 1);
    // "Too many" without a time is what racing another wrong login looks like.
    source.judge_by(|call| {
        if call.line.contains("login") {
            Fate::Answer(429, Vec::new(), json!({"message": "Failed to acquire lock: rate limit exceeded"}))
        } else {
            Fate::Pass
        }
    });
    assert_eq!(all(&connection, "/").await, Err("rate-limited"));
    assert_eq!(source.logins(), 2);
}

#[tokio::test]
async fn limits_and_outages_are_waited_for_within_reason() {
    let source = FakeInfisical::start().await;
    source.set("/", "A", "canary");
    let connection = infisical(&source).await;
    let lists = |source: &FakeInfisical| source.calls().iter().filter(|call| call.line.starts_with("GET")).count();
    at_first(&source, 1, || Fate::Answer(429, vec![("retry-after", "1".to_owned())], json!({"message": "canary"})));
    assert_eq!(all(&connection, "/").await, Ok(vec![pair("A", "canary")]));
    assert_eq!(lists(&source), 2);
    at_first(&source, 3, || Fate::Answer(503, Vec::new(), json!({"message": "canary"})));
    assert_eq!(all(&connection, "/").await, Ok(vec![pair("A", "canary")]));
    assert_eq!(lists(&source), 4);
    at_first(&source, 99, || Fate::Answer(500, Vec::new(), json!({"message": "canary"})));
    assert_eq!(all(&connection, "/").await, Err("unavailable"));
    assert_eq!(lists(&source), 4, "no more tries than that");
    at_first(&source, 99, || Fate::Answer(429, vec![("retry-after", "600".to_owned())], json!({})));
    match connection.list(&RemotePath::default(), None).await {
        Err(ProviderError::RateLimited { after }) => assert_eq!(after.as_secs(), 600),
        other => panic!("{other:?}"),
    }
    assert_eq!(lists(&source), 1, "nobody waits ten minutes here");
    at_first(&source, 1, || Fate::Cut);
    assert_eq!(all(&connection, "/").await, Ok(vec![pair("A", "canary")]), "half an answer is none");
    at_first(&source, 1, || Fate::Endless);
    assert_eq!(all(&connection, "/").await, Err("too-large"));
}

#[tokio::test]
async fn a_source_that_takes_too_long_is_left() {
    let source = FakeInfisical::start().await;
    at_first(&source, 99, || Fate::Late(Duration::from_mins(10)));
    let connection = connection(ProviderType::Infisical, &source.config(), Duration::from_secs(1)).await;
    assert_eq!(all(&connection, "/").await, Err("unavailable"));
}

#[tokio::test]
async fn an_old_server_is_asked_as_it_knows() {
    let source = FakeInfisical::start().await;
    source.set("/", "A", "canary");
    source.is_old();
    let connection = infisical(&source).await;
    assert_eq!(all(&connection, "/").await, Ok(vec![pair("A", "canary")]));
    assert_eq!(all(&connection, "/").await, Ok(vec![pair("A", "canary")]));
    let lines: Vec<_> = source.calls().into_iter().map(|call| call.line).collect();
    let lists: Vec<_> = lines.iter().filter(|line| line.starts_with("GET")).collect();
    assert_eq!(lists, ["GET /api/v4/secrets", "GET /api/v3/secrets/raw", "GET /api/v3/secrets/raw"]);
    // It has been upgraded, and has the old way no more.
    source.is_upgraded();
    source.judge_by(|call| match call.line.as_str() {
        "GET /api/v3/secrets/raw" => Fate::Answer(404, Vec::new(), json!({"error": "Not Found", "statusCode": 404})),
        _ => Fate::Pass,
    });
    assert_eq!(all(&connection, "/").await, Ok(vec![pair("A", "canary")]));
    source.calls();
    assert_eq!(all(&connection, "/").await, Ok(vec![pair("A", "canary")]));
    assert_eq!(source.calls()[0].line, "GET /api/v4/secrets");
    // A project that is not there is no old server.
    let source = FakeInfisical::start().await;
    let mut config = source.config();
    config["projectId"] = "other".into();
    let connection = super::sources::connection(ProviderType::Infisical, &config, PATIENCE).await;
    assert_eq!(all(&connection, "/").await, Err("not-found"));
    assert_eq!(source.calls().last().unwrap().line, "GET /api/v4/secrets");
}

#[tokio::test]
async fn a_proxys_word_is_not_the_sources() {
    let source = FakeInfisical::start().await;
    source.set("/", "A", "canary");
    let connection = infisical(&source).await;
    let first = |source: &FakeInfisical| source.calls().into_iter().find(|call| call.line.starts_with("GET")).unwrap();
    let gone = || Fate::Answer(404, Vec::new(), json!({"message": "no upstream"}));
    // For one request, and for as long as it is asked either way.
    at_first(&source, 1, gone);
    assert_eq!(all(&connection, "/").await, Ok(vec![pair("A", "canary")]));
    source.calls();
    at_first(&source, 2, gone);
    assert_eq!(all(&connection, "/").await, Err("no-such-api"));
    assert_eq!(first(&source).line, "GET /api/v4/secrets");
    assert_eq!(all(&connection, "/").await, Ok(vec![pair("A", "canary")]));
    assert_eq!(first(&source).line, "GET /api/v4/secrets");
    // Also if it sounds like the source itself: the other way did not answer either.
    at_first(&source, 2, || Fate::Answer(404, Vec::new(), json!({"error": "Not Found"})));
    assert_eq!(all(&connection, "/").await, Err("no-such-api"));
    source.calls();
    assert_eq!(all(&connection, "/").await, Ok(vec![pair("A", "canary")]));
    assert_eq!(first(&source).line, "GET /api/v4/secrets");
}

#[tokio::test]
async fn what_may_not_be_read_fails_the_whole() {
    let source = FakeInfisical::start().await;
    source.set("/", "A", "canary");
    source.set("/", "B", "canary");
    source.change("/", |secrets| secrets[1].hidden = true);
    let connection = infisical(&source).await;
    assert_eq!(all(&connection, "/").await, Err("value-hidden"));
    at_first(&source, 9, || Fate::Answer(403, Vec::new(), json!({"error": "PermissionDenied", "message": "canary"})));
    assert_eq!(all(&connection, "/").await, Err("permission-denied"));
    at_first(&source, 9, || {
        Fate::Answer(302, vec![("location", "https://elsewhere.example.com/".to_owned())], json!({}))
    });
    assert_eq!(all(&connection, "/").await, Err("redirected"));
    at_first(&source, 9, || Fate::Answer(200, Vec::new(), json!({"canary": true})));
    assert_eq!(all(&connection, "/").await, Err("malformed-answer"));
    at_first(&source, 9, || Fate::Answer(400, Vec::new(), json!({"error": "BadRequest", "message": "canary"})));
    assert_eq!(all(&connection, "/").await, Err("refused"));
}

#[tokio::test]
async fn aws_secrets_manager_is_read_page_by_page() {
    let source = FakeSecretsManager::start().await;
    for index in 0..23 {
        source.set(&format!("prod/S{index:02}"), Some("canary"));
    }
    source.set("/prod/SLASHED", Some("canary"));
    source.set("prod/deeper/NOT", Some("canary"));
    let connection = connection(ProviderType::AwsSecretsManager, &source.config(), PATIENCE).await;
    source.throttle(2);
    let found = all(&connection, "/").await.unwrap();
    assert_eq!(found.len(), 24);
    assert!(found.contains(&pair("SLASHED", "canary")) && found.contains(&pair("S22", "canary")));
    assert_eq!(all(&connection, "/deeper").await, Ok(vec![pair("NOT", "canary")]));
    assert!(source.calls().iter().all(|call| call == "ListSecrets" || call == "BatchGetSecretValue"));
    source.deny("prod/S05");
    assert_eq!(all(&connection, "/").await, Err("permission-denied"));
    let mut config = source.config();
    config["accessKeyId"] = "unknown".into();
    let stranger = super::sources::connection(ProviderType::AwsSecretsManager, &config, PATIENCE).await;
    assert_eq!(all(&stranger, "/").await, Err("login-refused"));
}

#[tokio::test]
async fn of_other_folders_of_aws_no_value_is_read() {
    let source = FakeSecretsManager::start().await;
    for index in 0..9 {
        source.set(&format!("other/S{index}"), Some("canary"));
        source.set(&format!("prod/deeper/S{index}"), Some("canary"));
    }
    source.set("prod/HERE", Some("canary"));
    source.set("AT_THE_ROOT", Some("canary"));
    source.deny("other/S0");
    source.deny("prod/deeper/S0");
    let connection = connection(ProviderType::AwsSecretsManager, &source.config(), PATIENCE).await;
    assert_eq!(all(&connection, "/").await, Ok(vec![pair("HERE", "canary")]));
    connection.check().await.unwrap();
    assert_eq!(source.read().into_iter().collect::<Vec<_>>(), ["prod/HERE"]);
    let mut config = source.config();
    config["path"] = "/".into();
    let root = super::sources::connection(ProviderType::AwsSecretsManager, &config, PATIENCE).await;
    assert_eq!(all(&root, "/").await, Ok(vec![pair("AT_THE_ROOT", "canary")]));
    assert_eq!(source.read().into_iter().collect::<Vec<_>>(), ["AT_THE_ROOT"]);
    // Whether values may be read shows at the first one that is there.
    source.deny("AT_THE_ROOT");
    assert_eq!(root.check().await.unwrap_err().code(), "permission-denied");
    // Region and account are what tells one place from another, not who reads it.
    config["accessKeyId"] = "other".into();
    let listing = root_listing(&source).await;
    let other = super::sources::connection(ProviderType::AwsSecretsManager, &config, PATIENCE).await;
    assert_eq!(root.place(&RemotePath::default(), &listing), other.place(&RemotePath::default(), &listing));
    let deeper = RemotePath::parse("/prod").unwrap();
    assert_ne!(root.place(&RemotePath::default(), &listing), root.place(&deeper, &listing));
}

async fn root_listing(source: &FakeSecretsManager) -> Vec<tidegate_domain::sync::Listed> {
    source.remove("AT_THE_ROOT");
    source.set("READABLE", Some("canary"));
    let mut config = source.config();
    config["path"] = "/".into();
    let root = connection(ProviderType::AwsSecretsManager, &config, PATIENCE).await;
    root.all(&RemotePath::default()).await.unwrap()
}

#[tokio::test]
async fn what_is_wrong_at_aws_for_a_while_is_no_wrong_key() {
    let source = FakeSecretsManager::start().await;
    source.set("prod/A", Some("canary"));
    let (url, server) = hangs_up().await;
    let mut config = source.config();
    config["endpointUrl"] = url.into();
    let cut = connection(ProviderType::AwsSecretsManager, &config, PATIENCE).await;
    assert_eq!(all(&cut, "/").await, Err("unavailable"));
    server.abort();
    let connection = connection(ProviderType::AwsSecretsManager, &source.config(), PATIENCE).await;
    for (status, code, expect) in [
        (500, "InternalServiceError", "unavailable"),
        (400, "ValidationException", "refused"),
        (400, "AccessDeniedException", "permission-denied"),
        (400, "ExpiredTokenException", "login-refused"),
    ] {
        source.refuse(status, code);
        assert_eq!(all(&connection, "/").await, Err(expect), "{code}");
    }
}
