//! The authority as clients and workers meet it: over real TLS.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use async_trait::async_trait;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::*;

#[derive(Default)]
struct FakeSealed(Mutex<BTreeMap<String, Vec<u8>>>);

#[async_trait]
impl SealedStore for FakeSealed {
    async fn get_sealed(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.lock().expect("not poisoned").get(name).cloned())
    }

    async fn put_sealed_first(&self, name: &str, value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let mut values = self.0.lock().expect("not poisoned");
        Ok(values.entry(name.to_owned()).or_insert(value).clone())
    }
}

struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hodei-authority-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("created");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn now_ms() -> i64 {
    i64::try_from(UnixTime::now().as_secs()).expect("in range") * 1_000
}

fn worker() -> WorkerId {
    WorkerId::from_bytes([7; 16])
}

async fn authority(name: &str) -> LocalAuthority {
    let folder = Folder::new(name);
    let keys = ClusterKeys::read_or_make(&folder.0.join("cluster.key")).expect("made");
    LocalAuthority::open(&FakeSealed::default(), &keys, WORKER_CERTIFICATE_LIFE, now_ms())
        .await
        .expect("made")
}

fn request(key: &KeyPair) -> Vec<u8> {
    let params = CertificateParams::new(vec!["server.evil.example".to_owned()]).expect("valid");
    params.serialize_request(key).expect("signed").der().to_vec()
}

/// A worker's certificate chain and key as rustls wants them.
fn issued(authority: &LocalAuthority, at_ms: i64) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().expect("made");
    let verified = authority.verify_request(&request(&key)).expect("acceptable");
    let certificate = authority
        .issue_worker(&verified, worker(), 3, at_ms)
        .expect("signed");
    let chain = certificate.chain.into_iter().map(CertificateDer::from).collect();
    (chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

fn client(
    authority: &LocalAuthority,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.root_pem().as_bytes()).expect("PEM");
    roots.add(root).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots);
    Arc::new(match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("fits"),
        None => builder.with_no_client_auth(),
    })
}

/// Shakes hands and sends one byte each way; what the server saw of the client.
fn shake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> Result<Option<Vec<CertificateDer<'static>>>, String> {
    let (mut near, mut far) = UnixStream::pair().expect("a pair");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let serving = std::thread::spawn(move || {
        let mut connection = ServerConnection::new(server).expect("a connection");
        let mut stream = rustls::Stream::new(&mut connection, &mut far);
        let mut byte = [0];
        stream
            .read_exact(&mut byte)
            .map_err(|error| format!("server: {error}"))?;
        stream
            .write_all(&byte)
            .map_err(|error| format!("server: {error}"))?;
        Ok::<_, String>(connection.peer_certificates().map(<[_]>::to_vec))
    });
    let mut connection = ClientConnection::new(client, name).expect("a connection");
    let mut stream = rustls::Stream::new(&mut connection, &mut near);
    let mut byte = [1];
    let asked = stream
        .write_all(&byte)
        .and_then(|()| stream.read_exact(&mut byte))
        .map_err(|error| format!("client: {error}"));
    drop(near);
    let served = serving.join().expect("no panic");
    asked.and(served)
}

#[tokio::test]
async fn the_authority_is_made_once_and_sealed() {
    let folder = Folder::new("once");
    let path = folder.0.join("cluster.key");
    let store = FakeSealed::default();
    let keys = ClusterKeys::read_or_make(&path).expect("made");
    let open = async |keys: &ClusterKeys| {
        LocalAuthority::open(&store, keys, WORKER_CERTIFICATE_LIFE, now_ms()).await
    };
    let first = open(&keys).await.expect("made");
    let again = open(&ClusterKeys::read_or_make(&path).expect("read"))
        .await
        .expect("opened");
    assert_eq!(first.cluster(), again.cluster());
    assert_eq!(first.root_pem(), again.root_pem());
    assert_eq!(first.token_hash("x"), again.token_hash("x"));

    // A new first key changes no hash; without the old key nothing opens.
    let old = std::fs::read_to_string(&path).expect("read");
    std::fs::write(&path, format!("{}\n{old}", keys::fresh_line().as_str())).expect("written");
    let rotated = open(&ClusterKeys::read_or_make(&path).expect("read"))
        .await
        .expect("opened");
    assert_eq!(first.token_hash("x"), rotated.token_hash("x"));
    std::fs::write(&path, format!("{}\n", keys::fresh_line().as_str())).expect("written");
    let other = open(&ClusterKeys::read_or_make(&path).expect("read")).await;
    assert!(matches!(other, Err(OpenError::WrongKey)));

    let stored = store
        .get_sealed(STORED_NAME)
        .await
        .expect("there")
        .expect("there");
    assert!(
        !stored
            .windows(first.cluster().len())
            .any(|w| w == first.cluster().as_bytes())
    );
}

