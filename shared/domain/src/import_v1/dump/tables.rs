//! Rows of all tables but the variables'.

use super::{
    Application, Auth, ContainerName, Dump, FieldError, Group, ImageName, Invalid, Port, Project, Protocol, Registry,
    RegistryServer, Row, Stored, V1Secret, Value, Version, plain_name, project_key, wrong_type,
};

impl Dump {
    pub(super) fn project(&mut self, row: &mut Row<'_>) {
        let id = row.id();
        let name = row.required(&["name"], plain_name);
        let written = row.parsed(&["key", "slug"], project_key);
        row.leave_out(&["description", "ownerId", "status"]);
        let Some(name) = name else { return };
        let key = match written {
            Some(key) => Ok(key),
            None => project_key(&slug(&name)),
        };
        match key {
            Ok(key) => self.projects.push(Project { id, key, name }),
            Err(why) => row.refuse("key", why),
        }
    }

    pub(super) fn registry(&mut self, row: &mut Row<'_>) {
        let id = row.id();
        let server = row.required(&["registry", "server", "url"], RegistryServer::parse);
        let name = row.parsed(&["name"], plain_name);
        let username = row.text(&["username"]).filter(|text| !text.is_empty());
        let password = row.text(&["password", "token"]).filter(|text| !text.is_empty()).map(Stored::of);
        let default = if username.is_some() { "username-password" } else { "none" };
        let written = row.written(&["authType"]);
        let kind = row.text(&["authType"]).unwrap_or_else(|| default.to_owned());
        row.leave_out(&["description", "isDefault", "email"]);
        let auth = match kind.as_str() {
            "none" => Some(Auth::None),
            "token" => Some(Auth::Token { username, token: password }),
            "username-password" | "basic" | "password" => {
                if username.is_none() {
                    row.refuse("username", Invalid::new("missing", "is required by authType", "add the column"));
                }
                username.map(|username| Auth::UsernamePassword { username, password })
            }
            _ => {
                let names = "use none, username-password or token";
                row.refuse(&written, Invalid::new("unknown-value", "is not a way to sign in at a registry", names));
                None
            }
        };
        let (Some(server), Some(auth)) = (server, auth) else { return };
        let name = name.unwrap_or_else(|| server.to_string());
        self.registries.push(Registry { id, name, server, auth });
    }

    pub(super) fn group(&mut self, row: &mut Row<'_>) {
        let id = row.id();
        let name = row.required(&["name"], plain_name);
        let description = row.text(&["description"]).unwrap_or_default();
        row.leave_out(&["providerId", "remotePath", "autoSync", "lastSyncAt"]);
        if let Some(name) = name {
            self.groups.push(Group { id, name, description });
        }
    }

    pub(super) fn secret(&mut self, row: &mut Row<'_>) {
        let id = row.id();
        let name = row.required(&["name", "key"], plain_name);
        let group = row.reference(&["groupId"]).map(|(_, id)| id);
        let value = row.text(&["value", "encryptedValue"]).filter(|text| !text.is_empty()).map(Stored::of);
        let known = ["provider", "reference", "source", "providerId", "providerReference", "description"];
        row.leave_out(&known);
        row.leave_out(&["lastSyncedAt", "version", "valueVersion"]);
        if let Some(name) = name {
            self.secrets.push(V1Secret { id, name, group, value });
        }
    }

    pub(super) fn application(&mut self, row: &mut Row<'_>) {
        let id = row.id();
        let name = row.required(&["name"], ContainerName::parse);
        let image_column = row.written(&["image"]);
        let image = row.required(&["image"], image_and_tag);
        let version = row.parsed(&["version", "tag"], Version::parse);
        let ports = Self::ports(row);
        let registry = row.reference(&["repositoryId", "registryId"]).map(|(_, id)| id);
        let project = row.reference(&["projectId", "project"]).map(|(_, id)| id);
        let webhook_enabled = row.flag(&["webhookEnabled"]).unwrap_or(true);
        let environment = row.take(&["env", "environment", "environmentVariables"]);
        // Without a name, whose fault is told, it cannot be said whose variables they are.
        if let (Some(name), Some(environment)) = (&name, environment) {
            self.variables_of(row, name, environment);
        }
        if row.has(&["webhookToken", "webhookSecret", "secret"]) {
            row.take(&["webhookToken", "webhookSecret", "secret"]);
            row.findings.columns.entry("applications").or_default().insert("the webhook token".to_owned());
        }
        row.leave_out(&["status", "state", "containerId", "lastDeployedAt", "description", "ownerId", "domain"]);
        let (Some(name), Some((image, tag))) = (name, image) else { return };
        let version = match (version, tag) {
            (Some(version), Some(tag)) if version != tag => {
                let why = Invalid::new("either-or", "has another tag than version", "keep one of them");
                row.refuse(&image_column, why);
                Some(version)
            }
            (version, tag) => version.or(tag),
        };
        self.applications.push(Application { id, name, image, version, ports, registry, project, webhook_enabled });
    }

