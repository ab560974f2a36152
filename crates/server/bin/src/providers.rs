//! Builds the configured providers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hodei_server_application::ports::provider::WorkerProvider;
use hodei_server_infrastructure::providers::process::{BootstrapBase, ProcessConfig, ProcessProvider};
use hodei_shared::labels::Labels;
use hodei_shared::resources::Resources;

use crate::folder::DataFolder;
use crate::settings::{Mode, ProviderSettings, Settings};

/// What every worker is told.
pub(crate) struct Bootstrap {
    /// PEM.
    pub(crate) root_certificates: String,
    pub(crate) server_name: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) socket: PathBuf,
}

/// The providers of these settings, over one data folder.
pub(crate) fn build(
    settings: &Settings,
    data_dir: &Path,
    bootstrap: &Bootstrap,
) -> Result<Vec<Arc<dyn WorkerProvider>>> {
    let own = std::env::current_exe().context("can not tell which program this is")?;
    let (program, arguments) = worker_program(&own, settings.worker_binary.as_deref());
    let leave_after = match settings.mode {
        Mode::Dev | Mode::Server => Duration::from_secs(300),
        Mode::Local => Duration::from_secs(5),
    };
    let one = |provider: &ProviderSettings| {
        let config = ProcessConfig {
            id: provider.id.clone(),
            folder: workers_folder(data_dir, provider),
            program: program.clone(),
            arguments: arguments.clone(),
            labels: provider.labels.clone(),
            capacity: capacity(provider),
            max_workers: provider.max_workers,
            bootstrap: BootstrapBase {
                root_certificates: bootstrap.root_certificates.clone(),
                server_name: bootstrap.server_name.clone(),
                addresses: bootstrap.addresses.clone(),
                socket: Some(bootstrap.socket.clone()),
                leave_after,
                jobs_end_with_server: settings.mode == Mode::Local,
                cover: Some(hidden_from_jobs(settings.mode, data_dir).to_owned()),
            },
        };
        let id = &provider.id;
        let made = ProcessProvider::new(config).with_context(|| format!("provider {id} can not be used"))?;
        Ok(Arc::new(made) as Arc<dyn WorkerProvider>)
    };
    settings.providers.iter().map(one).collect()
}

/// The program that is a worker, and what stands before its other arguments. `hodei` has a worker in it; any other
/// program has `hodei-worker` beside it. That it is missing is said by the provider, when it is asked for its health.
fn worker_program(own: &Path, asked: Option<&Path>) -> (PathBuf, Vec<String>) {
    let is_hodei = |path: &Path| path.file_name().is_some_and(|name| name == "hodei");
    let program = match asked {
        Some(asked) => asked.to_owned(),
        None if is_hodei(own) => own.to_owned(),
        None => own.with_file_name("hodei-worker"),
    };
    let arguments = if is_hodei(&program) {
        vec!["worker".to_owned()]
    } else {
        Vec::new()
    };
    (program, arguments)
}

/// What jobs must not see: the data folder, and beside that of a `--local` server those of all others.
fn hidden_from_jobs(mode: Mode, data_dir: &Path) -> &Path {
    match mode {
        Mode::Local => data_dir.parent().unwrap_or(data_dir),
        Mode::Dev | Mode::Server => data_dir,
    }
}

/// Each provider has workers of its own, also where several make processes.
fn workers_folder(data_dir: &Path, provider: &ProviderSettings) -> PathBuf {
    data_dir.join("workers").join(provider.id.as_str())
}

/// Ends the workers that a command's server left behind, and removes its folder.
pub(crate) async fn clean_left(left: DataFolder) -> Result<()> {
    let workers = left.path().join("workers");
    let entries = std::fs::read_dir(&workers).into_iter().flatten().flatten();
    for folder in entries.map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let provider = ProcessProvider::new(ProcessConfig {
            id: hodei_shared::ids::ProviderId::new("left")?,
            folder,
            program: PathBuf::new(),
            arguments: Vec::new(),
            labels: Labels::default(),
            capacity: Resources::default(),
            max_workers: 0,
            bootstrap: BootstrapBase {
                root_certificates: String::new(),
                server_name: String::new(),
                addresses: Vec::new(),
                socket: None,
                leave_after: Duration::ZERO,
                jobs_end_with_server: false,
                cover: None,
            },
        })?;
        for (handle, _) in provider.list_workers().await? {
            provider.destroy_worker(&handle).await?;
        }
    }
    left.remove()
}

fn capacity(provider: &ProviderSettings) -> Resources {
    Resources {
        cpu_millis: provider.cpu_millis.unwrap_or_else(machine_cpu_millis),
        memory_bytes: provider.memory_bytes.unwrap_or_else(machine_memory_bytes),
    }
}

fn machine_cpu_millis() -> u64 {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u64::try_from(cpus).unwrap_or(1) * 1_000
}

/// The machine's memory, or what a control group leaves of it.
fn machine_memory_bytes() -> u64 {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let limits = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let limit = limits.into_iter().find_map(number).unwrap_or(u64::MAX);
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| mem_total(&text));
    machine.unwrap_or(1 << 30).min(limit)
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_is_hodei_itself_or_stands_beside_the_server() {
        for (own, asked, program, arguments) in [
            ("/usr/bin/hodei", None, "/usr/bin/hodei", &["worker"][..]),
            ("/usr/bin/hodei-server", None, "/usr/bin/hodei-worker", &[]),
            (
                "/usr/bin/hodei",
                Some("/opt/hodei-worker"),
                "/opt/hodei-worker",
                &[],
            ),
            (
                "/usr/bin/hodei-server",
                Some("/opt/hodei"),
                "/opt/hodei",
                &["worker"],
            ),
        ] {
            let found = worker_program(Path::new(own), asked.map(Path::new));
            let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(found, (PathBuf::from(program), arguments), "{own} {asked:?}");
        }
    }

    #[test]
    fn the_machine_has_processors_and_memory() {
        assert_eq!(
            mem_total("MemFree: 1 kB\nMemTotal:       16384 kB\n"),
            Some(16 << 20)
        );
        assert_eq!(mem_total("nothing"), None);
        assert!(machine_cpu_millis() >= 1_000 && machine_memory_bytes() > 1 << 20);
    }
}
