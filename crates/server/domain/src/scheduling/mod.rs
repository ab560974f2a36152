//! What runs next and where: a pure function from a snapshot to decisions, and its explanation.
//!
//! Its cost grows with shapes × workers, never with the backlog: a shape brings its head and a bounded number
//! of jobs behind it.

pub mod explain;
pub mod plan;
pub mod snapshot;
