//! Who may do what: one table.

use serde::{Deserialize, Serialize};

/// What a person was made by an administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Viewer,
    Operator,
    Admin,
}

impl Role {
    /// The role that a group of this name gives; other groups give none.
    pub fn of_group(group: &str) -> Option<Self> {
        match group {
            "admin" => Some(Self::Admin),
            "operator" => Some(Self::Operator),
            "viewer" => Some(Self::Viewer),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Everything but secret values.
    Read,
    /// Deploy, cancel, roll back, stop, start, restart.
    Deploy,
    /// Write applications, variables, secrets, registries, hosts.
    Write,
    /// See a secret's value.
    Reveal,
    /// Users, API keys, settings, audit.
    Administer,
}

/// The table of the API's documentation, for people.
pub fn permits(role: Role, permission: Permission) -> bool {
    match permission {
        Permission::Read => true,
        Permission::Deploy => role >= Role::Operator,
        Permission::Write | Permission::Reveal | Permission::Administer => role == Role::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_documented_one() {
        let check = |permission, admin, operator, viewer| {
            let got = [Role::Admin, Role::Operator, Role::Viewer].map(|role| permits(role, permission));
            assert_eq!(got, [admin, operator, viewer], "{permission:?}");
        };
        check(Permission::Read, true, true, true);
        check(Permission::Deploy, true, true, false);
        check(Permission::Write, true, false, false);
        check(Permission::Reveal, true, false, false);
        check(Permission::Administer, true, false, false);
    }
}
