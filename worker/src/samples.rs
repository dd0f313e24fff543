//! What the tests of several modules start from.

use tidegate_domain::{
    application::{ContainerName, Strategy},
    container::ContainerOptions,
    id::{ApplicationId, DeploymentId, Sequence},
    image::{ImageName, Version},
    job::{Action, Job},
};

pub(crate) fn job() -> Job {
    Job {
        deployment_id: DeploymentId::parse("01890a5d-ac96-774b-bcce-b302099a8057").unwrap(),
        release: DeploymentId::parse("01890a5d-ac96-774b-bcce-b302099a8057").unwrap(),
        action: Action::Deploy,
        application_id: ApplicationId(7),
        sequence: Sequence(3),
        name: ContainerName::parse("shop").unwrap(),
        image: ImageName::parse("registry.example.com:5000/shop/web").unwrap(),
        version: Version::parse("v2").unwrap(),
        digest: None,
        credentials: None,
        ports: Vec::new(),
        variables: Vec::new(),
        health_check: None,
        container: ContainerOptions::default(),
        strategy: Strategy::Recreate,
        bake_seconds: 0,
        adopt: false,
        stopped: false,
        approved: None,
    }
}
