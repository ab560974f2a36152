//! The worker's own rules: what becomes of an attempt that it holds, and what its session with the server may do.
//!
//! Invariants: everything here is synchronous and pure. Time comes in as a monotonic [`std::time::Duration`] or as
//! wall milliseconds; nothing is started, sent or written. Each event answers with [`ledger::Effect`]s that the
//! application performs, or with a typed refusal.
#![forbid(unsafe_code)]

pub mod assignment;
pub mod attempt;
pub mod frame;
pub mod lease;
pub mod ledger;
pub mod session;
