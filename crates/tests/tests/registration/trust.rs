//! Who trusts whom: each kind of certificate opens its own door and no other.

use std::net::SocketAddr;
use std::sync::Arc;

use hodei_jobs::FILE_DESCRIPTOR_SET;
use hodei_server_application::access;
use hodei_server_application::ports::Clock as _;
use hodei_server_application::ports::authority::Authority as _;
use hodei_shared::ids::WorkerId;
use hodei_shared::secret::SecretString;
use hodei_worker_application::ports::{Connector as _, DialError, Endpoint};
use hodei_worker_infrastructure::link::GrpcConnector;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::Acceptor;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::client::{Identity, channel, new_key, request, trusting};
use crate::world::{PATIENCE, World, another_authority};

/// What a listener that poses as the server got.
#[derive(Debug, Clone, Default)]
struct Got {
    refusals: Vec<String>,
    decrypted: Vec<u8>,
}

/// A listener with a certificate of its own.
struct Trap {
    address: SocketAddr,
    got: Arc<watch::Sender<Got>>,
}

impl Trap {
    async fn new(mut tls: ServerConfig) -> Self {
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let got = Arc::new(watch::Sender::<Got>::default());
        let writes = Arc::clone(&got);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, writes) = (acceptor.clone(), Arc::clone(&writes));
                tokio::spawn(async move {
                    match acceptor.accept(stream).await {
                        Ok(mut stream) => {
                            let mut bytes = [0; 4_096];
                            while let Ok(n @ 1..) = stream.read(&mut bytes).await {
                                writes.send_modify(|got| got.decrypted.extend(&bytes[..n]));
                            }
                        }
                        Err(error) => writes.send_modify(|got| got.refusals.push(error.to_string())),
                    }
                });
            }
        });
        Self { address, got }
    }

    async fn until(&self, is: impl FnMut(&Got) -> bool) -> Got {
        let mut got = self.got.subscribe();
        let seen = tokio::time::timeout(PATIENCE, got.wait_for(is)).await;
        seen.expect("in time").expect("the trap is there").clone()
    }
}

fn server_config() -> rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert> {
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
}

/// A certificate for `name` by an authority of somebody else, whose root is the second.
fn foreign_server(name: &str) -> (ServerConfig, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().expect("made");
    let root = params.self_signed(&root_key).expect("signed");
    let issuer = Issuer::new(params, root_key);
    let key = KeyPair::generate().expect("made");
    let leaf = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&key, &issuer).expect("signed");
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = server_config()
        .with_single_cert(vec![leaf.der().clone()], key.into())
        .expect("fits");
    (config, root.pem())
}

fn contains(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

/// A worker's connector that trusts this root registers there.
async fn register_at(address: SocketAddr, root_pem: &str, name: &str, otp: &str) -> Result<(), DialError> {
    let connector = GrpcConnector::new(root_pem, name, None).expect("made");
    let endpoint = Endpoint::Address(address.to_string());
    let otp = SecretString::new(otp.to_owned());
    connector.register(&endpoint, &otp).await.map(drop)
}

#[tokio::test]
async fn test_worker_registration_with_otp_says_nothing_to_a_server_of_another_authority() {
    let world = World::new().await;
    let machine = world.machine().await;
    let name = world.authority.server_name();
    let (foreign, foreign_root) = foreign_server(&name);
    let trap = Trap::new(foreign).await;

    let refused = register_at(trap.address, world.authority.root_pem(), &name, &machine.otp).await;
    let refused = refused.expect_err("a foreign server");
    assert!(
        matches!(&refused, DialError::Unavailable(why) if why.contains("certificate")),
        "{refused}"
    );
    let got = trap.until(|got| !got.refusals.is_empty()).await;
    assert_eq!(got.decrypted, Vec::<u8>::new());
    assert!(got.refusals[0].contains("UnknownCA"), "{got:?}");

    // The trap would have heard it: who trusts that authority tells it.
    let telling = register_at(trap.address, &foreign_root, &name, &machine.otp);
    tokio::select! {
        biased;
        told = telling => panic!("the trap does not answer: {told:?}"),
        got = trap.until(|got| contains(&got.decrypted, &machine.otp)) => assert_eq!(got.refusals.len(), 1),
    }
    // And the real door takes it from the same connector.
    register_at(world.address, world.authority.root_pem(), &name, &machine.otp)
        .await
        .expect("registered");
}

#[tokio::test]
async fn test_worker_registration_with_otp_says_nothing_to_a_worker_that_poses_as_a_server() {
    let world = World::new().await;
    let (_, identity) = world.registered().await;
    let next = world.machine().await;
    let chain = identity.chain.iter().cloned().map(CertificateDer::from).collect();
    let key = PrivatePkcs8KeyDer::from(identity.key.serialize_der());
    let posing = server_config().with_single_cert(chain, key.into()).expect("fits");
    let trap = Trap::new(posing).await;
    let name = world.authority.server_name();
    let refused = register_at(trap.address, world.authority.root_pem(), &name, &next.otp).await;
    assert!(matches!(refused, Err(DialError::Unavailable(_))), "{refused:?}");
    let got = trap.until(|got| !got.refusals.is_empty()).await;
    assert_eq!(got.decrypted, Vec::<u8>::new());
}

/// Every method of every compiled service, as a path.
fn compiled() -> Vec<String> {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)
        .expect("descriptors")
        .file;
    let mut paths = Vec::new();
    for file in files.iter().filter(|file| file.package() == "hodei.v1") {
        for service in &file.service {
            let path = |method: &str| format!("/hodei.v1.{}/{method}", service.name());
            paths.extend(service.method.iter().map(|method| path(method.name())));
        }
    }
    assert!(paths.len() >= 17, "the descriptors are empty: {paths:?}");
    paths
}

