//! Jobs: what is asked for ([`spec`]), what the planner may see of it ([`shape`]), how often it is repeated
//! ([`retry`]) and what can happen to it ([`state`]).

pub mod retry;
pub mod shape;
pub mod spec;
pub mod state;
