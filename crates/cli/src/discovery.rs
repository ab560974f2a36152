//! Which server a command talks to, and with which token. Decided from values; nothing is contacted here.
//!
//! `--server`, then HODEI_SERVER, then the socket in the data folder. A token is never sent over plain HTTP to
//! another machine, and the data folder's own token goes to no machine but this one.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use hodei_shared::secret::SecretString;
use http::Uri;

use crate::environment::Environment;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket on this machine, whose peer must be this user or root.
    Socket(PathBuf),
    /// HTTP without encryption.
    Plain(Uri),
    /// HTTPS, verified against the certificates of one file only.
    Tls {
        /// Where.
        uri: Uri,
        /// PEM file of the only roots that are trusted.
        ca_file: PathBuf,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Plain(uri) | Self::Tls { uri, .. } => {
                write!(f, "{}", uri.to_string().trim_end_matches('/'))
            }
        }
    }
}

/// A server and the token for it.
#[derive(Debug)]
pub(crate) struct Server {
    /// Where it is.
    pub(crate) address: Address,
    /// What is sent as `authorization`.
    pub(crate) token: Token,
}

/// What is known of the token for a server.
#[derive(Debug)]
pub(crate) enum Token {
    /// It is this one.
    Known(SecretString),
    /// Nobody gave one, and nothing is known about where it is.
    None,
    /// It should stand in this file, which is not there.
    Missing(PathBuf),
}

impl Token {
    /// The token, unless it is known to be missing.
    ///
    /// # Errors
    /// Names the file that should be there, and what to do.
    pub(crate) fn required(&self) -> Result<Option<&SecretString>> {
        match self {
            Self::Known(token) => Ok(Some(token)),
            Self::None => Ok(None),
            Self::Missing(file) => bail!(
                "there is no token: {} is missing, and HODEI_TOKEN is not set.\nSet HODEI_TOKEN to a token of this \
                 server, or write the token that was in the file back into it; if nobody has one, end the server, \
                 move its data folder away and start with a new one",
                file.display()
            ),
        }
    }
}

const WHAT_TO_DO: &str = "Run the command on this machine with `hodei run --local`, start a server with `hodei dev`, \
     or name one with --server or HODEI_SERVER";

/// Decides which server to use.
///
/// # Errors
/// If there is none, or if the one that is named can not be talked to safely.
pub(crate) fn find(flag: Option<&str>, environment: &Environment) -> Result<Server> {
    let named = flag
        .map(|url| (url, "--server"))
        .or_else(|| environment.server.as_deref().map(|url| (url, "HODEI_SERVER")));
    let Some((url, origin)) = named else {
        return socket(environment);
    };
    let uri: Uri = url.parse().with_context(|| {
        format!("{origin}: `{url}` is not a URL; write http://127.0.0.1:7420 or https://HOST:PORT")
    })?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let here = is_loopback(&host);
    let token = match &environment.token {
        Some(token) => Token::Known(token.clone()),
        None if here => read_token(environment.data_dir.join("admin.token"))?,
        None => Token::None,
    };
    match uri.scheme_str() {
        Some("http") if !here && !matches!(token, Token::None) => bail!(
            "{origin}: a token is sent over http:// only to this machine, and `{host}` is another one; use https:// \
             and HODEI_CA_FILE"
        ),
        Some("http") => Ok(Server {
            address: Address::Plain(uri),
            token,
        }),
        Some("https") => {
            let Some(ca_file) = environment.ca_file.clone() else {
                bail!(
                    "{origin}: `{url}` needs HODEI_CA_FILE, the file with the certificate authority that signed the \
                     server's certificate (ca.pem in the server's data folder)"
                );
            };
            Ok(Server {
                address: Address::Tls { uri, ca_file },
                token,
            })
        }
        _ => bail!(
            "{origin}: `{url}` is not a URL of a server; write http://127.0.0.1:7420 or https://HOST:PORT"
        ),
    }
}

