//! Who may do what. One table of all methods; what is not in it is refused.

pub mod credential;
pub mod table;

use hodei_shared::ids::Namespace;

/// What a token lets its holder do. Cluster admin is the only role there is today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything, in every namespace.
    ClusterAdmin,
}

/// Who calls: made by the door from a verified token, never from a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The token's public id.
    pub token_id: String,
    /// What it may do.
    pub role: Role,
    /// Where it acts when nothing else is named.
    pub namespace: Namespace,
}

/// A kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Sees jobs.
    ReadJobs,
    /// Reads what jobs printed.
    ReadOutput,
    /// Queues jobs.
    SubmitJobs,
    /// Cancels jobs.
    CancelJobs,
    /// Sees workers and providers.
    ReadPlatform,
    /// Drains workers and providers.
    ManagePlatform,
}

impl Principal {
    /// Whether the principal may do this in `namespace`.
    pub fn may(&self, _permission: Permission, _namespace: &Namespace) -> bool {
        match self.role {
            Role::ClusterAdmin => true,
        }
    }
}
