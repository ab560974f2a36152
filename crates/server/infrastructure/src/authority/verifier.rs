//! Who may be a client of the worker door: only certificates that the worker intermediate signed.
//!
//! The intermediate is the one trust anchor, so neither a server's certificate nor one of the root itself is
//! accepted. A certificate that fails for nothing but its end is let in for seven more days, since a worker that
//! was cut off for long must be able to renew; the door then serves it RenewCertificate only.

use std::sync::Arc;
use std::time::Duration;

use hodei_server_domain::worker::identity::EXPIRED_RENEWAL_CAP_MS;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::OpenError;

/// Accepts workers, also for a while after their certificate's end.
#[derive(Debug)]
pub(super) struct WorkerVerifier {
    inner: Arc<dyn ClientCertVerifier>,
}

impl WorkerVerifier {
    /// Trusts `anchor` and nothing else.
    pub(super) fn new(
        anchor: CertificateDer<'static>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, OpenError> {
        let make = |error: &dyn std::fmt::Display| OpenError::Make(error.to_string());
        let mut roots = RootCertStore::empty();
        roots.add(anchor).map_err(|error| make(&error))?;
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|error| make(&error))?;
        Ok(Self { inner })
    }
}

impl ClientCertVerifier for WorkerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now);
        let Err(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) = verified
        else {
            return verified;
        };
        let ended = not_after(end_entity).ok_or(CertificateError::BadEncoding)?;
        let overdue = Duration::from_secs(now.as_secs().saturating_sub(ended));
        if overdue > Duration::from_millis(EXPIRED_RENEWAL_CAP_MS.unsigned_abs()) {
            return verified;
        }
        let then = UnixTime::since_unix_epoch(Duration::from_secs(ended));
        self.inner.verify_client_cert(end_entity, intermediates, then)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The last second of a certificate's validity.
fn not_after(der: &CertificateDer<'_>) -> Option<u64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}
