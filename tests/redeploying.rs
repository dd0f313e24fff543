//! Whether what runs is what a deployment would make of it now.

use serde_json::{Value, json};
use tidegate_local::demo_image::Mode;

use crate::support::{Application, Installation};

async fn needs_redeploy(installation: &Installation, application: &Application) -> Value {
    let shown = installation.get(&format!("applications/{}", application.id)).await.expect(200);
    let listed = installation.get("applications").await.expect(200);
    let listed = listed["data"].as_array().unwrap().iter().find(|listed| listed["id"] == application.id);
    assert_eq!(listed.unwrap()["status"]["needsRedeploy"], shown["status"]["needsRedeploy"]);
    shown["status"]["needsRedeploy"].clone()
}

#[tokio::test]
async fn an_application_says_whether_its_configuration_has_changed_since_its_release() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    let path = format!("applications/{}", application.id);
    let project = installation.get(&path).await.expect(200)["projectId"].clone();
    let group = installation.post("secret-groups", &json!({"name": "db"})).await.expect(201)["id"].clone();
    let secret = json!({"groupId": group, "name": "URL", "value": "one"});
    let secret = installation.post("secrets", &secret).await.expect(201)["id"].clone();
    for (scope, key, value) in [
        (json!({"projectId": project}), "HIDDEN", "project".to_owned()),
        (json!({"projectId": project}), "URL", format!("@secret:{secret}")),
        (json!({"applicationId": application.id}), "HIDDEN", "application".to_owned()),
        (json!({"applicationId": application.id}), "NAME", "{{env.NAME}}!".to_owned()),
    ] {
        let mut variable = json!({"key": key, "value": value});
        variable.as_object_mut().unwrap().extend(scope.as_object().unwrap().clone());
        installation.post("variables", &variable).await.expect(201);
    }
    let mut environments = Vec::new();
    for name in ["Staging", "Production"] {
        let environment = json!({"projectId": project, "name": name, "variables": {"NAME": name, "HIDDEN": name}});
        let environment = installation.post("environments", &environment).await.expect(201);
        environments.push(environment["envId"].as_str().unwrap().to_owned());
    }
    let activate =
        async |id: &str| installation.post(&format!("environments/{id}/activate"), &json!({})).await.expect(200);
    activate(&environments[0]).await;
    assert_eq!(needs_redeploy(&installation, &application).await, Value::Null);
    let check = async |changed: bool, after: &str| {
        assert_eq!(needs_redeploy(&installation, &application).await, changed, "after {after}");
    };
    let release = async |version: &str| {
        let ended = installation.release(&application, version, Mode::Ok).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        check(false, version).await;
    };
    let put = async |path: &str, body: Value| installation.put(path, &body).await.expect(200);

    release("v1").await;
    // What decides who deploys it, and what is hidden, changes nothing of what runs.
    put(&path, json!({"owner": "somebody", "approval": {"required": false, "requireOtherApprover": true}})).await;
    put(&format!("{path}/webhook"), json!({"enabled": true})).await;
    let hidden = format!("variables/project-{project}.HIDDEN");
    put(&hidden, json!({"value": "other"})).await;
    put(&format!("environments/{}/variables/HIDDEN", environments[0]), json!({"value": "other"})).await;
    check(false, "changes that concern no container").await;

    let secret = format!("secrets/{secret}");
    put(&secret, json!({"value": "two"})).await;
    check(true, "another value of a secret").await;
    release("v2").await;
    // Hidden, and used all the same.
    put(&format!("environments/{}/variables/NAME", environments[0]), json!({"value": "other"})).await;
    check(true, "a variable of the environment").await;
    release("v3").await;
    activate(&environments[1]).await;
    check(true, "the activation of another environment").await;
    put(&path, json!({"envId": environments[0]})).await;
    check(false, "the pin to the former one").await;
    put(&path, json!({"container": {"workingDir": "/tmp"}})).await;
    check(true, "another setting of the container").await;
    release("v4").await;
    put(&format!("variables/application-{}.HIDDEN", application.id), json!({"value": "other"})).await;
    check(true, "a variable of its own").await;

    // A rollback has the configuration of its release.
    let rollback = installation.post(&format!("{path}/rollback"), &json!({})).await.expect(202);
    let id = rollback["deploymentId"].as_str().unwrap();
    assert_eq!(rollback["environment"]["name"], "Staging", "{rollback}");
    assert_eq!(installation.ended(&application, id).await["status"], "succeeded");
    check(true, "a rollback to what the container was before").await;
}
