//! Signed tokens (JWT, RFC 7519): who a worker is and what it may register, as somebody else wrote it and signed it with a key
//! of a JWKS (RFC 7517). Files, and what follows from a token, never enter.
//!
//! The signatures are aws-lc-rs's, which TLS here brings already; the rest of JOSE that is wanted is two base64 alphabets and
//! three JSON objects, less than what a library of it would let in and had to be told to refuse.

use std::collections::HashSet;
use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserializer, IgnoredAny};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Number, Value};

use super::config::TokenRules;
use crate::limits::{
    CREDENTIAL_LINKS, CREDENTIAL_LINKS_LIMIT, JWKS_KEYS_MAX, KEY_ID_BYTES_MAX, TOKEN_BYTES_MAX, TOKEN_ID_BYTES_MAX,
    TOKEN_ORIGINS_MAX, TOKEN_SKEW_S, TOKENS_DENIED_MAX,
};
use crate::settings::{Mistakes, Place, plain};
use crate::wire::origin::OriginPattern;

/// Keys whose tokens are believed, and what has to stand in these.
pub struct Tokens {
    issuer: String,
    audience: String,
    /// From now to the end of a token.
    lifetime_s_max: u64,
    keys: Vec<Key>,
}

/// Names whose tokens are not good, whoever signed them: what is known to be stolen, and who is no longer wanted.
#[derive(Default)]
pub struct Denied(HashSet<String>);

impl Denied {
    /// Reads a list of names: one `sub` on each line, as it stands in a token.
    ///
    /// # Errors
    /// When a line cannot be a `sub`, or there are too many.
    pub fn parse(file: &str, text: &[u8]) -> Result<Denied, Mistakes> {
        let mut mistakes = Mistakes::new(file);
        let mut names = HashSet::new();
        for (line, name) in (1_u32..).zip(text.split(|byte| *byte == b'\n')) {
            let name = name.trim_ascii();
            match std::str::from_utf8(name) {
                _ if name.is_empty() => {}
                Ok(name) if is_name(name) => drop(names.insert(name.to_owned())),
                _ => {
                    let mend = "write one `sub` on each line, at most 256 visible ASCII characters";
                    mistakes.error(Place::Line { line, column: 1 }, "this is no name of a token", mend);
                }
            }
        }
        if names.len() > TOKENS_DENIED_MAX {
            let mend = format_args!("{TOKENS_DENIED_MAX} at most; take those out whose tokens have ended");
            mistakes.error(Place::File, format_args!("{} names", names.len()), mend);
        }
        if mistakes.has_errors() { Err(mistakes) } else { Ok(Denied(names)) }
    }

    #[must_use]
    pub fn has(&self, sub: &str) -> bool {
        self.0.contains(sub)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everybody whom `other` has is here, too.
    #[must_use]
    pub fn has_all(&self, other: &Denied) -> bool {
        other.0.is_subset(&self.0)
    }

    /// How many of these `other` has, too.
    #[must_use]
    pub fn shared_with(&self, other: &Denied) -> usize {
        self.0.intersection(&other.0).count()
    }

    /// Whoever is in one of the two.
    #[must_use]
    pub fn with(&self, other: &Denied) -> Denied {
        Denied(self.0.union(&other.0).cloned().collect())
    }
}

/// A key of a JWKS. Which algorithm it is for is the key's to say, never a token's alone (RFC 8725 §3.1).
struct Key {
    id: KeyId,
    algorithm: Algorithm,
    public: ParsedPublicKey,
}

/// Which key signed a token: another one under the same name is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyId {
    pub name: String,
    public: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    /// Ed25519 (RFC 8037); RFC 9864 calls it so, too.
    EdDsa,
    /// ECDSA over P-256 with SHA-256 (RFC 7518 §3.4).
    Es256,
}

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: visible ASCII.
    pub id: String,
    /// At least one, each once.
    pub origins: Vec<OriginPattern>,
    pub links_max: u32,
    /// `exp`, in seconds since 1970.
    pub expires_unix: u64,
    pub key: KeyId,
}

impl Tokens {
    /// Reads a JWKS. Keys of other kinds are left out, with a warning.
    ///
    /// # Errors
    /// When a key cannot be used that is meant to be, or the text is no JWKS.
    pub fn parse(rules: &TokenRules, file: &str, text: &[u8]) -> Result<(Tokens, Mistakes), Mistakes> {
        let mut mistakes = Mistakes::new(file);
        let keys = keys(text, &mut mistakes);
        if mistakes.has_errors() {
            return Err(mistakes);
        }
        let TokenRules { issuer, audience, lifetime_ms_max, .. } = rules;
        let lifetime_s_max = lifetime_ms_max / 1_000;
        Ok((Tokens { issuer: issuer.clone(), audience: audience.clone(), lifetime_s_max, keys }, mistakes))
    }

    /// Whether a Bearer credential can be a token at all: three parts (RFC 7515 §7.1).
    #[must_use]
    pub fn is_token(bearer: &[u8]) -> bool {
        bearer.iter().filter(|byte| **byte == b'.').count() == 2
    }

