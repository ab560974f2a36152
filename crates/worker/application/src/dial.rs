//! Which server to try next, and how long to wait before the next round.

use std::future::Future;
use std::time::Duration;

use hodei_shared::ports::{Clock, Rng};

use crate::ports::{DialError, Endpoint};

/// How long one call of one server may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Waits that double from 50 ms to 2 s, each shortened by up to a half at random.
#[derive(Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    pub(crate) fn reset(&mut self) {
        self.0 = 0;
    }

    pub(crate) fn next(&mut self, rng: &dyn Rng) -> Duration {
        let full = (FIRST_WAIT * 2u32.pow(self.0.min(10))).min(LONGEST_WAIT);
        self.0 += 1;
        let half = full / 2;
        half + Duration::from_micros(rng.below(half.as_micros() as u64 + 1))
    }
}

/// The servers that are known: the socket is tried first, then the addresses from a random one on.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    socket: Option<String>,
    addresses: Vec<String>,
}

impl Servers {
    pub(crate) fn new(socket: Option<String>, addresses: Vec<String>) -> Self {
        Self { socket, addresses }
    }

    /// Replaces the list; an empty one is ignored, since it could never be corrected.
    pub(crate) fn update(&mut self, addresses: Vec<String>) {
        if !addresses.is_empty() {
            self.addresses = addresses;
        }
    }

    pub(crate) fn in_order(&self, rng: &dyn Rng) -> Vec<Endpoint> {
        let first = rng.below(self.addresses.len() as u64) as usize;
        let (before, after) = self.addresses.split_at(first.min(self.addresses.len()));
        let sockets = self.socket.iter().cloned().map(Endpoint::Socket);
        let addresses = after.iter().chain(before).cloned().map(Endpoint::Address);
        sockets.chain(addresses).collect()
    }
}

/// Calls one server after the other until one answers; a refusal counts as an answer.
pub(crate) async fn first_answer<T, F, Fut>(
    clock: &dyn Clock,
    endpoints: Vec<Endpoint>,
    call: F,
) -> Result<T, DialError>
where
    F: Fn(Endpoint) -> Fut,
    Fut: Future<Output = Result<T, DialError>>,
{
    let mut last = DialError::Unavailable("no server is known".to_owned());
    for endpoint in endpoints {
        let outcome = tokio::select! {
            biased;
            outcome = call(endpoint) => outcome,
            () = clock.sleep(CALL_LIMIT) => Err(DialError::Unavailable("the server did not answer in time".to_owned())),
        };
        match outcome {
            Err(DialError::Unavailable(message)) => last = DialError::Unavailable(message),
            decided => return decided,
        }
    }
    Err(last)
}
