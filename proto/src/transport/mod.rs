//! What both ends of a connection must agree on: limits and names.

/// The largest job spec, in bytes of its encoded message.
pub const MAX_SPEC_BYTES: usize = 1 << 20;
/// The largest message on the client address.
pub const MAX_CLIENT_MESSAGE_BYTES: usize = 4 << 20;
/// The largest message of a worker's session and output stream.
pub const MAX_WORKER_MESSAGE_BYTES: usize = 4 << 20;
/// The largest RegisterWorker request.
pub const MAX_REGISTER_BYTES: usize = 16 << 10;
/// The most bytes of output in one batch.
pub const MAX_OUTPUT_BATCH_BYTES: usize = 512 << 10;
