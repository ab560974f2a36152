//! Many seeds of the simulation. `HODEI_SIM_SEEDS` and `HODEI_SIM_FROM` choose others than the usual ones.

use hodei_tests::sim::{self, Faults};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn many_seeds() {
    let (from, count) = (setting("HODEI_SIM_FROM", 0), setting("HODEI_SIM_SEEDS", 200));
    let failures: Vec<String> = (from..from + count)
        .filter_map(|seed| sim::run(seed).err())
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {count} seeds failed; the first:\n{}",
        failures.len(),
        failures[0]
    );
}

#[test]
fn one_seed_twice_gives_the_same_trace() {
    for seed in [7, 8] {
        let first = sim::run(seed).expect("holds");
        let second = sim::run(seed).expect("holds");
        assert!(first.trace.len() > 100, "something happened");
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}

#[test]
fn without_faults_every_job_runs_once() {
    let outcome = sim::run_with(1, Faults::NONE).expect("holds");
    let starts = outcome
        .trace
        .iter()
        .filter(|line| line.contains("attempt 1"))
        .count();
    assert_eq!(starts as u64, Faults::NONE.jobs);
}

#[test]
fn much_output_comes_into_objects() {
    let size = |line: &str| -> Option<u64> {
        line.split("an object of ")
            .nth(1)?
            .split(' ')
            .next()?
            .parse()
            .ok()
    };
    // Whether one seed has an attempt that prints so much is chance.
    let traces = (1..=3).map(|seed| sim::run_with(seed, Faults::NONE).expect("holds").trace);
    let sizes: Vec<u64> = traces.flatten().filter_map(|line| size(&line)).collect();
    assert!(sizes.iter().any(|size| *size < 64 << 10), "at once: {sizes:?}");
    assert!(sizes.iter().any(|size| *size > 64 << 10), "later: {sizes:?}");
}
