//! `hodei-server`: the server alone, for images and services.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;

use clap::Parser;
use hodei_server_bin::settings::{Flags, Mode, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs a Hodei server.
#[derive(Parser)]
#[command(name = "hodei-server", version)]
struct Arguments {
    /// Configuration [env: HODEI_CONFIG; default: hodei.toml in the data folder]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything is kept [env: HODEI_DATA_DIR]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Address for clients; port 0 takes a free one [default: 127.0.0.1:7420]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Address for workers; port 0 takes a free one [default: 127.0.0.1:7421]
    #[arg(long, value_name = "IP:PORT")]
    worker_listen: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments {
        config,
        data_dir,
        listen,
        worker_listen,
    } = Arguments::parse();
    let flags = Flags {
        config,
        data_dir,
        listen,
        worker_listen,
    };
    let settings = Settings::load(Mode::Server, &flags)?;
    hodei_server_bin::init_logging()?;
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancel = CancellationToken::new();
    let say = |ready: hodei_server_bin::Ready| {
        // A supervisor that closed standard error does not want to know.
        let _ = writeln!(std::io::stderr(), "ready {}", ready.address);
    };
    let server = hodei_server_bin::run(settings, say, cancel.clone());
    tokio::pin!(server);
    loop {
        tokio::select! {
            biased;
            ended = &mut server => return ended,
            _ = term.recv() => cancel.cancel(),
            _ = int.recv() => cancel.cancel(),
        }
    }
}
