//! Signing: what is asked for is verified, and nothing of it but the key goes into a certificate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hodei_server_application::ports::authority::{AuthorityError, VerifiedRequest};
use hodei_server_application::ports::workers::Certificate;
use hodei_server_domain::worker::otp::SpkiHash;
use hodei_shared::ids::WorkerId;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use ring::digest;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::stored::{Pair, Stored, random_id};
use super::{OpenError, names};

/// How far in the past validity begins, for clocks that differ.
const BACKDATED: Duration = Duration::from_secs(5 * 60);
/// How long root and intermediates are valid.
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);
/// How long a server's certificate is valid. It is made anew at half of that.
pub(super) const SERVER_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// A request for an accepted key is far smaller.
const MAX_REQUEST_BYTES: usize = 8 << 10;

/// The signers of a cluster.
pub(super) struct Issuers {
    cluster: String,
    server_id: String,
    root_pem: String,
    servers: Signer,
    workers: Signer,
}

struct Signer {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Signer {
    fn new(pair: &Pair) -> Result<Self, OpenError> {
        let damaged = |error: rcgen::Error| OpenError::Damaged(error.to_string());
        let certificate = CertificateDer::from(pair.certificate.clone());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.key.as_slice()));
        let key = KeyPair::try_from(&key).map_err(damaged)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(damaged)?;
        Ok(Self { certificate, issuer })
    }
}

/// What a server presents.
pub(super) struct ServerCertificate {
    /// Leaf first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Issuers {
    pub(super) fn new(stored: &Stored) -> Result<Self, OpenError> {
        Ok(Self {
            cluster: stored.cluster.clone(),
            server_id: random_id(),
            root_pem: pem(&stored.root.certificate),
            servers: Signer::new(&stored.servers)?,
            workers: Signer::new(&stored.workers)?,
        })
    }

    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(super) fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The trust anchor of the worker door.
    pub(super) fn worker_anchor(&self) -> CertificateDer<'static> {
        self.workers.certificate.clone()
    }

    /// Signs a worker's key.
    pub(super) fn issue_worker(
        &self,
        request: &VerifiedRequest,
        worker: WorkerId,
        generation: u64,
        now_ms: i64,
        life: Duration,
    ) -> Result<Certificate, AuthorityError> {
        let failed = |error: rcgen::Error| AuthorityError::Failed(error.to_string());
        let (verified, key) = verify_request(&request.der)?;
        let mut params = leaf_params(
            &worker.to_string(),
            ExtendedKeyUsagePurpose::ClientAuth,
            now_ms,
            life,
        );
        let generation_attribute = DnType::CustomDnType(names::GENERATION_OID.to_vec());
        params
            .distinguished_name
            .push(generation_attribute, generation.to_string());
        params.subject_alt_names = vec![uri(&names::worker_uri(&self.cluster, worker)).map_err(failed)?];
        let leaf = params.signed_by(&key, &self.workers.issuer).map_err(failed)?;
        Ok(Certificate {
            chain: vec![leaf.der().to_vec(), self.workers.certificate.to_vec()],
            spki: verified.spki,
            generation,
            not_after_ms: params.not_after.unix_timestamp() * 1_000,
        })
    }

    /// Makes a key and a certificate for this server.
    pub(super) fn issue_server(
        &self,
        dns_names: &[String],
        addresses: &[IpAddr],
        now_ms: i64,
    ) -> Result<ServerCertificate, OpenError> {
        let key = KeyPair::generate().map_err(make_error)?;
        let mut params = leaf_params(
            &self.server_id,
            ExtendedKeyUsagePurpose::ServerAuth,
            now_ms,
            SERVER_LIFE,
        );
        params.subject_alt_names = vec![
            dns(&names::server_name(&self.cluster)).map_err(make_error)?,
            uri(&names::server_uri(&self.cluster, &self.server_id)).map_err(make_error)?,
        ];
        for name in dns_names {
            params.subject_alt_names.push(dns(name).map_err(make_error)?);
        }
        let addresses = addresses.iter().map(|address| SanType::IpAddress(*address));
        params.subject_alt_names.extend(addresses);
        let leaf = params.signed_by(&key, &self.servers.issuer).map_err(make_error)?;
        Ok(ServerCertificate {
            chain: vec![leaf.der().clone(), self.servers.certificate.clone()],
            key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }
}

/// The names and addresses under which a machine reaches itself.
pub(super) fn loopback() -> (Vec<String>, Vec<IpAddr>) {
    let addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    (vec!["localhost".to_owned()], addresses)
}

/// Verifies a request and its own signature; the key with it, as it goes into the certificate.
pub(super) fn verify_request(der: &[u8]) -> Result<(VerifiedRequest, impl PublicKeyData), AuthorityError> {
    let bad = |why: &str| AuthorityError::BadRequest(why.to_owned());
    if der.len() > MAX_REQUEST_BYTES {
        return Err(bad("it is too long"));
    }
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
        .map_err(|error| AuthorityError::BadRequest(error.to_string()))?;
    let key = request.public_key;
    let accepted = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519];
    if !accepted.contains(&PublicKeyData::algorithm(&key)) {
        return Err(bad("its key is neither P-256 nor Ed25519"));
    }
    // rcgen names the key's kind after the signature's. Where both do not agree, what it writes into the
    // certificate would differ from what was signed.
    let (rest, parsed) = X509CertificationRequest::from_der(der).map_err(|_| bad("it can not be read"))?;
    if !rest.is_empty() {
        return Err(bad("something follows it"));
    }
    let spki = key.subject_public_key_info();
    if parsed.certification_request_info.subject_pki.raw != spki.as_slice() {
        return Err(bad("its key is neither P-256 nor Ed25519"));
    }
    let verified = VerifiedRequest {
        der: der.to_vec(),
        spki: spki_hash(&spki),
    };
    Ok((verified, key))
}

/// The hash by which keys are compared.
pub(super) fn spki_hash(spki_der: &[u8]) -> SpkiHash {
    let hash = digest::digest(&digest::SHA256, spki_der);
    SpkiHash(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// Parameters of the root or of an intermediate.
pub(super) fn authority_params(
    name: &str,
    usage: Option<ExtendedKeyUsagePurpose>,
    path_length: u8,
    now_ms: i64,
) -> CertificateParams {
    let mut params = common_params(name, now_ms, AUTHORITY_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = usage.into_iter().collect();
    params
}

fn leaf_params(name: &str, usage: ExtendedKeyUsagePurpose, now_ms: i64, life: Duration) -> CertificateParams {
    let mut params = common_params(name, now_ms, life);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params
}

fn common_params(name: &str, now_ms: i64, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(random_serial());
    params.use_authority_key_identifier_extension = true;
    // X.509 knows whole seconds only.
    let now = Duration::from_secs(u64::try_from(now_ms / 1_000).unwrap_or(0));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + (now + life);
    params
}

/// A positive number of 127 random bits (RFC 5280, 4.1.2.2).
fn random_serial() -> SerialNumber {
    let mut bytes = super::keys::random_key();
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes[..16])
}

fn uri(text: &str) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(Ia5String::try_from(text)?))
}

fn dns(text: &str) -> Result<SanType, rcgen::Error> {
    Ok(SanType::DnsName(Ia5String::try_from(text)?))
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for start in (0..encoded.len()).step_by(64) {
        text.push_str(&encoded[start..encoded.len().min(start + 64)]);
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// Wraps an error of key or certificate making.
pub(super) fn make_error(error: rcgen::Error) -> OpenError {
    OpenError::Make(error.to_string())
}
