//! Every request of the seed on workflows exactly as it is written there, and every answer with at least its fields, names,
//! types and values. Ids are an installation's own, and so is the registry that an image comes from.

use serde_json::{Value, json};
use tidegate_local::demo_image::Mode;

use crate::{
    environments::seed::holds,
    support::{Application, Installation},
};

const MASK: &str = "***************";

/// Of the final environment variables.
const SECRETS: [(&str, &str); 5] = [
    ("DATABASE_URL", "postgresql://..."),
    ("REDIS_URL", "redis://..."),
    ("API_KEY", "sk_live_..."),
    ("SMTP_URL", "smtp://..."),
    ("SESSION_KEY", "..."),
];

async fn created(installation: &Installation, path: &str, body: &Value) -> Value {
    installation.post(path, body).await.expect(201)
}

/// The application of the seed, in the project that is called so, too.
async fn registered(installation: &Installation) -> (Application, Value) {
    let project = created(installation, "projects", &json!({"key": "myapp", "name": "myapp"})).await["id"].clone();
    let application = installation.register(json!({"name": "myapp", "projectId": project})).await;
    (Application { container: format!("{}myapp", installation.prefix), ..application }, project)
}

/// "场景1：手动管理秘钥", the first `count` of the secrets: those of the seed, and more of the same.
async fn group_of(installation: &Installation, count: usize) -> Value {
    let body = json!({"name": "production-db"});
    let group = created(installation, "secret-groups", &body).await;
    holds("POST /secret-groups", &group, &body);
    for (name, value) in &SECRETS[..count] {
        let body = json!({"groupId": group["id"], "name": name, "value": value});
        let secret = created(installation, "secrets", &body).await;
        let shown = json!({"groupId": group["id"], "name": name, "value": MASK, "source": "manual", "providerId": null,
            "providerReference": null});
        holds(&format!("the secret {name}"), &secret, &shown);
    }
    group["id"].clone()
}

#[tokio::test]
async fn a_projects_variable_refers_to_a_secret() {
    let installation = Installation::start().await;
    let (_, project) = registered(&installation).await;
    group_of(&installation, 2).await;
    let plain = json!({"projectId": project, "key": "NODE_ENV", "value": "production"});
    let shown = created(&installation, "variables", &plain).await;
    holds("NODE_ENV of scene 1", &shown, &json!({"scope": "project", "key": "NODE_ENV", "value": "production"}));
    let reference = json!({"projectId": project, "key": "DATABASE_URL", "value": "@secret:1"});
    let shown = created(&installation, "variables", &reference).await;
    let seed = json!({"key": "DATABASE_URL", "value": "@secret:1", "valueType": "secret_ref", "secretId": 1});
    holds("DATABASE_URL of scene 1", &shown, &seed);
    // As it stands under "环境变量", with its type and its secret.
    let again = installation.put(&format!("variables/project-{project}.DATABASE_URL"), &seed).await.expect(200);
    holds("the same with its type", &again, &seed);
}

#[tokio::test]
async fn a_provider_and_its_group_are_set_up() {
    let installation = Installation::start().await;
    let provider = json!({
        "type": "infisical",
        "config": {
            "clientId": "xxx",
            "clientSecret": "yyy",
            "projectId": "zzz"
        },
        "autoSync": true
    });
    let shown = created(&installation, "secret-providers", &provider).await;
    let mut seed = provider;
    seed["config"]["clientSecret"] = MASK.into();
    seed["lastSyncAt"] = Value::Null;
    seed["lastSyncStatus"] = Value::Null;
    holds("POST /secret-providers", &shown, &seed);
    let group = json!({"name": "infisical-prod", "providerId": 1, "autoSync": true});
    holds("POST /secret-groups with a provider", &created(&installation, "secret-groups", &group).await, &group);
}

