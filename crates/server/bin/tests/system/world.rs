//! What the tests share: servers, channels and a provider whose machines are the tests themselves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hodei_server_application::platform::{Platform, PlatformParts, PlatformSettings};
use hodei_server_application::ports::Clock as _;
use hodei_server_application::ports::provider::{
    ProviderError, WorkerHandle, WorkerProvider, WorkerSpec, WorkerState,
};
use hodei_server_application::{access, control};
use hodei_server_bin::Ready;
use hodei_server_bin::settings::{Environment, Flags, Mode, Settings};
use hodei_server_domain::provider::{Capabilities, Health, Isolation};
use hodei_server_infrastructure::authority::LocalAuthority;
use hodei_server_infrastructure::authority::keys::ClusterKeys;
use hodei_server_infrastructure::output_store::FileObjects;
use hodei_server_infrastructure::sqlite::SqliteStore;
use hodei_server_infrastructure::system::{SystemClock, SystemRng, TaskSpawner};
use hodei_server_interface::auth::HostNames;
use hodei_server_interface::door::{client_router, worker_router};
use hodei_server_interface::listener::{Door, Limits, Listener};
use hodei_shared::ids::{ProviderId, WorkerId};
use hodei_shared::labels::Labels;
use hodei_shared::resources::Resources;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A server as people run it.
pub(crate) struct Server {
    pub(crate) ready: Ready,
    cancel: CancellationToken,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Server {
    /// Starts one over `folder` on free ports.
    pub(crate) async fn start(mode: Mode, folder: &Path) -> anyhow::Result<Self> {
        let any = || (mode != Mode::Local).then(|| "127.0.0.1:0".to_owned());
        let flags = Flags {
            listen: any(),
            worker_listen: any(),
            ..Flags::default()
        };
        let environment = Environment {
            data_dir: Some(folder.to_owned()),
            ..Environment::default()
        };
        let settings = Settings::resolve(mode, &flags, &environment)?;
        let (tell, told) = oneshot::channel();
        let cancel = CancellationToken::new();
        let server = hodei_server_bin::run(settings, |ready| drop(tell.send(ready)), cancel.clone());
        let mut ended = tokio::spawn(server);
        tokio::select! {
            biased;
            Ok(ready) = told => Ok(Self { ready, cancel, ended }),
            ended = &mut ended => Err(ended?.expect_err("it ended before it was ready")),
        }
    }

    pub(crate) fn token(&self) -> String {
        let text = std::fs::read_to_string(&self.ready.admin_token_file).expect("a token");
        text.trim_end().to_owned()
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.ready.address.clone()).expect("a URL");
        endpoint.connect().await.expect("connected")
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.cancel.cancel();
        tokio::time::timeout(PATIENCE, self.ended)
            .await
            .expect("ends in time")?
    }
}

/// A provider that hands each one-time password to the test.
#[derive(Default)]
pub(crate) struct FakeProvider {
    machines: Mutex<BTreeMap<WorkerId, String>>,
    made: Notify,
}

impl FakeProvider {
    /// The password of the first machine that is there.
    pub(crate) async fn password(&self) -> (WorkerId, String) {
        loop {
            let made = self.made.notified();
            let first = self
                .machines
                .lock()
                .expect("not poisoned")
                .clone()
                .into_iter()
                .next();
            match first {
                Some(machine) => return machine,
                None => made.await,
            }
        }
    }
}

/// The id of the only provider.
pub(crate) struct Named(ProviderId, Arc<FakeProvider>);

#[async_trait]
impl WorkerProvider for Named {
    fn provider_id(&self) -> &ProviderId {
        &self.0
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kind: "process",
            isolation: Isolation::Process,
            images: false,
            labels: Labels::default(),
            capacity: Resources {
                cpu_millis: 8_000,
                memory_bytes: 8 << 30,
            },
            max_workers: 1,
            slots_per_worker: 4,
        }
    }

    async fn create_worker(&self, spec: &WorkerSpec) -> Result<WorkerHandle, ProviderError> {
        let mut machines = self.1.machines.lock().expect("not poisoned");
        machines.insert(spec.worker, spec.otp.expose().to_owned());
        self.1.made.notify_waiters();
        Ok(WorkerHandle {
            worker: spec.worker,
            machine: "fake".to_owned(),
        })
    }

    async fn get_worker_status(&self, handle: &WorkerHandle) -> Result<WorkerState, ProviderError> {
        let there = self
            .1
            .machines
            .lock()
            .expect("not poisoned")
            .contains_key(&handle.worker);
        Ok(if there {
            WorkerState::Running
        } else {
            WorkerState::Gone
        })
    }

    async fn destroy_worker(&self, handle: &WorkerHandle) -> Result<(), ProviderError> {
        self.1
            .machines
            .lock()
            .expect("not poisoned")
            .remove(&handle.worker);
        Ok(())
    }

    async fn health_check(&self) -> Result<Health, ProviderError> {
        Ok(Health {
            healthy: true,
            message: String::new(),
        })
    }

    async fn list_workers(&self) -> Result<Vec<(WorkerHandle, WorkerState)>, ProviderError> {
        let machines = self.1.machines.lock().expect("not poisoned");
        let handle = |worker: &WorkerId| WorkerHandle {
            worker: *worker,
            machine: "fake".to_owned(),
        };
        Ok(machines
            .keys()
            .map(|worker| (handle(worker), WorkerState::Running))
            .collect())
    }

    async fn changed(&self) {
        std::future::pending().await
    }
}

