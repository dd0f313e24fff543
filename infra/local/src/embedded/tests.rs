use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use tidegate_aws::{
    store::{Store, StoreConfig},
    users::StoredUser,
};
use tidegate_domain::id::{HostName, TenantId};

use super::*;

const PLAINTEXT: &[u8] = b"a data key";

fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

async fn encrypt(clients: &Clients) -> Vec<u8> {
    let call = clients.kms.encrypt().key_id(provision::KEY_ALIAS).plaintext(PLAINTEXT.into());
    call.encryption_context("tenant", "acme").send().await.unwrap().ciphertext_blob.unwrap().into_inner()
}

async fn decrypt(clients: &Clients, ciphertext: &[u8], tenant: &str) -> Option<Vec<u8>> {
    let call = clients.kms.decrypt().key_id(provision::KEY_ALIAS).ciphertext_blob(ciphertext.into());
    let answer = call.encryption_context("tenant", tenant).send().await;
    answer.ok().and_then(|answer| answer.plaintext).map(|blob| blob.as_ref().to_vec())
}

fn store(clients: &Clients) -> Store {
    let config = StoreConfig {
        table: provision::TABLE.to_owned(),
        key: provision::KEY_ALIAS.to_owned(),
        host_queue_prefix: String::new(),
        intake_queue_url: None,
    };
    Store::new(clients, config)
}

async fn put(clients: &Clients, name: &str) {
    let user = StoredUser { name: name.to_owned(), password_bcrypt: String::new(), role: "admin".to_owned() };
    store(clients).put_user(&tenant(), &user).await.unwrap();
}

async fn has(clients: &Clients, name: &str) -> bool {
    store(clients).user(&tenant(), name).await.unwrap().is_some()
}

async fn send(clients: &Clients, queue: &str, body: &str) {
    clients.sqs.send_message().queue_url(queue).message_body(body).send().await.unwrap();
}

async fn receive(clients: &Clients, queue: &str) -> Vec<String> {
    let answer = clients.sqs.receive_message().queue_url(queue).wait_time_seconds(1).send().await.unwrap();
    answer.messages.unwrap_or_default().into_iter().filter_map(|message| message.body).collect()
}

#[tokio::test]
async fn the_real_clients_are_served() {
    let aws = EmbeddedAws::start(None).await.unwrap();
    let clients = aws.clients();
    put(&clients, "ada").await;
    assert!(has(&clients, "ada").await && !has(&clients, "bob").await);
    let ciphertext = encrypt(&clients).await;
    assert_eq!(decrypt(&clients, &ciphertext, "acme").await.unwrap(), PLAINTEXT);
    assert_eq!(decrypt(&clients, &ciphertext, "other").await, None, "the encryption context counts");
    let queues = provision::queues(&clients).await.unwrap();
    let url = provision::host_queue(&clients, &tenant(), &HostName::parse("local").unwrap()).await.unwrap();
    assert_eq!(url, format!("{}acme_local", queues.host_url_prefix));
    send(&clients, &url, "hint").await;
    assert_eq!(receive(&clients, &url).await, ["hint"]);
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = EmbeddedAws::start(Some(folder.path())).await.unwrap();
    let clients = first.clients();
    let queues = provision::queues(&clients).await.unwrap();
    put(&clients, "ada").await;
    send(&clients, &queues.reports_url, "report").await;
    let ciphertext = encrypt(&clients).await;
    drop(first);

    let second = EmbeddedAws::start(Some(folder.path())).await.unwrap();
    let clients = second.clients();
    assert_eq!(provision::queues(&clients).await.unwrap(), queues, "made again, nothing changes, URLs included");
    assert!(has(&clients, "ada").await);
    assert_eq!(receive(&clients, &queues.reports_url).await, ["report"]);
    assert_eq!(decrypt(&clients, &ciphertext, "acme").await.unwrap(), PLAINTEXT);
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("kms.json"), mode("kms.canary"), mode("sqs.json")), (0o700, 0o600, 0o600, 0o600));
}

const CHILD_FOLDER: &str = "TIDEGATE_TEST_CHILD_FOLDER";

