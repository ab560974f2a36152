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

/// Makes the first token, if the store has none that is valid.
///
/// # Errors
/// A store error as such.
pub async fn bootstrap_token(platform: &Platform) -> Result<Option<SecretString>, Refused> {
    let (mut id, mut secret) = ([0; 10], [0; 32]);
    platform.rng.fill(&mut id);
    platform.rng.fill(&mut secret);
    let credential = Credential::new_token(id, secret);
    let record = TokenRecord {
        id: credential.id.clone(),
        secret_hash: platform.authority.token_hash(credential.secret.expose()),
        namespace: Namespace::default_namespace(),
        revoked: false,
    };
    let created = platform.tokens.create_first(record).await?;
    Ok(created.then(|| credential.token_text()))
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
