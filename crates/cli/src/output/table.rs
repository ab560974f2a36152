//! Tables for people: plain columns without borders, times as ages, one line per thing.

use std::fmt::Write as _;

use hodei_jobs::view::{
    Attempt, Event, Events, Job, Jobs, Provider, Providers, QueueStatus, Why, Worker, Workers,
};
use hodei_shared::resources;
use jiff::Timestamp;

use super::Shown;
use super::cells::{
    NONE, age, columns, command, details, ending, labels, moment, narrow, of, of_bytes, or_none, yes,
};

impl Shown for Jobs {
    fn table(&self, wide: bool, now: Timestamp) -> String {
        let mut header = vec!["ID", "NAME", "STATE", "AGE", "EXIT", "REASON"];
        if wide {
            header.extend(["ATTEMPTS", "PROVIDER", "WORKER", "LABELS", "COMMAND"]);
        }
        let row = |job: &Job| {
            let last = job.attempts.last();
            let mut row = vec![
                job.id.clone(),
                narrow(job.name.as_deref(), wide),
                job.state.to_owned(),
                age(job.created_at.as_deref(), now),
                ending(job.exit_code, job.signal),
                or_none(job.reason.as_deref()),
            ];
            if wide {
                row.extend([
                    job.attempts.len().to_string(),
                    or_none(last.and_then(|attempt| attempt.provider.as_deref())),
                    or_none(last.and_then(|attempt| attempt.worker_id.as_deref())),
                    labels(&job.labels),
                    narrow(Some(&command(job)), false),
                ]);
            }
            row
        };
        columns(&header, self.jobs.iter().map(row).collect())
    }

    fn names(&self) -> Vec<String> {
        self.jobs.iter().map(|job| job.id.clone()).collect()
    }
}

/// The first of `count` jobs, and how many more there are.
pub(crate) fn preview(first: Vec<Job>, count: usize) -> String {
    let more = count.saturating_sub(first.len());
    let jobs = Jobs {
        jobs: first,
        next_page_token: String::new(),
    };
    let table = jobs.table(false, Timestamp::now());
    match more {
        0 => table,
        more => format!("{table}\n… and {more} more"),
    }
}

impl Shown for Job {
    fn table(&self, wide: bool, now: Timestamp) -> String {
        let mut lines = vec![
            ("Id", self.id.clone()),
            ("Name", or_none(self.name.as_deref())),
            ("Namespace", self.namespace.clone()),
            ("State", self.state.to_owned()),
            ("Reason", or_none(self.reason.as_deref())),
            ("Message", or_none(self.message.as_deref())),
            ("Exit", ending(self.exit_code, self.signal)),
            ("Command", narrow(Some(&command(self)), wide)),
            ("Created", moment(self.created_at.as_deref(), now)),
            ("Ended", moment(self.ended_at.as_deref(), now)),
        ];
        let mut optional = |title, value: Option<String>| {
            if let Some(value) = value.filter(|value| wide || value != NONE) {
                lines.push((title, value));
            }
        };
        let number = |value: &serde_json::Number| value.to_string();
        optional("Labels", Some(labels(&self.labels)));
        optional("Retry of", Some(or_none(self.retry_of.as_deref())));
        optional("Image", Some(or_none(self.image.as_deref())));
        optional("Workdir", Some(or_none(self.workdir.as_deref())));
        optional(
            "Cpus",
            Some(self.resources.cpus.as_ref().map_or(NONE.into(), number)),
        );
        optional(
            "Memory",
            Some(self.resources.memory.map_or(NONE.into(), resources::format_bytes)),
        );
        optional(
            "Timeout",
            Some(self.timeout.as_ref().map_or(NONE.into(), |n| format!("{n} s"))),
        );
        optional(
            "Retries",
            (wide || self.retries > 0).then(|| self.retries.to_string()),
        );
        optional("Constraints", Some(or_none(Some(&self.constraints.join(", ")))));
        optional("Provider", Some(or_none(self.provider.as_deref())));
        optional("Isolation", Some(or_none(self.isolation.as_deref())));
        optional(
            "Priority",
            (wide || self.priority != 0).then(|| self.priority.to_string()),
        );
        let mut said = details(lines);
        if !self.attempts.is_empty() {
            said.push_str("\n\n");
            said.push_str(&attempts(&self.attempts, wide, now));
        }
        for attempt in &self.attempts {
            if attempt.output.expired {
                let number = attempt.number;
                let _ = write!(said, "\n\nThe output of attempt {number} was old and is removed.");
            }
            if !attempt.output.truncated {
                continue;
            }
            let kept = resources::format_bytes(attempt.output.bytes);
            // Writing to a string does not fail.
            let _ = write!(
                said,
                "\n\nThe output of attempt {} was cut after {kept}: the job printed more than is kept.",
                attempt.number
            );
        }
        said
    }

