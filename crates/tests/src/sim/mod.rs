//! The whole system in one thread, on virtual time, from one seed.
//!
//! It runs the production code of the server's application and store and of the worker's application; only the
//! network, processes, machines, certificates and clocks are replaced, at the ports. Each seed draws its own
//! rates of faults, jobs and moments of cancelling. Afterwards the faults stop, the system comes to rest, and what
//! must hold is checked. The same seed gives the same trace.

mod authority;
mod check;
mod client;
mod convert;
mod executor;
mod net;
mod node;
mod objects;
mod provider;
mod world;

use std::sync::Arc;
use std::time::Duration;

pub use world::{Faults, Outcome};

use client::Client;
use node::Servers;
use world::World;

/// How long faults go on.
const STORM: Duration = Duration::from_secs(240);
/// How long the system may take to come to rest afterwards.
const CALM: Duration = Duration::from_secs(3_600);

/// Runs one seed to its end.
///
/// # Errors
/// What did not hold, with the seed and the end of the trace.
pub fn run(seed: u64) -> Result<Outcome, String> {
    run_with(seed, Faults::drawn(seed))
}

/// Runs one seed with given faults.
///
/// # Errors
/// What did not hold, with the seed and the end of the trace.
pub fn run_with(seed: u64, faults: Faults) -> Result<Outcome, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| format!("no run time: {error}"))?;
    runtime.block_on(async {
        let world = World::new(seed, faults);
        let result = story(&world).await;
        let trace = world.trace();
        match result {
            Ok(()) => Ok(Outcome {
                trace,
                elapsed: world.elapsed(),
            }),
            Err(message) => {
                let tail = trace
                    .iter()
                    .rev()
                    .take(60)
                    .rev()
                    .cloned()
                    .collect::<Vec<_>>()
                    .join("\n");
                Err(format!(
                    "seed {seed}: {message}\nfaults: {:?}\n{tail}",
                    world.faults
                ))
            }
        }
    })
}

async fn story(world: &Arc<World>) -> Result<(), String> {
    let servers = Servers::new(world);
    servers.start();
    let client = Client::new(world, &servers);
    client.start();
    let chaos = servers.start_chaos();
    tokio::time::sleep(STORM).await;
    world.heal();
    chaos.abort();
    servers.start();
    client.finished(CALM).await?;
    // Idle workers go after a while; then nothing of them is left.
    let until = tokio::time::Instant::now() + CALM;
    while servers.provider.count() > 0 && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    check::all(world, &servers, &client).await
}
