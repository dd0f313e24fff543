//! Stands between a process and DynamoDB, SQS and KMS: sees every call, and can make it fail as AWS does.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use http_body_util::BodyExt as _;
use hyper::{Request, body::Incoming};
use serde_json::{Value, json};
use tidegate_local::embedded::{Detour, EmbeddedAws, Endpoints};

use super::{
    own_worker::OwnWorker,
    relay::{Fate, Place, Presence, Relay, Victim, carry_out, whole},
};

/// One call.
#[derive(Debug, Clone)]
pub(crate) struct AwsCall {
    /// `TransactWriteItems`, `SendMessage`, `Decrypt`…
    pub operation: String,
    pub body: Value,
}

impl AwsCall {
    pub(crate) fn is(&self, operation: &str) -> bool {
        self.operation == operation
    }

    /// What a worker's write says of its assignment: `claim`, `renew`, `prove`, `finish`, `hand back`; a message to the reports is
    /// `report`.
    pub(crate) fn of_a_worker(&self) -> Option<&'static str> {
        let change = self.body["UpdateExpression"].as_str().unwrap_or_default();
        match self.operation.as_str() {
            "SendMessage" => Some("report"),
            "UpdateItem" if change.contains("#status = :running") => Some("claim"),
            "UpdateItem" if change.contains("#status = :finished") => Some("finish"),
            "UpdateItem" if change.contains("#status = :queued") => Some("hand back"),
            "UpdateItem" if change.contains("switching = :yes") => Some("prove"),
            "UpdateItem" if change.contains("leaseUntil") => Some("renew"),
            _ => None,
        }
    }

    /// `TransactionCanceledException`: another transaction is at one of the items.
    pub(crate) fn conflict(&self) -> Fate {
        let items = self.body["TransactItems"].as_array().map_or(1, Vec::len);
        let none = json!({"Code": "None"});
        let mut reasons =
            vec![json!({"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"})];
        reasons.resize(items.max(1), none);
        let codes: Vec<_> = reasons.iter().map(|reason| reason["Code"].as_str().unwrap_or_default()).collect();
        let message = format!(
            "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
            codes.join(", ")
        );
        refused(
            400,
            &json!({
                "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
                "Message": message, "CancellationReasons": reasons,
            }),
        )
    }

    pub(crate) fn throttled(&self) -> Fate {
        let kind = match self.operation.as_str() {
            "SendMessage" | "ReceiveMessage" | "DeleteMessage" => "com.amazonaws.sqs#RequestThrottled",
            "Decrypt" | "GenerateDataKey" => "ThrottlingException",
            _ => "com.amazon.coral.availability#ThrottlingException",
        };
        refused(400, &json!({"__type": kind, "message": "Rate exceeded"}))
    }

    pub(crate) fn over_throughput(_: &Self) -> Fate {
        let message = "The level of configured provisioned throughput for the table was exceeded.";
        let kind = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
        refused(400, &json!({"__type": kind, "message": message}))
    }

    pub(crate) fn failed_inside(&self) -> Fate {
        let kind = match self.operation.as_str() {
            "Decrypt" | "GenerateDataKey" => "KMSInternalException",
            "SendMessage" | "ReceiveMessage" | "DeleteMessage" => "com.amazon.coral.service#InternalFailure",
            _ => "com.amazonaws.dynamodb.v20120810#InternalServerError",
        };
        refused(500, &json!({"__type": kind, "message": "Internal server error"}))
    }

    /// Who calls lacks the permission, and need not try again.
    pub(crate) fn denied() -> Fate {
        let kind = "com.amazon.coral.service#AccessDeniedException";
        refused(400, &json!({"__type": kind, "message": "User is not authorized to perform this action"}))
    }

    /// The message is accepted, and never delivered.
    pub(crate) fn dropped() -> Fate {
        Fate::Answer(200, sent())
    }

    /// The message is accepted, and delivered later: after those that were sent meanwhile.
    pub(crate) fn delivered_late(after: Duration) -> Fate {
        Fate::Later(after, sent())
    }
}

fn refused(status: u16, error: &Value) -> Fate {
    Fate::Answer(status, error.to_string())
}