/// Not a test by itself: what [`data_and_key_survive_kill_9`] runs and kills.
#[tokio::test]
async fn child_that_is_killed() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let aws = EmbeddedAws::start(Some(Path::new(&folder))).await.unwrap();
    let clients = aws.clients();
    put(&clients, "ada").await;
    fs::write(Path::new(&folder).join("ciphertext"), encrypt(&clients).await).unwrap();
    println!("\nready");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn data_and_key_survive_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::tests::child_that_is_killed", "--nocapture"])
        .env(CHILD_FOLDER, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = BufReader::new(child.stdout.take().unwrap()).lines().any(|line| line.unwrap() == "ready");
    assert!(ready, "the child ended early");
    let error = EmbeddedAws::start(Some(folder.path())).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Folder(FolderError::InUse { .. })), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();

    let aws = EmbeddedAws::start(Some(folder.path())).await.unwrap();
    let clients = aws.clients();
    assert!(has(&clients, "ada").await);
    let ciphertext = fs::read(folder.path().join("ciphertext")).unwrap();
    assert_eq!(decrypt(&clients, &ciphertext, "acme").await.unwrap(), PLAINTEXT);
}

/// What a start says after `damage` was done to the folder of a stopped one, which held data if `used`.
async fn start_after(used: bool, damage: impl FnOnce(&Path)) -> Result<(), EmbeddedError> {
    let folder = tempfile::tempdir().unwrap();
    let aws = EmbeddedAws::start(Some(folder.path())).await.unwrap();
    if used {
        put(&aws.clients(), "ada").await;
    }
    drop(aws);
    damage(folder.path());
    let keys = fs::read(folder.path().join("kms.json")).ok();
    let started = EmbeddedAws::start(Some(folder.path())).await.map(drop);
    if started.is_err() {
        assert_eq!(fs::read(folder.path().join("kms.json")).ok(), keys, "a refused start changes no key");
    }
    started
}

#[tokio::test]
async fn a_lost_table_is_told_and_not_made_anew() {
    let removed = |folder: &Path| fs::remove_file(folder.join("dynamodb.sqlite")).unwrap();
    let emptied = |folder: &Path| fs::write(folder.join("dynamodb.sqlite"), "").unwrap();
    for started in [start_after(true, removed).await, start_after(true, emptied).await] {
        let error = started.unwrap_err();
        assert!(matches!(error, EmbeddedError::TableLost { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_lost_key_is_never_replaced() {
    let remove = |name: &'static str| move |folder: &Path| fs::remove_file(folder.join(name)).unwrap();
    let replace = |folder: &Path| {
        let other = tempfile::tempdir().unwrap();
        fs::copy(other_key(other.path()), folder.join("kms.json")).unwrap();
    };
    let lost = |started: Result<(), EmbeddedError>| {
        let error = started.unwrap_err();
        assert!(matches!(error, EmbeddedError::Key(KeyError::Lost { .. })), "{error}");
        let text = error.to_string();
        assert!(text.contains("kms.json") && text.contains("backup") && !text.contains('\n'), "{text}");
    };
    lost(start_after(true, remove("kms.json")).await);
    lost(start_after(true, remove("kms.canary")).await);
    lost(start_after(false, remove("kms.json")).await);
    lost(start_after(true, replace).await);
    lost(
        start_after(true, |folder| {
            remove("kms.json")(folder);
            remove("kms.canary")(folder);
        })
        .await,
    );
    let error = start_after(true, |folder| fs::write(folder.join("kms.json"), "{").unwrap()).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Snapshot { expendable: false, .. }), "{error}");
    // Stopped between key and canary on the very first start: nothing was encrypted, so it goes on.
    start_after(false, remove("kms.canary")).await.unwrap();
}

/// The key file of another installation.
fn other_key(folder: &Path) -> PathBuf {
    let folder = folder.join("other");
    let started = folder.clone();
    let start = move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async { EmbeddedAws::start(Some(&started)).await.map(drop).unwrap() });
    };
    std::thread::spawn(start).join().unwrap();
    folder.join("kms.json")
}

#[tokio::test]
async fn a_service_can_be_away_and_come_back() {
    let aws = EmbeddedAws::start(None).await.unwrap();
    let clients = aws.clients();
    put(&clients, "ada").await;
    let url = provision::queues(&clients).await.unwrap().reports_url;
    send(&clients, &url, "report").await;

    aws.stop_dynamodb();
    assert!(store(&clients).user(&tenant(), "ada").await.is_err(), "open connections are cut as well");
    assert_eq!(receive(&clients, &url).await, ["report"], "the other one still answers");
    aws.resume_dynamodb().unwrap();
    assert!(has(&clients, "ada").await);

    aws.stop_sqs_kms();
    assert!(clients.sqs.send_message().queue_url(&url).message_body("x").send().await.is_err());
    assert!(has(&clients, "ada").await);
    aws.resume_sqs_kms().unwrap();
    send(&clients, &url, "second").await;
}
