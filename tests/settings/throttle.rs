//! Wrong credentials by address.

use futures_util::future::join_all;
use jiff::SignedDuration;
use reqwest::Method;
use serde_json::json;
use tidegate_aws::{clock, throttle::THROTTLED_SECONDS};

use super::store;
use crate::{
    administration::admin::Admin,
    support::{Application, Installation, Setup, client_from},
};

#[tokio::test]
async fn who_guesses_passwords_is_not_listened_to_for_a_while() {
    let admin = Admin::signed_in().await;
    let login = async |password: &str| {
        let answer = admin.post("auth/login", json!({"username": "operator", "password": password})).await;
        (answer.status.as_u16(), answer.headers.get("retry-after").map(|after| after.to_str().unwrap().to_owned()))
    };
    // Who sends none does not guess.
    for _ in 0..30 {
        let path = format!("{}/api/v2/projects", admin.base);
        assert_eq!(admin.http.get(path).send().await.unwrap().status().as_u16(), 401);
    }
    for guess in 0..20 {
        assert_eq!(login("wrong").await.0, 401, "{guess}");
    }
    let throttled = (429, Some(THROTTLED_SECONDS.to_string()));
    assert_eq!(login("wrong").await, throttled);
    assert_eq!(login("operator").await, throttled, "whether a password is right is not told any more");
    assert_eq!(admin.get("projects").await.status.as_u16(), 200, "who is signed in is not locked out by a guesser");
    let elsewhere = client_from(9);
    let body = json!({"username": "operator", "password": "operator"});
    let right = elsewhere.post(format!("{}/api/v2/auth/login", admin.base)).json(&body).send().await.unwrap();
    assert_eq!(right.status().as_u16(), 200, "another address is another's");
}

#[tokio::test]
async fn who_guesses_tokens_is_not_listened_to_for_a_while() {
    let setup = Setup { no_worker: true, no_sweeps: true, ..Setup::default() };
    let installation = Installation::start_with(setup).await;
    let application = installation.register(json!({})).await;
    let id = installation.deploy(&application, "v1").await.expect(202)["deploymentId"].as_str().unwrap().to_owned();
    let other = installation.register(json!({})).await;
    let wrong = ["nonsense", "whk_0000000000000000000000000000000000000000000000000", "", "dw_x"];
    for guess in 0..20 {
        let status = if guess % 2 == 0 {
            let token = wrong[guess / 2 % wrong.len()].to_owned();
            installation.deploy(&Application { token, id: application.id, ..clone(&application) }, "v1").await.status
        } else {
            let path = format!("/webhook/deployments/{id}");
            installation.call(Method::GET, &path, Some("nonsense"), &[], None).await.status
        };
        assert_eq!(status.as_u16(), 401, "{guess}");
    }
    let guess = Application { token: wrong[1].to_owned(), ..clone(&application) };
    let throttled = installation.deploy(&guess, "v1").await;
    assert!(throttled.expect(429)["type"].as_str().unwrap().ends_with("/rate-limited"));
    assert!(throttled.headers.contains_key("retry-after"));
    // Right tokens are let in all the same: others may share the address.
    installation.deploy(&other, "v1").await.expect(202);
    let path = format!("/webhook/deployments/{id}");
    installation.call(Method::GET, &path, Some(&application.token), &[], None).await.expect(200);
}

fn clone(application: &Application) -> Application {
    let Application { id, token, port, image, container } = application;
    Application { id: *id, token: token.clone(), port: *port, image: image.clone(), container: container.clone() }
}

#[tokio::test]
async fn guesses_at_the_same_time_are_all_counted_and_forgotten_in_time() {
    let admin = Admin::start().await;
    let (store, now) = (store(&admin), clock::now());
    let ip = "2001:db8:1:2::7".parse().unwrap();
    let count = async |guesses: usize| {
        for counted in join_all((0..guesses).map(|_| store.count_wrong_credential(ip, now))).await {
            counted.unwrap();
        }
    };
    let throttled = async |ip: &str, after: i64| {
        store.is_throttled(ip.parse().unwrap(), now + SignedDuration::from_secs(after)).await.unwrap()
    };
    count(19).await;
    assert!(!throttled("2001:db8:1:2::7", 0).await);
    count(1).await;
    assert!(throttled("2001:db8:1:2::7", 0).await);
    assert!(throttled("2001:db8:1:2:ffff::1", 0).await, "whoever has one of them has the whole network");
    assert!(!throttled("2001:db8:1:3::7", 0).await);
    assert!(throttled("2001:db8:1:2::7", 60).await);
    let later = i64::try_from(THROTTLED_SECONDS).unwrap();
    assert!(!throttled("2001:db8:1:2::7", later).await);
    // A clock that is behind forgets nothing.
    assert!(throttled("2001:db8:1:2::7", -3_600).await);
}
