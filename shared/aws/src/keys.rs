//! Every key of the table, and nothing else. The table of access patterns is `infra/decisions/0002-single-table.md`.

mod intake;
mod kind;
mod syncs;

use jiff::Timestamp;
use tidegate_domain::{
    id::{ApplicationId, DeploymentId, HostName, ProjectId, SecretGroupId, SecretId, TenantId},
    limit::{Class, Network},
    task::TaskId,
    variable::{Scope, VariableKey},
};

pub use intake::{
    DELIVERY, NOTICE, intake, intake_delivery, intake_notice, issue, issue_names, listener, parse_intake,
    refused_requests, repository, seen_delivery,
};
pub use kind::Kind;
pub use syncs::{due_sync, due_syncs, parse_due_sync, provider_owner, sync, sync_state, syncs};

/// Primary key of an item.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub pk: String,
    pub sk: String,
}

fn key(pk: String, sk: impl Into<String>) -> Key {
    Key { pk, sk: sk.into() }
}

fn tenant(tenant: &TenantId, rest: &str) -> String {
    format!("TENANT#{tenant}#{rest}")
}

/// Next integer id of a kind, for the whole installation.
pub fn counter(kind: Kind) -> Key {
    key("COUNTER".to_owned(), kind.name())
}

/// All things of a kind, by id.
pub fn catalogue(t: &TenantId, kind: Kind) -> String {
    tenant(t, kind.name())
}

pub fn thing(t: &TenantId, kind: Kind, id: u64) -> Key {
    // Twenty digits hold every u64, so that text order is number order.
    key(catalogue(t, kind), format!("{id:020}"))
}

/// The names that are taken in a scope; also the list of a group's secrets by name.
pub fn unique_names(t: &TenantId, scope: &str) -> String {
    tenant(t, &format!("NAME#{scope}"))
}

/// Holds a unique name.
pub fn unique_name(t: &TenantId, scope: &str, name: &str) -> Key {
    key(unique_names(t, scope), name)
}

/// Variables of a scope.
pub fn variables(t: &TenantId, scope: Scope) -> String {
    match scope {
        Scope::Global => tenant(t, "VARIABLES#GLOBAL"),
        Scope::Project(id) => tenant(t, &format!("VARIABLES#PROJECT#{id}")),
        Scope::Environment(id) => tenant(t, &format!("VARIABLES#ENVIRONMENT#{}", id.0)),
        Scope::Application(id) => tenant(t, &format!("VARIABLES#APPLICATION#{id}")),
    }
}

pub fn variable(t: &TenantId, scope: Scope, name: &VariableKey) -> Key {
    key(variables(t, scope), name.as_str())
}

/// How many variables a scope has, and how large they are; apart from them, so that it is none of them.
pub fn variable_totals(t: &TenantId, scope: Scope) -> Key {
    key(format!("{}#TOTALS", variables(t, scope)), "TOTALS")
}

/// Which environment of a project is active; absent if none is.
pub fn active_environment(t: &TenantId, project: ProjectId) -> Key {
    key(tenant(t, &format!("PROJECT#{project}")), "ACTIVE_ENVIRONMENT")
}

/// Former and present values of a secret, by version.
pub fn secret_versions(t: &TenantId, secret: SecretId) -> String {
    tenant(t, &format!("SECRET#{secret}#VERSIONS"))
}

pub fn secret_version(t: &TenantId, secret: SecretId, version: u64) -> Key {
    key(secret_versions(t, secret), format!("{version:020}"))
}

/// Secrets that somebody is to be reminded of, in order of when.
pub fn secret_expiries(t: &TenantId) -> String {
    tenant(t, "SECRET_EXPIRIES")
}

/// `at` to the second, as [`deadline_time`] writes it.
pub fn secret_expiry(t: &TenantId, at: Timestamp, secret: SecretId) -> Key {
    key(secret_expiries(t), format!("{}#{:020}", deadline_time(at), secret.0))
}

/// Variables that refer to a secret.
pub fn secret_uses(t: &TenantId, secret: SecretId) -> String {
    tenant(t, &format!("SECRET#{secret}#USES"))
}

