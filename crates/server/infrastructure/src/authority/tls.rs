//! TLS of the two doors: version 1.3 only, ring, no resumption and no tickets, since a resumed session would bring
//! back a client certificate that has ended or was revoked.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::issue::{SERVER_LIFE, loopback};
use super::verifier::WorkerVerifier;
use super::{Inner, OpenError};

/// See [`super::LocalAuthority::worker_door`].
pub(super) fn worker_door(inner: &Arc<Inner>) -> Result<Arc<ServerConfig>, OpenError> {
    let provider = provider();
    let verifier = WorkerVerifier::new(inner.issuers.worker_anchor(), Arc::clone(&provider))?;
    let resolver = Renewing::new(Arc::clone(inner), Vec::new(), Vec::new())?;
    let config = builder(provider)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(resolver));
    Ok(finished(config, &[b"h2"]))
}

/// See [`super::LocalAuthority::client_door`].
pub(super) fn client_door(
    inner: &Arc<Inner>,
    names: &[String],
    addresses: &[IpAddr],
) -> Result<Arc<ServerConfig>, OpenError> {
    let (mut all_names, mut all_addresses) = loopback();
    all_names.extend(names.iter().filter(|name| *name != "localhost").cloned());
    all_addresses.extend(
        addresses
            .iter()
            .filter(|a| !a.is_loopback() && !a.is_unspecified()),
    );
    let resolver = Renewing::new(Arc::clone(inner), all_names, all_addresses)?;
    let config = builder(provider())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    Ok(finished(config, &[b"h2", b"http/1.1"]))
}

/// TLS for the client door with a certificate chain and key that somebody else made (PEM), and the DNS names in
/// the certificate.
///
/// # Errors
/// [`OpenError::Make`] if they can not be read or do not belong together.
pub fn client_door_from_pem(
    chain_pem: &[u8],
    key_pem: &[u8],
) -> Result<(Arc<ServerConfig>, Vec<String>), OpenError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain_pem)
        .collect::<Result<_, _>>()
        .map_err(|error| make("the certificate file", &error))?;
    let names = chain.first().map(|leaf| dns_names(leaf)).unwrap_or_default();
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| make("the key file", &error))?;
    let config = builder(provider())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| make("certificate and key", &error))?;
    Ok((finished(config, &[b"h2", b"http/1.1"]), names))
}

fn dns_names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(dns).collect()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

type Builder = rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>;

fn builder(provider: Arc<CryptoProvider>) -> Result<Builder, OpenError> {
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| make("TLS 1.3", &error))
}

fn finished(mut config: ServerConfig, protocols: &[&[u8]]) -> Arc<ServerConfig> {
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}

fn make(what: &str, error: &dyn fmt::Display) -> OpenError {
    OpenError::Make(format!("{what}: {error}"))
}

/// Presents this server's certificate and makes a new one, with a new key, at half of its life.
struct Renewing {
    authority: Arc<Inner>,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    current: Mutex<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    renew_at_s: u64,
}

impl Renewing {
    fn new(authority: Arc<Inner>, names: Vec<String>, addresses: Vec<IpAddr>) -> Result<Self, OpenError> {
        let current = Mutex::new(issue(&authority, &names, &addresses)?);
        Ok(Self {
            authority,
            names,
            addresses,
            current,
        })
    }
}

fn issue(authority: &Inner, names: &[String], addresses: &[IpAddr]) -> Result<Current, OpenError> {
    let now_s = UnixTime::now().as_secs();
    let now_ms = i64::try_from(now_s).unwrap_or(i64::MAX / 1_000) * 1_000;
    let made = authority.issuers.issue_server(names, addresses, now_ms)?;
    let key = rustls::crypto::ring::sign::any_supported_type(&made.key)
        .map_err(|error| make("the server's key", &error))?;
    Ok(Current {
        key: Arc::new(CertifiedKey::new(made.chain, key)),
        renew_at_s: now_s + SERVER_LIFE.as_secs() / 2,
    })
}

impl fmt::Debug for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewing")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Renewing {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if UnixTime::now().as_secs() >= current.renew_at_s {
            match issue(&self.authority, &self.names, &self.addresses) {
                Ok(next) => *current = next,
                Err(error) => tracing::error!(%error, "no new server certificate; the old one is kept"),
            }
        }
        Some(Arc::clone(&current.key))
    }
}