/// Both doors with all that is behind them; plain HTTP for clients.
pub(crate) struct World {
    pub(crate) platform: Arc<Platform>,
    pub(crate) authority: LocalAuthority,
    pub(crate) provider: Arc<FakeProvider>,
    /// Of the worker door.
    pub(crate) address: SocketAddr,
    pub(crate) client_address: SocketAddr,
    /// What clients need.
    pub(crate) token: String,
    _folder: tempfile::TempDir,
    _closes: tokio_util::sync::DropGuard,
}

impl World {
    pub(crate) async fn new(certificate_life: Duration) -> Self {
        let limits = Limits {
            handshake: Duration::from_millis(500),
            ..Limits::of_workers()
        };
        Self::with_limits(certificate_life, limits).await
    }

    /// One whose doors have these limits, but for the drain.
    pub(crate) async fn with_limits(certificate_life: Duration, limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(SystemClock);
        let store = Arc::new(SqliteStore::open(&folder.path().join("db"), clock.clone()).expect("opened"));
        let keys = ClusterKeys::read_or_make(&folder.path().join("cluster.key")).expect("made");
        let authority = LocalAuthority::open(store.as_ref(), &keys, certificate_life, clock.now_ms())
            .await
            .expect("made");
        let provider = Arc::new(FakeProvider::default());
        let named = Named(ProviderId::new("fake").expect("a name"), Arc::clone(&provider));
        let platform = Arc::new(Platform::new(PlatformParts {
            jobs: store.clone(),
            workers: store.clone(),
            output: store.clone(),
            objects: Arc::new(FileObjects::open(&folder.path().join("output")).expect("made")),
            retention: store.clone(),
            input: store.clone(),
            drains: store.clone(),
            events: store.clone(),
            tokens: store,
            authority: Arc::new(authority.clone()),
            providers: vec![Arc::new(named)],
            clock,
            spawner: Arc::new(TaskSpawner::default()),
            rng: Arc::new(SystemRng::new()),
            settings: PlatformSettings {
                poll: Duration::from_millis(50),
                ..PlatformSettings::default()
            },
        }));
        control::start(&platform);
        let token = access::bootstrap_token(&platform).await.expect("kept");
        let closing = CancellationToken::new();
        let names = HostNames::new([]);
        let clients = client_router(&platform, names, limits.call, &closing).expect("made");
        let workers = worker_router(&platform, &closing);
        let worker_tls = authority.worker_door().expect("made");
        let open = async |name, router, tls| {
            let any = "127.0.0.1:0".parse().expect("an address");
            let listener = Listener::tcp(any).await.expect("bound");
            let address = listener.address().expect("bound").expect("TCP");
            let limits = Limits {
                drain: Duration::ZERO,
                ..limits.clone()
            };
            let door = Door {
                name,
                listener,
                tls,
                router,
                limits,
            };
            tokio::spawn(door.serve(closing.clone()));
            address
        };
        Self {
            address: open("worker", workers, Some(worker_tls)).await,
            client_address: open("client", clients, None).await,
            token: token.expect("the first one").expose().to_owned(),
            platform,
            authority,
            provider,
            _folder: folder,
            _closes: closing.drop_guard(),
        }
    }

    /// A connection of a client.
    pub(crate) async fn client(&self) -> Channel {
        let url = format!("http://{}", self.client_address);
        let endpoint = Endpoint::from_shared(url).expect("a URL");
        endpoint.connect().await.expect("connected")
    }

    /// A connection to the worker door that is encrypted, without a certificate, and over which nothing was asked.
    pub(crate) async fn shaken(&self) -> TlsStream<TcpStream> {
        let config = client_config(self.authority.root_pem(), None);
        let name = ServerName::try_from(self.authority.server_name()).expect("a name");
        let stream = TcpStream::connect(self.address).await.expect("connected");
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.expect("shaken hands")
    }

    /// A connection of a worker, with its certificate if it has one.
    pub(crate) async fn channel(&self, identity: Option<&Identity>) -> Channel {
        let config = Arc::new(client_config(self.authority.root_pem(), identity));
        let (address, name) = (self.address, self.authority.server_name());
        let connector = tower::service_fn(move |_: http::Uri| {
            let (connector, name) = (TlsConnector::from(Arc::clone(&config)), name.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from(name).map_err(std::io::Error::other)?;
                connector.connect(name, stream).await.map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_static("http://server");
        endpoint
            .connect_with_connector(connector)
            .await
            .expect("connected")
    }
}

/// A worker's key and certificate.
pub(crate) struct Identity {
    pub(crate) key: KeyPair,
    pub(crate) chain: Vec<Vec<u8>>,
}

impl Identity {
    pub(crate) fn request(key: &KeyPair) -> Vec<u8> {
        let params = CertificateParams::default();
        params.serialize_request(key).expect("signed").der().to_vec()
    }
}

fn client_config(root_pem: &str, identity: Option<&Identity>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(root_pem.as_bytes()).expect("PEM"))
        .expect("a certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => {
            let chain = identity.chain.iter().cloned().map(CertificateDer::from).collect();
            let key = PrivatePkcs8KeyDer::from(identity.key.serialize_der());
            builder.with_client_auth_cert(chain, key.into()).expect("fits")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
