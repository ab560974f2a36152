//! Shapes: everything of a job that the planner may read, except time. Jobs of one shape are interchangeable.

use hodei_shared::constraint::Constraint;
use hodei_shared::ids::{Namespace, ProviderId};
use hodei_shared::resources::Resources;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::spec::JobSpec;
use crate::provider::Isolation;

/// The hash of a [`Shape`]: the first 16 bytes of SHA-256 over its JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShapeId(pub [u8; 16]);

/// What the planner sees of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Tenant.
    pub namespace: Namespace,
    /// Higher goes first within the namespace.
    pub priority: i32,
    /// The image, if any.
    pub image: Option<String>,
    /// The least isolation.
    pub isolation: Option<Isolation>,
    /// What it needs.
    pub resources: Resources,
    /// Conditions on provider labels, sorted.
    pub constraints: Vec<Constraint>,
    /// The only provider to use.
    pub provider: Option<ProviderId>,
}

impl Shape {
    /// The shape of a job.
    pub fn of(namespace: &Namespace, spec: &JobSpec) -> Self {
        Self {
            namespace: namespace.clone(),
            priority: spec.priority,
            image: spec.image.clone(),
            isolation: spec.isolation,
            resources: spec.resources,
            constraints: spec.constraints.clone(),
            provider: spec.provider.clone(),
        }
    }

    /// The hash that stands for the shape in indexes.
    pub fn id(&self) -> ShapeId {
        let json = serde_json::to_vec(self).expect("a shape has only string keys and finite numbers");
        let digest = Sha256::digest(&json);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        ShapeId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::spec::SpecInput;

    #[test]
    fn only_what_the_planner_reads_makes_a_shape() {
        let shape = |name: &str, cpu: u64| {
            let input = SpecInput {
                name: name.into(),
                command: vec![name.into()],
                cpu_millis: Some(cpu),
                ..SpecInput::default()
            };
            Shape::of(
                &Namespace::default_namespace(),
                &JobSpec::new(input).expect("valid"),
            )
            .id()
        };
        assert_eq!(shape("a", 500), shape("b", 500));
        assert_ne!(shape("a", 500), shape("a", 501));
    }
}
