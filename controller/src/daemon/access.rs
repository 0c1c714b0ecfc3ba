//! Who may do what over which listener: everything on the control socket, reading on the socket of a second group and on the
//! metrics port, everything over TCP for whoever has the token.
//!
//! The token is only ever compared: it is on no command line, in no log and in no answer.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::exit::{Exit, Failure};

/// The credential of the service manager that holds the token.
const CREDENTIAL: &str = "api-token";
/// The variable that holds it otherwise.
const VARIABLE: &str = "FLOODWALL_API_TOKEN";
/// Shorter ones can be guessed.
const SHORTEST: usize = 16;

/// What a request over TCP has to show. Kept as its hash: comparing that takes as long whatever is wrong with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Finds it: in this file, else as the credential `api-token`, else in `FLOODWALL_API_TOKEN`.
    ///
    /// # Errors
    /// Where there is none, it is too short, or others can read the file.
    pub fn find(file: Option<&Path>) -> Result<Self, Failure> {
        let credential = std::env::var_os("CREDENTIALS_DIRECTORY").map(|path| PathBuf::from(path).join(CREDENTIAL));
        let text = match (file, credential.filter(|path| path.exists()), std::env::var(VARIABLE)) {
            (Some(file), ..) => read_secret(file)?,
            (None, Some(credential), _) => read_secret(&credential)?,
            (None, None, Ok(text)) => text,
            (None, None, Err(_)) => {
                let hint = format!("`api_token_file`, LoadCredential={CREDENTIAL}:… in the unit, or {VARIABLE}");
                return Err(Failure::new(Exit::Configuration, "the API over TCP takes a token").hint(hint));
            }
        };
        Self::new(&text)
    }

    fn new(text: &str) -> Result<Self, Failure> {
        let text = text.trim();
        if text.len() < SHORTEST {
            let text = format!("the token is too short: {SHORTEST} characters or more");
            return Err(Failure::new(Exit::Configuration, text).hint("openssl rand -hex 32"));
        }
        Ok(Self(Sha256::digest(text).into()))
    }

    fn is(&self, header: &HeaderValue) -> bool {
        let shown = header.as_bytes().strip_prefix(b"Bearer ");
        shown.is_some_and(|shown| <[u8; 32]>::from(Sha256::digest(shown)) == self.0)
    }
}

fn read_secret(path: &Path) -> Result<String, Failure> {
    let name = path.display();
    let refuse = |text: String| Failure::new(Exit::Configuration, text);
    let unreadable = |error| refuse(format!("cannot read {name}: {error}"));
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(refuse(format!("{name} has a token that others can read")).hint(format!("chmod 600 {name}")));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// Lets in who has the token, and tells others nothing.
pub(super) async fn check_token(State(token): State<Token>, request: Request, next: Next) -> Response {
    if request.headers().get(AUTHORIZATION).is_some_and(|shown| token.is(shown)) {
        return next.run(request).await;
    }
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], "it takes a token\n").into_response()
}

/// The socket of those who may only look, beside the control socket.
pub fn read_socket(control: &Path) -> PathBuf {
    let stem = control.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    control.with_file_name(format!("{stem}-read.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_is_compared_and_never_shown() {
        let token = Token::new("0123456789abcdef\n").expect("long enough");
        let shows = |text: &'static str| token.is(&HeaderValue::from_static(text));
        assert!(shows("Bearer 0123456789abcdef"));
        for wrong in ["Bearer 0123456789abcdeg", "Bearer ", "0123456789abcdef", "bearer 0123456789abcdef", ""] {
            assert!(!shows(wrong), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "Token");
        assert!(Token::new("short").is_err());
    }

    #[test]
    fn a_token_that_others_can_read_is_none() {
        let path = std::env::temp_dir().join(format!("floodwall-token-{}", std::process::id()));
        std::fs::write(&path, "0123456789abcdef").expect("written");
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        mode(0o640);
        let refused = Token::find(Some(&path)).expect_err("its group can").to_string();
        assert!(refused.contains("chmod 600") && !refused.contains("0123456789"), "{refused}");
        mode(0o600);
        assert!(Token::find(Some(&path)).is_ok());
        std::fs::remove_file(&path).expect("removed");
        assert!(Token::find(Some(&path)).is_err());
    }

    #[test]
    fn the_second_socket_is_beside_the_first() {
        assert_eq!(
            read_socket(Path::new("/run/floodwall/floodwall.sock")),
            Path::new("/run/floodwall/floodwall-read.sock")
        );
    }
}
