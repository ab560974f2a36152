//! The rules of Hodei: what a job, a worker and a provider may do, who may ask for it, and what is decided next.
//!
//! Invariant: everything here is synchronous and pure. There is no run time, no database, no clock and no
//! randomness; `now_ms` and ids are passed in. Transitions return a value or a typed refusal and never panic.
#![forbid(unsafe_code)]

pub mod access;
pub mod event;
pub mod job;
pub mod provider;
pub mod scheduling;
pub mod worker;
