//! Whole-system checks that belong to no single crate: the simulation, and what its tests share.
#![forbid(unsafe_code)]

pub mod sim;
