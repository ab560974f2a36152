//! `hodei bench`: real jobs through the whole path, and how long each part of it took.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::stream::{self, StreamExt as _};
use hodei_jobs::v1;
use serde::Serialize;

use super::{connect, request_id};
use crate::args::run::BenchArgs;
use crate::connection::Client;
use crate::environment::Environment;
use crate::output::{Shown, note, print};
use crate::spec;

/// What a bench job needs when nothing is asked for: so little that slots decide how many run at once.
const CPU_MILLIS: u64 = 10;
const MEMORY_BYTES: u64 = 1 << 20;

/// The figures of one run. Times are in milliseconds.
#[derive(Debug, Serialize)]
struct Report {
    jobs: u64,
    failed: u64,
    slots: usize,
    seconds: f64,
    jobs_per_second: f64,
    /// From the call to its acknowledgement, by the client's clock.
    submit_ms: Latency,
    /// From the commit to the start of the process, by the server's and the worker's clock.
    queue_to_start_ms: Latency,
    /// How long the process ran, by the worker's clock.
    start_to_end_ms: Latency,
    /// From the end of the process to the commit of its result.
    end_to_recorded_ms: Latency,
    /// From the call until the client knew the result, by the client's clock.
    submit_to_known_ms: Latency,
}

/// A distribution: half, 99 of 100 and all of the values are at most this.
#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Latency {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (values.len() as f64 * share).ceil() as usize;
            values.get(index.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Self {
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

impl Shown for Report {
    fn table(&self, _wide: bool, _now: jiff::Timestamp) -> String {
        let row = |name: &str, l: &Latency| format!("{name:<22}{:>9.1}{:>9.1}{:>9.1}\n", l.p50, l.p99, l.max);
        let mut text = format!(
            "{} jobs in {:.2} s, {} at once: {:.0} jobs/s, {} failed\n\n{:<22}{:>9}{:>9}{:>9}\n",
            self.jobs,
            self.seconds,
            self.slots,
            self.jobs_per_second,
            self.failed,
            "MILLISECONDS",
            "P50",
            "P99",
            "MAX",
        );
        text += &row("submit", &self.submit_ms);
        text += &row("queue to start", &self.queue_to_start_ms);
        text += &row("start to end", &self.start_to_end_ms);
        text += &row("end to recorded", &self.end_to_recorded_ms);
        text += &row("submit to known", &self.submit_to_known_ms);
        text
    }

    fn names(&self) -> Vec<String> {
        vec![format!("{:.0}", self.jobs_per_second)]
    }
}

/// One job as the client and its record saw it.
struct Sample {
    submit: Duration,
    known: Duration,
    job: v1::Job,
}

/// Runs the bench and prints its figures.
///
/// # Errors
/// What the server refused, or that it can not be reached.
pub(crate) async fn bench(args: BenchArgs, environment: &Environment) -> Result<u8> {
    let mut spec = spec::one(&args.job, &spec::Base::default())?;
    if spec.cpu_millis == 0 {
        spec.cpu_millis = CPU_MILLIS;
    }
    if spec.memory_bytes == 0 {
        spec.memory_bytes = MEMORY_BYTES;
    }
    let client = connect(&args.connect, environment).await?;
    note(&format!("running {} jobs, {} at once", args.jobs, args.slots));
    let began = Instant::now();
    let gap = args.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
    let mut samples = Vec::new();
    let numbers = stream::iter(0..args.jobs).then(|number| async move {
        if let Some(gap) = gap {
            tokio::time::sleep_until((began + gap * number).into()).await;
        }
    });
    let mut running = Box::pin(
        numbers
            .map(|()| one(client.clone(), spec.clone(), environment))
            .buffer_unordered(args.slots),
    );
    while let Some(sample) = running.next().await {
        samples.push(sample?);
    }
    let report = report(&samples, args.slots, began.elapsed());
    print(args.output.format, &report)?;
    Ok(u8::from(report.failed > 0))
}

async fn one(mut client: Client, spec: v1::JobSpec, environment: &Environment) -> Result<Sample> {
    let called = Instant::now();
    let request = v1::QueueJobRequest {
        spec: Some(spec),
        request_id: request_id(None),
        namespace: environment.namespace.clone(),
    };
    let job = client.queue(request).await?;
    let submit = called.elapsed();
    let request = v1::WatchJobRequest {
        job_id: job.id.clone(),
    };
    let mut states = client
        .jobs
        .watch_job(request)
        .await
        .context("can not watch the job")?
        .into_inner();
    while let Some(state) = states
        .message()
        .await
        .context("the server stopped watching the job")?
    {
        if let Some(job) = state.job.filter(|job| job.ended_at_ms > 0) {
            return Ok(Sample {
                submit,
                known: called.elapsed(),
                job,
            });
        }
    }
    bail!("job {} was watched and its end was not told", job.id)
}

fn report(samples: &[Sample], slots: usize, elapsed: Duration) -> Report {
    let ms = |duration: Duration| duration.as_secs_f64() * 1_000.0;
    let between = |from: i64, to: i64| (to - from).max(0) as f64;
    let last = |sample: &Sample| sample.job.attempts.last().cloned().unwrap_or_default();
    let latency = |value: &dyn Fn(&Sample) -> f64| Latency::of(samples.iter().map(value).collect());
    let succeeded = |sample: &&Sample| sample.job.state() == v1::JobState::Succeeded;
    let seconds = elapsed.as_secs_f64();
    let jobs = samples.len() as u64;
    Report {
        jobs,
        failed: jobs - samples.iter().filter(succeeded).count() as u64,
        slots,
        seconds,
        jobs_per_second: jobs as f64 / seconds,
        submit_ms: latency(&|s| ms(s.submit)),
        queue_to_start_ms: latency(&|s| between(s.job.created_at_ms, last(s).started_at_ms)),
        start_to_end_ms: latency(&|s| between(last(s).started_at_ms, last(s).ended_at_ms)),
        end_to_recorded_ms: latency(&|s| between(last(s).ended_at_ms, s.job.ended_at_ms)),
        submit_to_known_ms: latency(&|s| ms(s.known)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let latency = Latency::of((1..=200).rev().map(f64::from).collect());
        assert_eq!((latency.p50, latency.p99, latency.max), (100.0, 198.0, 200.0));
        assert_eq!(Latency::of(Vec::new()).max, 0.0);
    }
}
