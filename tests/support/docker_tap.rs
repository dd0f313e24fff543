//! Stands between a worker and the Docker engine: sees what the worker changes, and can make any of it go wrong.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use http_body_util::BodyExt as _;
use hyper::{Method, Request, body::Incoming};
use tempfile::TempDir;

use super::relay::{Body, Broken, Fate, Place, Presence, Relay, Victim, carry_out};

/// A call that changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DockerCall {
    /// Of those since [`DockerTap::judge_by`], beginning with 1.
    pub nth: usize,
    /// `create`, `stop`, `rename to *-prev`…
    pub name: String,
}

type Judge = Box<dyn FnMut(&DockerCall) -> Fate + Send>;

struct State {
    judge: Mutex<(usize, Judge)>,
    seen: Mutex<Vec<String>>,
    victim: Victim,
}

/// A socket of its own, in a folder of its own.
pub(crate) struct DockerTap {
    relay: Relay,
    state: Arc<State>,
    _folder: TempDir,
}

impl DockerTap {
    /// `victim` is the process that uses it.
    pub(crate) async fn start(victim: &Victim) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = Arc::new(State {
            judge: Mutex::new((0, Box::new(|_| Fate::Pass))),
            seen: Mutex::default(),
            victim: victim.clone(),
        });
        let docker = Place::Unix(docker_socket());
        let own = Arc::clone(&state);
        let handle = move |request: Request<Incoming>| {
            let (own, docker) = (Arc::clone(&own), docker.clone());
            let answering = async move {
                let fate = own.fate(&request);
                let request: Request<Body> = request.map(|body| body.map_err(Broken::from).boxed());
                carry_out(fate, request, &docker, &own.victim).await
            };
            Box::pin(answering) as _
        };
        let relay = Relay::listen(Place::Unix(folder.path().join("docker.sock")), Arc::new(handle)).await;
        Self { relay, state, _folder: folder }
    }

    /// For `docker_host`.
    pub(crate) fn url(&self) -> String {
        self.relay.url()
    }

    /// From now on calls that change something are counted anew, and this says what becomes of each.
    pub(crate) fn judge_by(&self, judge: impl FnMut(&DockerCall) -> Fate + Send + 'static) {
        *self.state.judge.lock().unwrap_or_else(PoisonError::into_inner) = (0, Box::new(judge));
        self.state.seen.lock().unwrap().clear();
    }

    pub(crate) fn let_all_pass(&self) {
        self.judge_by(|_| Fate::Pass);
    }

    /// The calls that changed something, since the judge was given.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.state.seen.lock().unwrap().clone()
    }

    /// To take Docker away, as far as the worker can see.
    pub(crate) fn presence(&self) -> Presence {
        self.relay.presence.clone()
    }
}

impl State {
    fn fate(&self, request: &Request<Incoming>) -> Fate {
        let Some(name) = name_of(request.method(), request.uri().path(), request.uri().query()) else {
            return Fate::Pass;
        };
        let mut judge = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, judge) = &mut *judge;
        *count += 1;
        self.seen.lock().unwrap().push(name.clone());
        judge(&DockerCall { nth: *count, name })
    }
}

fn docker_socket() -> PathBuf {
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    PathBuf::from(host.strip_prefix("unix://").expect("these tests need an engine of this machine"))
}

/// What a call changes; none for one that only looks.
fn name_of(method: &Method, path: &str, query: Option<&str>) -> Option<String> {
    if method == Method::GET || method == Method::HEAD {
        return None;
    }
    // `/v1.41/containers/<id>/stop`
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && !part.starts_with("v1.")).collect();
    let new_name = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("name=")));
    Some(match (method.as_str(), &parts[..]) {
        ("POST", ["images", "create"]) => "pull".to_owned(),
        ("POST", ["containers", "create"]) => "create".to_owned(),
        ("POST", ["containers", _, "rename"]) => match new_name.and_then(|name| name.split_once(".tidegate-")) {
            Some((_, role)) => format!("rename to *-{role}"),
            None => "rename to its name".to_owned(),
        },
        ("POST", ["containers", _, what]) => (*what).to_owned(),
        ("DELETE", ["containers", _]) => "remove".to_owned(),
        ("DELETE", ["images", ..]) => "remove image".to_owned(),
        (method, parts) => format!("{method} {}", parts.join("/")),
    })
}

#[test]
fn calls_are_named_by_what_they_change() {
    let check = |method: Method, target: &str, name: Option<&str>| {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        assert_eq!(name_of(&method, path, query).as_deref(), name, "{method} {target}");
    };
    check(Method::GET, "/v1.41/containers/json?all=true", None);
    check(Method::POST, "/v1.41/containers/create?name=shop.tidegate-next", Some("create"));
    check(Method::POST, "/v1.41/containers/1a/rename?name=shop.tidegate-prev", Some("rename to *-prev"));
    check(Method::POST, "/containers/1a/rename?name=shop", Some("rename to its name"));
    check(Method::POST, "/v1.41/containers/1a/stop?t=10", Some("stop"));
    check(Method::DELETE, "/v1.41/containers/1a?force=true", Some("remove"));
    check(Method::POST, "/v1.41/images/create?fromImage=a", Some("pull"));
    check(Method::POST, "/v1.41/volumes/prune", Some("POST volumes/prune"));
}
