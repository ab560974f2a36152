//! The whole system on this machine: the real server, real workers, real jobs; clients speak gRPC with the admin's
//! token.
//!
//! Every test has a data folder of its own and waits for conditions. What a failing test leaves is killed.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr)]

mod arguments;
mod cancel;
mod client;
mod doors;
mod drain;
mod ends;
mod input;
mod output;
mod platform;
mod processes;
mod requests;
mod server_lost;
mod shutdown;
mod worker_lost;
