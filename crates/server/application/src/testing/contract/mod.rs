//! The contract of the stores, written once and run on each of them: one public function for each rule of the
//! ports' documentation. Use [`store_contract!`](crate::store_contract) to make a test of each.

mod blocks;
mod claims;
mod drains;
mod events;
mod flow;
mod identity;
mod input;
mod jobs;
mod kit;
mod lists;
mod objects;
mod output;
mod platform;
mod results;
mod retention;
mod secrets;
mod workers;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::clock::ManualClock;
use super::objects::MemoryObjects;
use crate::ports::drains::ProviderDrains;
use crate::ports::events::EventBus;
use crate::ports::input::InputStore;
use crate::ports::jobs::JobRepository;
use crate::ports::objects::OutputObjects;
use crate::ports::output::OutputStore;
use crate::ports::retention::Retention;
use crate::ports::sealed::SealedStore;
use crate::ports::tokens::TokenStore;
use crate::ports::workers::WorkerRegistry;

pub use self::blocks::{output_blocks, output_limit, output_objects, output_tails};
pub use self::claims::{
    cancels, claimable_order_and_bounds, claimable_rotation, claims_are_guarded, concurrent_claims,
    failed_provisions, never_started_claims,
};
pub use self::drains::provider_drains;
pub use self::events::events;
pub use self::flow::{cut_output, left_objects, much_output};
pub use self::identity::{concurrent_redemptions, redemptions, renewals, stolen_renewals};
pub use self::input::{input_is_replayed, input_of_a_repeated_job, input_parts};
pub use self::jobs::{a_job_runs_to_its_end, queue_counts, queueing, what_is_held};
pub use self::lists::{list_filters, list_pages};
pub use self::objects::{objects_are_kept, objects_are_listed};
pub use self::output::{output_after_the_end, output_appends, output_reads};
pub use self::results::{finish_waits_for_output, lost_attempts, what_a_worker_says};
pub use self::retention::{expired_jobs, expired_output, expired_submissions, retention_loop};
pub use self::secrets::{sealed_values, tokens};
pub use self::workers::{draining, gone_and_revoked, life_of_a_worker, sessions};

/// An empty store behind all of its ports, and the clock that it reads.
pub struct Fixture {
    /// Jobs.
    pub jobs: Arc<dyn JobRepository>,
    /// Workers.
    pub workers: Arc<dyn WorkerRegistry>,
    /// Output.
    pub output: Arc<dyn OutputStore>,
    /// Objects; in memory, unless others are given.
    pub objects: Arc<dyn OutputObjects>,
    /// Removing what is old.
    pub retention: Arc<dyn Retention>,
    /// Drained providers.
    pub drains: Arc<dyn ProviderDrains>,
    /// Input.
    pub input: Arc<dyn InputStore>,
    /// Events.
    pub events: Arc<dyn EventBus>,
    /// Tokens.
    pub tokens: Arc<dyn TokenStore>,
    /// Sealed values.
    pub sealed: Arc<dyn SealedStore>,
    /// The store's clock.
    pub clock: Arc<ManualClock>,
    keep: Option<Box<dyn Any>>,
}

impl Fixture {
    /// The ports of `store`, which must be empty and read `clock`.
    pub fn new<S>(store: S, clock: Arc<ManualClock>) -> Self
    where
        S: JobRepository
            + WorkerRegistry
            + OutputStore
            + InputStore
            + ProviderDrains
            + Retention
            + EventBus
            + TokenStore
            + SealedStore,
    {
        let store = Arc::new(store);
        Self {
            jobs: store.clone(),
            workers: store.clone(),
            output: store.clone(),
            objects: Arc::new(MemoryObjects::default()),
            retention: store.clone(),
            drains: store.clone(),
            input: store.clone(),
            events: store.clone(),
            tokens: store.clone(),
            sealed: store,
            clock,
            keep: None,
        }
    }

    /// Takes these objects.
    pub fn with_objects(mut self, objects: impl OutputObjects) -> Self {
        self.objects = Arc::new(objects);
        self
    }

    /// Drops `thing`, such as a temporary folder, after the store.
    pub fn keeping(mut self, thing: impl Any) -> Self {
        self.keep = Some(Box::new(thing));
        self
    }
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture")
            .field("clock", &self.clock)
            .field("keeps", &self.keep.is_some())
            .finish()
    }
}

/// Makes a test of each rule of the contract. The argument is a path to a function that returns a [`Fixture`] with
/// a store of its own.
#[macro_export]
macro_rules! store_contract {
    ($fixture:path) => {
        $crate::store_contract! { $fixture:
            queueing a_job_runs_to_its_end what_is_held queue_counts provider_drains
            claims_are_guarded concurrent_claims never_started_claims failed_provisions cancels
            claimable_order_and_bounds claimable_rotation
            what_a_worker_says lost_attempts finish_waits_for_output
            output_appends output_reads output_after_the_end
            output_blocks output_tails output_objects output_limit much_output cut_output
            expired_output expired_jobs expired_submissions retention_loop left_objects
            input_parts input_is_replayed input_of_a_repeated_job
            list_filters list_pages events
            life_of_a_worker sessions draining gone_and_revoked
            redemptions concurrent_redemptions renewals stolen_renewals
            tokens sealed_values
        }
    };
    ($fixture:path: $($rule:ident)*) => {
        $(
            #[tokio::test]
            async fn $rule() {
                $crate::testing::contract::$rule($fixture()).await;
            }
        )*
    };
}

/// Makes a test of each rule of [`OutputObjects`](crate::ports::objects::OutputObjects). The argument is a path to a
/// function that returns an empty place, and what to keep until the end of the test.
#[macro_export]
macro_rules! objects_contract {
    ($place:path) => {
        #[tokio::test]
        async fn objects_are_kept() {
            let (place, _keep) = $place();
            $crate::testing::contract::objects_are_kept(&place).await;
        }

        #[tokio::test]
        async fn objects_are_listed() {
            let (place, _keep) = $place();
            $crate::testing::contract::objects_are_listed(&place).await;
        }
    };
}