const REGISTER: &str = "/hodei.v1.WorkerAgentService/RegisterWorker";

/// Calls a method with one empty message; how it ends.
async fn call(channel: &Channel, path: &str, token: Option<&str>) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready()
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    let mut request = Request::new(futures::stream::iter([()]));
    if let Some(token) = token {
        let bearer = format!("Bearer {token}").parse().expect("a header");
        request.metadata_mut().insert("authorization", bearer);
    }
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = http::uri::PathAndQuery::try_from(path).expect("a path");
    let mut answers = grpc.streaming(request, path, codec).await?.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn test_worker_registration_with_otp_is_all_that_is_served_without_a_certificate() {
    let world = World::new().await;
    let nobody = world.channel(None).await;
    let others = [
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/hodei.v1.WorkerAgentService/registerworker",
        "/hodei.v1.WorkerAgentService/RegisterWorker/",
        "//hodei.v1.WorkerAgentService/Connect",
        "/",
    ];
    let paths = compiled().into_iter().chain(others.map(str::to_owned));
    let mut seen_register = false;
    for path in paths {
        let refused = call(&nobody, &path, None).await.expect_err(&path);
        let want = if path == REGISTER {
            seen_register = true;
            Code::PermissionDenied
        } else {
            Code::Unauthenticated
        };
        assert_eq!(refused.code(), want, "{path}: {refused}");
    }
    assert!(seen_register);
}

#[tokio::test]
async fn test_worker_registration_with_otp_grants_nothing_on_the_client_door() {
    let world = World::new().await;
    let (_, identity) = world.registered().await;
    let tls = identity.tls(world.authority.root_pem());
    let clients = channel(world.client_address, world.authority.server_name(), tls)
        .await
        .expect("connected");
    for path in compiled() {
        let refused = call(&clients, &path, None).await.expect_err(&path);
        assert_eq!(refused.code(), Code::Unauthenticated, "{path}: {refused}");
    }
    // Nor does a token make the certificate count there, or itself count at the worker door.
    let token = access::bootstrap_token(&world.platform).await;
    let token = token.expect("made").expect("the first");
    let workers = world.channel(Some(&identity)).await;
    let nobody = world.channel(None).await;
    for path in compiled() {
        let agent = path.starts_with("/hodei.v1.WorkerAgentService/");
        if agent {
            let refused = call(&clients, &path, Some(token.expose()))
                .await
                .expect_err(&path);
            assert_eq!(refused.code(), Code::Unimplemented, "{path}: {refused}");
            continue;
        }
        let refused = call(&workers, &path, Some(token.expose()))
            .await
            .expect_err(&path);
        assert_eq!(refused.code(), Code::Unimplemented, "{path}: {refused}");
        let refused = call(&nobody, &path, Some(token.expose())).await.expect_err(&path);
        assert_eq!(refused.code(), Code::Unauthenticated, "{path}: {refused}");
    }
}

/// Whether the worker door lets a client in: it sends its HTTP/2 settings, or an alert.
async fn knock(world: &World, mut config: ClientConfig) -> Result<(), String> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(world.address).await.expect("connected");
    let name = ServerName::try_from(world.authority.server_name()).expect("a name");
    let knocking = async {
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await?;
        stream.read_u8().await
    };
    let answered = tokio::time::timeout(PATIENCE, knocking).await.expect("in time");
    answered.map(drop).map_err(|error| error.to_string())
}

/// The certificate and key that the worker door itself shows.
fn of_the_server(world: &World) -> Arc<CertifiedKey> {
    let config = trusting(world.authority.root_pem()).with_no_client_auth();
    let name = ServerName::try_from(world.authority.server_name()).expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("made");
    let mut acceptor = Acceptor::default();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("written");
    acceptor.read_tls(&mut hello.as_slice()).expect("read");
    let accepted = acceptor.accept().expect("a hello").expect("a whole one");
    let door = world.authority.worker_door().expect("made");
    door.cert_resolver
        .resolve(accepted.client_hello())
        .expect("there")
}