    /// V1's one port, or V2's list.
    fn ports(row: &mut Row<'_>) -> Vec<Port> {
        let list = row.take(&["ports"]);
        let (host_column, container_column) = (row.written(&["port", "hostPort"]), row.written(&["containerPort"]));
        let host = row.parsed(&["port", "hostPort"], port_number);
        let container = row.parsed(&["containerPort"], port_number);
        let mut ports: Vec<_> =
            host.zip(container).map(|(host, container)| port(host, container)).into_iter().collect();
        let missing = || Invalid::new("missing", "is required beside the other port", "add the column, or remove both");
        let is_there = |fault: &FieldError, column: &str| fault.field == column;
        if host.is_some() && container.is_none() {
            let path = row.at(&container_column);
            if !row.findings.faults.iter().any(|fault| is_there(fault, &path)) {
                row.refuse(&container_column, missing());
            }
        }
        if container.is_some() && host.is_none() {
            let path = row.at(&host_column);
            if !row.findings.faults.iter().any(|fault| is_there(fault, &path)) {
                row.refuse(&host_column, missing());
            }
        }
        let Some((written, value)) = list else { return ports };
        let Value::Array(items) = row.unwrapped(&written, value) else {
            row.refuse(&written, wrong_type("a list of {host, container}"));
            return ports;
        };
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{}[{index}]", row.at(&written));
            let Some(mut entry) = Row::of("applications", path, item, row.findings) else { continue };
            let host = entry.required(&["host", "hostPort"], port_number);
            let container = entry.required(&["container", "containerPort"], port_number);
            let protocol = entry.parsed(&["protocol"], |text| match text {
                "tcp" => Ok(Protocol::Tcp),
                "udp" => Ok(Protocol::Udp),
                _ => Err(Invalid::new("unknown-value", "is not a protocol", "use tcp or udp")),
            });
            entry.finish();
            if let Some((host, container)) = host.zip(container) {
                let found = Port { protocol: protocol.unwrap_or(Protocol::Tcp), ..port(host, container) };
                // The one port may be written in both ways.
                if !ports.contains(&found) {
                    ports.push(found);
                }
            }
        }
        ports
    }
}

pub(in super::super) fn port(host: u16, container: u16) -> Port {
    Port { host, container, protocol: Protocol::Tcp, host_ip: std::net::IpAddr::from([0, 0, 0, 0]) }
}

pub(in super::super) fn port_number(text: &str) -> Result<u16, Invalid> {
    let refused = || Invalid::new("out-of-range", "is not a port", "use a number from 1 to 65535");
    text.parse().ok().filter(|port| *port > 0).ok_or_else(refused)
}

/// V1 may have kept the tag in the image.
fn image_and_tag(text: &str) -> Result<(ImageName, Option<Version>), Invalid> {
    let (name, tag) = match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') && !name.is_empty() && !name.contains('@') => (name, Some(tag)),
        _ => (text, None),
    };
    Ok((ImageName::parse(name)?, tag.map(Version::parse).transpose()?))
}

/// A key that a project of this name may have.
fn slug(name: &str) -> String {
    let plain: String = name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let joined = plain.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    let starts = joined.starts_with(|c: char| c.is_ascii_lowercase());
    let whole = if starts { joined } else { format!("p-{joined}") };
    whole.chars().take(40).collect::<String>().trim_end_matches('-').to_owned()
}
