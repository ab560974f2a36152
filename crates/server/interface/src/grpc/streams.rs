//! Streams of answers. They are pulled by the transport as the reader takes them: a slow reader holds up nobody
//! but itself, and one that has gone drops the stream with all that it holds.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use hodei_server_application::platform::Platform;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Status};

use super::errors::plain;

/// The answers of a streaming method.
pub(crate) type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// What is said to open streams when the server stops.
pub(crate) fn stopping() -> Status {
    plain(Code::Unavailable, "unavailable", "the server is stopping")
}

/// The life of one stream: it ends when the server closes, when somebody ends it, or when the answers are dropped.
#[derive(Clone)]
pub(crate) struct Life {
    token: CancellationToken,
    last: Arc<OnceLock<Status>>,
}

impl Life {
    /// A life that ends with `closing` at the latest.
    pub(crate) fn new(closing: &CancellationToken) -> Self {
        Self {
            token: closing.child_token(),
            last: Arc::default(),
        }
    }

    /// Ends it with `status` as the last answer, unless it has ended.
    pub(crate) fn end(&self, status: Status) {
        let _ = self.last.set(status);
        self.token.cancel();
    }

    /// Waits for its end.
    pub(crate) async fn over(&self) {
        self.token.cancelled().await;
    }

    fn last(&self) -> Status {
        self.last.get().cloned().unwrap_or_else(stopping)
    }
}

/// Ends a life when the answers are dropped, so that what works for them ends too.
struct Answering<T> {
    answers: Answers<T>,
    life: Life,
    _ends: DropGuard,
}

/// Ends `answers` with `life`, and `life` with `answers`.
pub(crate) fn ending<T: Send + 'static>(
    answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
    life: Life,
) -> Answers<T> {
    let start = Answering {
        answers: answers.boxed(),
        _ends: life.token.clone().drop_guard(),
        life,
    };
    let next = |state: Option<Answering<T>>| async move {
        let mut state = state?;
        tokio::select! {
            biased;
            () = state.life.over() => Some((Err(state.life.last()), None)),
            answer = state.answers.next() => match answer? {
                Ok(answer) => Some((Ok(answer), Some(state))),
                Err(status) => Some((Err(status), None)),
            },
        }
    };
    stream::unfold(Some(start), next).boxed()
}

/// Ends at this wall time. The clock may be set meanwhile, so it is looked at now and then.
pub(crate) async fn wall_time(platform: &Platform, at_ms: i64) {
    const LOOK_AGAIN: Duration = Duration::from_secs(1);
    loop {
        let left_ms = at_ms.saturating_sub(platform.clock.now_ms());
        let Ok(left_ms @ 1..) = u64::try_from(left_ms) else {
            return;
        };
        platform
            .clock
            .sleep(Duration::from_millis(left_ms).min(LOOK_AGAIN))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_ends_after_an_error_and_ends_its_life() {
        let life = Life::new(&CancellationToken::new());
        let numbers = stream::iter([Ok(1), Err(Status::internal("broken")), Ok(2)]);
        let got: Vec<_> = ending(numbers, life.clone()).collect().await;
        assert_eq!(got.len(), 2);
        life.over().await;
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_life_and_says_why() {
        let closing = CancellationToken::new();
        for (end, code) in [
            (Some(Status::invalid_argument("nonsense")), Code::InvalidArgument),
            (None, Code::Unavailable),
        ] {
            let life = Life::new(&closing);
            let endless = stream::iter([Ok(1)]).chain(stream::pending::<Result<i32, Status>>());
            let mut answers = ending(endless, life.clone());
            assert!(matches!(answers.next().await, Some(Ok(1))));
            match end {
                Some(status) => life.end(status),
                None => closing.cancel(),
            }
            let last = answers.next().await.expect("a last word").expect_err("a status");
            assert_eq!(last.code(), code);
            assert!(answers.next().await.is_none());
        }
    }
}
