//! The server on its real parts: both doors over real connections, the real store, the real authority.
#![forbid(unsafe_code)]

mod client_door;
mod modes;
mod strangers;
mod worker_door;
mod world;
