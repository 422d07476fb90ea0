//! Who is asking: bearer tokens of MCP clients.
//!
//! Only the BLAKE3 hash of a token is kept. Tokens are long random strings, so a fast hash is enough; it also makes
//! all comparisons the same length. A token is never logged, never shown by `Debug` and never passed on.

use std::{fmt, sync::Arc};

use hyper::{HeaderMap, header};
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;

use comity_protocol::constraints::Constraints;

use crate::gateway::LOCAL_PRINCIPAL;

/// One client's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    /// The principal's name: goes to logs, policy and upstreams.
    pub name: String,
    /// The token's hash.
    pub secret: TokenSecret,
    /// What is demanded of this client's calls, besides the endpoint's own constraints.
    pub constraints: Constraints,
}

/// The hash of a bearer token. Equality is for comparing configurations; what clients present is compared in
/// constant time.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret([u8; 32]);

/// Why a token's hash could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a token hash is written `blake3:` and 64 hexadecimal digits")]
pub struct TokenHashError;

impl TokenSecret {
    /// The hash of a token that is at hand, as from a `token_file` (whose surrounding whitespace does not count).
    #[must_use]
    pub fn of_token(token: &str) -> Self {
        Self(*blake3::hash(token.trim().as_bytes()).as_bytes())
    }

    /// Reads `blake3:<64 hexadecimal digits>`, as in `token_hash`.
    ///
    /// # Errors
    /// [`TokenHashError`] when the text has another form.
    pub fn from_hash(text: &str) -> Result<Self, TokenHashError> {
        let digits = text.strip_prefix("blake3:").ok_or(TokenHashError)?;
        let bytes =
            data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| TokenHashError)?;
        bytes.try_into().map(Self).map_err(|_| TokenHashError)
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("TokenSecret(..)")
    }
}

/// A caller whose identity is settled.
#[derive(Debug)]
pub(super) struct Principal {
    /// Its name.
    pub(super) name: Arc<str>,
    /// What its token demands.
    pub(super) constraints: Option<Arc<Constraints>>,
}

/// Why a request was not let in. Answered with 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unauthorized {
    /// No usable `Authorization: Bearer` header.
    Missing,
    /// A token that nobody here has.
    Unknown,
}

impl Unauthorized {
    /// The value of `WWW-Authenticate` (RFC 6750, section 3).
    pub(super) fn challenge(self) -> &'static str {
        match self {
            Self::Missing => r#"Bearer realm="comity""#,
            Self::Unknown => r#"Bearer realm="comity", error="invalid_token""#,
        }
    }
}

/// Every token of one endpoint.
#[derive(Debug)]
pub(super) struct Tokens {
    entries: Vec<(TokenSecret, Arc<Principal>)>,
    local: Arc<Principal>,
}

impl Tokens {
    pub(super) fn new(configs: &[TokenConfig]) -> Self {
        let entry = |config: &TokenConfig| {
            let constraints = Some(Arc::new(config.constraints.clone()));
            let principal = Principal { name: config.name.as_str().into(), constraints };
            (config.secret.clone(), Arc::new(principal))
        };
        let local = Principal { name: LOCAL_PRINCIPAL.into(), constraints: None };
        Self { entries: configs.iter().map(entry).collect(), local: Arc::new(local) }
    }

    /// The caller that needs no token.
    pub(super) fn local(&self) -> &Arc<Principal> {
        &self.local
    }

    /// Settles who sent a request with these headers.
    pub(super) fn identify(&self, headers: &HeaderMap) -> Result<&Arc<Principal>, Unauthorized> {
        if self.entries.is_empty() {
            return Ok(&self.local);
        }
        let token = bearer(headers).ok_or(Unauthorized::Missing)?;
        self.find(&TokenSecret::of_token(token)).ok_or(Unauthorized::Unknown)
    }

    /// Looks at every entry whatever matches, so that time tells nothing.
    fn find(&self, presented: &TokenSecret) -> Option<&Arc<Principal>> {
        let mut found = None;
        for (secret, principal) in &self.entries {
            let same: Choice = secret.0.ct_eq(&presented.0);
            if bool::from(same) {
                found = Some(principal);
            }
        }
        found
    }
}

/// The one bearer token of a request. Two `Authorization` headers are none: nobody can say which one counts.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (first, second) = (values.next()?, values.next());
    let (scheme, token) = first.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (second.is_none() && scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let config = |name: &str, token: &str| TokenConfig {
            name: name.into(),
            secret: TokenSecret::of_token(token),
            constraints: Constraints::default(),
        };
        Tokens::new(&[config("ana", "secret-a"), config("ben", "secret-b")])
    }

    fn identify(tokens: &Tokens, values: &[&str]) -> Result<String, Unauthorized> {
        let mut headers = HeaderMap::new();
        values.iter().for_each(|value| {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        });
        tokens.identify(&headers).map(|principal| principal.name.to_string())
    }

    #[test]
    fn tokens_name_their_principal() {
        let tokens = tokens();
        assert_eq!(identify(&tokens, &["Bearer secret-a"]), Ok("ana".into()));
        assert_eq!(identify(&tokens, &["bearer  secret-b "]), Ok("ben".into()));
        assert_eq!(identify(&tokens, &["Bearer secret"]), Err(Unauthorized::Unknown));
        for none in [&[][..], &["Basic secret-a"], &["Bearer "], &["Bearer secret-a", "Bearer secret-b"]] {
            assert_eq!(identify(&tokens, none), Err(Unauthorized::Missing), "{none:?}");
        }
        assert_eq!(identify(&Tokens::new(&[]), &["Bearer whatever"]), Ok(LOCAL_PRINCIPAL.into()));
    }

    #[test]
    fn hashes_are_read_and_never_shown() {
        let hash = format!("blake3:{}", blake3::hash(b"secret-a").to_hex());
        let secret = TokenSecret::from_hash(&hash).unwrap();
        assert!(bool::from(secret.0.ct_eq(&TokenSecret::of_token(" secret-a\n").0)));
        assert_eq!(format!("{secret:?}"), "TokenSecret(..)");
        for wrong in ["", "blake3:", "sha256:00", &hash[..70], &format!("{hash}00")] {
            assert_eq!(TokenSecret::from_hash(wrong).err(), Some(TokenHashError), "{wrong}");
        }
    }
}
