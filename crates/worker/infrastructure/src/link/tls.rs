//! The worker's key, its certificate and whom it trusts.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use hodei_worker_application::ports::CertificateLife;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustix::fs::{Mode, OFlags};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use x509_parser::prelude::{FromDer, X509Certificate};

/// A byte stream of either kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A P-256 key that lives as long as the worker, and the roots of its servers.
pub(super) struct Identity {
    key: KeyPair,
    roots: Arc<RootCertStore>,
    server_name: ServerName<'static>,
}

impl Identity {
    pub(super) fn new(root_certificates: &str, server_name: &str) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(root_certificates.as_bytes()) {
            roots
                .add(certificate.map_err(io::Error::other)?)
                .map_err(io::Error::other)?;
        }
        Ok(Self {
            key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(io::Error::other)?,
            roots: Arc::new(roots),
            server_name: ServerName::try_from(server_name.to_owned()).map_err(io::Error::other)?,
        })
    }

    pub(super) fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }

    /// A PKCS #10 request, DER; only its key matters.
    pub(super) fn signing_request(&self) -> io::Result<Vec<u8>> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.key).map_err(io::Error::other)?;
        Ok(request.der().to_vec())
    }

    /// TLS 1.3 only, no resumption; with the certificate `chain`, or without one if it is empty.
    pub(super) fn client_config(&self, chain: Vec<Vec<u8>>) -> io::Result<Arc<ClientConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = if chain.is_empty() {
            builder.with_no_client_auth()
        } else {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
            let chain = chain.into_iter().map(CertificateDer::from).collect();
            builder
                .with_client_auth_cert(chain, key)
                .map_err(io::Error::other)?
        };
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

/// From when until when the first certificate of `chain` is valid.
pub(super) fn life_of(chain: &[Vec<u8>]) -> io::Result<CertificateLife> {
    let leaf = chain
        .first()
        .ok_or_else(|| io::Error::other("the server sent no certificate"))?;
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(io::Error::other)?;
    Ok(CertificateLife {
        not_before_ms: certificate.validity().not_before.timestamp() * 1_000,
        not_after_ms: certificate.validity().not_after.timestamp() * 1_000,
    })
}

/// The folder of the servers' socket, kept open: a restarted server makes a new socket in it, and through the
/// descriptor a path of any length fits into the 108 bytes of a socket address.
pub(super) struct SocketFolder(Option<OwnedFd>);

impl SocketFolder {
    pub(super) fn open(socket: Option<&str>) -> Self {
        let folder = socket.and_then(|path| Path::new(path).parent());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self(folder.and_then(|folder| rustix::fs::open(folder, flags, Mode::empty()).ok()))
    }

    /// A path by which the socket at `path` can be reached.
    pub(super) fn path(&self, path: &str) -> String {
        let name = Path::new(path)
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        match (&self.0, name) {
            (Some(folder), Some(name)) => format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()),
            _ => path.to_owned(),
        }
    }
}
