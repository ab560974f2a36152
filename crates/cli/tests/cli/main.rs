//! The built `hodei`, driven as a person or a script drives it, against a platform of its own in a folder of its own.

mod files;
mod input;
mod jobs;
mod local;
mod logs;
mod scripts;
mod settings;
mod waits;
mod world;
