//! The text form of tokens and one-time passwords: `hodei_tok_ID_SECRET` and `hodei_otp_ID_SECRET`.
//!
//! The id is public and finds the row; the secret has 256 random bits and is only ever compared as a keyed hash.
//! A token's secret ends with a checksum, so that scanners can tell a real token from a look-alike; whether it
//! is right is never told to a caller.

use data_encoding::BASE32_DNSSEC;
use hodei_shared::secret::SecretString;
use sha2::{Digest, Sha256};

const TOKEN: &str = "hodei_tok_";
const OTP: &str = "hodei_otp_";
const CHECKSUM_CHARS: usize = 6;

/// A credential in its two parts.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Finds the row; may be logged.
    pub id: String,
    /// Never logged, stored or sent back.
    pub secret: SecretString,
}

impl Credential {
    /// A token of random bytes.
    pub fn new_token(id: [u8; 10], secret: [u8; 32]) -> Self {
        let secret = BASE32_DNSSEC.encode(&secret);
        let secret = format!("{secret}{}", checksum(&secret));
        Self {
            id: BASE32_DNSSEC.encode(&id),
            secret: SecretString::new(secret),
        }
    }

    /// A one-time password of random bytes.
    pub fn new_otp(id: [u8; 10], secret: [u8; 32]) -> Self {
        let secret = SecretString::new(BASE32_DNSSEC.encode(&secret));
        Self {
            id: BASE32_DNSSEC.encode(&id),
            secret,
        }
    }

    /// The token's text.
    pub fn token_text(&self) -> SecretString {
        SecretString::new(format!("{TOKEN}{}_{}", self.id, self.secret.expose()))
    }

    /// The one-time password's text.
    pub fn otp_text(&self) -> SecretString {
        SecretString::new(format!("{OTP}{}_{}", self.id, self.secret.expose()))
    }

    /// Takes a token's text apart; `None` if it is none.
    pub fn parse_token(text: &str) -> Option<Self> {
        let credential = Self::parse(text, TOKEN)?;
        let whole = credential.secret.expose();
        let (secret, sum) = whole.split_at_checked(whole.len().checked_sub(CHECKSUM_CHARS)?)?;
        (checksum(secret) == sum).then_some(credential)
    }

    /// Takes a one-time password's text apart; `None` if it is none.
    pub fn parse_otp(text: &str) -> Option<Self> {
        Self::parse(text, OTP)
    }

    fn parse(text: &str, prefix: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(prefix)?.split_once('_')?;
        let plain = |part: &str| {
            (1..=128).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
        };
        (plain(id) && plain(secret)).then(|| Self {
            id: id.to_owned(),
            secret: SecretString::new(secret.to_owned()),
        })
    }
}

/// Whether two keyed hashes are the same, in constant time.
pub fn same_hash(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |different, (x, y)| different | (x ^ y)) == 0
}

fn checksum(secret: &str) -> String {
    let digest = Sha256::digest(secret.as_bytes());
    BASE32_DNSSEC.encode(&digest[..5])[..CHECKSUM_CHARS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_round_trip() {
        let token = Credential::new_token([1; 10], [2; 32]);
        let text = token.token_text();
        let parsed = Credential::parse_token(text.expose()).expect("a token");
        assert_eq!((parsed.id, parsed.secret), (token.id, token.secret));
        let otp = Credential::new_otp([3; 10], [4; 32]);
        assert!(Credential::parse_otp(otp.otp_text().expose()).is_some());
        assert!(Credential::parse_token(otp.otp_text().expose()).is_none());
    }

    #[test]
    fn look_alikes_are_refused() {
        let text = Credential::new_token([1; 10], [2; 32]).token_text();
        let mut broken = text.expose().to_owned();
        broken.pop();
        for text in [
            broken.as_str(),
            "",
            "hodei_tok_",
            "hodei_tok_a_",
            "hodei_tok__b",
            "hodei_wrong_token",
            "hodei_tok_A_b",
        ] {
            assert!(Credential::parse_token(text).is_none(), "{text}");
        }
        assert!(same_hash(&[1; 32], &[1; 32]) && !same_hash(&[1; 32], &[2; 32]));
    }
}
