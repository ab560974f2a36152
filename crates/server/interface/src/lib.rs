//! The doors of the server: where calls come in, who calls, and how they are answered.
//!
//! There are two doors, and no method is on both: the client door (tokens) and the worker door (mutual TLS).
//! Invariants: nothing but what the table of all methods names is served, and only after its access rule held
//! ([`auth`]) · identities come from tokens and certificates, never from messages · wire messages become domain
//! types in [`grpc::convert`] alone, once · no connection can hold up another, and no reader the store
//! ([`listener`]) · whoever has shown no credential takes no room from those who have (`room`).
#![forbid(unsafe_code)]

pub mod auth;
pub mod door;
pub mod grpc;
pub mod listener;
pub mod peer;
mod room;
