//! What a server is told: flag, then environment, then `hodei.toml`, then default.
//!
//! Invariants: the process environment is read once, into [`Environment`] · unknown keys are errors that name file
//! and line · nothing here is a secret; secrets stand in files of their own, and have no flag.

mod file;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hodei_shared::duration;
use hodei_shared::ids::ProviderId;
use hodei_shared::labels::Labels;
use hodei_shared::resources::format_cpus;

use self::file::ConfigFile;

/// How a server is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `hodei dev`: a platform on this machine; its end ends what runs.
    Dev,
    /// `hodei server`: leaves workers and jobs running at its end, and has no provider by itself.
    Server,
    /// `hodei run --local`: as long as a command, with a store of its own that is removed at the end.
    Local,
}

/// What was given on the command line.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// Configuration file.
    pub config: Option<PathBuf>,
    /// Data folder.
    pub data_dir: Option<PathBuf>,
    /// Address for clients.
    pub listen: Option<String>,
    /// Address for workers.
    pub worker_listen: Option<String>,
}

/// The part of the process environment that decides settings.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// HODEI_DATA_DIR.
    pub data_dir: Option<PathBuf>,
    /// HODEI_CONFIG.
    pub config: Option<PathBuf>,
    /// HODEI_WORKER_BINARY.
    pub worker_binary: Option<PathBuf>,
    /// XDG_DATA_HOME.
    pub xdg_data_home: Option<PathBuf>,
    /// HOME.
    pub home: Option<PathBuf>,
    /// Whether the user is root.
    pub root: bool,
}

impl Environment {
    /// Reads the process.
    pub fn of_process() -> Self {
        let path = |name: &str| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        Self {
            data_dir: path("HODEI_DATA_DIR"),
            config: path("HODEI_CONFIG"),
            worker_binary: path("HODEI_WORKER_BINARY"),
            xdg_data_home: path("XDG_DATA_HOME"),
            home: path("HOME"),
            root: rustix::process::geteuid().is_root(),
        }
    }

    /// The data folder: the one that is asked for, HODEI_DATA_DIR, or the default.
    pub fn data_dir_or_default(&self, asked: Option<PathBuf>) -> PathBuf {
        let own = || {
            if self.root {
                return PathBuf::from("/var/lib/hodei");
            }
            let share = self.home.as_ref().map(|home| home.join(".local/share"));
            let share = self
                .xdg_data_home
                .clone()
                .filter(|path| path.is_absolute())
                .or(share);
            share.unwrap_or_else(|| PathBuf::from("/var/lib")).join("hodei")
        };
        asked.or_else(|| self.data_dir.clone()).unwrap_or_else(own)
    }
}

/// A server's certificate for the client address that somebody else made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM, leaf first.
    pub cert_file: PathBuf,
    /// PEM.
    pub key_file: PathBuf,
}

/// A configured provider; a process provider, there is no other kind yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderSettings {
    /// Its name.
    pub id: ProviderId,
    /// What constraints see.
    pub labels: Labels,
    /// How many processors all its jobs together may use, in thousandths; `None`: all of the machine.
    pub cpu_millis: Option<u64>,
    /// How much memory all its jobs together may use; `None`: all of the machine.
    pub memory_bytes: Option<u64>,
    /// How many workers at most.
    pub max_workers: u32,
}

/// How many workers a provider has at most when nothing is said.
const DEFAULT_MAX_WORKERS: u32 = 256;

impl ProviderSettings {
    /// The provider of a machine for which none is configured.
    fn of_this_machine() -> Result<Self> {
        Ok(Self {
            id: ProviderId::new("local")?,
            labels: Labels::default(),
            cpu_millis: None,
            memory_bytes: None,
            max_workers: DEFAULT_MAX_WORKERS,
        })
    }
}

/// How long what has ended is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Ended jobs with their attempts and events.
    pub jobs: Duration,
    /// Their output.
    pub output: Duration,
}

impl Retention {
    fn resolve(mode: Mode, file: &file::Retention) -> Self {
        let output = match mode {
            Mode::Server => 30 * DAY,
            Mode::Dev | Mode::Local => 7 * DAY,
        };
        Self {
            jobs: file.jobs.unwrap_or(90 * DAY),
            output: file.output.unwrap_or(output),
        }
    }
}

