//! The server and the worker of this build in one program, for the whole-system tests.
//!
//! `node server FOLDER CERTIFICATE_LIFE` is `dev` on free ports with everything in FOLDER, and with worker
//! certificates that live as many seconds as no user can ask for; `node --folder FOLDER` is the worker that its process
//! provider starts. TERM ends the server in order, and so does the end of standard input: a test that is killed leaves
//! no server behind.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr)]

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hodei_server_bin::settings::{Flags, Mode, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(|word| word.to_str()).collect();
    let ended = match words[..] {
        // No thread may exist yet.
        [Some("--folder"), _] => return hodei_worker_bin::run(Path::new(&arguments[1])),
        [Some("server"), _, Some(life)] => serve(PathBuf::from(&arguments[1]), life),
        _ => Err(anyhow::anyhow!(
            "node server FOLDER SECONDS | node --folder FOLDER"
        )),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(folder: PathBuf, life: &str) -> Result<()> {
    let life: u64 = life.parse().context("not a number of seconds")?;
    if life == 0 {
        bail!("a certificate lives for a second at least");
    }
    let flags = Flags {
        config: None,
        data_dir: Some(folder),
        listen: Some("127.0.0.1:0".to_owned()),
        worker_listen: Some("127.0.0.1:0".to_owned()),
    };
    let mut settings = Settings::load(Mode::Dev, &flags)?;
    settings.worker_certificate_life = Duration::from_secs(life);
    settings.worker_binary = Some(std::env::current_exe().context("can not tell which program this is")?);
    hodei_server_bin::init_logging().expect("HODEI_LOG is a filter");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let cancel = CancellationToken::new();
        let (told, left) = (cancel.clone(), cancel.clone());
        tokio::spawn(async move {
            term.recv().await;
            told.cancel();
        });
        std::thread::spawn(move || {
            // An error is an end as well.
            let _ended = io::copy(&mut io::stdin(), &mut io::sink());
            left.cancel();
        });
        hodei_server_bin::run(settings, |ready| eprintln!("ready {}", ready.address), cancel).await
    });
    runtime.shutdown_background();
    ended
}
