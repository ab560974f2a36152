//! The running worker over its ports: session, jobs, output, deadlines.
//!
//! Invariants: the outside is reached only through [`ports`] and the shared clock, spawner and randomness; every
//! decision about attempts and sessions is the domain's; what is not acknowledged is kept and sent again. There is no
//! global state, so any number of workers run in one process.
#![forbid(unsafe_code)]

pub mod ports;
pub mod spool;
pub mod worker;

mod dial;
mod input;
mod job;
mod link;
mod output;

#[cfg(test)]
mod tests;
