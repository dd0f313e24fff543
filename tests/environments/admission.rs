//! A deployment is recorded in the environment that it was decided on, or not at all.

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_aws::{catalogue::Stored, clock, environments::Environment, store::Store};
use tidegate_domain::id::EnvironmentId;
use tokio::{runtime::Handle, task::block_in_place};

use super::{event, store_of, tenant};
use crate::support::{
    Application, Installation, Setup,
    faults::{AwsCall, FaultyAws},
    relay::Fate,
};

/// Without a worker: nothing has to run.
struct Installed {
    installation: Installation,
    faulty: Arc<FaultyAws>,
    /// Its own way to the table, which nobody sees.
    store: Store,
    application: Application,
    project: Value,
}

async fn installed() -> Installed {
    let (faulty, detour) = FaultyAws::for_functions().await;
    let setup = Setup { no_worker: true, no_sweeps: true, detour: Some(detour), ..Setup::default() };
    let installation = Installation::start_with(setup).await;
    let store = store_of(&installation.aws().clients());
    let application = installation.register(json!({})).await;
    let project = installation.get(&format!("applications/{}", application.id)).await.expect(200)["projectId"].clone();
    Installed { installation, faulty, store, application, project }
}

impl Installed {
    async fn environment(&self, name: &str, more: Value) -> EnvironmentId {
        let mut body = json!({"projectId": self.project, "name": name, "variables": {"NAME": name}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let created = self.installation.post("environments", &body).await.expect(201);
        EnvironmentId::parse(created["envId"].as_str().unwrap()).unwrap()
    }

    async fn stored(&self, id: EnvironmentId) -> Stored<Environment> {
        self.store.environment(&tenant(), id).await.unwrap()
    }

    /// Deploys, and does something in the moment after all is decided and before it is recorded: what was recorded then, and
    /// how often it was tried.
    async fn deploy_while<F: Future<Output = ()>>(
        &self,
        act: impl FnOnce(Store) -> F + Send + 'static,
    ) -> (Value, usize) {
        let (mut act, store) = (Some(act), self.store.clone());
        self.faulty.judge_by(move |call: &AwsCall| {
            if call.is("TransactWriteItems")
                && call.body.to_string().contains("#DEPLOYMENTS")
                && let Some(act) = act.take()
            {
                block_in_place(|| Handle::current().block_on(act(store.clone())));
            }
            Fate::Pass
        });
        let answer = self.installation.deploy(&self.application, "v1").await.expect(202);
        let tries = self.faulty.calls("TransactWriteItems");
        self.faulty.let_all_pass();
        let path = format!("deployments/{}", answer["deploymentId"].as_str().unwrap());
        (self.installation.get(&path).await.expect(200), tries)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_environment_that_is_activated_meanwhile_is_asked_for_its_rules() {
    let installed = installed().await;
    let staging = installed.environment("Staging", json!({})).await;
    let production = installed.environment("Production", json!({"requiresApproval": true})).await;
    let (staging, production) = (installed.stored(staging).await, installed.stored(production).await);
    let activate = async |store: Store, stored: Stored<Environment>| {
        store.activate_environment(&tenant(), &stored, clock::now(), &event()).await.unwrap();
    };
    // None was active, and then one is; and one, and then another one.
    for (active, before) in [(&staging, Value::Null), (&production, json!("Staging"))] {
        let shown = installed.installation.get(&format!("environments/active?projectId={}", installed.project)).await;
        assert_eq!(shown.json()["name"], before);
        let stored = (*active).clone();
        let (recorded, tries) = installed.deploy_while(move |store| async move { activate(store, stored).await }).await;
        assert_eq!(tries, 2, "{recorded}");
        assert_eq!(recorded["environment"]["name"], active.body.name, "{recorded}");
        let waits = active.body.requires_approval;
        assert_eq!(recorded["status"], if waits { "awaiting_approval" } else { "queued" }, "{recorded}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_wants_decisions_from_now_on_gets_this_one() {
    let installed = installed().await;
    let id = installed.environment("Production", json!({})).await;
    let stored = installed.stored(id).await;
    installed.store.activate_environment(&tenant(), &stored, clock::now(), &event()).await.unwrap();
    let recorded = installed.deploy_while(move |store| async move {
        let mut body = stored.body.clone();
        body.requires_approval = true;
        store.replace_environment(&tenant(), &stored, body, clock::now(), &event()).await.unwrap();
    });
    let (recorded, tries) = recorded.await;
    assert_eq!((&recorded["status"], tries), (&json!("awaiting_approval"), 2), "{recorded}");
}

/// Only what the decision hangs on counts: others may go on changing variables.
#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_changes_meanwhile_keeps_nobody_waiting() {
    let installed = installed().await;
    let id = installed.environment("Production", json!({})).await;
    let stored = installed.stored(id).await;
    installed.store.activate_environment(&tenant(), &stored, clock::now(), &event()).await.unwrap();
    let recorded = installed.deploy_while(move |store| async move {
        let mut body = stored.body.clone();
        body.description = "another".to_owned();
        store.replace_environment(&tenant(), &stored, body, clock::now(), &event()).await.unwrap();
    });
    let (recorded, tries) = recorded.await;
    assert_eq!((&recorded["status"], tries), (&json!("queued"), 1), "{recorded}");
}
