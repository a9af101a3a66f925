//! What a token says, as JSON. Known fields that stand there twice are refused: readers would disagree on
//! which one counts.

use super::refusal::TokenRefusal;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The three parts of a compact JWS, and what the signature covers.
pub(super) struct Parts<'a> {
    pub(super) header: Vec<u8>,
    pub(super) claims: Vec<u8>,
    pub(super) signature: &'a str,
    /// Header and claims as they stand in the token.
    pub(super) signed: &'a str,
}

impl<'a> Parts<'a> {
    pub(super) fn split(compact: &'a str) -> Result<Self, TokenRefusal> {
        let malformed = || TokenRefusal::Malformed("it is not three base64url parts with dots between");
        let (signed, signature) = compact.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or_else(malformed)?;
        if claims.contains('.') {
            return Err(malformed());
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
        Ok(Self { header: decode(header)?, claims: decode(claims)?, signature, signed })
    }
}

/// The JOSE header. Fields that we do not use are refused: `jku`, `x5u` and `jwk` name keys to trust, `crit`
/// asks for what we do not do.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header<'a> {
    #[serde(borrow)]
    pub(super) alg: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) typ: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) kid: Option<Cow<'a, str>>,
}

impl<'a> Header<'a> {
    pub(super) fn read(json: &'a [u8]) -> Result<Self, TokenRefusal> {
        const WHY: &str = "its header is not {alg, typ, kid}";
        serde_json::from_slice(json).map_err(|error| refusal(&error, WHY))
    }
}

/// The claims that we read and write; others are left alone.
#[derive(Deserialize, Serialize)]
pub(super) struct Claims<'a> {
    #[serde(borrow)]
    pub(super) iss: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) sub: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) aud: Option<Cow<'a, str>>,
    pub(super) iat: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nbf: Option<u64>,
    pub(super) exp: Option<u64>,
    #[serde(borrow)]
    pub(super) jti: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) scope: Option<Cow<'a, str>>,
}

impl<'a> Claims<'a> {
    pub(super) fn read(json: &'a [u8]) -> Result<Self, TokenRefusal> {
        serde_json::from_slice(json)
            .map_err(|error| refusal(&error, "its claims are not those of an access token"))
    }
}

fn refusal(error: &serde_json::Error, otherwise: &'static str) -> TokenRefusal {
    let text = error.to_string();
    // serde's own words; a test holds them. The name is one of ours, not the sender's.
    match text.strip_prefix("duplicate field `").and_then(|rest| rest.split('`').next()) {
        Some(name) => TokenRefusal::Duplicate(name.to_owned()),
        None => TokenRefusal::Malformed(otherwise),
    }
}
