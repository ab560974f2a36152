//! Lists of jobs: filters and pages.

use std::collections::BTreeMap;

use hodei_shared::ids::{JobId, Namespace};

use super::Fixture;
use super::kit::*;
use crate::ports::jobs::JobFilter;

/// Namespace, labels, states, and the jobs that are wanted.
type Row<'a> = (
    Option<Namespace>,
    &'a [(&'a str, &'a str)],
    &'a [&'static str],
    &'a [u32],
);

/// Namespace, labels and states, alone and together, newest first.
pub async fn list_filters(store: Fixture) {
    let worker = store.ready(1, 9).await;
    for n in 1..=8 {
        let mut job = new_job(
            n,
            spec(|input| {
                input
                    .labels
                    .insert("team".into(), if n % 2 == 0 { "even" } else { "odd" }.into());
                if n > 4 {
                    input.labels.insert("tier".into(), "high".into());
                }
            }),
        );
        if n == 8 {
            job.namespace = namespace("other");
        }
        store.jobs.queue(vec![job]).await.expect("stored");
    }
    store.applied(by_server(job_id(1), cancel())).await;
    for n in 2..=5 {
        store.applied(by_server(job_id(n), claim(worker))).await;
    }
    store.applied(says(worker, job_id(3), started(1))).await;
    store.applied(says(worker, job_id(4), exited(1, 0))).await;
    store.applied(says(worker, job_id(5), exited(1, 1))).await;

    let default = Some(Namespace::default_namespace());
    #[rustfmt::skip]
    let table: [Row<'_>; 14] = [
        (None, &[], &[], &[8, 7, 6, 5, 4, 3, 2, 1]),
        (default.clone(), &[], &[], &[7, 6, 5, 4, 3, 2, 1]),
        (Some(namespace("other")), &[], &[], &[8]),
        (Some(namespace("none")), &[], &[], &[]),
        (default.clone(), &[("team", "even")], &[], &[6, 4, 2]),
        (None, &[("team", "even")], &[], &[8, 6, 4, 2]),
        (None, &[("team", "odd"), ("tier", "high")], &[], &[7, 5]),
        (None, &[("team", "none")], &[], &[]),
        (default.clone(), &[], &["queued"], &[7, 6]),
        (default.clone(), &[], &["assigned", "running"], &[3, 2]),
        (None, &[], &["cancelled", "succeeded", "failed", "timed_out"], &[5, 4, 1]),
        (None, &[], &["queued", "failed"], &[8, 7, 6, 5]),
        (None, &[("tier", "high")], &["queued"], &[8, 7, 6]),
        (default, &[("team", "even"), ("tier", "high")], &["succeeded"], &[]),
    ];
    for (namespace, labels, states, want) in table {
        let filter = JobFilter {
            namespace,
            labels: labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            states: states.to_vec(),
            before: None,
            limit: 100,
        };
        let want: Vec<JobId> = want.iter().map(|n| job_id(*n)).collect();
        let got = store.jobs.list(filter.clone()).await.expect("read");
        let ids: Vec<JobId> = got.iter().map(|record| record.id).collect();
        assert_eq!(ids, want, "{filter:?}");
        for record in got {
            assert_eq!(
                record,
                store.job(record.id).await,
                "a list shows what a single job shows"
            );
        }
    }
}

/// Pages follow each other without gaps or repeats, whatever ends meanwhile.
pub async fn list_pages(store: Fixture) {
    for n in 1..=25 {
        store
            .queued(n, |input| {
                input.labels.insert("all".into(), "yes".into());
            })
            .await;
    }
    for labels in [
        BTreeMap::new(),
        BTreeMap::from([("all".to_owned(), "yes".to_owned())]),
    ] {
        let mut seen: Vec<JobId> = Vec::new();
        loop {
            let filter = JobFilter {
                labels: labels.clone(),
                before: seen.last().copied(),
                limit: 7,
                ..JobFilter::default()
            };
            let page = store.jobs.list(filter).await.expect("read");
            let Some(last) = page.last().map(|record| record.id) else {
                break;
            };
            assert!(page.len() <= 7);
            seen.extend(page.iter().map(|record| record.id));
            store.apply(by_server(last, cancel())).await;
        }
        let want: Vec<JobId> = (1..=25).rev().map(job_id).collect();
        assert_eq!(seen, want);
    }
}