    /// Checks a token's signature, and then what it says.
    ///
    /// # Errors
    /// Says why it is not good; nothing of the token is in it.
    pub fn read(&self, token: &[u8], now_unix: u64) -> Result<Claims, &'static str> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("the token is too long");
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("a token has three parts");
        };
        let signed = &token[..header.len() + 1 + claims.len()];
        let key = self.key(&decoded(header).ok_or("the token's header cannot be read")?)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "the token's signature is not base64url")?;
        key.public.verify_sig(signed, &signature).map_err(|_| "the token's signature is wrong")?;
        // Only now is it somebody's word.
        let claims: ClaimsJson = decoded(claims).ok_or("the token's claims cannot be read")?;
        self.judge(claims, now_unix, key)
    }

    /// The key that this header names, if the header says of it what the key says itself.
    fn key(&self, header: &HeaderJson) -> Result<&Key, &'static str> {
        if header.crit {
            return Err("the token has a critical extension, and none is known"); // RFC 7515 §4.1.11
        }
        let known = |typ: &String| typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("at+jwt");
        if !header.typ.as_ref().is_none_or(known) {
            return Err("the token is of another type");
        }
        let key = self.keys.iter().find(|key| key.id.name == header.kid).ok_or("no key has the token's kid")?;
        if !key.algorithm.names().contains(&header.alg.as_str()) {
            return Err("the token's alg is not its key's");
        }
        Ok(key)
    }

    fn judge(&self, claims: ClaimsJson, now_unix: u64, key: &Key) -> Result<Claims, &'static str> {
        if claims.iss != self.issuer {
            return Err("the token is of another issuer");
        }
        let audiences = match &claims.aud {
            Audience::One(one) => std::slice::from_ref(one),
            Audience::Many(many) => many,
        };
        if !audiences.contains(&self.audience) {
            return Err("the token is for another audience");
        }
        let expires_unix = seconds(&claims.exp).ok_or("the token's exp is no moment")?;
        if expires_unix <= now_unix {
            return Err("the token has expired");
        }
        if expires_unix - now_unix > self.lifetime_s_max {
            return Err("the token's exp is further ahead than `lifetime_max`");
        }
        if let Some(nbf) = &claims.nbf {
            let begins = seconds(nbf).ok_or("the token's nbf is no moment")?;
            if begins > now_unix.saturating_add(TOKEN_SKEW_S) {
                return Err("the token is not good yet");
            }
        }
        if !is_name(&claims.sub) {
            return Err("the token's sub is not a name");
        }
        if claims.origins.len() > TOKEN_ORIGINS_MAX {
            return Err("the token has too many origins");
        }
        let mut origins = Vec::with_capacity(claims.origins.len());
        for text in &claims.origins {
            // RFC 6454 §7.1: what has no origin is written so, and it would be a host's name here.
            let parsed = OriginPattern::parse(text).ok().filter(|_| !text.eq_ignore_ascii_case("null"));
            let origin = parsed.ok_or("the token has an origin that is none")?;
            if !origins.contains(&origin) {
                origins.push(origin);
            }
        }
        if origins.is_empty() {
            return Err("the token has no origins");
        }
        let links_max = match claims.max_links {
            None => CREDENTIAL_LINKS,
            Some(links) if (1..=CREDENTIAL_LINKS_LIMIT).contains(&links) => {
                u32::try_from(links).map_err(|_| "the token's max_links is out of its range")?
            }
            Some(_) => return Err("the token's max_links is out of its range"),
        };
        Ok(Claims { id: claims.sub, origins, links_max, expires_unix, key: key.id.clone() })
    }

    /// Whether tokens that this key has signed are still believed.
    #[must_use]
    pub fn has_key(&self, id: &KeyId) -> bool {
        self.keys.iter().any(|key| key.id == *id)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id.name)).finish()
    }
}

/// What a `sub` has to be here.
fn is_name(sub: &str) -> bool {
    (1..=TOKEN_ID_BYTES_MAX).contains(&sub.len()) && sub.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Algorithm {
    /// As `alg` has it.
    fn names(self) -> &'static [&'static str] {
        match self {
            Algorithm::EdDsa => &["EdDSA", "Ed25519"],
            Algorithm::Es256 => &["ES256"],
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Algorithm::EdDsa => &ED25519,
            Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
        }
    }
}

/// JOSE's header (RFC 7515 §4). What is not named here says nothing about whether a token is good: a key that it brings along is
/// never looked at (RFC 8725 §3.10).
#[derive(Deserialize)]
struct HeaderJson {
    alg: String,
    kid: String,
    #[serde(default, deserialize_with = "given")]
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

#[derive(Deserialize)]
struct ClaimsJson {
    iss: String,
    aud: Audience,
    sub: String,
    exp: Number,
    #[serde(default, deserialize_with = "given")]
    nbf: Option<Number>,
    origins: Vec<String>,
    #[serde(default, deserialize_with = "given")]
    max_links: Option<u64>,
}

/// RFC 7519 §4.1.3.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// What is there has to be what it should be; `null` is not.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// It is there, whatever it is.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// A JSON object in base64url. A member that is named in `T` and is there twice makes it unreadable (RFC 8725 §3.12 leaves no
/// room for two readings).
fn decoded<T: DeserializeOwned>(part: &[u8]) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    // A struct would be read from a list, too.
    if !json.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    serde_json::from_slice(&json).ok()
}

