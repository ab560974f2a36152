//! The server's application: use cases, the controllers' loops and the ports they need.
//!
//! Invariants: time, tasks and randomness only through ports · every loop takes no input, re-reads state and is
//! idempotent · every use case takes a principal · bounded channels only, no lock across an await.
#![forbid(unsafe_code)]

pub mod access;
pub mod control;
pub mod input;
pub mod jobs;
pub mod output;
pub mod platform;
pub mod ports;
pub mod refused;
pub mod scheduler;
pub mod session;
mod sessions;
#[cfg(feature = "testing")]
pub mod testing;
pub mod workers;
