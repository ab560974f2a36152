//! Binds the listeners and puts the doors behind them.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use hodei_server_application::platform::Platform;
use hodei_server_infrastructure::authority::{LocalAuthority, client_door_from_pem};
use hodei_server_interface::auth::HostNames;
use hodei_server_interface::door::{client_router, worker_router};
use hodei_server_interface::listener::{Door, Limits, Listener};
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::folder::{DataFolder, write_private};
use crate::settings::{Mode, Settings};

/// The longest path that a socket address holds (unix(7)).
const MAX_SOCKET_PATH: usize = 107;
/// How many doors share the descriptors of the process.
const DOORS: usize = 4;
/// How many descriptors the store, providers and listeners need beside connections.
const OTHER_DESCRIPTORS: usize = 128;
/// The least and the most connections of one door.
const MIN_CONNECTIONS: usize = 16;
const MAX_CONNECTIONS: usize = 4_096;
/// As many descriptors as the server can use.
pub(crate) const USEFUL_DESCRIPTORS: usize =
    DOORS * (MAX_CONNECTIONS + Limits::MAX_STRANGERS) + OTHER_DESCRIPTORS;

/// How many connections each door may have, so that all of them with their strangers find descriptors.
pub(crate) fn connections(descriptors: usize) -> usize {
    let each = descriptors.saturating_sub(OTHER_DESCRIPTORS) / DOORS;
    // A door has a fourth of its connections again for strangers.
    (each / 5 * 4).clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)
}

/// Listeners that are bound, before anything stands behind them.
pub(crate) struct Bound {
    client: Listener,
    worker: Listener,
    client_unix: Listener,
    worker_unix: Listener,
    /// Where clients connect.
    pub(crate) client_address: SocketAddr,
    /// Where workers connect.
    pub(crate) worker_address: SocketAddr,
    /// The clients' socket.
    pub(crate) client_socket: PathBuf,
    /// The workers' socket.
    pub(crate) worker_socket: PathBuf,
}

impl Bound {
    /// Binds all four.
    pub(crate) async fn bind(settings: &Settings, folder: &DataFolder) -> Result<Self> {
        let mut ports = KeptPorts::read(settings.mode, folder.path());
        let (client, client_address) = ports.bind("listen", settings.listen).await?;
        let (worker, worker_address) = ports.bind("worker_listen", settings.worker_listen).await?;
        ports.write()?;
        let client_socket = folder.private("run")?.join("client.sock");
        let worker_socket = folder.private("run/workers")?.join("worker.sock");
        Ok(Self {
            client,
            worker,
            client_unix: bind_unix(&client_socket)?,
            worker_unix: bind_unix(&worker_socket)?,
            client_address,
            worker_address,
            client_socket,
            worker_socket,
        })
    }

    /// Where workers are told to connect.
    pub(crate) fn advertised(&self, settings: &Settings) -> Vec<String> {
        if settings.worker_advertise.is_empty() {
            vec![reachable(self.worker_address).to_string()]
        } else {
            settings.worker_advertise.clone()
        }
    }

    /// The URL of the client door.
    pub(crate) fn url(&self, settings: &Settings) -> String {
        let scheme = if self.is_plain(settings) { "http" } else { "https" };
        let port = self.client_address.port();
        match settings.public_names.first() {
            Some(name) if scheme == "https" => format!("{scheme}://{name}:{port}"),
            _ => format!("{scheme}://{}", reachable(self.client_address)),
        }
    }

    fn is_plain(&self, settings: &Settings) -> bool {
        settings.tls.is_none() && self.client_address.ip().is_loopback()
    }

    /// Puts the doors behind the listeners. All of them close with `closing`.
    pub(crate) fn open(
        self,
        settings: &Settings,
        platform: &Arc<Platform>,
        authority: &LocalAuthority,
        connections: usize,
        closing: &CancellationToken,
    ) -> Result<[Door; 4]> {
        let (client_tls, mut names) = self.client_tls(settings, authority)?;
        names.extend(settings.public_names.iter().cloned());
        names.push(authority.server_name());
        let of_clients = Limits {
            connections,
            ..Limits::default()
        };
        let of_workers = Limits {
            connections,
            ..Limits::of_workers()
        };
        let clients = client_router(platform, HostNames::new(names), of_clients.call, closing)?;
        // One guard for each door: those who register over the network do not crowd out workers of this machine.
        let workers = || worker_router(platform, closing);
        let worker_tls = authority.worker_door()?;
        let door = |name, listener, tls, router, limits: &Limits| Door {
            name,
            listener,
            tls,
            router,
            limits: limits.clone(),
        };
        let socket_tls = Some(Arc::clone(&worker_tls));
        Ok([
            door("client", self.client, client_tls, clients.clone(), &of_clients),
            door("client socket", self.client_unix, None, clients, &of_clients),
            door("worker", self.worker, Some(worker_tls), workers(), &of_workers),
            door(
                "worker socket",
                self.worker_unix,
                socket_tls,
                workers(),
                &of_workers,
            ),
        ])
    }