/// A NumericDate (RFC 7519 §2), without its fraction. What is too late for us is late; what was before 1970 is nothing.
fn seconds(date: &Number) -> Option<u64> {
    if let Some(seconds) = date.as_u64() {
        return Some(seconds);
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a cast saturates, and what is negative is gone
    date.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64)
}

/// The keys of a JWKS that tokens can be signed with here.
fn keys(text: &[u8], mistakes: &mut Mistakes) -> Vec<Key> {
    const MEND: &str = "write { \"keys\": [ … ] } (RFC 7517)";
    let set: Map<String, Value> = match serde_json::from_slice(text) {
        Ok(set) => set,
        Err(error) => {
            let count = |n| u32::try_from(n).unwrap_or(u32::MAX).max(1);
            let place = Place::Line { line: count(error.line()), column: count(error.column()) };
            mistakes.error(place, "this is not a JSON object", MEND);
            return Vec::new();
        }
    };
    let Some(Value::Array(all)) = set.get("keys") else {
        mistakes.error(Place::File, "there is no list `keys`", MEND);
        return Vec::new();
    };
    if all.len() > JWKS_KEYS_MAX {
        mistakes.error(Place::File, format_args!("{} keys", all.len()), format_args!("{JWKS_KEYS_MAX} at most"));
        return Vec::new();
    }
    let mut keys: Vec<Key> = Vec::with_capacity(all.len());
    for (index, key) in all.iter().enumerate() {
        let what = |why: &str| match key.get("kid").and_then(Value::as_str) {
            Some(name) => format!("key `{}` {why}", plain(name, 60)),
            None => format!("key {} {why}", index + 1),
        };
        match Key::of(key) {
            Ok(Some(key)) if keys.iter().any(|other| other.id.name == key.id.name) => {
                mistakes.error(Place::File, what("is there twice"), "give each key its own `kid`");
            }
            Ok(Some(key)) => keys.push(key),
            Ok(None) => {
                let mend = "tokens are signed with EdDSA (Ed25519) or ES256";
                mistakes.warning(Place::File, what("is for something else and is left out"), mend);
            }
            Err((why, mend)) => mistakes.error(Place::File, what(why), mend),
        }
    }
    if keys.is_empty() && !mistakes.has_errors() {
        mistakes.warning(Place::File, "there is no key, so no token is good", "add a key");
    }
    keys
}

impl Key {
    /// `None`: it is for something else.
    ///
    /// # Errors
    /// What is wrong with it, and how to mend it.
    fn of(key: &Value) -> Result<Option<Key>, (&'static str, &'static str)> {
        let member = |name: &str| key.get(name).and_then(Value::as_str);
        // Whoever may read this file could sign tokens.
        if key.get("d").is_some() || key.get("k").is_some() {
            return Err(("is a private key", "put the public key there, and make a new pair: this one was seen"));
        }
        let (algorithm, public) = match (member("kty"), member("crv")) {
            (Some("OKP"), Some("Ed25519")) => (Algorithm::EdDsa, coordinates(key, &["x"])),
            (Some("EC"), Some("P-256")) => (Algorithm::Es256, coordinates(key, &["x", "y"])),
            (Some(_), _) => return Ok(None),
            (None, _) => return Err(("has no `kty`", "write a JWK (RFC 7517)")),
        };
        let signs = key.get("use").is_none_or(|own| own == "sig");
        let may = |own: &Value| own.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"));
        let is_its = |own: &Value| own.as_str().is_some_and(|own| algorithm.names().contains(&own));
        if !signs || !key.get("key_ops").is_none_or(may) || !key.get("alg").is_none_or(is_its) {
            return Ok(None);
        }
        let name = member("kid").filter(|name| (1..=KEY_ID_BYTES_MAX).contains(&name.len()));
        let name = name.ok_or(("has no usable `kid`", "give it a name of at most 256 bytes"))?.to_owned();
        const MEND: &str = "write it anew from its owner's JWKS";
        let mut public = public.ok_or(("has a coordinate that is not 32 bytes of base64url", MEND))?;
        if algorithm == Algorithm::Es256 {
            public.insert(0, 4); // an uncompressed point (SEC 1, §2.3.3)
        }
        let parsed = ParsedPublicKey::new(algorithm.verification(), &public);
        let parsed = parsed.map_err(|_| ("is no point of its curve", MEND))?;
        Ok(Some(Key { id: KeyId { name, public }, algorithm, public: parsed }))
    }
}

fn coordinates(key: &Value, names: &[&str]) -> Option<Vec<u8>> {
    let mut public = Vec::with_capacity(65);
    for name in names {
        let coordinate = URL_SAFE_NO_PAD.decode(key.get(name)?.as_str()?).ok().filter(|bytes| bytes.len() == 32)?;
        public.extend(coordinate);
    }
    Some(public)
}
