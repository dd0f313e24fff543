//! How far a walk over all values of a tenant has come.

use serde::{Deserialize, Serialize};

/// Where a walk goes on. A stage that is begun has neither; one of nested lists has the parent that was finished, or the one
/// in hand with the place in its list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(super) stage: Stage,
    pub(super) parent: Option<u64>,
    pub(super) after: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Stage {
    /// With the key that requests of issues are named with.
    Settings,
    Registries,
    Providers,
    Global,
    Projects,
    Applications,
    // What is deleted or restored between the two is looked at twice rather than not at all.
    Environments,
    DeletedEnvironments,
    Secrets,
}

impl Stage {
    pub(super) fn next(self) -> Option<Self> {
        match self {
            Self::Settings => Some(Self::Registries),
            Self::Registries => Some(Self::Providers),
            Self::Providers => Some(Self::Global),
            Self::Global => Some(Self::Projects),
            Self::Projects => Some(Self::Applications),
            Self::Applications => Some(Self::Environments),
            Self::Environments => Some(Self::DeletedEnvironments),
            Self::DeletedEnvironments => Some(Self::Secrets),
            Self::Secrets => None,
        }
    }
}

impl Position {
    pub(crate) const START: Self = Self { stage: Stage::Settings, parent: None, after: None };

    pub(super) fn stage_after(stage: Stage) -> Option<Self> {
        stage.next().map(|stage| Self { stage, parent: None, after: None })
    }
}
