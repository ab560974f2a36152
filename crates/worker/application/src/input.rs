//! One attempt's standard input: pulled from the server by position, so that a broken session costs no byte.

use std::time::Duration;

use hodei_shared::ids::AttemptKey;
use hodei_shared::ports::Clock;

use crate::ports::{Connector, Input, InputSink};

/// How long to wait when there is nothing to be had.
const AGAIN: Duration = Duration::from_millis(200);

/// Feeds a process until its input ends, it reads no more, or the attempt is over. Dropped: the process sees the end
/// of its input.
pub(crate) async fn feed(
    connector: &dyn Connector,
    clock: &dyn Clock,
    key: AttemptKey,
    mut sink: Box<dyn InputSink>,
) {
    let mut offset = 0;
    loop {
        match connector.read_input(key, offset).await {
            Ok(Input::More(bytes)) if bytes.is_empty() => clock.sleep(AGAIN).await,
            Ok(Input::More(bytes)) => {
                if !sink.write(&bytes).await {
                    return;
                }
                offset += bytes.len() as u64;
            }
            Ok(Input::Last(bytes)) => {
                sink.write(&bytes).await;
                return;
            }
            Ok(Input::Stale) => return,
            Err(error) => {
                tracing::debug!(attempt = %key, %error, "no input now");
                clock.sleep(AGAIN).await;
            }
        }
    }
}