#[tokio::test]
async fn a_group_is_imported_into_a_project() {
    let installation = Installation::start().await;
    let (_, project) = registered(&installation).await;
    let group = group_of(&installation, SECRETS.len()).await;
    let path = format!("secret-groups/{group}/import");
    let imported = installation.post(&path, &json!({"projectId": project})).await.expect(200);
    holds("the import of a group", &imported, &json!({"success": true, "imported": 5, "skipped": 0}));
    let names: Vec<_> = imported["secrets"].as_array().unwrap().iter().map(|secret| secret["name"].clone()).collect();
    assert_eq!(names.len(), SECRETS.len(), "{imported}");
    let variable = format!("variables/project-{project}.DATABASE_URL");
    let seed = json!({"scope": "project", "projectId": project, "key": "DATABASE_URL", "value": "@secret:1",
        "valueType": "secret_ref", "secretId": 1});
    holds("a variable of the import", &installation.get(&variable).await.expect(200), &seed);
    let again = installation.post(&path, &json!({"projectId": project})).await.expect(200);
    holds("the same import again", &again, &json!({"success": true, "imported": 0, "skipped": 5}));
}

#[tokio::test]
async fn an_application_is_deployed_by_its_token() {
    let installation = Installation::start().await;
    let (application, project) = registered(&installation).await;
    let shown = installation.get(&format!("applications/{}", application.id)).await.expect(200);
    let seed = json!({"id": application.id, "name": "myapp", "image": application.image});
    holds("the application", &shown, &seed);
    assert!(shown["ports"][0]["host"].is_u64() && shown["ports"][0]["container"].is_u64(), "{shown}");
    assert_eq!(shown["webhook"]["enabled"], true);
    assert!(application.token.starts_with("whk_"));

    let group = group_of(&installation, 3).await;
    let import = format!("secret-groups/{group}/import");
    installation.post(&import, &json!({"projectId": project})).await.expect(200);
    created(&installation, "variables", &json!({"key": "NODE_ENV", "value": "production"})).await;
    installation.push(&application, "v1.2.3", Mode::Ok).await;
    let body = json!({"applicationId": application.id, "version": "v1.2.3", "token": application.token});
    let path = "/webhook/deploy?wait=20";
    let deployed = installation.call(reqwest::Method::POST, path, None, &[], Some(&body)).await.expect(200);
    let seed = json!({
        "success": true,
        "deploymentId": "uuid-xxx",
        "application": {
            "id": application.id,
            "name": "myapp",
            "version": "v1.2.3"
        },
        "message": "Deployment completed successfully"
    });
    holds("POST /webhook/deploy", &deployed, &seed);

    let record = installation.ended(&application, deployed["deploymentId"].as_str().unwrap()).await;
    let seed =
        json!({"applicationId": application.id, "version": "v1.2.3", "deploymentId": "uuid", "phase": "success"});
    holds("its record", &record, &seed);
    assert_eq!((&record["trigger"]["type"], record["durationMs"].is_u64()), (&json!("webhook"), true), "{record}");
    let found = installation.docker.inspect_container(&application.container, None).await.unwrap();
    let variables = found.config.unwrap().env.unwrap();
    for (name, value) in SECRETS[..3].iter().chain(&[("NODE_ENV", "production")]) {
        assert!(variables.contains(&format!("{name}={value}")), "{name}: {variables:?}");
    }
    let status = installation.get(&format!("applications/{}", application.id)).await.expect(200)["status"].clone();
    holds("what runs", &status, &json!({"state": "running", "version": "v1.2.3"}));
}

#[tokio::test]
async fn a_registry_is_named_as_docker_names_its_own() {
    let installation = Installation::start().await;
    let body = json!({"name": "hub", "server": "https://index.docker.io/v1/", "authType": "username-password",
        "username": "myuser", "password": "mypass"});
    let shown = created(&installation, "registries", &body).await;
    let mut seed = body;
    seed["password"] = MASK.into();
    seed.as_object_mut().unwrap().remove("server");
    holds("POST /registries", &shown, &seed);
}

/// "V1 (旧)": the call with a secret that all applications share.
#[tokio::test]
async fn the_call_of_v1_is_gone() {
    let installation = Installation::start().await;
    let body = json!({"name": "任意名称", "image": "任意镜像", "port": "任意端口", "secret": "全局secret"});
    let gone = installation.call(reqwest::Method::POST, "/deploy", None, &[], Some(&body)).await.expect(410);
    assert!(gone["detail"].as_str().unwrap().contains("/webhook/deploy"), "{gone}");
}