const DAY: Duration = Duration::from_secs(86_400);

/// All settings of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How it is used.
    pub mode: Mode,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Address for clients.
    pub listen: SocketAddr,
    /// Address for workers.
    pub worker_listen: SocketAddr,
    /// Where workers reach this server, `IP:PORT`; empty: the worker address itself.
    pub worker_advertise: Vec<String>,
    /// File with the cluster's keys.
    pub cluster_key_file: PathBuf,
    /// File that the first token is written to.
    pub admin_token_file: PathBuf,
    /// Certificate for the client address; `None`: our own where TLS is needed.
    pub tls: Option<Tls>,
    /// Further names under which clients reach this server.
    pub public_names: Vec<String>,
    /// How long what has ended is kept.
    pub retention: Retention,
    /// Where workers are made.
    pub providers: Vec<ProviderSettings>,
    /// The program that process workers run; `None`: the one that came with this server.
    pub worker_binary: Option<PathBuf>,
    /// How long a worker's certificate is valid. No user sets it; tests shorten it.
    pub worker_certificate_life: Duration,
    /// How often workers beat. No user sets it; tests shorten it.
    pub beat_interval: Duration,
}

impl Settings {
    /// Reads the settings of this process.
    ///
    /// # Errors
    /// What is wrong, where, and what to write instead.
    pub fn load(mode: Mode, flags: &Flags) -> Result<Self> {
        Self::resolve(mode, flags, &Environment::of_process())
    }

    /// As [`Settings::load`], in a given environment.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn resolve(mode: Mode, flags: &Flags, environment: &Environment) -> Result<Self> {
        let folder = environment.data_dir_or_default(flags.data_dir.clone());
        let folder = std::path::absolute(&folder).context("the data folder has no absolute path")?;
        let asked = flags.config.clone().or_else(|| environment.config.clone());
        let file = match (mode, asked) {
            // Only providers count for a command's own server: addresses, names, keys and the folder are those of
            // the server that the file was written for.
            (Mode::Local, Some(path)) => ConfigFile {
                providers: ConfigFile::read(&path)?.providers,
                ..ConfigFile::default()
            },
            // It is the same everywhere, whatever else this machine serves.
            (Mode::Local, None) => ConfigFile::default(),
            (_, Some(path)) => ConfigFile::read(&path)?,
            (_, None) => ConfigFile::read_if_there(&folder.join("hodei.toml"))?,
        };
        let explicit = flags.data_dir.is_some() || environment.data_dir.is_some();
        let data_dir = match file.data_dir.clone().filter(|_| !explicit) {
            Some(path) if path.is_relative() => {
                bail!("data_dir: `{}` is not an absolute path", path.display())
            }
            Some(path) => path,
            None => folder,
        };
        let default_port = |port: u16| if mode == Mode::Local { 0 } else { port };
        let listen = flags.listen.as_ref().or(file.listen.as_ref());
        let worker_listen = flags.worker_listen.as_ref().or(file.worker_listen.as_ref());
        Ok(Self {
            mode,
            listen: address("listen", listen, default_port(7420))?,
            worker_listen: address("worker_listen", worker_listen, default_port(7421))?,
            worker_advertise: advertised(file.worker_advertise)?,
            cluster_key_file: file
                .cluster_key_file
                .unwrap_or_else(|| data_dir.join("cluster.key")),
            admin_token_file: file
                .admin_token_file
                .unwrap_or_else(|| data_dir.join("admin.token")),
            tls: file.tls.map(|tls| Tls {
                cert_file: tls.cert_file,
                key_file: tls.key_file,
            }),
            public_names: file.public_names,
            retention: Retention::resolve(mode, &file.retention),
            providers: providers(mode, file.providers)?,
            data_dir,
            worker_binary: environment
                .worker_binary
                .as_ref()
                .map(std::path::absolute)
                .transpose()
                .context("HODEI_WORKER_BINARY has no absolute path")?,
            worker_certificate_life: Duration::from_secs(30 * 60),
            beat_interval: Duration::from_secs(10),
        })
    }

    /// The same settings with everything kept in `folder`.
    pub(crate) fn within(self, folder: &Path) -> Self {
        Self {
            data_dir: folder.to_owned(),
            cluster_key_file: folder.join("cluster.key"),
            admin_token_file: folder.join("admin.token"),
            ..self
        }
    }

    /// The settings as a `hodei.toml`. Nothing secret is among them.
    pub fn print(&self) -> String {
        let mut text = String::new();
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let path = |path: &Path| quoted(&path.display().to_string());
        let list = |items: &[String]| {
            items
                .iter()
                .map(|item| quoted(item))
                .collect::<Vec<_>>()
                .join(", ")
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "data_dir = {}", path(&self.data_dir));
        let _ = writeln!(text, "listen = {}", quoted(&self.listen.to_string()));
        let _ = writeln!(
            text,
            "worker_listen = {}",
            quoted(&self.worker_listen.to_string())
        );
        let _ = writeln!(text, "worker_advertise = [{}]", list(&self.worker_advertise));
        let _ = writeln!(text, "public_names = [{}]", list(&self.public_names));
        let _ = writeln!(text, "cluster_key_file = {}", path(&self.cluster_key_file));
        let _ = writeln!(text, "admin_token_file = {}", path(&self.admin_token_file));
        if let Some(tls) = &self.tls {
            let _ = writeln!(text, "\n[tls]\ncert_file = {}", path(&tls.cert_file));
            let _ = writeln!(text, "key_file = {}", path(&tls.key_file));
        }
        let age = |age| quoted(&duration::format(age));
        let _ = writeln!(text, "\n[retention]\njobs = {}", age(self.retention.jobs));
        let _ = writeln!(text, "output = {}", age(self.retention.output));
        for provider in &self.providers {
            let _ = writeln!(text, "\n[[provider]]\nid = {}", quoted(provider.id.as_str()));
            let _ = writeln!(text, "kind = \"process\"");
            let label = |(key, value): (&str, &str)| format!("{} = {}", quoted(key), quoted(value));
            let labels: Vec<_> = provider.labels.iter().map(label).collect();
            let _ = writeln!(text, "labels = {{ {} }}", labels.join(", "));
            let mut capacity = vec![format!("workers = {}", provider.max_workers)];
            capacity.extend(
                provider
                    .cpu_millis
                    .map(|cpus| format!("cpus = {}", format_cpus(cpus))),
            );
            capacity.extend(provider.memory_bytes.map(|bytes| format!("memory = {bytes}")));
            let _ = writeln!(text, "capacity = {{ {} }}", capacity.join(", "));
        }
        text
    }
}