fn socket(environment: &Environment) -> Result<Server> {
    let path = environment.data_dir.join("run").join("client.sock");
    if !path.exists() {
        bail!(
            "no server was found: there is no socket {}.\n{WHAT_TO_DO}",
            path.display()
        );
    }
    let token = match &environment.token {
        Some(token) => Token::Known(token.clone()),
        None => read_token(environment.data_dir.join("admin.token"))?,
    };
    Ok(Server {
        address: Address::Socket(path),
        token,
    })
}

/// The error for a socket that nobody listens on.
pub(crate) fn nobody_listens(path: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "no server runs: nobody listens on {}.\n{WHAT_TO_DO}",
        path.display()
    )
}

/// The token in `file`.
///
/// # Errors
/// If the file exists and can not be read.
pub(crate) fn read_token(file: PathBuf) -> Result<Token> {
    match std::fs::read_to_string(&file) {
        Ok(text) => Ok(Token::Known(SecretString::new(text.trim().to_owned()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Token::Missing(file)),
        Err(error) => Err(error).with_context(|| {
            format!(
                "can not read the token in {}; set HODEI_TOKEN, or run as its owner",
                file.display()
            )
        }),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(data_dir: &Path) -> Environment {
        Environment {
            data_dir: data_dir.to_owned(),
            ..Default::default()
        }
    }

    fn error(flag: Option<&str>, environment: &Environment) -> String {
        format!("{:#}", find(flag, environment).expect_err("must be refused"))
    }

    #[test]
    fn without_a_server_the_ways_out_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = error(None, &environment(folder.path()));
        for word in ["--local", "hodei dev", "--server", "HODEI_SERVER", "client.sock"] {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn the_flag_wins_over_the_variable_and_that_over_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("run")).expect("created");
        std::fs::write(folder.path().join("run/client.sock"), "").expect("written");
        std::fs::write(folder.path().join("admin.token"), "tok\n").expect("written");
        let mut environment = environment(folder.path());
        let at =
            |flag, environment: &Environment| find(flag, environment).expect("found").address.to_string();
        assert!(at(None, &environment).ends_with("run/client.sock"));
        environment.server = Some("http://127.0.0.1:1".into());
        assert_eq!(at(None, &environment), "http://127.0.0.1:1");
        assert_eq!(at(Some("http://[::1]:2"), &environment), "http://[::1]:2");
        assert_eq!(token(&find(None, &environment).expect("found")), "tok");
        environment.token = Some(SecretString::new("own".into()));
        assert_eq!(token(&find(None, &environment).expect("found")), "own");
    }

    fn token(server: &Server) -> String {
        let token = server.token.required().expect("not missing").expect("there");
        token.expose().to_owned()
    }

    #[test]
    fn a_token_file_that_is_missing_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("run")).expect("created");
        std::fs::write(folder.path().join("run/client.sock"), "").expect("written");
        let environment = environment(folder.path());
        for flag in [None, Some("http://127.0.0.1:1")] {
            let server = find(flag, &environment).expect("found");
            let error = server.token.required().expect_err("missing").to_string();
            for word in ["admin.token is missing", "HODEI_TOKEN", "data folder"] {
                assert!(error.contains(word), "{error}");
            }
        }
    }

    #[test]
    fn a_token_is_not_sent_in_clear_to_another_machine() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("admin.token"), "tok\n").expect("written");
        let mut environment = environment(folder.path());
        let server = find(Some("http://example.org:7420"), &environment).expect("no token, no danger");
        assert!(
            matches!(server.token, Token::None),
            "the folder's own token stays on this machine"
        );
        environment.token = Some(SecretString::new("own".into()));
        assert!(error(Some("http://example.org:7420"), &environment).contains("https://"));
        assert!(error(Some("https://example.org:7420"), &environment).contains("HODEI_CA_FILE"));
        environment.ca_file = Some("/ca.pem".into());
        assert!(find(Some("https://example.org:7420"), &environment).is_ok());
    }

    #[test]
    fn what_is_no_url_is_refused() {
        let environment = environment(Path::new("/nowhere"));
        for url in ["127.0.0.1:7420", "ftp://localhost", "nonsense", "", "http://"] {
            assert!(error(Some(url), &environment).contains("--server"), "{url}");
        }
    }
}
