//! Builds a server from its settings, runs it, and ends it in order.
//!
//! Order of the end: no new work is planned; in `dev` and `--local` running jobs end as cancelled and their workers
//! are removed, while the doors still let workers report; then the doors drain; then the tasks end; last the store.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use hodei_server_application::control::{self, Shutdown};
use hodei_server_application::platform::{Platform, PlatformParts, PlatformSettings};
use hodei_server_application::ports::Clock as _;
use hodei_server_infrastructure::authority::LocalAuthority;
use hodei_server_infrastructure::authority::keys::ClusterKeys;
use hodei_server_infrastructure::output_store::FileObjects;
use hodei_server_infrastructure::sqlite::SqliteStore;
use hodei_server_infrastructure::system::{SystemClock, SystemRng, TaskSpawner};
use hodei_server_interface::listener::Door;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::doors::{self, Bound, USEFUL_DESCRIPTORS};
use crate::folder::{DataFolder, write_private};
use crate::providers::{self, Bootstrap};
use crate::settings::{Mode, Settings};
use crate::{Ready, first_token, harden};

/// How long running jobs get to end as they are asked to, the default grace and a little.
const JOBS_END: Duration = Duration::from_secs(15);
/// How long tasks get to end after that.
const TASKS_END: Duration = Duration::from_secs(5);

/// How a server is told to end.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// End in order.
    pub end: CancellationToken,
    /// Jobs that must end get no more time for it.
    pub hurry: CancellationToken,
}

impl From<CancellationToken> for Stop {
    fn from(end: CancellationToken) -> Self {
        Self {
            end,
            ..Self::default()
        }
    }
}

/// Runs a server until `stop`, then ends it in order. `ready` is called once when it serves.
///
/// # Errors
/// What could not be used, and what to do; nothing of a server that did not start is left.
pub async fn run(settings: Settings, ready: impl FnOnce(Ready), stop: impl Into<Stop>) -> Result<()> {
    let stop = stop.into();
    harden::protect_memory();
    let (folder, left) = match settings.mode {
        Mode::Dev | Mode::Server => (DataFolder::take(&settings.data_dir)?, Vec::new()),
        Mode::Local => DataFolder::take_local(&settings.data_dir)?,
    };
    let settings = match settings.mode {
        Mode::Dev | Mode::Server => settings,
        Mode::Local => settings.within(folder.path()),
    };
    let cleaning = tokio::spawn(clean(left));
    let ended = serve(&settings, &folder, ready, &stop).await;
    if settings.mode == Mode::Local {
        // What others left is removed, or at least said; but it never decides how this server ended.
        let _ = cleaning.await;
        let removed = folder.remove();
        return ended.and(removed);
    }
    ended
}

async fn clean(left: Vec<DataFolder>) {
    for folder in left {
        let path = folder.path().to_owned();
        if let Err(error) = providers::clean_left(folder).await {
            tracing::warn!(folder = %path.display(), error = %format!("{error:#}"), "a folder that was left could not be removed");
        }
    }
}

async fn serve(
    settings: &Settings,
    folder: &DataFolder,
    ready: impl FnOnce(Ready),
    stop: &Stop,
) -> Result<()> {
    let connections = doors::connections(harden::raise_descriptors(settings.mode, USEFUL_DESCRIPTORS));
    let bound = Bound::bind(settings, folder).await?;
    let spawner = TaskSpawner::default();
    let (platform, authority) = compose(settings, folder, &bound, &spawner).await?;
    first_token::keep(&settings.admin_token_file, &platform).await?;
    let said = Ready {
        address: bound.url(settings),
        socket: bound.client_socket.clone(),
        admin_token_file: settings.admin_token_file.clone(),
    };
    let closing = CancellationToken::new();
    let sockets = [bound.client_socket.clone(), bound.worker_socket.clone()];
    let mut open = JoinSet::new();
    for door in bound.open(settings, &platform, &authority, connections, &closing)? {
        open.spawn(Door::serve(door, closing.clone()));
    }
    control::start(&platform);
    if settings.providers.is_empty() {
        tracing::warn!("no provider is configured, so no job can run; add a [[provider]] to hodei.toml");
    }
    tracing::info!(address = %said.address, cluster = authority.cluster(), "serving");
    ready(said);

    let failed = tokio::select! {
        biased;
        () = stop.end.cancelled() => None,
        ended = open.join_next() => Some(match ended {
            Some(Err(error)) => anyhow!(error).context("a door failed"),
            Some(Ok(())) | None => anyhow!("a door closed by itself"),
        }),
    };
    let what = match settings.mode {
        Mode::Server => Shutdown::LeaveRunning,
        Mode::Dev | Mode::Local => Shutdown::EndAll,
    };
    control::shutdown(&platform, what, JOBS_END, stop.hurry.cancelled()).await;
    closing.cancel();
    while open.join_next().await.is_some() {}
    for socket in sockets {
        // A socket that stays is replaced at the next start.
        let _left = std::fs::remove_file(socket);
    }
    spawner.shutdown(TASKS_END).await;
    tracing::info!("ended");
    failed.map_or(Ok(()), Err)
}

async fn compose(
    settings: &Settings,
    folder: &DataFolder,
    bound: &Bound,
    spawner: &TaskSpawner,
) -> Result<(Arc<Platform>, LocalAuthority)> {
    let clock = Arc::new(SystemClock);
    let store = SqliteStore::open(&folder.path().join("hodei.db"), clock.clone())?;
    let keys = ClusterKeys::read_or_make(&settings.cluster_key_file)?;
    let life = settings.worker_certificate_life;
    let authority = LocalAuthority::open(&store, &keys, life, clock.now_ms()).await?;
    let ca_file = folder.path().join("ca.pem");
    write_private(&ca_file, authority.root_pem())?;
    let addresses = bound.advertised(settings);
    let bootstrap = Bootstrap {
        root_certificates: authority.root_pem().to_owned(),
        server_name: authority.server_name(),
        addresses: addresses.clone(),
        socket: bound.worker_socket.clone(),
    };
    let store = Arc::new(store);
    let output = folder.path().join("output");
    let objects = FileObjects::open(&output)
        .with_context(|| format!("the folder {} can not be used for output", output.display()))?;
    let platform = Platform::new(PlatformParts {
        jobs: store.clone(),
        workers: store.clone(),
        output: store.clone(),
        objects: Arc::new(objects),
        retention: store.clone(),
        input: store.clone(),
        drains: store.clone(),
        events: store.clone(),
        tokens: store,
        authority: Arc::new(authority.clone()),
        providers: providers::build(settings, folder.path(), &bootstrap)?,
        clock,
        spawner: Arc::new(spawner.clone()),
        rng: Arc::new(SystemRng::new()),
        settings: PlatformSettings {
            beat_interval: settings.beat_interval,
            addresses,
            keep_jobs: settings.retention.jobs,
            keep_output: settings.retention.output,
            ..PlatformSettings::default()
        },
    });
    Ok((Arc::new(platform), authority))
}
