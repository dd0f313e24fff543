//! Which image a tag stands for, asked of a real registry: before anything is pulled, and with the answer that a worker finds.

use std::time::Duration;

use serde_json::json;
use tidegate_domain::{
    image::{ImageName, Version},
    job::Credentials,
    secret::Secret,
};
use tidegate_local::demo_image::Mode;
use tidegate_registry::{Registry, Unresolved};

use crate::support::{Application, Installation};

/// Of calls that have to end by themselves.
const AMPLE: Duration = Duration::from_mins(1);

struct Asking<'a> {
    registry: Registry,
    installation: &'a Installation,
    image: ImageName,
}

impl<'a> Asking<'a> {
    fn about(installation: &'a Installation, application: &Application) -> Self {
        let image = ImageName::parse(&application.image).unwrap();
        Self { registry: Registry::new(AMPLE), installation, image }
    }

    async fn digest(&self, version: &str, password: Option<&str>) -> Result<String, Unresolved> {
        let credentials = password.map(|password| Credentials {
            server: self.image.server().clone(),
            username: self.installation.registry.user().to_owned(),
            password: Secret::new(password.to_owned()),
        });
        let version = Version::parse(version).unwrap();
        self.registry.digest(&self.image, &version, credentials.as_ref()).await.map(|digest| digest.to_string())
    }
}

#[tokio::test]
async fn a_tags_digest_is_the_one_that_a_worker_pins() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    let asking = Asking::about(&installation, &application);
    let password = Some(installation.registry.password());
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(asking.digest("v1", password).await.unwrap(), ended["digest"].as_str().unwrap());

    installation.push(&application, "v1", Mode::Unhealthy).await;
    let moved = asking.digest("v1", password).await.unwrap();
    assert_ne!(moved, ended["digest"].as_str().unwrap());
    assert_eq!(asking.digest(&moved, password).await.unwrap(), moved);
}

#[tokio::test]
async fn a_tag_that_was_never_pushed_has_no_digest() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    let asking = Asking::about(&installation, &application);
    let password = Some(installation.registry.password());
    // Neither the image, nor then another version of it.
    let unknown = asking.digest("v2", password).await.unwrap_err();
    assert!(matches!(unknown, Unresolved::NotFound), "{unknown:?}");
    installation.push(&application, "v1", Mode::Ok).await;
    let unknown = asking.digest("v2", password).await.unwrap_err();
    assert!(matches!(unknown, Unresolved::NotFound), "{unknown:?}");
}

#[tokio::test]
async fn a_private_registry_tells_nothing_without_the_right_password() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    let asking = Asking::about(&installation, &application);
    installation.push(&application, "v1", Mode::Ok).await;
    let refused = asking.digest("v1", None).await.unwrap_err();
    assert!(matches!(refused, Unresolved::Denied { with_credentials: false }), "{refused:?}");
    let refused = asking.digest("v1", Some("wrong")).await.unwrap_err();
    assert!(matches!(refused, Unresolved::Denied { with_credentials: true }), "{refused:?}");
}
