//! Providers of machines. Each creates, describes, lists and destroys labelled machines that start a worker, and
//! knows nothing of jobs.

pub mod process;