/// A certificate for this worker by another cluster.
async fn of_another_cluster(worker: WorkerId, now_ms: i64) -> Identity {
    let other = another_authority().await;
    let key = new_key();
    let verified = other.verify_request(&request(&key)).expect("honest");
    let signed = other.issue_worker(&verified, worker, 1, now_ms);
    let chain = signed.expect("signed").chain;
    Identity { key, chain }
}

#[tokio::test]
async fn test_worker_registration_with_otp_opens_the_worker_door_to_its_own_workers_only() {
    let world = World::new().await;
    let root = world.authority.root_pem();
    let (machine, identity) = world.registered().await;
    assert_eq!(knock(&world, trusting(root).with_no_client_auth()).await, Ok(()));
    assert_eq!(knock(&world, identity.tls(root)).await, Ok(()));

    let refused = |shaken: Result<(), String>, name: &str| {
        let why = shaken.expect_err(name);
        assert!(why.contains("fatal alert"), "{name}: {why}");
    };
    let server = SingleCertAndKey::from(of_the_server(&world));
    let as_server = trusting(root).with_client_cert_resolver(Arc::new(server));
    refused(knock(&world, as_server).await, "a server");
    let now_ms = world.clock.now_ms();
    let foreign = of_another_cluster(machine.worker, now_ms).await;
    refused(knock(&world, foreign.tls(root)).await, "another cluster's worker");

    // Its own key under a leaf that it signed itself, and its leaf with another key.
    let params = CertificateParams::default();
    let own = params.self_signed(&*identity.key).expect("signed");
    let self_signed = Identity {
        key: Arc::clone(&identity.key),
        chain: vec![own.der().to_vec(), identity.chain[1].clone()],
    };
    refused(
        knock(&world, self_signed.tls(root)).await,
        "a certificate of its own making",
    );
    let chain = identity.chain.iter().cloned().map(CertificateDer::from).collect();
    let key = PrivatePkcs8KeyDer::from(new_key().serialize_der());
    let key = rustls::crypto::ring::sign::any_supported_type(&key.into()).expect("a key");
    let stolen = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    let with_other_key = trusting(root).with_client_cert_resolver(Arc::new(stolen));
    refused(
        knock(&world, with_other_key).await,
        "a certificate without its key",
    );
}

/// The first message of a TLS client, made by hand: up to 1.2, or with the extensions of 1.3.
fn client_hello(tls_1_3: bool) -> Vec<u8> {
    let mut extensions: Vec<u8> = Vec::new();
    let mut extension = |kind: u16, body: &[u8]| {
        extensions.extend(kind.to_be_bytes());
        extensions.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
        extensions.extend(body);
    };
    // Groups x25519 and secp256r1; signatures by P-256 or Ed25519; ALPN h2.
    extension(10, &[0, 4, 0, 0x1d, 0, 0x17]);
    extension(13, &[0, 4, 4, 3, 8, 7]);
    extension(16, &[0, 3, 2, b'h', b'2']);
    extension(23, &[]);
    if tls_1_3 {
        extension(43, &[2, 3, 4]);
        let share = [&[0, 36, 0, 0x1d, 0, 32][..], &[9; 32]].concat();
        extension(51, &share);
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    // AES-128 and AES-256 with GCM: of 1.3, then of 1.2 with ECDHE and ECDSA.
    body.extend([0, 8, 0x13, 1, 0x13, 2, 0xc0, 0x2b, 0xc0, 0x2c]);
    body.extend([1, 0]);
    body.extend(u16::try_from(extensions.len()).expect("short").to_be_bytes());
    body.extend(&extensions);
    let length = |n: usize| u16::try_from(n).expect("short").to_be_bytes();
    let mut record = vec![22, 3, 1];
    record.extend(length(body.len() + 4));
    record.extend([1, 0]);
    record.extend(length(body.len()));
    record.extend(&body);
    record
}

#[tokio::test]
async fn test_worker_registration_with_otp_speaks_tls_1_3_only() {
    let world = World::new().await;
    for address in [world.address, world.client_address] {
        let answer = async |hello: Vec<u8>| {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            stream.write_all(&hello).await.expect("written");
            let mut record = [0; 7];
            let reading = tokio::time::timeout(PATIENCE, stream.read_exact(&mut record));
            reading.await.expect("in time").expect("an answer");
            record
        };
        // A fatal alert (RFC 8446, 6): protocol_version.
        assert_eq!(answer(client_hello(false)).await, [21, 3, 3, 0, 2, 2, 70]);
        // The same hello with the extensions of 1.3 gets a ServerHello.
        let [kind, _, _, _, _, message, _] = answer(client_hello(true)).await;
        assert_eq!((kind, message), (22, 2));
    }
}
