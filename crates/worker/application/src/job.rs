//! One attempt's process: starts it, reads its output into the log, and tells its end.
//!
//! Invariants: the end of the process is told at once, so that its slot is free; the end of the output is told after
//! it, exactly once; a pipe that stays open and silent after the process is given up on after [`STUCK_PIPE`].

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hodei_shared::ports::Clock;
use hodei_worker_domain::assignment::Assignment;
use hodei_worker_domain::attempt::ProcessEnd;
use tokio::sync::mpsc;

use crate::input::feed;
use crate::output::{Log, Outputs};
use crate::ports::{Connector, Executor, Process};
use crate::worker::Event;

const STUCK_PIPE: Duration = Duration::from_secs(5);

/// What a job's task needs.
pub(crate) struct Job {
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) outputs: Arc<Outputs>,
    pub(crate) log: Arc<Log>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: mpsc::Sender<Event>,
}

impl Job {
    /// Runs the process to its end. Dropped: the process is left to the executor.
    pub(crate) async fn run(self) {
        match self.executor.start(Arc::clone(&self.assignment)).await {
            Ok(process) => {
                self.tell(Event::Spawned {
                    key: self.assignment.key,
                    control: Arc::clone(&process.control),
                    at: self.clock.monotonic(),
                    at_ms: self.clock.now_ms(),
                })
                .await;
                self.follow(process).await;
            }
            Err(failure) if failure.worker_is_broken => {
                let (key, message) = (self.assignment.key, failure.message);
                self.tell(Event::Unstartable { key, message }).await;
            }
            Err(failure) => {
                let end = ProcessEnd::StartFailed {
                    exit_code: failure.exit_code,
                    message: failure.message,
                };
                self.exited(end, false).await;
            }
        }
        let output_end = self.outputs.close(&self.log);
        self.tell(Event::Drained {
            key: self.assignment.key,
            output_end,
        })
        .await;
    }

    async fn follow(&self, process: Process) {
        let Process {
            mut output,
            input,
            mut exit,
            control,
        } = process;
        let feeding = async {
            if let Some(sink) = input {
                feed(&*self.connector, &*self.clock, self.assignment.key, sink).await;
            }
        };
        let mut feeding = pin!(feeding);
        let mut fed = false;
        let (mut exited, mut open) = (false, true);
        let mut give_up = Duration::MAX;
        while open || !exited {
            let full = open && self.log.is_full();
            tokio::select! {
                biased;
                end = &mut exit, if !exited => {
                    exited = true;
                    give_up = self.clock.monotonic() + STUCK_PIPE;
                    self.exited(end, control.ended_by_itself()).await;
                }
                () = &mut feeding, if !fed && !exited => fed = true,
                () = self.log.room(), if full => {}
                chunk = output.read(), if open && !full => match chunk {
                    Some(chunk) => {
                        self.outputs.append(&self.log, chunk).await;
                        if exited {
                            give_up = self.clock.monotonic() + STUCK_PIPE;
                        }
                    }
                    None => open = false,
                },
                () = self.clock.sleep_until(give_up), if exited && open && !full => {
                    tracing::warn!(attempt = %self.assignment.key, "a pipe stayed open after the process");
                    open = false;
                }
            }
        }
    }

    async fn exited(&self, end: ProcessEnd, by_itself: bool) {
        self.tell(Event::Exited {
            key: self.assignment.key,
            end,
            by_itself,
            at_ms: self.clock.now_ms(),
        })
        .await;
    }

    async fn tell(&self, event: Event) {
        // Fails only when the worker is gone, and then nobody has to know.
        let _gone = self.events.send(event).await;
    }
}
