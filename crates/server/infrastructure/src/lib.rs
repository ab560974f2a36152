//! Adapters of the server: what its ports mean on a real machine.
#![forbid(unsafe_code)]

pub mod authority;
pub mod output_store;
pub mod providers;
pub mod sqlite;
pub mod system;
