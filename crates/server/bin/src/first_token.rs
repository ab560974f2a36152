//! The first token: its text is in a file, its hash in the store, and nothing else knows it.
//!
//! The file is written before the store keeps the token, and what the file holds is what is kept. So a server that
//! ends in between locks nobody out: the next start keeps the token that is in the file.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use hodei_server_application::access;
use hodei_server_application::platform::Platform;
use hodei_server_application::refused::Refused;
use hodei_shared::secret::SecretString;

use crate::folder::write_private;

/// Sees to it that the store has a token, and that the file holds the first one.
///
/// # Errors
/// If the file can not be read or written, or the store does not answer.
pub(crate) async fn keep(file: &Path, platform: &Platform) -> Result<()> {
    let found = read(file)?;
    if let Some(found) = &found {
        match access::authenticate(platform, found.text.expose()).await {
            Ok(_) => return Ok(()),
            Err(Refused::Unauthenticated) => {}
            Err(refused) => return Err(refused.into()),
        }
        // Another user could have put a token of theirs there.
        if found.is_private {
            match access::keep_first_token(platform, found.text.expose()).await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    tracing::warn!(file = %file.display(), "{}", STALE);
                    return Ok(());
                }
                // It is no token at all.
                Err(Refused::Unauthenticated) => {}
                Err(refused) => return Err(refused.into()),
            }
        }
    }
    let token = access::new_token(platform);
    // What is replaced was no valid token.
    write_private(file, &format!("{}\n", token.expose())).context("the first token could not be kept")?;
    if !access::keep_first_token(platform, token.expose()).await? {
        std::fs::remove_file(file).with_context(|| format!("{} can not be removed", file.display()))?;
        tracing::warn!(file = %file.display(), "{}", MISSING);
    }
    Ok(())
}

/// Said when there is no file, but a token.
const MISSING: &str = "the admin token file is missing, and the store holds only the hash of its token; clients need \
     that token in HODEI_TOKEN or back in this file. If nobody has it, stop the server, move the data folder away and \
     start with a new one";
/// Said when the file holds another token.
const STALE: &str = "the admin token file holds a token that is not valid here; put the token of this data folder \
     back, or set HODEI_TOKEN for clients";

struct Found {
    text: SecretString,
    is_private: bool,
}

fn read(file: &Path) -> Result<Option<Found>> {
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("the admin token file {} can not be read", file.display()))?,
    };
    let metadata = std::fs::metadata(file)
        .with_context(|| format!("the admin token file {} can not be looked at", file.display()))?;
    Ok(Some(Found {
        text: SecretString::new(text.trim().to_owned()),
        is_private: metadata.mode() & 0o077 == 0 && metadata.uid() == rustix::process::geteuid().as_raw(),
    }))
}