    fn names(&self) -> Vec<String> {
        vec![self.id.clone()]
    }
}

fn attempts(attempts: &[Attempt], wide: bool, now: Timestamp) -> String {
    let mut header = vec![
        "ATTEMPT", "STATE", "PROVIDER", "WORKER", "EXIT", "REASON", "STARTED", "OUTPUT",
    ];
    if wide {
        header.extend(["MACHINE", "ENDED", "MESSAGE"]);
    }
    let row = |attempt: &Attempt| {
        let mut row = vec![
            attempt.number.to_string(),
            attempt.state.to_owned(),
            or_none(attempt.provider.as_deref()),
            or_none(attempt.worker_id.as_deref()),
            ending(attempt.exit_code, attempt.signal),
            or_none(attempt.reason.as_deref()),
            age(attempt.started_at.as_deref(), now),
            resources::format_bytes(attempt.output.bytes),
        ];
        if wide {
            row.extend([
                or_none(attempt.machine.as_deref()),
                age(attempt.ended_at.as_deref(), now),
                or_none(attempt.message.as_deref()),
            ]);
        }
        row
    };
    columns(&header, attempts.iter().map(row).collect())
}

impl Shown for Workers {
    fn table(&self, wide: bool, now: Timestamp) -> String {
        let mut header = vec![
            "ID",
            "PROVIDER",
            "STATE",
            "CONNECTED",
            "CPUS",
            "MEMORY",
            "JOBS",
            "AGE",
        ];
        if wide {
            header.extend(["NAMESPACE", "MACHINE", "LABELS", "ENFORCED", "MESSAGE"]);
        }
        let row = |worker: &Worker| {
            let mut row = vec![
                worker.id.clone(),
                worker.provider.clone(),
                worker.state.to_owned(),
                yes(worker.connected),
                format!("{}/{}", worker.used.cpus, worker.capacity.cpus),
                of_bytes(worker.used.memory, Some(worker.capacity.memory)),
                format!("{}/{}", worker.used.slots, worker.capacity.slots),
                age(worker.created_at.as_deref(), now),
            ];
            if wide {
                row.extend([
                    worker.namespace.clone(),
                    or_none(worker.machine.as_deref()),
                    labels(&worker.labels),
                    or_none(Some(&worker.enforced.join(","))),
                    or_none(worker.message.as_deref()),
                ]);
            }
            row
        };
        columns(&header, self.workers.iter().map(row).collect())
    }

    fn names(&self) -> Vec<String> {
        self.workers.iter().map(|worker| worker.id.clone()).collect()
    }
}

impl Shown for Worker {
    fn table(&self, _wide: bool, now: Timestamp) -> String {
        details(vec![
            ("Id", self.id.clone()),
            ("Namespace", self.namespace.clone()),
            ("Provider", self.provider.clone()),
            ("State", self.state.to_owned()),
            ("Connected", yes(self.connected)),
            ("Machine", or_none(self.machine.as_deref())),
            (
                "Cpus",
                format!("{} of {} in use", self.used.cpus, self.capacity.cpus),
            ),
            (
                "Memory",
                format!(
                    "{} in use",
                    of_bytes(self.used.memory, Some(self.capacity.memory))
                ),
            ),
            ("Jobs", format!("{} of {}", self.used.slots, self.capacity.slots)),
            ("Created", moment(self.created_at.as_deref(), now)),
            ("Ended", moment(self.ended_at.as_deref(), now)),
            ("Message", or_none(self.message.as_deref())),
            ("Labels", labels(&self.labels)),
            ("Enforced", or_none(Some(&self.enforced.join(", ")))),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.id.clone()]
    }
}

impl Shown for Providers {
    fn table(&self, wide: bool, _now: Timestamp) -> String {
        let mut header = vec![
            "ID",
            "KIND",
            "HEALTHY",
            "ISOLATION",
            "CPUS",
            "MEMORY",
            "WORKERS",
            "MESSAGE",
        ];
        if wide {
            header.push("LABELS");
        }
        let row = |provider: &Provider| {
            let mut row = vec![
                provider.id.clone(),
                provider.kind.clone(),
                yes(provider.healthy),
                provider.isolation.clone(),
                of(provider.used.cpus.as_ref(), provider.capacity.cpus.as_ref()),
                of_bytes(provider.used.memory.unwrap_or_default(), provider.capacity.memory),
                of(provider.used.workers.as_ref(), provider.capacity.workers.as_ref()),
                narrow(provider_message(provider).as_deref(), wide),
            ];
            if wide {
                row.push(labels(&provider.labels));
            }
            row
        };
        columns(&header, self.providers.iter().map(row).collect())
    }

