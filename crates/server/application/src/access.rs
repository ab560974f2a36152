//! Who calls: tokens become principals here, and nowhere else.

use hodei_server_domain::access::credential::{Credential, same_hash};
use hodei_server_domain::access::{Permission, Principal, Role};
use hodei_shared::ids::Namespace;
use hodei_shared::secret::SecretString;

use crate::platform::Platform;
use crate::ports::tokens::TokenRecord;
use crate::refused::Refused;

/// Finds out whose token this is.
///
/// # Errors
/// [`Refused::Unauthenticated`] for every bad token alike; a store error as such.
pub async fn authenticate(platform: &Platform, token: &str) -> Result<Principal, Refused> {
    let credential = Credential::parse_token(token).ok_or(Refused::Unauthenticated)?;
    let record = platform
        .tokens
        .find(&credential.id)
        .await?
        .ok_or(Refused::Unauthenticated)?;
    let hash = platform.authority.token_hash(credential.secret.expose());
    if !same_hash(&hash, &record.secret_hash) || record.revoked {
        return Err(Refused::Unauthenticated);
    }
    Ok(Principal {
        token_id: record.id,
        role: Role::ClusterAdmin,
        namespace: record.namespace,
    })
}

/// Makes a token that nobody knows yet: it is valid once [`keep_first_token`] has kept it.
pub fn new_token(platform: &Platform) -> SecretString {
    let (mut id, mut secret) = ([0; 10], [0; 32]);
    platform.rng.fill(&mut id);
    platform.rng.fill(&mut secret);
    Credential::new_token(id, secret).token_text()
}

/// Keeps a token, if the store has none that is valid; tells whether it did. Whoever makes the token keeps its
/// text first: from here on it is the only one.
///
/// # Errors
/// [`Refused::Unauthenticated`] if `token` is none; a store error as such.
pub async fn keep_first_token(platform: &Platform, token: &str) -> Result<bool, Refused> {
    let credential = Credential::parse_token(token).ok_or(Refused::Unauthenticated)?;
    let record = TokenRecord {
        secret_hash: platform.authority.token_hash(credential.secret.expose()),
        id: credential.id,
        namespace: Namespace::default_namespace(),
        revoked: false,
    };
    Ok(platform.tokens.create_first(record).await?)
}

/// Makes the first token and keeps it, if the store has none that is valid.
///
/// # Errors
/// A store error as such.
pub async fn bootstrap_token(platform: &Platform) -> Result<Option<SecretString>, Refused> {
    let token = new_token(platform);
    let kept = keep_first_token(platform, token.expose()).await?;
    Ok(kept.then_some(token))
}

/// Lets pass only who may do this.
///
/// # Errors
/// [`Refused::Denied`].
pub(crate) fn permit(
    principal: &Principal,
    permission: Permission,
    namespace: &Namespace,
) -> Result<(), Refused> {
    if principal.may(permission, namespace) {
        Ok(())
    } else {
        Err(Refused::Denied(format!(
            "the token does not permit {permission:?} in namespace {namespace}"
        )))
    }
}