fn address(name: &str, text: Option<&String>, default_port: u16) -> Result<SocketAddr> {
    let Some(text) = text else {
        return Ok(SocketAddr::from(([127, 0, 0, 1], default_port)));
    };
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.clone(),
    };
    numeric.parse().with_context(|| {
        format!("{name}: `{text}` is not an address; write 127.0.0.1:7420, 0.0.0.0:7420 or [::1]:7420")
    })
}

/// Workers resolve no names, so these are numbers.
fn advertised(addresses: Vec<String>) -> Result<Vec<String>> {
    for address in &addresses {
        let parsed: SocketAddr = address.parse().with_context(|| {
            format!("worker_advertise: `{address}` is not an address by number; write 192.0.2.7:7421")
        })?;
        if parsed.port() == 0 || parsed.ip().is_unspecified() {
            bail!("worker_advertise: nobody can connect to `{address}`");
        }
    }
    Ok(addresses)
}

fn providers(mode: Mode, configured: Vec<file::Provider>) -> Result<Vec<ProviderSettings>> {
    if configured.is_empty() && mode != Mode::Server {
        return Ok(vec![ProviderSettings::of_this_machine()?]);
    }
    let mut by_id = BTreeMap::new();
    for provider in configured {
        let file::Provider {
            id,
            kind: file::Kind::Process,
            labels,
            capacity,
        } = provider;
        let settings = ProviderSettings {
            id: id.clone(),
            labels: Labels::new(labels).with_context(|| format!("provider {id}"))?,
            cpu_millis: capacity.cpus,
            memory_bytes: capacity.memory,
            max_workers: capacity.workers.unwrap_or(DEFAULT_MAX_WORKERS),
        };
        if by_id.insert(id.clone(), settings).is_some() {
            bail!("provider {id} is configured twice");
        }
    }
    Ok(by_id.into_values().collect())
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