/// `of` names the variable, as the API does: `project-1.DATABASE_URL`.
pub fn secret_use(t: &TenantId, secret: SecretId, of: &str) -> Key {
    key(secret_uses(t, secret), of)
}

/// Scope of the unique names of a project's environments; also the list of them by name.
pub fn environment_scope(project: ProjectId) -> String {
    format!("ENVIRONMENTS#{project}")
}

/// Scope under which a project's deleted environments are listed, by id.
pub fn deleted_environment_scope(project: ProjectId) -> String {
    format!("DELETED_ENVIRONMENTS#{project}")
}

/// Environments of all tenants that something is to be done about, in order of time, so that the sweep reads no more than
/// what is due.
pub fn environments_due() -> String {
    "ENVIRONMENTS_DUE".to_owned()
}

pub fn environment_due(at: Timestamp, t: &TenantId, kind: Kind, id: u64) -> Key {
    key(environments_due(), format!("{}#{t}#{}#{id}", deadline_time(at), kind.name()))
}

/// What [`environment_due`] put into the sort key.
pub fn parse_environment_due(sk: &str) -> Option<(TenantId, Kind, u64)> {
    let mut parts = sk.split('#').skip(1);
    let (tenant, name, id) = (parts.next()?, parts.next()?, parts.next()?);
    let kinds = [Kind::Environment, Kind::DeletedEnvironment, Kind::EnvironmentDraft];
    let kind = kinds.into_iter().find(|kind| kind.name() == name)?;
    Some((TenantId::parse(tenant).ok()?, kind, id.parse().ok()?))
}

/// Scope of the unique names of a group's secrets.
pub fn group_scope(group: SecretGroupId) -> String {
    format!("GROUP#{group}")
}

/// A webhook token by its SHA-256; the only key that a caller without a tenant can reach.
pub fn token(sha256_hex: &str) -> Key {
    key(format!("TOKEN#{sha256_hex}"), "TOKEN")
}

/// What changes with every deployment of an application: sequence, active deployment, queue, what runs.
pub fn application_state(t: &TenantId, id: ApplicationId) -> Key {
    key(tenant(t, &format!("APPLICATION#{id}")), "STATE")
}

/// How many refusals of this application were recorded in the hour (`2026-11-22T10`).
pub fn rejections(t: &TenantId, id: ApplicationId, hour: &str) -> Key {
    key(tenant(t, &format!("APPLICATION#{id}")), format!("REJECTIONS#{hour}"))
}

/// All deployments of a tenant, in order of creation.
pub fn deployments(t: &TenantId) -> String {
    tenant(t, "DEPLOYMENTS")
}

pub fn deployment(t: &TenantId, id: DeploymentId) -> Key {
    key(deployments(t), id.to_string())
}

/// Ids of an application's deployments, in order of creation.
pub fn deployments_of(t: &TenantId, id: ApplicationId) -> String {
    tenant(t, &format!("APPLICATION#{id}#DEPLOYMENTS"))
}

pub fn deployment_of(t: &TenantId, application: ApplicationId, id: DeploymentId) -> Key {
    key(deployments_of(t, application), id.to_string())
}

/// The sealed job of a deployment, apart from it because lists never need it.
pub fn snapshot(t: &TenantId, id: DeploymentId) -> Key {
    key(tenant(t, &format!("SNAPSHOT#{id}")), "SNAPSHOT")
}

/// What was asked for, sealed.
pub fn request(t: &TenantId, id: DeploymentId) -> Key {
    key(tenant(t, &format!("REQUEST#{id}")), "REQUEST")
}

/// Deployments of a tenant that wait for a decision, in order of creation.
pub fn pending_of(t: &TenantId) -> String {
    tenant(t, "PENDING")
}

pub fn pending(t: &TenantId, id: DeploymentId) -> Key {
    key(pending_of(t), id.to_string())
}

/// The same of every tenant, in order of their deadlines, so that the sweep reads no more than what is due.
pub fn deadlines() -> String {
    "DEADLINES".to_owned()
}

