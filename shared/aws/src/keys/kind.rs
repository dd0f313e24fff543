//! What kinds of things there are.

/// Kinds of things that have an integer id, a revision and a list of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Project,
    Application,
    Registry,
    SecretGroup,
    Secret,
    SecretProvider,
    Environment,
    /// Apart from those that are there, so that nothing that is conditional on an environment finds one.
    DeletedEnvironment,
    /// Of one that is about to be created: never shown.
    EnvironmentDraft,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Project => "PROJECT",
            Self::Application => "APPLICATION",
            Self::Registry => "REGISTRY",
            Self::SecretGroup => "SECRET_GROUP",
            Self::Secret => "SECRET",
            Self::SecretProvider => "SECRET_PROVIDER",
            Self::Environment => "ENVIRONMENT",
            Self::DeletedEnvironment => "DELETED_ENVIRONMENT",
            Self::EnvironmentDraft => "ENVIRONMENT_DRAFT",
        }
    }

    /// In messages.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Application => "application",
            Self::Registry => "registry",
            Self::SecretGroup => "secret group",
            Self::Secret => "secret",
            Self::SecretProvider => "secret provider",
            Self::Environment => "environment",
            Self::DeletedEnvironment => "deleted environment",
            Self::EnvironmentDraft => "environment's draft",
        }
    }
}
