//! Jobs: what is asked for ([`spec`]), what the planner may see of it ([`shape`]), how often it is repeated
//! ([`retry`]), what can happen to it ([`state`]) and how it ends ([`end`]).

pub mod end;
pub mod retry;
pub mod shape;
pub mod spec;
pub mod state;
