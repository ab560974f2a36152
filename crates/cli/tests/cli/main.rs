//! The built `hodei`, driven as a person or a script drives it, against a platform of its own in a folder of its own.
#![allow(clippy::print_stderr)]

mod local;
mod settings;
mod world;
