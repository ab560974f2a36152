//! The wire contract of Hodei Jobs: the generated gRPC code, the JSON that people see, TLS set-up and limits.
#![forbid(unsafe_code)]

pub mod bootstrap;
pub mod transport;
pub mod view;

/// The generated messages, clients and servers of `hodei.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod v1 {
    tonic::include_proto!("hodei.v1");
}

/// The encoded `FileDescriptorSet` of `hodei.v1`, for reflection and for tests that walk all methods.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