    fn names(&self) -> Vec<String> {
        self.providers
            .iter()
            .map(|provider| provider.id.clone())
            .collect()
    }
}

/// That it is drained matters more than what it says of itself.
fn provider_message(provider: &Provider) -> Option<String> {
    match &provider.drained {
        Some(reason) => Some(format!("drained: {reason}")),
        None => provider.message.clone(),
    }
}

impl Shown for Provider {
    fn table(&self, _wide: bool, _now: Timestamp) -> String {
        details(vec![
            ("Id", self.id.clone()),
            ("Kind", self.kind.clone()),
            ("Healthy", yes(self.healthy)),
            ("Message", or_none(self.message.as_deref())),
            ("Isolation", self.isolation.clone()),
            ("Cpus", of(self.used.cpus.as_ref(), self.capacity.cpus.as_ref())),
            (
                "Memory",
                of_bytes(self.used.memory.unwrap_or_default(), self.capacity.memory),
            ),
            (
                "Workers",
                of(self.used.workers.as_ref(), self.capacity.workers.as_ref()),
            ),
            ("Drained", or_none(self.drained.as_deref())),
            ("Labels", labels(&self.labels)),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.id.clone()]
    }
}

impl Shown for QueueStatus {
    fn table(&self, _wide: bool, now: Timestamp) -> String {
        let waiting = [
            (self.ready, "could run now"),
            (self.delayed, "wait for their time"),
            (self.held, "wait for their input"),
        ];
        let waiting = waiting.iter().filter(|(count, _)| *count > 0);
        let parts: Vec<String> = waiting.map(|(count, what)| format!("{count} {what}")).collect();
        let queued = match parts.is_empty() {
            true => self.queued.to_string(),
            false => format!("{} ({})", self.queued, parts.join(", ")),
        };
        details(vec![
            ("Queued", queued),
            ("Longest wait", age(self.oldest_ready_at.as_deref(), now)),
            ("Assigned", self.assigned.to_string()),
            ("Running", self.running.to_string()),
            (
                "Workers",
                format!("{} ({} connected)", self.workers, self.connected_workers),
            ),
            ("Slots", format!("{} of {} in use", self.used_slots, self.slots)),
        ])
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Shown for Events {
    fn table(&self, wide: bool, now: Timestamp) -> String {
        let mut header = vec!["AGE", "EVENT", "MESSAGE"];
        if wide {
            header.extend(["AT", "POSITION"]);
        }
        let row = |event: &Event| {
            let mut row = vec![
                age(event.at.as_deref(), now),
                event.kind.clone(),
                or_none(event.message.as_deref()),
            ];
            if wide {
                row.extend([or_none(event.at.as_deref()), event.position.to_string()]);
            }
            row
        };
        columns(&header, self.events.iter().map(row).collect())
    }

    fn names(&self) -> Vec<String> {
        self.events
            .iter()
            .map(|event| event.position.to_string())
            .collect()
    }
}

impl Shown for Why {
    fn table(&self, _wide: bool, _now: Timestamp) -> String {
        let row = |verdict: &hodei_jobs::view::Verdict| {
            vec![
                verdict.provider.clone(),
                yes(verdict.fits),
                or_none(verdict.ruled_out_by.as_deref()),
                or_none(verdict.message.as_deref()),
            ]
        };
        let rows: Vec<_> = self.providers.iter().map(row).collect();
        let summary = format!("{}: {}", self.state, or_none(self.summary.as_deref()));
        match columns(&["PROVIDER", "FITS", "RULED OUT BY", "MESSAGE"], rows) {
            table if table.is_empty() => summary,
            table => format!("{summary}\n\n{table}"),
        }
    }

    fn names(&self) -> Vec<String> {
        self.providers
            .iter()
            .map(|verdict| verdict.provider.clone())
            .collect()
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
