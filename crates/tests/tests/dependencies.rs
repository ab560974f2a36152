//! The arrows between crates point inward, and the inner ones know nothing of the outside.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// The project's crates that each of its crates may use, beside itself.
const ALLOWED: &[(&str, &[&str])] = &[
    ("hodei-shared", &[]),
    ("hodei-jobs", &["hodei-shared"]),
    ("hodei-server-domain", &["hodei-shared"]),
    (
        "hodei-server-application",
        &["hodei-shared", "hodei-server-domain"],
    ),
    (
        "hodei-server-infrastructure",
        &[
            "hodei-shared",
            "hodei-jobs",
            "hodei-server-domain",
            "hodei-server-application",
        ],
    ),
    (
        "hodei-server-interface",
        &[
            "hodei-shared",
            "hodei-jobs",
            "hodei-server-domain",
            "hodei-server-application",
        ],
    ),
    (
        "hodei-server-bin",
        &[
            "hodei-shared",
            "hodei-jobs",
            "hodei-server-domain",
            "hodei-server-application",
            "hodei-server-infrastructure",
            "hodei-server-interface",
        ],
    ),
    ("hodei-worker-domain", &["hodei-shared"]),
    (
        "hodei-worker-application",
        &["hodei-shared", "hodei-worker-domain"],
    ),
    (
        "hodei-worker-infrastructure",
        &[
            "hodei-shared",
            "hodei-jobs",
            "hodei-worker-domain",
            "hodei-worker-application",
        ],
    ),
    (
        "hodei-worker-bin",
        &[
            "hodei-shared",
            "hodei-jobs",
            "hodei-worker-domain",
            "hodei-worker-application",
            "hodei-worker-infrastructure",
        ],
    ),
    (
        "hodei-cli",
        &[
            "hodei-shared",
            "hodei-jobs",
            "hodei-server-bin",
            "hodei-worker-bin",
        ],
    ),
    ("xtask", &[]),
];

/// What the pure crates may use from outside: values and errors, nothing with a run time, a socket or a clock.
const PURE: &[&str] = &[
    "data-encoding",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
    "uuid",
    "zeroize",
    "hodei-shared",
];

/// Run times, stores, wires and clocks that application crates must not know.
const OUTSIDE: &[&str] = &[
    "axum",
    "hyper",
    "hyper-util",
    "jiff",
    "libc",
    "prost",
    "rand",
    "rcgen",
    "refinery",
    "rusqlite",
    "rustix",
    "rustls",
    "tokio-rustls",
    "tokio-stream",
    "tonic",
    "tower",
    "uuid",
    "hodei-jobs",
];

fn normal_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .no_deps()
        .exec()
        .expect("cargo metadata runs");
    let of = |package: cargo_metadata::Package| {
        let normal = package
            .dependencies
            .into_iter()
            .filter(|d| d.kind == DependencyKind::Normal);
        (
            package.name.to_string(),
            normal.map(|d| d.name.to_string()).collect(),
        )
    };
    metadata.packages.into_iter().map(of).collect()
}

#[test]
fn arrows_point_inward() {
    let all = normal_dependencies();
    for (name, dependencies) in &all {
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| known == name) else {
            assert_eq!(
                name, "hodei-tests",
                "{name} has no row in the table of allowed arrows"
            );
            continue;
        };
        let own = dependencies.iter().filter(|d| all.contains_key(*d));
        let wrong: Vec<_> = own.filter(|d| !allowed.contains(&d.as_str())).collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
}

#[test]
fn pure_crates_stay_pure() {
    let all = normal_dependencies();
    for name in ["hodei-shared", "hodei-server-domain", "hodei-worker-domain"] {
        let wrong: Vec<_> = all[name].iter().filter(|d| !PURE.contains(&d.as_str())).collect();
        assert!(
            wrong.is_empty(),
            "{name} must stay pure, and depends on {wrong:?}"
        );
    }
}

#[test]
fn application_crates_reach_the_outside_through_ports_only() {
    let all = normal_dependencies();
    for name in ["hodei-server-application", "hodei-worker-application"] {
        let wrong: Vec<_> = all[name]
            .iter()
            .filter(|d| OUTSIDE.contains(&d.as_str()))
            .collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
}

#[test]
fn select_is_biased_where_the_simulation_runs() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut seen = 0;
    for folder in ["server/application/src", "worker/application/src"] {
        for file in sources(&std::path::Path::new(root).join(folder)) {
            let text = std::fs::read_to_string(&file).expect("readable");
            for (index, _) in text.match_indices("select! {") {
                seen += 1;
                let body = text[index + "select! {".len()..].trim_start();
                assert!(
                    body.starts_with("biased;"),
                    "{}: a select! without `biased;`",
                    file.display()
                );
            }
        }
    }
    assert!(seen > 5, "the test looks in the wrong place");
}

fn sources(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
