//! The tasks of one open link: they move frames between it and the worker's loop until it breaks or is closed.

use std::sync::Arc;

use hodei_shared::ports::{Clock, Spawner};
use hodei_worker_domain::frame::WorkerFrame;
use hodei_worker_domain::session::StreamId;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::output::Outputs;
use crate::ports::{DialError, Incoming, Link, Outgoing};
use crate::worker::Event;

/// Frames that may wait for the stream; a server that reads none of them is as good as gone.
const WAITING_FRAMES: usize = 4096;

/// A link whose tasks run. Dropped: they end.
pub(crate) struct OpenLink {
    pub(crate) stream: StreamId,
    frames: mpsc::Sender<WorkerFrame>,
    /// Fails once the server has ended the stream, or it broke.
    ended: Option<oneshot::Receiver<()>>,
    output: Option<(OutputOut, OutputIn)>,
    closed: CancellationToken,
}

type OutputOut = Box<dyn Outgoing<hodei_worker_domain::frame::OutputBatch>>;
type OutputIn = Box<dyn Incoming<hodei_worker_domain::frame::OutputAnswer>>;

impl Drop for OpenLink {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl OpenLink {
    /// Starts reading and writing frames; output waits for [`OpenLink::start_output`].
    pub(crate) fn open(
        link: Link,
        stream: StreamId,
        spawner: &dyn Spawner,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let closed = CancellationToken::new();
        let (frames, waiting) = mpsc::channel(WAITING_FRAMES);
        let (reading, ended) = oneshot::channel();
        let reporter = Reporter {
            stream,
            events,
            closed: closed.clone(),
        };
        spawner.spawn(
            "frames in",
            Box::pin(read_frames(link.frames_in, reading, reporter.clone())),
        );
        spawner.spawn(
            "frames out",
            Box::pin(write_frames(link.frames_out, waiting, reporter)),
        );
        Self {
            stream,
            frames,
            ended: Some(ended),
            output: Some((link.output_out, link.output_in)),
            closed,
        }
    }

    /// Hands a frame to the stream; false if the server does not read.
    pub(crate) fn send(&self, frame: WorkerFrame) -> bool {
        self.frames.try_send(frame).is_ok()
    }

    /// Starts sending output. Once per link.
    pub(crate) fn start_output(
        &mut self,
        outputs: &Arc<Outputs>,
        clock: &Arc<dyn Clock>,
        spawner: &dyn Spawner,
        events: mpsc::Sender<Event>,
    ) {
        let Some((out, answers)) = self.output.take() else {
            return;
        };
        outputs.restart();
        let reporter = Reporter {
            stream: self.stream,
            events,
            closed: self.closed.clone(),
        };
        spawner.spawn(
            "output answers",
            Box::pin(read_answers(answers, Arc::clone(outputs), reporter.clone())),
        );
        let sending = send_output(out, Arc::clone(outputs), Arc::clone(clock), reporter);
        spawner.spawn("output", Box::pin(sending));
    }

    /// Closes the stream after its last frame; ends when the server has ended its side too, so the frame has arrived.
    pub(crate) async fn finish(mut self) {
        let (unused, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.frames, unused));
        if let Some(ended) = self.ended.take() {
            // Always fails: nothing is ever sent.
            let _dropped = ended.await;
        }
    }
}

#[derive(Clone)]
struct Reporter {
    stream: StreamId,
    events: mpsc::Sender<Event>,
    closed: CancellationToken,
}

impl Reporter {
    async fn lost(&self, error: DialError) {
        if !self.closed.is_cancelled() {
            let stream = self.stream;
            // Fails only when the worker is gone.
            let _gone = self.events.send(Event::LinkLost { stream, error }).await;
        }
    }
}

fn ended() -> DialError {
    DialError::Unavailable("the server ended the stream".to_owned())
}

async fn read_frames(
    mut frames: Box<dyn Incoming<hodei_worker_domain::frame::ServerFrame>>,
    _reading: oneshot::Sender<()>,
    reporter: Reporter,
) {
    loop {
        let frame = tokio::select! {
            biased;
            () = reporter.closed.cancelled() => return,
            frame = frames.recv() => frame,
        };
        match frame {
            Ok(Some(frame)) => {
                let stream = reporter.stream;
                if reporter
                    .events
                    .send(Event::Frame { stream, frame })
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Ok(None) => return reporter.lost(ended()).await,
            Err(error) => return reporter.lost(error).await,
        }
    }
}

async fn write_frames(
    mut frames: Box<dyn Outgoing<WorkerFrame>>,
    mut waiting: mpsc::Receiver<WorkerFrame>,
    reporter: Reporter,
) {
    while let Some(frame) = waiting.recv().await {
        let sent = tokio::select! {
            biased;
            () = reporter.closed.cancelled() => return,
            sent = frames.send(frame) => sent,
        };
        if let Err(error) = sent {
            return reporter.lost(error).await;
        }
    }
}

async fn read_answers(mut answers: OutputIn, outputs: Arc<Outputs>, reporter: Reporter) {
    loop {
        let answer = tokio::select! {
            biased;
            () = reporter.closed.cancelled() => return,
            answer = answers.recv() => answer,
        };
        match answer {
            Ok(Some(answer)) => outputs.on_answer(answer).await,
            Ok(None) => return reporter.lost(ended()).await,
            Err(error) => return reporter.lost(error).await,
        }
    }
}

async fn send_output(mut out: OutputOut, outputs: Arc<Outputs>, clock: Arc<dyn Clock>, reporter: Reporter) {
    loop {
        let (batches, next) = outputs.due().await;
        let idle = batches.is_empty();
        for batch in batches {
            let sent = tokio::select! {
                biased;
                () = reporter.closed.cancelled() => return,
                sent = out.send(batch) => sent,
            };
            if let Err(error) = sent {
                return reporter.lost(error).await;
            }
        }
        if !idle {
            continue;
        }
        let later = async {
            match next {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = reporter.closed.cancelled() => return,
            () = outputs.changed() => {}
            () = later => {}
        }
    }
}
