//! Sealed values: AES-256-GCM, with algorithm and key id in front and the value's place as additional data.
//!
//! Layout: algorithm (1 byte) · key id (8 bytes) · nonce (12 bytes) · ciphertext and tag. The additional data is
//! table, row, namespace and version, so that a value can not be moved to another place.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use super::OpenError;
use super::keys::Key;

const ALGORITHM_AES_256_GCM: u8 = 1;
const KEY_ID_BYTES: usize = 8;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN;

/// Seals with the first of its keys, opens with any.
pub(super) struct Sealer {
    keys: Vec<([u8; KEY_ID_BYTES], LessSafeKey)>,
}

impl Sealer {
    pub(super) fn new(keys: Vec<Key>) -> Self {
        let keys = keys.iter().map(|key| {
            let unbound = UnboundKey::new(&AES_256_GCM, key.as_slice()).expect("a key has 32 bytes");
            (key_id(key), LessSafeKey::new(unbound))
        });
        Self { keys: keys.collect() }
    }

    /// Seals the value that is stored under `name`.
    pub(super) fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, OpenError> {
        let failed = |what: &str| OpenError::Make(format!("sealing failed: {what}"));
        let (id, key) = self.keys.first().ok_or_else(|| failed("no key"))?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| failed("no random bytes"))?;
        let mut body = plain.to_vec();
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(place(name)),
            &mut body,
        )
        .map_err(|_| failed("encryption"))?;
        let mut sealed = Vec::with_capacity(HEADER_BYTES + body.len());
        sealed.push(ALGORITHM_AES_256_GCM);
        sealed.extend_from_slice(id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens the value that is stored under `name`.
    pub(super) fn open(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let damaged = || OpenError::Damaged("it does not open in this place".to_owned());
        let (header, body) = sealed.split_at_checked(HEADER_BYTES).ok_or_else(damaged)?;
        if header[0] != ALGORITHM_AES_256_GCM {
            return Err(OpenError::Damaged(format!("unknown algorithm {}", header[0])));
        }
        let id = &header[1..=KEY_ID_BYTES];
        let found = self.keys.iter().find(|(known, _)| known == id);
        let (_, key) = found.ok_or(OpenError::WrongKey)?;
        let nonce = Nonce::try_assume_unique_for_key(&header[1 + KEY_ID_BYTES..]).map_err(|_| damaged())?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = key
            .open_in_place(nonce, Aad::from(place(name)), &mut body)
            .map_err(|_| damaged())?
            .len();
        body.truncate(length);
        Ok(body)
    }
}

/// The id of a key: public, and of no use to find the key.
fn key_id(key: &Key) -> [u8; KEY_ID_BYTES] {
    let mut input = Zeroizing::new(b"hodei key id".to_vec());
    input.extend_from_slice(key.as_slice());
    let hash = digest::digest(&digest::SHA256, &input);
    let mut id = [0; KEY_ID_BYTES];
    id.copy_from_slice(&hash.as_ref()[..KEY_ID_BYTES]);
    id
}

/// Table, row, namespace (none: it is the cluster's) and version of a value.
fn place(name: &str) -> Vec<u8> {
    format!("sealed\0{name}\0\x001").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::keys::random_key;
    use super::*;

    #[test]
    fn a_sealed_value_opens_only_in_its_place_and_with_its_key() {
        let (old, new) = (random_key(), random_key());
        let sealed = Sealer::new(vec![old.clone()])
            .seal("a", b"value")
            .expect("sealed");
        assert!(!sealed.windows(5).any(|w| w == b"value"));
        let both = Sealer::new(vec![new.clone(), old]);
        assert_eq!(both.open("a", &sealed).expect("opened").as_slice(), b"value");
        assert!(matches!(both.open("b", &sealed), Err(OpenError::Damaged(_))));
        assert!(matches!(
            Sealer::new(vec![new]).open("a", &sealed),
            Err(OpenError::WrongKey)
        ));
        for at in [0, HEADER_BYTES - 1, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(both.open("a", &changed).is_err(), "byte {at}");
        }
        assert!(both.open("a", &sealed[..10]).is_err());
    }
}
