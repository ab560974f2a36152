//! The worker's adapters: processes and their sandbox, the gRPC link, time, randomness and spools.
//!
//! Invariants: the only unsafe code of the project is in [`executor::spawn`] and its files; nothing here decides what
//! becomes of an attempt; keys and certificates stay in memory.

pub mod bootstrap;
pub mod cgroup;
pub mod cover;
pub mod descriptors;
pub mod executor;
pub mod folder;
pub mod link;
pub mod spool;
pub mod system;