#[tokio::test]
async fn a_worker_certificate_names_the_worker_and_nothing_that_was_asked_for() {
    let authority = authority("names").await;
    let key = KeyPair::generate().expect("made");
    let verified = authority.verify_request(&request(&key)).expect("acceptable");
    let at_ms = now_ms();
    let certificate = authority
        .issue_worker(&verified, worker(), 3, at_ms)
        .expect("signed");
    assert_eq!((certificate.spki, certificate.generation), (verified.spki, 3));
    assert_eq!(certificate.not_after_ms, at_ms + 30 * 60_000);

    let (_, parsed) = X509Certificate::from_der(&certificate.chain[0]).expect("DER");
    assert_eq!(issue::spki_hash(parsed.public_key().raw), verified.spki);
    assert_eq!(parsed.validity().not_before.timestamp(), at_ms / 1_000 - 300);
    assert_eq!(
        parsed.validity().not_after.timestamp() * 1_000,
        certificate.not_after_ms
    );
    let names = parsed
        .subject_alternative_name()
        .expect("well-formed")
        .expect("there");
    let names: Vec<_> = names
        .value
        .general_names
        .iter()
        .map(ToString::to_string)
        .collect();
    let want = format!("URI(spiffe://{}/worker/{})", authority.cluster(), worker());
    assert_eq!(names, [want]);
    let generation = parsed.subject().iter_attributes().find_map(|attribute| {
        (attribute.attr_type().to_id_string() == "2.5.4.5").then(|| attribute.as_str().map(str::to_owned))
    });
    assert_eq!(generation.expect("there"), Ok("3".to_owned()));
    let usage = parsed.extended_key_usage().expect("well-formed").expect("there");
    assert!(usage.value.client_auth && !usage.value.server_auth && !usage.value.any);
}

#[tokio::test]
async fn only_honest_requests_for_accepted_keys_are_signed() {
    let authority = authority("requests").await;
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("made");
    assert!(authority.verify_request(&request(&ed25519)).is_ok());

    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("made");
    let good = request(&KeyPair::generate().expect("made"));
    let mut forged = good.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for (name, der) in [
        ("another curve", request(&p384)),
        ("a wrong signature", forged),
        ("cut off", good[..good.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("huge", vec![0x30; 20_000]),
    ] {
        let refused = authority.verify_request(&der);
        assert!(
            matches!(refused, Err(AuthorityError::BadRequest(_))),
            "{name}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn the_worker_door_lets_in_workers_and_the_nameless_only() {
    let authority = authority("door").await;
    let door = authority.worker_door().expect("made");
    let name = authority.server_name();
    let seen = shake(door.clone(), client(&authority, None), &name).expect("optional");
    assert_eq!(seen, None);
    let chain = shake(
        door.clone(),
        client(&authority, Some(issued(&authority, now_ms()))),
        &name,
    );
    assert_eq!(chain.expect("a worker").map(|chain| chain.len()), Some(2));

    // Ended within a week: let in. Longer ago: not.
    let day_ms = 86_400_000;
    let late = issued(&authority, now_ms() - 2 * day_ms);
    assert!(shake(door.clone(), client(&authority, Some(late)), &name).is_ok());
    let too_late = issued(&authority, now_ms() - 8 * day_ms);
    assert!(shake(door.clone(), client(&authority, Some(too_late)), &name).is_err());

    // Neither a server's certificate nor a stranger's opens the door.
    let server = authority
        .inner
        .issuers
        .issue_server(&[], &[], now_ms())
        .expect("made");
    assert!(
        shake(
            door.clone(),
            client(&authority, Some((server.chain, server.key))),
            &name
        )
        .is_err()
    );
    let stranger = self::authority("stranger").await;
    let foreign = issued(&stranger, now_ms());
    assert!(shake(door.clone(), client(&authority, Some(foreign)), &name).is_err());

    // A worker that trusts this cluster refuses the door of another, and any name but the cluster's.
    assert!(
        shake(
            stranger.worker_door().expect("made"),
            client(&authority, None),
            &name
        )
        .is_err()
    );
    assert!(shake(door, client(&authority, None), "localhost").is_err());
}

#[tokio::test]
async fn a_worker_certificate_is_no_server_certificate() {
    let authority = authority("posing").await;
    let (chain, key) = issued(&authority, now_ms());
    let posing = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("fits");
    let refused = shake(
        Arc::new(posing),
        client(&authority, None),
        &authority.server_name(),
    );
    assert!(refused.is_err_and(|error| error.starts_with("client:")));
}

#[tokio::test]
async fn the_client_door_has_the_names_of_this_machine() {
    let authority = authority("client").await;
    let address: IpAddr = "192.0.2.7".parse().expect("an address");
    let door = authority
        .client_door(&["jobs.example".to_owned()], &[address])
        .expect("made");
    for name in [
        "localhost",
        "127.0.0.1",
        "jobs.example",
        "192.0.2.7",
        &authority.server_name(),
    ] {
        assert!(
            shake(door.clone(), client(&authority, None), name).is_ok(),
            "{name}"
        );
    }
    assert!(shake(door, client(&authority, None), "other.example").is_err());
}

#[tokio::test]
async fn nothing_is_resumed() {
    let authority = authority("resume").await;
    let (door, name) = (authority.worker_door().expect("made"), authority.server_name());
    let config = client(&authority, None);
    for _ in 0..2 {
        assert!(shake(door.clone(), config.clone(), &name).is_ok());
    }
    assert_eq!(
        (door.send_tls13_tickets, door.session_storage.can_cache()),
        (0, false)
    );
}

#[tokio::test]
async fn a_certificate_of_somebody_else_brings_its_names() {
    let key = KeyPair::generate().expect("made");
    let params = CertificateParams::new(vec!["jobs.example".to_owned()]).expect("valid");
    let own = params.self_signed(&key).expect("signed");
    let (_, names) =
        client_door_from_pem(own.pem().as_bytes(), key.serialize_pem().as_bytes()).expect("fits");
    assert_eq!(names, ["jobs.example"]);
    let other = KeyPair::generate().expect("made").serialize_pem();
    assert!(client_door_from_pem(own.pem().as_bytes(), other.as_bytes()).is_err());
    assert!(client_door_from_pem(b"nothing", key.serialize_pem().as_bytes()).is_err());
}