    fn client_tls(
        &self,
        settings: &Settings,
        authority: &LocalAuthority,
    ) -> Result<(Option<Arc<ServerConfig>>, Vec<String>)> {
        if let Some(tls) = &settings.tls {
            let read = |path: &Path| {
                std::fs::read(path).with_context(|| format!("[tls]: {} can not be read", path.display()))
            };
            let (config, names) =
                client_door_from_pem(&read(&tls.cert_file)?, &read(&tls.key_file)?).context("[tls]")?;
            return Ok((Some(config), names));
        }
        if self.is_plain(settings) {
            return Ok((None, Vec::new()));
        }
        let config = authority.client_door(&settings.public_names, &[self.client_address.ip()])?;
        Ok((Some(config), Vec::new()))
    }
}

/// Where somebody on this machine reaches an address that was bound.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    address
}

/// Binds a socket of this machine. A path that is too long for its address is reached through a descriptor of its
/// folder.
fn bind_unix(path: &Path) -> Result<Listener> {
    let failed = || format!("the socket {} can not be made", path.display());
    if path.as_os_str().len() <= MAX_SOCKET_PATH {
        return Listener::unix(path).with_context(failed);
    }
    let folder = path
        .parent()
        .zip(path.file_name())
        .ok_or_else(|| anyhow!(failed()))?;
    let open = std::fs::File::open(folder.0).with_context(failed)?;
    let short = format!("/proc/self/fd/{}", open.as_raw_fd());
    Listener::unix(&Path::new(&short).join(folder.1)).with_context(failed)
}

/// Ports that were free when they were first taken, so that addresses stay over restarts.
struct KeptPorts {
    path: Option<PathBuf>,
    ports: toml::Table,
    changed: bool,
}

impl KeptPorts {
    fn read(mode: Mode, folder: &Path) -> Self {
        let path = (mode != Mode::Local).then(|| folder.join("ports"));
        let text = path.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        Self {
            path,
            ports: text.and_then(|text| text.parse().ok()).unwrap_or_default(),
            changed: false,
        }
    }

    async fn bind(&mut self, name: &str, address: SocketAddr) -> Result<(Listener, SocketAddr)> {
        let kept = self.ports.get(name).and_then(toml::Value::as_integer);
        let kept = kept
            .and_then(|port| u16::try_from(port).ok())
            .filter(|_| address.port() == 0);
        let bound = match Listener::tcp(SocketAddr::new(address.ip(), kept.unwrap_or(address.port()))).await {
            Err(error) if kept.is_some() && error.kind() == ErrorKind::AddrInUse => {
                Listener::tcp(address).await
            }
            bound => bound,
        };
        let listener = bound.with_context(|| {
            format!(
                "{name}: {address} can not be listened on; choose another address, or port 0 for a free one"
            )
        })?;
        let bound = listener.address()?.unwrap_or(address);
        if address.port() == 0 && kept != Some(bound.port()) {
            self.ports.insert(name.to_owned(), i64::from(bound.port()).into());
            self.changed = true;
        }
        Ok((listener, bound))
    }

    fn write(&self) -> Result<()> {
        match &self.path {
            Some(path) if self.changed => write_private(path, &self.ports.to_string()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_find_descriptors() {
        for descriptors in [256, 300, 1_024, 4_096, USEFUL_DESCRIPTORS] {
            let limits = Limits {
                connections: connections(descriptors),
                ..Limits::default()
            };
            let all = DOORS * (limits.connections + limits.strangers()) + OTHER_DESCRIPTORS;
            assert!(all <= descriptors, "{descriptors}: {all}");
        }
        assert_eq!(connections(0), MIN_CONNECTIONS, "it starts, and does what it can");
        assert_eq!(connections(256), 24);
        assert_eq!(connections(usize::MAX), MAX_CONNECTIONS);
    }

    #[tokio::test]
    async fn a_free_port_is_kept_and_taken_again() {
        let temp = tempfile::tempdir().expect("a folder");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let mut ports = KeptPorts::read(Mode::Dev, temp.path());
        let (listener, first) = ports.bind("listen", any).await.expect("free");
        ports.write().expect("written");
        // While it is taken, another one is found; and then that is kept.
        let mut ports = KeptPorts::read(Mode::Dev, temp.path());
        let (_other, second) = ports.bind("listen", any).await.expect("free");
        assert_ne!(first.port(), second.port());
        drop(listener);
        let mut ports = KeptPorts::read(Mode::Dev, temp.path());
        let (_again, third) = ports.bind("listen", any).await.expect("free");
        assert_eq!(first.port(), third.port());
        let mut local = KeptPorts::read(Mode::Local, temp.path());
        local.bind("listen", any).await.expect("free");
        assert!(local.path.is_none());
    }

    #[tokio::test]
    async fn a_taken_address_is_said_to_be_taken() {
        let temp = tempfile::tempdir().expect("a folder");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let mut ports = KeptPorts::read(Mode::Dev, temp.path());
        let (_listener, taken) = ports.bind("listen", any).await.expect("free");
        let error = ports
            .bind("worker_listen", taken)
            .await
            .expect_err("taken")
            .to_string();
        assert!(
            error.starts_with(&format!("worker_listen: {taken} can not be listened on")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_long_path_is_bound_through_its_folder() {
        let temp = tempfile::tempdir().expect("a folder");
        let folder = temp.path().join("x".repeat(120));
        std::fs::create_dir(&folder).expect("made");
        bind_unix(&folder.join("client.sock")).expect("bound");
        assert!(folder.join("client.sock").exists());
    }
}
