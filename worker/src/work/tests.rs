use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::pending,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tidegate_aws::{call_log::CallLog, clients::Clients, host_side::HostConfig};
use tidegate_domain::id::{HostName, TenantId};
use tokio::net::UnixListener;

use super::*;
use crate::docker::Engine;

/// An engine with containers that were never committed, of the applications 1, 2 and so on, by name.
struct Docker {
    labels: String,
    names: Mutex<BTreeSet<&'static str>>,
    /// Nothing that is asked of it is ever answered.
    is_mute: bool,
}

/// What cannot be removed.
const HANGS: &str = "hangs";
const WORKS: &str = "works";

impl Docker {
    fn names(&self) -> std::sync::MutexGuard<'_, BTreeSet<&'static str>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listed(&self) -> String {
        let names = self.names();
        let container = |name: &&str| {
            let application = if *name == HANGS { 1 } else { 2 };
            format!(
                r#"{{"Id": "{name}", "Names": ["/{name}.tidegate-next"], "State": "created", "Labels": {{
                    "tidegate.host": "{}", "tidegate.application": "{application}", "tidegate.name": "{name}"}}}}"#,
                self.labels
            )
        };
        format!("[{}]", names.iter().map(container).collect::<Vec<_>>().join(","))
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path();
        if self.is_mute || path.ends_with(HANGS) {
            return pending().await;
        }
        let mut answer = Response::new(Full::new(Bytes::from(self.listed())));
        if request.method() == Method::DELETE {
            self.names().retain(|name| !path.ends_with(name));
            *answer.status_mut() = StatusCode::NO_CONTENT;
            *answer.body_mut() = Full::default();
        }
        Ok(answer)
    }

    async fn serve(self: Arc<Self>, listener: UnixListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let docker = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(|request| docker.answer(request));
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }
}

/// A host with such an engine, which answers as long as the folder is there.
async fn host(folder: &Path, is_mute: bool) -> (Host, HostSide) {
    let socket = folder.join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let host = Host {
        engine: Engine::connect(Some(&format!("unix://{}", socket.display()))).unwrap(),
        installation: format!("test-{}-{is_mute}", std::process::id()),
        tenant: TenantId::parse("acme").unwrap(),
        name: HostName::parse("a").unwrap(),
        policy: crate::policy::HostPolicy::default(),
    };
    let docker = Docker { labels: host.label(), names: Mutex::new(BTreeSet::from([HANGS, WORKS])), is_mute };
    tokio::spawn(Arc::new(docker).serve(listener));
    // It is never asked anything.
    let clients = Clients::for_worker(Some("eu-central-1".to_owned()), CallLog::default()).await;
    let side = HostSide::new(
        &clients,
        HostConfig {
            tenant: host.tenant.clone(),
            host: host.name.clone(),
            table: String::new(),
            queue_url: String::new(),
            reports_queue_url: String::new(),
        },
    );
    (host, side)
}

fn settings(folder: &Path) -> Settings {
    Settings { max_concurrent_jobs: 1, shutdown: Duration::from_secs(1), data: folder.to_owned() }
}

fn desk(worker: Arc<Worker>, folder: &Path) -> Desk {
    Desk {
        worker: Arc::clone(&worker),
        settings: settings(folder),
        in_hand: BTreeMap::new(),
        jobs: JoinSet::new(),
        tasks: Tasks::new(worker),
        recovered: false,
        recovery: Duration::from_millis(500),
        unsettled: BTreeMap::new(),
        reports: JoinSet::new(),
        reported: BTreeMap::new(),
        beat_now: Arc::new(Notify::new()),
        freed: Arc::new(Notify::new()),
    }
}

#[tokio::test]
async fn an_application_that_cannot_be_brought_back_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (host, side) = host(folder.path(), false).await;
    let (_stop, stopping) = watch::channel(false);
    let worker = Arc::new(Worker { host, side, vitals: Vitals::default(), stopping });
    let mut desk = desk(worker, folder.path());
    desk.recover().await;
    assert!(desk.recovered);
    assert!(InHand::places(desk.in_hand.values()) == 0 && desk.unsettled.is_empty());
    assert_eq!(desk.in_hand.keys().collect::<Vec<_>>(), [&ApplicationId(1), &ApplicationId(2)]);

    let Ended { application, settled } = desk.jobs.join_next().await.unwrap().unwrap();
    assert_eq!((application, settled), (ApplicationId(2), true));
    desk.ended(Ok(Ended { application, settled }));
    let late = desk.jobs.join_next().await.unwrap();
    assert!(matches!(late, Ok(Ended { application: ApplicationId(1), settled: false })));
    desk.ended(late);
    assert!(desk.in_hand.is_empty());
    assert_eq!(desk.unsettled.keys().collect::<Vec<_>>(), [&ApplicationId(1)]);
    // Not at once: what is due is begun anew only then.
    desk.settle_what_is_due();
    assert!(desk.in_hand.is_empty());
}

#[tokio::test]
async fn an_end_that_is_not_heard_is_told_beside_the_loop_and_not_twice_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (host, side) = host(folder.path(), true).await;
    let (_stop, stopping) = watch::channel(false);
    let worker = Arc::new(Worker { host, side, vitals: Vitals::default(), stopping });
    let mut desk = desk(worker, folder.path());
    let [one, other] = [1, 2].map(|n| DeploymentId::new(Timestamp::UNIX_EPOCH, [n; 10]));
    for (id, on_their_way) in [(one, 1), (one, 1), (other, 2), (one, 2)] {
        desk.report(id);
        assert_eq!(desk.reports.len(), on_their_way);
    }
    // As if that had been long ago.
    desk.reported.values_mut().for_each(|at| *at -= REPORT);
    desk.reports.abort_all();
    while desk.reports.join_next().await.is_some() {}
    desk.report(one);
    assert_eq!(desk.reports.len(), 1);
}

#[tokio::test]
async fn an_engine_that_never_answers_keeps_nobody_from_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let (host, side) = host(folder.path(), true).await;
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(run(host, side, settings(folder.path()), Vitals::default(), stopped));
    stop.send_replace(true);
    let ended = timeout(Duration::from_secs(10), running).await.expect("it stops in time");
    ended.unwrap().unwrap();
}