/// To the second, so that the order of texts is that of times.
pub fn deadline_time(at: Timestamp) -> String {
    format!("{:012}", at.as_second().max(0))
}

pub fn deadline(at: Timestamp, t: &TenantId, id: DeploymentId) -> Key {
    key(deadlines(), format!("{}#{t}#{id}", deadline_time(at)))
}

/// What [`deadline`] put into the sort key.
pub fn parse_deadline(sk: &str) -> Option<(TenantId, DeploymentId)> {
    parse_live(sk.split_once('#')?.1)
}

/// The tenant's queue: the set of live deployments.
pub fn queue(t: &TenantId) -> Key {
    key(tenant(t, "QUEUE"), "QUEUE")
}

/// Every live deployment of every tenant, so that the sweep finds them with one query. Kept with the deployments: an item
/// comes with the admission and goes with the end, in the same transactions.
pub fn live_deployments() -> String {
    "LIVE".to_owned()
}

pub fn live(t: &TenantId, id: DeploymentId) -> Key {
    key(live_deployments(), format!("{t}#{id}"))
}

/// What [`live`] put into the sort key; a tenant's name holds no `#`.
pub fn parse_live(sk: &str) -> Option<(TenantId, DeploymentId)> {
    let (tenant, id) = sk.split_once('#')?;
    Some((TenantId::parse(tenant).ok()?, DeploymentId::parse(id).ok()?))
}

/// Whose limits a window of accepted requests is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitsOf {
    /// The tenant's, for requests of this class.
    Class(Class),
    /// The application's own.
    Application(ApplicationId),
}

fn window(t: &TenantId, of: LimitsOf, subject: &str) -> Key {
    let of = match of {
        LimitsOf::Class(class) => class.as_str().to_owned(),
        LimitsOf::Application(id) => format!("APPLICATION#{id}"),
    };
    key(tenant(t, &format!("LIMIT#{of}#{subject}")), "WINDOW")
}

/// Accepted requests of one user. The class stays part of it, because a name means another one in each; the name itself is
/// hashed, because it may hold anything.
pub fn user_window(t: &TenantId, of: LimitsOf, class: Class, sha256_hex: &str) -> Key {
    window(t, of, &format!("USER#{}#{sha256_hex}", class.as_str()))
}

/// Accepted requests from one network.
pub fn network_window(t: &TenantId, of: LimitsOf, network: Network) -> Key {
    window(t, of, &format!("ADDRESS#{network}"))
}

/// All accepted requests.
pub fn total_window(t: &TenantId, of: LimitsOf) -> Key {
    window(t, of, "TOTAL")
}

/// Wrong credentials from one network; of no tenant, because a wrong credential belongs to none.
pub fn wrong_credentials(network: Network) -> Key {
    key(format!("THROTTLE#{network}"), "WRONG_CREDENTIALS")
}

pub fn settings(t: &TenantId) -> Key {
    key(tenant(t, "SETTINGS"), "SETTINGS")
}

/// What was measured of a tenant, by hour (`2026-11-22T10`): first the requests, then, after a `#`, the ends of deployments.
pub fn measures(t: &TenantId) -> String {
    tenant(t, "METRICS")
}

pub fn measures_of_requests(t: &TenantId, hour: &str) -> Key {
    key(measures(t), hour)
}

/// Apart from [`measures_of_requests`], because it is written in transactions, which the other's writers would run into.
pub fn measures_of_ends(t: &TenantId, hour: &str) -> Key {
    key(measures(t), format!("{hour}#ENDS"))
}

/// Registered hosts of a tenant.
pub fn hosts(t: &TenantId) -> String {
    tenant(t, "HOSTS")
}

pub fn host(t: &TenantId, name: &HostName) -> Key {
    key(hosts(t), name.as_str())
}

/// A host's own partition: the only one that its worker's role may touch (`dynamodb:LeadingKeys`).
pub fn host_partition(t: &TenantId, name: &HostName) -> String {
    format!("HOST#{t}#{name}")
}

/// What the worker says of its host.
pub fn heartbeat(t: &TenantId, name: &HostName) -> Key {
    key(host_partition(t, name), "HEARTBEAT")
}

