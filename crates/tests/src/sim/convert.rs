//! Frames from one side's types into the other's, by the production code of both sides and the wire's messages.

use hodei_jobs::v1;
use hodei_server_application::input::Pulled;
use hodei_server_application::output::Ingested;
use hodei_server_application::ports::link as server;
use hodei_server_interface::grpc::convert::frames;
use hodei_shared::ids::AttemptKey;
use hodei_shared::offsets::Piece;
use hodei_worker_application::ports::Input;
use hodei_worker_domain::frame as worker;
use hodei_worker_infrastructure::link::convert as wire;

/// What the server hears.
pub(super) fn to_server(frame: worker::WorkerFrame) -> server::FromWorker {
    frames::from_worker(wire::worker_frame(frame)).expect("the server understands its workers")
}

/// What the worker hears.
pub(super) fn to_worker(frame: server::ToWorker) -> worker::ServerFrame {
    wire::server_frame(frames::to_worker(frame)).expect("a worker understands its server")
}

/// A batch of output as the server takes it.
pub(super) fn output_batch(batch: worker::OutputBatch) -> (AttemptKey, Piece) {
    frames::output_batch(wire::output_batch(batch)).expect("the server understands its workers' output")
}

/// The answer to a batch that began at `start`; `None` if the batch was an offence.
pub(super) fn output_answer(key: AttemptKey, ingested: Ingested, start: u64) -> Option<worker::OutputAnswer> {
    let answer: v1::OutputAnswer = frames::output_answer(key, ingested, start)?;
    wire::output_answer(answer)
}

/// A part of an attempt's input as the worker takes it.
pub(super) fn input(pulled: Pulled) -> Input {
    wire::input(frames::input_answer(pulled)).expect("a worker understands its server")
}