fn sent() -> String {
    json!({"MessageId": "00000000-0000-4000-8000-000000000000", "MD5OfMessageBody": "00000000000000000000000000000000"})
        .to_string()
}

type Judge = Box<dyn FnMut(&AwsCall) -> Fate + Send>;

struct State {
    /// DynamoDB's, then that of SQS and KMS.
    real: OnceLock<[Place; 2]>,
    judge: Mutex<Judge>,
    calls: Mutex<BTreeMap<String, usize>>,
    victim: Victim,
}

/// Two endpoints of its own.
pub(crate) struct FaultyAws {
    dynamodb: Relay,
    sqs_kms: Relay,
    state: Arc<State>,
}

impl FaultyAws {
    /// For a process of its own, the victim.
    pub(crate) async fn before(aws: &EmbeddedAws, victim: &Victim) -> Self {
        let faulty = Self::nowhere_yet(victim).await;
        faulty.leads_to(&aws.endpoints());
        faulty
    }

    /// For an installation's functions: it is there before AWS is.
    pub(crate) async fn for_functions() -> (Arc<Self>, Detour) {
        let faulty = Arc::new(Self::nowhere_yet(&Victim::default()).await);
        let own = Arc::clone(&faulty);
        let detour = Detour::new(move |real| {
            own.leads_to(&real);
            own.endpoints()
        });
        (faulty, detour)
    }

    async fn nowhere_yet(victim: &Victim) -> Self {
        let state = Arc::new(State {
            real: OnceLock::new(),
            judge: Mutex::new(Box::new(|_| Fate::Pass)),
            calls: Mutex::default(),
            victim: victim.clone(),
        });
        Self { dynamodb: relay(&state, 0).await, sqs_kms: relay(&state, 1).await, state }
    }

    fn leads_to(&self, real: &Endpoints) {
        let place = |url: &str| Place::Tcp(url.strip_prefix("http://").and_then(|a| a.parse().ok()).unwrap());
        self.state.real.set([place(&real.dynamodb), place(&real.sqs_kms)]).expect("it leads to one place only");
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints { dynamodb: self.dynamodb.url(), sqs_kms: self.sqs_kms.url() }
    }

    /// Every process of this worker from now on.
    pub(crate) fn is_used_by(&self, worker: &mut OwnWorker) {
        worker.set("AWS_ENDPOINT_URL_DYNAMODB", self.dynamodb.url());
        worker.set("AWS_ENDPOINT_URL_SQS", self.sqs_kms.url());
        worker.set("AWS_ENDPOINT_URL_KMS", self.sqs_kms.url());
    }

    pub(crate) fn judge_by(&self, judge: impl FnMut(&AwsCall) -> Fate + Send + 'static) {
        *self.state.judge.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(judge);
        self.state.calls.lock().unwrap().clear();
    }

    pub(crate) fn let_all_pass(&self) {
        self.judge_by(|_| Fate::Pass);
    }

    /// Calls of this operation since the judge was given.
    pub(crate) fn calls(&self, operation: &str) -> usize {
        self.state.calls.lock().unwrap().get(operation).copied().unwrap_or_default()
    }

    /// To take all of AWS away, as far as the process can see.
    pub(crate) fn presence(&self) -> [Presence; 2] {
        [self.dynamodb.presence.clone(), self.sqs_kms.presence.clone()]
    }
}

async fn relay(state: &Arc<State>, service: usize) -> Relay {
    let own = Arc::clone(state);
    let handle = move |request: Request<Incoming>| {
        let own = Arc::clone(&own);
        let answering = async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
            let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
            let call = AwsCall { operation, body: serde_json::from_slice(&body).unwrap_or_default() };
            let fate = own.fate(&call);
            let real = &own.real.get().expect("it leads somewhere before anybody is told of it")[service];
            carry_out(fate, Request::from_parts(parts, whole(body)), real, &own.victim).await
        };
        Box::pin(answering) as _
    };
    Relay::listen(Place::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))), Arc::new(handle)).await
}

impl State {
    fn fate(&self, call: &AwsCall) -> Fate {
        *self.calls.lock().unwrap().entry(call.operation.clone()).or_default() += 1;
        (self.judge.lock().unwrap_or_else(PoisonError::into_inner))(call)
    }
}