/// Prefix of a host's assignments, oldest first, because deployment ids are in order of time.
pub const ASSIGNMENTS: &str = "ASSIGNMENT#";

pub fn assignment(t: &TenantId, host: &HostName, id: DeploymentId) -> Key {
    key(host_partition(t, host), format!("{ASSIGNMENTS}{id}"))
}

/// Prefix of what a host is asked for beside deployments, oldest first. It stands right before [`ASSIGNMENTS`], so that
/// one query reads both.
pub const TASKS: &str = "ASK#";

pub fn task(t: &TenantId, host: &HostName, id: TaskId) -> Key {
    key(host_partition(t, host), format!("{TASKS}{id}"))
}

/// What [`task`] put into the sort key.
pub fn parse_task(sk: &str) -> Option<TaskId> {
    TaskId::parse(sk.strip_prefix(TASKS)?).ok()
}

/// A wrapped data key.
pub fn data_key(t: &TenantId, id: &str) -> Key {
    key(tenant(t, &format!("DATA_KEY#{id}")), "DATA_KEY")
}

/// The last rotation of a tenant's data keys, with the key that it chose.
pub fn rotation(t: &TenantId) -> Key {
    key(tenant(t, "DATA_KEYS"), "ROTATION")
}

/// Rotations of all tenants that are not done, so that the sweep finds them with one query.
pub fn rotations() -> String {
    "ROTATIONS".to_owned()
}

pub fn running_rotation(t: &TenantId) -> Key {
    key(rotations(), t.as_str())
}

/// First answer to an idempotency key of one credential.
pub fn idempotency(t: &TenantId, caller: &str, sha256_hex: &str) -> Key {
    key(tenant(t, &format!("IDEMPOTENCY#{caller}#{sha256_hex}")), "IDEMPOTENCY")
}

pub fn user(t: &TenantId, name: &str) -> Key {
    key(tenant(t, "USERS"), name)
}

/// Audit events of a day (`2026-11-22`), in order of time; by day, so that no partition grows without bound.
pub fn audit(t: &TenantId, day: &str, id: &str) -> Key {
    key(tenant(t, &format!("AUDIT#{day}")), id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_stand_right_before_assignments() {
        let (tenant, host) = (TenantId::parse("acme").unwrap(), HostName::parse("web-1").unwrap());
        let id = TaskId::new(Timestamp::UNIX_EPOCH, [255; 10]);
        let task = task(&tenant, &host, id);
        let assignment = assignment(&tenant, &host, DeploymentId::new(Timestamp::UNIX_EPOCH, [0; 10]));
        let heartbeat = heartbeat(&tenant, &host);
        assert_eq!(task.pk, assignment.pk);
        assert!(task.sk < assignment.sk && assignment.sk < heartbeat.sk);
        assert_eq!(parse_task(&task.sk), Some(id));
        assert_eq!(parse_task(&assignment.sk), None);
    }

    #[test]
    fn a_due_environment_is_read_back_from_its_sort_key() {
        let tenant = TenantId::parse("acme-1").unwrap();
        for kind in [Kind::Environment, Kind::DeletedEnvironment, Kind::EnvironmentDraft] {
            let key = environment_due(Timestamp::UNIX_EPOCH, &tenant, kind, 12);
            assert_eq!(parse_environment_due(&key.sk), Some((tenant.clone(), kind, 12)));
        }
        for wrong in ["", "000000000000#acme", "000000000000#acme#SECRET#1", "000000000000#acme#ENVIRONMENT#x"] {
            assert_eq!(parse_environment_due(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_live_deployment_is_read_back_from_its_sort_key() {
        let (tenant, id) = (TenantId::parse("acme-1").unwrap(), DeploymentId::new(Timestamp::UNIX_EPOCH, [7; 10]));
        assert_eq!(parse_live(&live(&tenant, id).sk), Some((tenant, id)));
        for wrong in ["", "acme", "acme#", &id.to_string(), &format!("ACME#{id}"), &format!("a#b#{id}")] {
            assert_eq!(parse_live(wrong), None, "{wrong}");
        }
    }
}
