//! Says what a queued job waits for: one line on stderr once it has waited a little, and again when the reason is
//! another one.

use std::time::Duration;

use anyhow::Result;
use hodei_jobs::v1;
use hodei_shared::text;
use tokio::sync::watch;

use crate::connection::Client;
use crate::output::note;

/// Shorter waits are not worth a word.
const QUIET: Duration = Duration::from_secs(2);
/// How often a job that goes on waiting is asked about.
const AGAIN: Duration = Duration::from_secs(5);
/// How many providers are named in one line.
const NAMED: usize = 3;

/// What to do about a job that nothing can ever hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hopeless {
    /// Wait on: a provider may be added.
    Wait,
    /// Give up at once: nothing will change.
    End,
}

/// Nothing can ever hold the job, and nothing will change.
#[derive(Debug)]
pub(crate) struct NoPlace(String);

impl std::fmt::Display for NoPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoPlace {}

/// Tells what the job waits for whenever it does, until it has ended.
///
/// # Errors
/// [`NoPlace`] with [`Hopeless::End`] if nothing can hold the job.
pub(crate) async fn tell(
    client: &Client,
    job_id: &str,
    hopeless: Hopeless,
    mut look: watch::Receiver<Option<v1::Job>>,
) -> Result<()> {
    let mut said = None;
    loop {
        // Closed: nobody watches the job any more.
        if look
            .wait_for(|job| job.as_ref().is_some_and(is_queued))
            .await
            .is_err()
        {
            return Ok(());
        }
        let mut pause = match hopeless {
            Hopeless::Wait => QUIET,
            Hopeless::End => Duration::ZERO,
        };
        loop {
            let begun = look.wait_for(|job| !job.as_ref().is_some_and(is_queued));
            match tokio::time::timeout(pause, begun).await {
                Ok(Ok(_)) => break,
                Ok(Err(_closed)) => return Ok(()),
                Err(_still_queued) => {}
            }
            let request = v1::WhyJobRequest {
                job_id: job_id.to_owned(),
            };
            // A server that does not answer now is asked again.
            let why = client.scheduler.clone().why_job(request).await.ok();
            if let Some(why) = why.map(tonic::Response::into_inner) {
                if hopeless == Hopeless::End && is_hopeless(&why) {
                    return Err(NoPlace(format!("job {job_id} can not run: {}", reason(&why))).into());
                }
                if pause >= QUIET && why.state() == v1::JobState::Queued && said != Some(kind(&why)) {
                    note(&format!(
                        "waiting: {}; see `hodei job why {job_id}`",
                        reason(&why)
                    ));
                    said = Some(kind(&why));
                }
            }
            pause = if pause < QUIET { QUIET } else { AGAIN };
        }
    }
}

fn is_queued(job: &v1::Job) -> bool {
    job.state() == v1::JobState::Queued
}

fn is_hopeless(why: &v1::WhyJobResponse) -> bool {
    why.state() == v1::JobState::Queued && why.providers.iter().all(|verdict| !verdict.fits)
}

/// What must differ to be worth a new line: numbers alone are not.
fn kind(why: &v1::WhyJobResponse) -> Vec<String> {
    let verdicts = why.providers.iter();
    let verdicts =
        verdicts.map(|verdict| format!("{} {} {}", verdict.provider, verdict.fits, verdict.ruled_out_by));
    let letters = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    verdicts.chain([letters(&why.summary)]).collect()
}

fn reason(why: &v1::WhyJobResponse) -> String {
    let wanted = is_hopeless(why) && !why.providers.is_empty();
    let summary = match wanted {
        true => "no provider can hold it",
        false => why.summary.as_str(),
    };
    let telling: Vec<_> = why
        .providers
        .iter()
        .filter(|verdict| !verdict.message.is_empty() && (wanted || verdict.fits))
        .collect();
    let mut parts: Vec<String> = telling
        .iter()
        .take(NAMED)
        .map(|verdict| format!("{}: {}", verdict.provider, verdict.message))
        .collect();
    if telling.len() > NAMED {
        parts.push(format!("and {} more", telling.len() - NAMED));
    }
    let said = match (summary, parts.is_empty()) {
        ("", true) => "it is queued".to_owned(),
        (summary, true) => summary.to_owned(),
        ("", false) => parts.join("; "),
        (summary, false) => format!("{summary}: {}", parts.join("; ")),
    };
    text::one_line(&said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(summary: &str, verdicts: &[(&str, bool, &str, &str)]) -> v1::WhyJobResponse {
        let verdict = |(provider, fits, by, message): &(&str, bool, &str, &str)| v1::ProviderVerdict {
            provider: (*provider).to_owned(),
            fits: *fits,
            ruled_out_by: (*by).to_owned(),
            message: (*message).to_owned(),
        };
        v1::WhyJobResponse {
            state: v1::JobState::Queued.into(),
            summary: summary.to_owned(),
            providers: verdicts.iter().map(verdict).collect(),
        }
    }

    #[test]
    fn the_reason_names_providers_and_numbers() {
        let cpus = (
            "local",
            false,
            "cpus",
            "the job needs 64 cpus, the provider has 2",
        );
        let nothing = why("no provider can ever run this job as it is", &[cpus]);
        assert!(is_hopeless(&nothing));
        assert_eq!(
            reason(&nothing),
            "no provider can hold it: local: the job needs 64 cpus, the provider has 2"
        );
        let many = why("", &[cpus; 5]);
        assert!(reason(&many).ends_with("; and 2 more"), "{}", reason(&many));
        let room = why("waits for room", &[cpus, ("big", true, "", "free are 0 cpus")]);
        assert!(!is_hopeless(&room));
        assert_eq!(reason(&room), "waits for room: big: free are 0 cpus");
        assert_eq!(reason(&why("delayed", &[])), "delayed");
        assert!(is_hopeless(&why("no provider is configured", &[])));
    }

    #[test]
    fn only_another_reason_is_worth_another_line() {
        let room = |free: &str| why("waits for room", &[("big", true, "", free)]);
        assert_eq!(kind(&room("free are 0 cpus")), kind(&room("free are 1 cpus")));
        assert_eq!(
            kind(&why("repeated in 3 s", &[])),
            kind(&why("repeated in 2 s", &[]))
        );
        let ruled_out = why("waits for room", &[("big", false, "cpus", "")]);
        assert_ne!(kind(&room("")), kind(&ruled_out));
    }
}
