//! `hodei dev` and `hodei server`: run the server until SIGTERM or Ctrl-C; the second signal ends at once.

use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use crate::args::machines::{ServeArgs, ServerArgs};
use crate::environment::Environment;
use crate::output::{note, print_text};
use crate::platform::{self, Flags, Mode, Ready};
use crate::signals::{Interrupt, Interrupts};

/// `hodei dev`.
///
/// # Errors
/// If the settings are wrong, or the server can not start or ends badly.
pub(crate) async fn dev(args: ServeArgs, environment: &Environment) -> Result<u8> {
    serve(Mode::Dev, &args, environment).await
}

/// `hodei server`.
///
/// # Errors
/// As [`dev`].
pub(crate) async fn server(args: ServerArgs, environment: &Environment) -> Result<u8> {
    if args.print_config {
        let mut text = platform::settings(Mode::Server, &flags(&args.serve))?.print();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        print_text(&text)?;
        return Ok(0);
    }
    serve(Mode::Server, &args.serve, environment).await
}

fn flags(args: &ServeArgs) -> Flags {
    Flags {
        config: args.config.clone(),
        data_dir: args.data_dir.clone(),
        listen: args.listen.clone(),
        worker_listen: args.worker_listen.clone(),
    }
}

async fn serve(mode: Mode, args: &ServeArgs, environment: &Environment) -> Result<u8> {
    let settings = platform::settings(mode, &flags(args))?;
    platform::init_logging()?;
    let mut signals = Interrupts::listen()?;
    let cancel = CancellationToken::new();
    let prefix = args
        .data_dir
        .as_deref()
        .filter(|folder| *folder != environment.data_dir)
        .map(|folder| format!("HODEI_DATA_DIR={} ", folder.display()))
        .unwrap_or_default();
    let server = platform::serve(
        settings,
        move |ready| say_ready(mode, &ready, &prefix),
        cancel.clone(),
    );
    tokio::pin!(server);
    loop {
        tokio::select! {
            biased;
            ended = &mut server => return ended.map(|()| 0),
            signal = signals.next() => match (signal, cancel.is_cancelled()) {
                // Without a terminal a server goes on.
                (Interrupt::HangUp, _) => {}
                (_, false) => {
                    note("ending; once more to end at once");
                    cancel.cancel();
                }
                (signal, true) => return Ok(signal.status()),
            },
        }
    }
}

fn say_ready(mode: Mode, ready: &Ready, prefix: &str) {
    let mut stderr = std::io::stderr().lock();
    // A supervisor that closed stderr does not want to know.
    drop(writeln!(stderr, "ready {}", ready.address));
    if mode == Mode::Dev {
        drop(writeln!(
            stderr,
            "Try it in another terminal: {prefix}hodei run -- echo hello\n(Ctrl-C ends the platform; its data is in {})",
            ready
                .socket
                .ancestors()
                .nth(2)
                .unwrap_or(Path::new("."))
                .display()
        ));
    }
}
