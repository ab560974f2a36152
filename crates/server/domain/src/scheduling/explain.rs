//! Why a job can or can not run on a provider. The planner and `hodei job why` use the same function.

use hodei_shared::resources::{format_bytes, format_cpus};

use super::snapshot::ProviderRoom;
use crate::job::shape::Shape;

/// Whether a provider can ever hold a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It can, once there is room.
    Fits,
    /// It never can.
    RuledOut {
        /// The filter, a stable word.
        by: &'static str,
        /// Both sides, for people.
        message: String,
    },
}

/// Judges one provider for one shape by its hard filters, in a fixed order.
pub fn judge(shape: &Shape, provider: &ProviderRoom) -> Verdict {
    let capabilities = &provider.capabilities;
    let ruled_out = |by, message| Verdict::RuledOut { by, message };
    if let Some(wanted) = shape.provider.as_ref().filter(|wanted| **wanted != provider.id) {
        return ruled_out("provider", format!("the job asks for provider {wanted}"));
    }
    if let Some(floor) = shape.isolation.filter(|floor| *floor > capabilities.isolation) {
        let message = format!(
            "the job asks for isolation {floor}, the provider has {}",
            capabilities.isolation
        );
        return ruled_out("isolation", message);
    }
    if shape.image.is_some() && !capabilities.images {
        return ruled_out(
            "image",
            format!("a {} provider runs no images", capabilities.kind),
        );
    }
    if let Some(broken) = shape
        .constraints
        .iter()
        .find(|c| !c.matches(&capabilities.labels))
    {
        let has = match capabilities.labels.get(broken.key()) {
            Some(value) => format!("the provider has {}={value}", broken.key()),
            None => format!("the provider has no label {}", broken.key()),
        };
        return ruled_out(
            "constraint",
            format!("constraint `{broken}` does not hold: {has}"),
        );
    }
    let (need, capacity) = (&shape.resources, &capabilities.capacity);
    if need.cpu_millis > capacity.cpu_millis {
        let (need, has) = (format_cpus(need.cpu_millis), format_cpus(capacity.cpu_millis));
        return ruled_out(
            "cpus",
            format!("the job needs {need} cpus, the provider has {has}"),
        );
    }
    if need.memory_bytes > capacity.memory_bytes {
        let (need, has) = (
            format_bytes(need.memory_bytes),
            format_bytes(capacity.memory_bytes),
        );
        return ruled_out(
            "memory",
            format!("the job needs {need} of memory, the provider has {has}"),
        );
    }
    Verdict::Fits
}

/// What a shape that fits waits for on a provider, for people.
pub fn waits_for(shape: &Shape, provider: &ProviderRoom) -> String {
    if let Some(message) = &provider.drained {
        let resume = format!("`hodei provider resume {}` lets it take work again", provider.id);
        return format!("fits, but the provider is drained: {message}; {resume}");
    }
    let free = provider.capabilities.capacity.minus(&provider.used);
    let need = &shape.resources;
    if !need.fits(&free) {
        return format!("waits for room: the job needs {need}, free are {free}");
    }
    if !provider.health.healthy {
        return format!("fits, but the provider is unhealthy: {}", provider.health.message);
    }
    if provider.workers >= provider.capabilities.max_workers {
        return format!(
            "waits for a worker: all {} are in use",
            provider.capabilities.max_workers
        );
    }
    format!("fits: the job needs {need}, free are {free}")
}
