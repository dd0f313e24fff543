use bollard::{
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{CreateContainerOptions, RemoveContainerOptions},
};

use super::*;
use crate::registry::Registry;

/// With what the two base64 alphabets differ in.
const PASSWORD: &str = "p?>~p?>~ü";

async fn pull(docker: &Docker, name: &str, tag: &str, login: &Login<'_>) -> Result<(), bollard::errors::Error> {
    let options = CreateImageOptions {
        from_image: Some(name.to_owned()),
        tag: Some(tag.to_owned()),
        ..CreateImageOptions::default()
    };
    let registry = name.split('/').next().unwrap();
    ended(docker.create_image(Some(options), None, Some(login.for_docker(registry)))).await
}

async fn remove(docker: &Docker, name: &str) {
    docker.remove_image(name, None::<RemoveImageOptions>, None).await.unwrap();
}

#[tokio::test]
async fn an_image_goes_through_a_registry_with_a_password() {
    let docker = connect().await.unwrap();
    let password = Secret::new(PASSWORD.to_owned());
    let registry = Registry::start("ci", &password).unwrap();
    let login = Login { user: "ci", password: &password };
    let name = DemoImage::new("v1", Mode::Ok).push(&docker, registry.addr(), "demo/shop", &login).await.unwrap();
    let tagged = format!("{name}:v1");
    assert!(docker.inspect_image(&tagged).await.is_err(), "a push leaves nothing behind");

    let wrong = Secret::new("wrong".to_owned());
    let error = pull(&docker, &name, "v1", &Login { user: "ci", password: &wrong }).await.unwrap_err();
    assert!(error.to_string().contains("unauthorized"), "{error}");
    let error = pull(&docker, &name, "v2", &login).await.unwrap_err();
    assert!(error.to_string().contains("unknown"), "{error}");

    pull(&docker, &name, "v1", &login).await.unwrap();
    let digests = docker.inspect_image(&tagged).await.unwrap().repo_digests.unwrap();
    remove(&docker, &tagged).await;
    let (repository, digest) = digests[0].split_once('@').unwrap();
    pull(&docker, repository, digest, &login).await.unwrap();
    remove(&docker, &digests[0]).await;

    registry.stop();
    let error = pull(&docker, &name, "v1", &login).await.unwrap_err();
    assert!(error.to_string().contains("connection refused"), "{error}");
    registry.resume().unwrap();
    pull(&docker, &name, "v1", &login).await.unwrap();
    remove(&docker, &tagged).await;
}

#[tokio::test]
async fn a_broken_version_says_why_and_exits() {
    let docker = connect().await.unwrap();
    let password = Secret::new(PASSWORD.to_owned());
    let registry = Registry::start("ci", &password).unwrap();
    let login = Login { user: "ci", password: &password };
    let name = DemoImage::new("v3", Mode::Broken).push(&docker, registry.addr(), "demo/shop", &login).await.unwrap();
    pull(&docker, &name, "v3", &login).await.unwrap();
    let image = format!("{name}:v3");
    let config = ContainerCreateBody {
        image: Some(image.clone()),
        host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let container = docker.create_container(None::<CreateContainerOptions>, config).await.unwrap().id;
    docker.start_container(&container, None).await.unwrap();
    let ended = docker.wait_container(&container, None).try_for_each(|_| std::future::ready(Ok(()))).await;
    let removed = docker.remove_container(&container, None::<RemoveContainerOptions>).await;
    remove(&docker, &image).await;
    removed.unwrap();
    let code = match ended.unwrap_err() {
        bollard::errors::Error::DockerContainerWaitError { code, .. } => code,
        other => panic!("{other}"),
    };
    assert_eq!(code, 3);
}
