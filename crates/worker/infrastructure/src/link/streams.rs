//! The halves of a bidirectional call as the application sees them.

use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;
use hodei_worker_application::ports::{DialError, Incoming, Outgoing};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::convert;

/// Messages between the application and the transport. Small: what waits here is neither sent nor kept.
const WAITING: usize = 4;

/// The requests of a call.
pub(super) struct Sending<T, M> {
    messages: mpsc::Sender<M>,
    convert: fn(T) -> M,
}

impl<T, M: Send + 'static> Sending<T, M> {
    /// The sending half and the stream for the call, which begins with `first`.
    pub(super) fn new(convert: fn(T) -> M, first: Option<M>) -> (Self, ReceiverStream<M>) {
        let (messages, requests) = mpsc::channel(WAITING);
        if let Some(first) = first {
            // The channel is new and has room.
            let _fits = messages.try_send(first);
        }
        (Self { messages, convert }, ReceiverStream::new(requests))
    }
}

#[async_trait]
impl<T: Send + 'static, M: Send + 'static> Outgoing<T> for Sending<T, M> {
    async fn send(&mut self, item: T) -> Result<(), DialError> {
        let sent = self.messages.send((self.convert)(item)).await;
        sent.map_err(|_| DialError::Unavailable("the stream is closed".to_owned()))
    }
}

type Answer<M> = Result<Response<Streaming<M>>, Status>;

enum Call<M> {
    /// The server may answer only after the first request.
    Pending(Pin<Box<dyn Future<Output = Answer<M>> + Send>>),
    Open(Box<Streaming<M>>),
}

/// The answers of a call.
pub(super) struct Receiving<T, M> {
    call: Call<M>,
    convert: fn(M) -> Option<T>,
}

impl<T, M> Receiving<T, M> {
    /// Answers of `call`; those that `convert` does not understand are passed over.
    pub(super) fn new(
        call: Pin<Box<dyn Future<Output = Answer<M>> + Send>>,
        convert: fn(M) -> Option<T>,
    ) -> Self {
        Self {
            call: Call::Pending(call),
            convert,
        }
    }
}

#[async_trait]
impl<T: Send + 'static, M: Send + 'static> Incoming<T> for Receiving<T, M> {
    async fn recv(&mut self) -> Result<Option<T>, DialError> {
        loop {
            match &mut self.call {
                Call::Pending(call) => match call.await {
                    Ok(answer) => self.call = Call::Open(Box::new(answer.into_inner())),
                    Err(status) => {
                        let error = convert::error(&status);
                        self.call = Call::Pending(Box::pin(async move { Err(status) }));
                        return Err(error);
                    }
                },
                Call::Open(stream) => match stream.message().await {
                    Ok(None) => return Ok(None),
                    Ok(Some(message)) => match (self.convert)(message) {
                        Some(item) => return Ok(Some(item)),
                        None => tracing::warn!("a message that is not understood was passed over"),
                    },
                    Err(status) => return Err(convert::error(&status)),
                },
            }
        }
    }
}
