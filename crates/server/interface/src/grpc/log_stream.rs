//! LogStreamService: reads output, stored and live.

use std::sync::Arc;

use futures::stream;
use hodei_jobs::v1;
use hodei_jobs::v1::log_stream_service_server::LogStreamService;
use hodei_jobs::v1::read_output_response::Event;
use hodei_server_application::output::{self, Read, Reader};
use hodei_server_application::platform::Platform;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::convert::{self, frames};
use super::errors::status;
use super::streams::{Answers, Life, ending, stopping};
use crate::auth::principal;

pub(crate) struct LogStream {
    pub(crate) platform: Arc<Platform>,
    pub(crate) closing: CancellationToken,
}

/// Where a read stands.
enum Step {
    /// Nothing was sent.
    Opened(Reader),
    /// The attempt was named.
    Reading(Reader),
    /// The end was sent.
    Ended,
}

async fn next(step: Step) -> Option<(Result<v1::ReadOutputResponse, Status>, Step)> {
    let (event, step) = match step {
        Step::Opened(reader) => {
            let attempt = reader.attempt();
            (
                Event::Started(v1::AttemptStarted { attempt }),
                Step::Reading(reader),
            )
        }
        Step::Reading(mut reader) => match reader.next().await {
            Ok(Read::Piece(piece)) => (Event::Piece(frames::piece_message(piece)), Step::Reading(reader)),
            Ok(Read::End {
                position,
                complete,
                attempt_ended,
            }) => {
                let end = v1::OutputEnd {
                    position,
                    complete,
                    attempt_ended,
                };
                (Event::End(end), Step::Ended)
            }
            Err(refused) => return Some((Err(status(refused)), Step::Ended)),
        },
        Step::Ended => return None,
    };
    Some((Ok(v1::ReadOutputResponse { event: Some(event) }), step))
}

#[tonic::async_trait]
impl LogStreamService for LogStream {
    type ReadOutputStream = Answers<v1::ReadOutputResponse>;

    async fn read_output(
        &self,
        request: Request<v1::ReadOutputRequest>,
    ) -> Result<Response<Self::ReadOutputStream>, Status> {
        let principal = principal(&request)?;
        let v1::ReadOutputRequest {
            job_id,
            attempt,
            position,
            follow,
        } = request.into_inner();
        let id = convert::job_id(&job_id).map_err(status)?;
        let platform = Arc::clone(&self.platform);
        let opening = output::open(platform, &principal, id, attempt, position, follow);
        let reader = tokio::select! {
            biased;
            () = self.closing.cancelled() => return Err(stopping()),
            opened = opening => opened.map_err(status)?,
        };
        let answers = stream::unfold(Step::Opened(reader), next);
        Ok(Response::new(ending(answers, Life::new(&self.closing))))
    }
}
