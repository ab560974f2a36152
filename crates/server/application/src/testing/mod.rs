//! What tests of this and other crates share: a clock that is turned by hand, randomness from a seed, an in-memory
//! store that is stricter than the real ones, and the contract that every store has to keep.
//!
//! Only with the feature `testing`; never in a released binary.

pub mod clock;
pub mod contract;
pub mod fake;
pub mod objects;
pub mod rng;
