//! Who a worker is, from what its setup shows, and what it may register. Files, and the links that a credential holds, never
//! enter.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use subtle::{Choice, ConstantTimeEq as _};

use super::config::{Credential, Pool, Proof, SecretHash};
use super::patterns::{includes, shares};
use super::tls::Vouched;
use super::tokens::{Claims, Denied, KeyId, Tokens};
use crate::limits::CREDENTIALS_MAX;
use crate::wire::origin::{Origin, OriginPattern};
use crate::wire::setup::Presented;
use crate::xcore::{Seat, Seats};

/// The credentials that are good at one moment. What changes them makes new ones.
#[derive(Default)]
pub struct Credentials {
    list: Vec<Held>,
    /// Where each secret is in `list`, by its hash.
    secrets: HashMap<SecretHash, Place>,
    /// Some worker may turn a connection by the name of its certificate alone.
    inverts: bool,
    /// Some worker may set up as before the drafts.
    has_legacy: bool,
    /// Whose tokens are credentials, too.
    tokens: Option<Arc<Tokens>>,
    /// Whose are not.
    denied: Arc<Denied>,
    seats: Arc<SeatBook>,
}

/// A credential, and the links that it holds.
struct Held {
    credential: Credential,
    seats: Arc<Seats>,
}

/// The links of all credentials, whichever of them are good now: one that comes back finds those that it still holds. As large
/// as the list, and as the links of tokens are many.
#[derive(Default)]
pub struct SeatBook {
    rows: Mutex<HashMap<Holder, Weak<Seats>>>,
}

/// Whose links are counted together.
#[derive(PartialEq, Eq, Hash)]
enum Holder {
    Credential(String),
    /// All tokens with this `sub`.
    Token(String),
}

impl SeatBook {
    fn row(&self, holder: Holder) -> Arc<Seats> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seats) = rows.get(&holder).and_then(Weak::upgrade) {
            return seats;
        }
        // A token's row is nobody's when its last link is gone; looked at when there is no room for another.
        if rows.len() == rows.capacity() {
            rows.retain(|_, seats| seats.strong_count() > 0);
        }
        let fresh = Seats::new();
        rows.insert(holder, Arc::downgrade(&fresh));
        fresh
    }
}

/// What a setup shows of its worker.
#[derive(Clone, Copy, Default)]
pub struct Shown<'a> {
    pub presented: Option<&'a Presented>,
    /// Of its TLS connection; looked at where nothing is presented.
    pub certificate: Option<&'a Vouched>,
}

/// Who a worker has proved to be, and what follows from that. It goes with the worker's link.
pub struct Badge {
    /// As it is shown.
    pub id: String,
    proved: Proved,
    origins: Vec<OriginPattern>,
    links_max: u32,
    /// It may set up as before the drafts.
    pub legacy: bool,
    /// It has.
    is_legacy: bool,
    /// Seconds since 1970: of the credential or of its proof, whichever comes first.
    pub expires_unix: Option<u64>,
    seats: Arc<Seats>,
}

/// What a worker has shown.
#[derive(Clone, PartialEq, Eq)]
enum Proved {
    Secret(SecretHash),
    Certificate {
        name: String,
        /// Whose word it is.
        authority: PathBuf,
        not_after_unix: u64,
    },
    Token {
        key: KeyId,
        expires_unix: u64,
    },
    /// It came to an address that is its credential's own.
    Listener,
}

/// Why a setup is answered 401. The worker never learns which; the log does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No credential, or one of an unknown scheme, and no certificate.
    Missing,
    /// No credential has this secret, or, for Basic, this id with this secret.
    Wrong,
    /// No credential has a name of this certificate, or not from its authority.
    Unknown,
    /// It is a token, and not a good one.
    Token(&'static str),
    /// It is a token, and none may be looked at now.
    Unread,
    /// The credential with this id is over.
    Expired(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Missing => f.write_str("it showed no credential"),
            Refusal::Wrong => f.write_str("no credential has this secret"),
            Refusal::Unknown => f.write_str("no credential has a name of its certificate, from its authority"),
            Refusal::Token(why) => f.write_str(why),
            Refusal::Unread => f.write_str("its token was not looked at"),
            Refusal::Expired(id) => write!(f, "credential {id} has expired"),
        }
    }
}

/// What has become of a badge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is good, up to this second.
    Good(Option<u64>),
    /// Its credential, its secret or its name was withdrawn, may not set up as it has any more, may register other origins now, or nobody vouches for its
    /// certificate any more.
    Withdrawn,
}

/// A secret in the list: its credential, and which of its secrets it is.
#[derive(Clone, Copy)]
struct Place {
    credential: usize,
    secret: usize,
}

impl Credentials {
    /// No two of `list` have the same id, a secret or a name in common.
    #[must_use]
    pub fn new(
        list: &[Credential],
        tokens: Option<Arc<Tokens>>,
        denied: Arc<Denied>,
        seats: Arc<SeatBook>,
    ) -> Credentials {
        debug_assert!(list.len() <= CREDENTIALS_MAX);
        let held = |credential: &Credential| Held {
            credential: credential.clone(),
            seats: seats.row(Holder::Credential(credential.id.clone())),
        };
        let names_itself = |credential: &Credential| matches!(credential.proof, Proof::Certificate { .. });
        let has_origin = |credential: &Credential| exact(&credential.origins).next().is_some();
        let mut secrets = HashMap::new();
        for (credential, own) in list.iter().enumerate() {
            let Proof::Secrets(hashes) = &own.proof else { continue };
            for (secret, hash) in hashes.iter().enumerate() {
                secrets.insert(*hash, Place { credential, secret });
            }
        }
        Credentials {
            list: list.iter().map(held).collect(),
            secrets,
            inverts: list.iter().any(|credential| names_itself(credential) && has_origin(credential)),
            has_legacy: list.iter().any(|credential| credential.legacy),
            tokens,
            denied,
            seats,
        }
    }

    /// Whether anybody could turn a connection by a TLS handshake alone.
    #[must_use]
    pub fn inverts(&self) -> bool {
        self.inverts
    }

    /// Whether anybody may set up as before the drafts.
    #[must_use]
    pub fn has_legacy(&self) -> bool {
        self.has_legacy
    }

    /// For whoever comes to an address that is a credential's own.
    ///
    /// # Errors
    /// When there is no such credential, or it has expired.
    pub fn of_listener(&self, id: &str, now_unix: u64) -> Result<Badge, Refusal> {
        let held = self.list.iter().find(|held| held.credential.id == id).ok_or(Refusal::Unknown)?;
        held.badge(Proved::Listener).in_time(now_unix)
    }

    /// Checks what a setup shows: `Basic` with id and secret, or `Bearer` with the secret alone or a token (RFC 7617, RFC 6750);
    /// where it presents neither, the names in its certificate. A secret costs a hash; a token costs a signature, and
    /// `may_look` is asked before one is looked at.
    ///
    /// # Errors
    /// When the setup is to be answered 401.
    pub fn check(&self, shown: Shown<'_>, now_unix: u64, may_look: impl FnOnce() -> bool) -> Result<Badge, Refusal> {
        let badge = match (shown.presented, shown.certificate) {
            (Some(Presented::Basic { id, secret }), _) => self.by_secret(Some(id), secret)?,
            (Some(Presented::Bearer(bearer)), _) => match (self.by_secret(None, bearer), &self.tokens) {
                (Err(Refusal::Wrong), Some(tokens)) if Tokens::is_token(bearer) => {
                    if !may_look() {
                        return Err(Refusal::Unread);
                    }
                    let claims = tokens.read(bearer, now_unix).map_err(Refusal::Token)?;
                    if self.denied.has(&claims.id) {
                        return Err(Refusal::Token("the token's sub is in `denied_file`"));
                    }
                    self.by_token(claims)
                }
                (known, _) => known?,
            },
            (None, Some(certificate)) => self.by_certificate(certificate)?,
            (None, None) => return Err(Refusal::Missing),
        };
        badge.in_time(now_unix)
    }

    /// One look, however many secrets there are. What is looked up is the hash of what was presented, by a hash of that with keys of
    /// this process's own: where a look ends early depends on bits that nobody who does not know the secret can choose (that
    /// would be a preimage of SHA-256) or see, so its time tells nothing about how close a guess was. What decides is compared
    /// in constant time all the same, the hash and the id at once; a list without any secret that is presented takes
    /// as long, with a hash that is nobody's.
    fn by_secret(&self, id: Option<&str>, secret: &[u8]) -> Result<Badge, Refusal> {
        const NOBODYS: SecretHash = SecretHash([0; 32]);
        let hash = SecretHash::of(secret);
        let place = self.secrets.get(&hash).copied();
        let held = place.and_then(|place| self.list.get(place.credential));
        let own = match (place, held.map(|held| &held.credential.proof)) {
            (Some(place), Some(Proof::Secrets(hashes))) => hashes.get(place.secret),
            _ => None,
        };
        let own_id = held.map_or("", |held| held.credential.id.as_str());
        let same_id = id.map_or(Choice::from(1), |id| id.as_bytes().ct_eq(own_id.as_bytes()));
        let is_right = same_id & hash.0.ct_eq(&own.unwrap_or(&NOBODYS).0);
        match (held, own) {
            (Some(held), Some(own)) if bool::from(is_right) => Ok(held.badge(Proved::Secret(*own))),
            _ => Err(Refusal::Wrong),
        }
    }

    /// The names of a certificate are no secrets. The first of them counts that is some credential's, as a name that its
    /// authority has given.
    fn by_certificate(&self, certificate: &Vouched) -> Result<Badge, Refusal> {
        let known = |name: &String| {
            let (held, authority, not_after_unix) = self.list.iter().find_map(|held| match &held.credential.proof {
                Proof::Certificate { name: own, authority } if own == name => {
                    Some((held, authority, certificate.until_unix(authority)?))
                }
                Proof::Certificate { .. } | Proof::Secrets(_) => None,
            })?;
            let (name, authority) = (name.clone(), authority.clone());
            Some(held.badge(Proved::Certificate { name, authority, not_after_unix }))
        };
        certificate.names.iter().find_map(known).ok_or(Refusal::Unknown)
    }

    fn by_token(&self, claims: Claims) -> Badge {
        let Claims { id, origins, links_max, expires_unix, key } = claims;
        let seats = self.seats.row(Holder::Token(id.clone()));
        let proved = Proved::Token { key, expires_unix };
        Badge {
            id,
            expires_unix: proved.expires_unix(),
            proved,
            origins,
            links_max,
            legacy: false,
            is_legacy: false,
            seats,
        }
    }

    /// What these credentials say about a badge that earlier ones gave, and about what its certificate says now.
    #[must_use]
    pub fn standing(&self, badge: &Badge, certificate: Option<&Vouched>) -> Standing {
        if let Proved::Token { key, expires_unix } = &badge.proved {
            let is_known = self.tokens.as_ref().is_some_and(|tokens| tokens.has_key(key));
            return if is_known && !self.denied.has(&badge.id) {
                Standing::Good(Some(*expires_unix))
            } else {
                Standing::Withdrawn
            };
        }
        let Some(held) = self.list.iter().find(|held| held.credential.id == badge.id) else {
            return Standing::Withdrawn;
        };
        let own = &held.credential;
        let proof_ends = match (&badge.proved, &own.proof) {
            (Proved::Secret(hash), Proof::Secrets(hashes)) if hashes.contains(hash) => None,
            (Proved::Certificate { name, authority, .. }, Proof::Certificate { name: own, authority: wanted })
                if (name, authority) == (own, wanted) =>
            {
                let said = certificate.filter(|said| said.names.contains(name));
                let Some(until_unix) = said.and_then(|said| said.until_unix(authority)) else {
                    return Standing::Withdrawn;
                };
                Some(until_unix)
            }
            (Proved::Listener, _) => None,
            (Proved::Secret(_) | Proved::Certificate { .. } | Proved::Token { .. }, _) => return Standing::Withdrawn,
        };
        if are_same(&own.origins, &badge.origins) && (own.legacy || !badge.is_legacy) {
            Standing::Good(earlier(own.expires_unix, proof_ends))
        } else {
            Standing::Withdrawn
        }
    }
}

impl Held {
    fn badge(&self, proved: Proved) -> Badge {
        let Credential { id, origins, links_max, expires_unix, legacy, .. } = &self.credential;
        Badge {
            id: id.clone(),
            expires_unix: earlier(*expires_unix, proved.expires_unix()),
            proved,
            origins: origins.clone(),
            links_max: *links_max,
            legacy: *legacy,
            is_legacy: false,
            seats: self.seats.clone(),
        }
    }
}

impl Proved {
    fn expires_unix(&self) -> Option<u64> {
        match self {
            Proved::Secret(_) | Proved::Listener => None,
            Proved::Certificate { not_after_unix, .. } => Some(*not_after_unix),
            Proved::Token { expires_unix, .. } => Some(*expires_unix),
        }
    }
}

impl Badge {
    /// How it was proved, for a log line.
    #[must_use]
    pub fn proof(&self) -> String {
        match &self.proved {
            Proved::Secret(_) => "secret".into(),
            Proved::Certificate { name, .. } => format!("certificate {name}"),
            Proved::Token { key, .. } => format!("token of key {}", key.name),
            Proved::Listener => "listener".into(),
        }
    }

    /// Its worker has set up as before the drafts: it stands as long as its credential allows that.
    #[must_use]
    pub fn sets_up_as_before_the_drafts(self) -> Badge {
        debug_assert!(self.legacy);
        Badge { is_legacy: true, ..self }
    }

    /// A certificate has proved it: so long as that is good, it is.
    #[must_use]
    pub fn is_by_certificate(&self) -> bool {
        matches!(self.proved, Proved::Certificate { .. })
    }

    /// Whether its worker may register `origin`.
    #[must_use]
    pub fn may_register(&self, origin: &Origin) -> bool {
        self.origins.iter().any(|pattern| pattern.covers(origin))
    }

    /// Whether its worker may register `pool` by its name: that is every origin that the pool takes.
    #[must_use]
    pub fn may_register_pool(&self, pool: &Pool) -> bool {
        pool.origins.iter().all(|wanted| self.origins.iter().any(|pattern| includes(pattern, wanted)))
    }

    /// Whether its worker may serve `pool` for one origin of it. A pool sends its workers what comes for any of its origins, so a
    /// token has to name all of them (of patterns, their hosts): who issues tokens does not read this edge's configuration. A `[[credential]]`
    /// is written beside its pools, and a mistake of that kind is warned of there.
    #[must_use]
    pub fn may_share(&self, pool: &Pool) -> bool {
        let covers = |wanted| self.origins.iter().any(|own| shares(own, wanted));
        !matches!(self.proved, Proved::Token { .. }) || pool.origins.iter().all(covers)
    }

    /// The origins that its worker registers without naming them.
    pub fn own_origins(&self) -> impl Iterator<Item = &Origin> {
        exact(&self.origins)
    }

    fn in_time(self, now_unix: u64) -> Result<Badge, Refusal> {
        match self.expires_unix {
            Some(expires) if expires <= now_unix => Err(Refusal::Expired(self.id)),
            _ => Ok(self),
        }
    }

    /// A place for one more link, if its credential has one left.
    #[must_use]
    pub fn take_seat(&self) -> Option<Seat> {
        self.seats.try_take(self.links_max)
    }
}

/// Those that are whole, and no patterns.
fn exact(patterns: &[OriginPattern]) -> impl Iterator<Item = &Origin> {
    patterns.iter().filter_map(|pattern| match pattern {
        OriginPattern::Origin(origin) => Some(origin),
        OriginPattern::Host(_) | OriginPattern::Wildcard(_) | OriginPattern::Any => None,
    })
}

/// The order in which somebody wrote them says nothing. None is there twice.
fn are_same(a: &[OriginPattern], b: &[OriginPattern]) -> bool {
    a.len() == b.len() && a.iter().all(|pattern| b.contains(pattern))
}

fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SECRETS_MAX;

    fn credential(id: &str, proof: Proof, origins: &[&str], expires_unix: Option<u64>) -> Credential {
        let origins = origins.iter().map(|o| OriginPattern::parse(o).unwrap()).collect();
        Credential { id: id.into(), proof, origins, links_max: 1, expires_unix, legacy: false }
    }

    fn credential_of(id: &str, texts: &[&str]) -> Credential {
        credential(id, secrets(texts), &["https://app.example.com"], None)
    }

    fn secrets(secrets: &[&str]) -> Proof {
        Proof::Secrets(secrets.iter().map(|secret| SecretHash::of(secret.as_bytes())).collect())
    }

    fn name(name: &str) -> Proof {
        name_by(name, "workers.pem")
    }

    fn name_by(name: &str, authority: &str) -> Proof {
        Proof::Certificate { name: name.into(), authority: authority.into() }
    }

    fn held(list: Vec<Credential>) -> Credentials {
        Credentials::new(&list, None, Arc::default(), Arc::default())
    }

    fn sample() -> Vec<Credential> {
        vec![
            credential("web-1", secrets(&["s3cret"]), &["https://app.example.com"], None),
            credential("web-2", secrets(&["other:with:colons"]), &["*.example.com"], Some(1000)),
            credential("web-3", secrets(&["third", "its successor"]), &["app.example.com", "https://b.example"], None),
            credential("web-4", name("web-4.workers.internal"), &["https://app.example.com"], Some(2000)),
        ]
    }

    fn basic(id: &str, secret: &str) -> Presented {
        Presented::Basic { id: id.into(), secret: secret.into() }
    }

    fn bearer(secret: &str) -> Presented {
        Presented::Bearer(secret.into())
    }

    fn vouched(names: &[&str], not_after_unix: u64) -> Vouched {
        vouched_by(&["workers.pem"], names, not_after_unix)
    }

    fn vouched_by(authorities: &[&str], names: &[&str], not_after_unix: u64) -> Vouched {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        Vouched { names, authorities: authorities.iter().map(|&one| (one.into(), not_after_unix)).collect() }
    }

    fn by(presented: &Presented) -> Shown<'_> {
        Shown { presented: Some(presented), certificate: None }
    }

    fn id_of(checked: Result<Badge, Refusal>) -> Result<String, Refusal> {
        checked.map(|badge| badge.id)
    }

    #[track_caller]
    fn check(presented: &Presented, now_unix: u64, want: Result<&str, Refusal>) {
        let got = id_of(held(sample()).check(by(presented), now_unix, || true));
        assert_eq!(got, want.map(str::to_owned), "{presented:?} at {now_unix}");
    }

    #[test]
    fn a_secret_opens_its_own_credential_only() {
        for (presented, want) in [
            (basic("web-1", "s3cret"), Ok("web-1")),
            (basic("web-2", "other:with:colons"), Ok("web-2")),
            (bearer("s3cret"), Ok("web-1")),
            (bearer("third"), Ok("web-3")),
            (bearer("other:with:colons"), Ok("web-2")),
            (basic("web-2", "s3cret"), Err(Refusal::Wrong)),
            (basic("web-1", ""), Err(Refusal::Wrong)),
            (basic("", "s3cret"), Err(Refusal::Wrong)),
            (basic("", ""), Err(Refusal::Wrong)),
            (basic("web-1", "s3cre"), Err(Refusal::Wrong)),
            (basic("web-1", "s3crett"), Err(Refusal::Wrong)),
            (basic("web-1", "S3cret"), Err(Refusal::Wrong)),
            (basic("WEB-1", "s3cret"), Err(Refusal::Wrong)),
            (basic("web-4", "s3cret"), Err(Refusal::Wrong)),
            (basic("web-4", ""), Err(Refusal::Wrong)),
            (basic("web-4", "web-4.workers.internal"), Err(Refusal::Wrong)),
            (bearer("web-1:s3cret"), Err(Refusal::Wrong)),
            (bearer("web-1"), Err(Refusal::Wrong)),
            (bearer(""), Err(Refusal::Wrong)),
        ] {
            check(&presented, 0, want);
        }
        assert_eq!(id_of(held(sample()).check(Shown::default(), 0, || true)), Err(Refusal::Missing));
        assert_eq!(id_of(Credentials::default().check(by(&bearer("s3cret")), 0, || true)), Err(Refusal::Wrong));
    }

    #[test]
    fn each_of_several_secrets_is_good_at_once() {
        for secret in ["third", "its successor"] {
            check(&bearer(secret), 0, Ok("web-3"));
            check(&basic("web-3", secret), 0, Ok("web-3"));
            check(&basic("web-1", secret), 0, Err(Refusal::Wrong));
        }
        check(&basic("web-3", "third, its successor"), 0, Err(Refusal::Wrong));
    }

    #[test]
    fn each_secret_of_a_long_list_is_found_and_no_other() {
        let text = |credential: usize, secret: usize| format!("secret {secret} of {credential}");
        let many = |credential: usize| {
            let texts: Vec<String> = (0..SECRETS_MAX).map(|secret| text(credential, secret)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            credential_of(&format!("web-{credential}"), &texts)
        };
        let credentials = held((0..CREDENTIALS_MAX).map(many).collect());
        let found = |presented: &Presented| id_of(credentials.check(by(presented), 0, || true));
        for credential in (0..CREDENTIALS_MAX).step_by(97).chain([CREDENTIALS_MAX - 1]) {
            let id = format!("web-{credential}");
            for secret in 0..SECRETS_MAX {
                let own = text(credential, secret);
                assert_eq!(found(&bearer(&own)), Ok(id.clone()));
                assert_eq!(found(&basic(&id, &own)), Ok(id.clone()));
                assert_eq!(found(&basic("web-0x", &own)), Err(Refusal::Wrong));
                assert_eq!(found(&bearer(&own[1..])), Err(Refusal::Wrong));
            }
        }
    }

    #[test]
    fn each_secret_has_one_place_and_nobody_has_any() {
        let credentials = held(sample());
        assert_eq!(credentials.secrets.len(), 4);
        assert!(!credentials.secrets.contains_key(&SecretHash([0; 32])));
    }

    #[test]
    fn a_certificate_opens_the_credential_that_has_one_of_its_names_whole() {
        let credentials = held(sample());
        for (names, want) in [
            (&["web-4.workers.internal"][..], Ok("web-4")),
            (&["other.example", "web-4.workers.internal"], Ok("web-4")),
            (&["*.workers.internal"], Err(Refusal::Unknown)),
            (&["x.web-4.workers.internal"], Err(Refusal::Unknown)),
            (&["web-4.workers.internal."], Err(Refusal::Unknown)),
            (&["web-4"], Err(Refusal::Unknown)),
            (&["web-1"], Err(Refusal::Unknown)),
            (&[""], Err(Refusal::Unknown)),
            (&[], Err(Refusal::Unknown)),
        ] {
            let certificate = vouched(names, 5000);
            let shown = Shown { presented: None, certificate: Some(&certificate) };
            assert_eq!(id_of(credentials.check(shown, 0, || true)), want.map(str::to_owned), "{names:?}");
            // A secret that is presented has to be right, whatever is shown beside it.
            let wrong = bearer("wrong");
            assert_eq!(
                id_of(credentials.check(Shown { presented: Some(&wrong), ..shown }, 0, || true)),
                Err(Refusal::Wrong)
            );
            let right = bearer("s3cret");
            assert_eq!(
                id_of(credentials.check(Shown { presented: Some(&right), ..shown }, 0, || true)),
                Ok("web-1".into())
            );
        }
        let certificate = vouched(&["web-4.workers.internal"], 5000);
        let badge =
            credentials.check(Shown { presented: None, certificate: Some(&certificate) }, 0, || true).ok().unwrap();
        assert_eq!(badge.proof(), "certificate web-4.workers.internal");
    }

    #[test]
    fn a_name_is_its_own_authoritys_alone() {
        let mut list = sample();
        list.push(credential("a", name_by("same.internal", "a.pem"), &["https://app.example.com"], None));
        list.push(credential("b", name_by("same.internal", "b.pem"), &["https://app.example.com"], None));
        let credentials = held(list.clone());
        let by = |authorities: &[&str], names: &[&str]| {
            let certificate = vouched_by(authorities, names, 5000);
            let checked = credentials.check(Shown { presented: None, certificate: Some(&certificate) }, 0, || true);
            id_of(checked)
        };
        assert_eq!(by(&["a.pem"], &["same.internal"]), Ok("a".into()));
        assert_eq!(by(&["b.pem"], &["same.internal"]), Ok("b".into()));
        assert_eq!(by(&["b.pem", "a.pem"], &["same.internal"]), Ok("a".into()), "the first in the list");
        assert_eq!(by(&["workers.pem"], &["same.internal"]), Err(Refusal::Unknown));
        assert_eq!(by(&[], &["same.internal"]), Err(Refusal::Unknown));
        assert_eq!(by(&["a.pem"], &["web-4.workers.internal"]), Err(Refusal::Unknown));
        assert_eq!(by(&["a.pem"], &["web-4.workers.internal", "same.internal"]), Ok("a".into()));
        // A badge stands as long as its authority vouches, and as long as that is the one that is wanted.
        let said = vouched_by(&["a.pem"], &["same.internal"], 5000);
        let badge = credentials.check(Shown { presented: None, certificate: Some(&said) }, 0, || true).ok().unwrap();
        assert_eq!(credentials.standing(&badge, Some(&said)), Standing::Good(Some(5000)));
        // Whoever else vouches for it, and for how long, is nothing to it.
        let mut both = said.clone();
        both.authorities.insert(0, ("b.pem".into(), 100));
        assert_eq!(credentials.standing(&badge, Some(&both)), Standing::Good(Some(5000)));
        let again = credentials.check(Shown { presented: None, certificate: Some(&both) }, 0, || true).ok().unwrap();
        assert_eq!((again.id, again.expires_unix), (badge.id.clone(), Some(5000)));
        let others = vouched_by(&["b.pem"], &["same.internal"], 5000);
        assert_eq!(credentials.standing(&badge, Some(&others)), Standing::Withdrawn);
        list[4].proof = name_by("same.internal", "c.pem");
        assert_eq!(held(list).standing(&badge, Some(&said)), Standing::Withdrawn);
    }

    #[test]
    fn a_credential_ends_in_the_second_that_it_names_and_a_certificate_in_its_own() {
        let web_2 = basic("web-2", "other:with:colons");
        let expired = || Err(Refusal::Expired("web-2".into()));
        check(&web_2, 999, Ok("web-2"));
        check(&web_2, 1000, expired());
        check(&web_2, 1001, expired());
        check(&bearer("other:with:colons"), 1001, expired());
        check(&basic("web-2", "wrong"), 1001, Err(Refusal::Wrong));
        let credentials = held(sample());
        for (not_after_unix, now_unix, want) in
            [(5000, 1999, Some(Some(2000))), (5000, 2000, None), (1500, 1499, Some(Some(1500))), (1500, 1500, None)]
        {
            let certificate = vouched(&["web-4.workers.internal"], not_after_unix);
            let checked =
                credentials.check(Shown { presented: None, certificate: Some(&certificate) }, now_unix, || true);
            assert_eq!(checked.ok().map(|badge| badge.expires_unix), want, "{not_after_unix} at {now_unix}");
        }
    }

    #[test]
    fn a_badge_registers_what_its_origins_cover() {
        let credentials = held(sample());
        for (secret, origin, want) in [
            ("s3cret", "https://app.example.com", true),
            ("s3cret", "https://app.example.com:443", true),
            ("s3cret", "http://app.example.com", false),
            ("s3cret", "https://b.example", false),
            ("other:with:colons", "http://x.example.com:8080", true),
            ("other:with:colons", "https://example.com", false),
            ("third", "http://app.example.com", true),
            ("third", "https://b.example", true),
        ] {
            let badge = credentials.check(by(&bearer(secret)), 0, || true).ok().unwrap();
            let origin = Origin::parse(origin).unwrap();
            assert_eq!(badge.may_register(&origin), want, "{secret} {origin}");
        }
    }

    #[test]
    fn a_pool_by_name_needs_all_of_its_origins() {
        let credentials = held(sample());
        for (secret, origins, want) in [
            ("s3cret", &["https://app.example.com"][..], true),
            ("s3cret", &["https://app.example.com", "https://b.example"], false),
            ("s3cret", &["app.example.com"], false),
            ("other:with:colons", &["https://app.example.com", "*.eu.example.com"], true),
            ("other:with:colons", &["*"], false),
            ("third", &["https://app.example.com", "https://b.example"], true),
        ] {
            let badge = credentials.check(by(&bearer(secret)), 0, || true).ok().unwrap();
            let pool = Pool::new("p", origins.iter().map(|o| OriginPattern::parse(o).unwrap()).collect());
            assert_eq!(badge.may_register_pool(&pool), want, "{secret} {origins:?}");
        }
    }

    #[test]
    fn a_badge_stands_as_long_as_what_it_was_given_for() {
        let old = held(sample());
        let secret = old.check(by(&bearer("third")), 0, || true).ok().unwrap();
        let said = vouched(&["web-4.workers.internal"], 5000);
        let certificate = old.check(Shown { presented: None, certificate: Some(&said) }, 0, || true).ok().unwrap();
        let check = |what: &str, change: &dyn Fn(&mut Vec<Credential>), wants: [Standing; 2]| {
            let mut list = sample();
            change(&mut list);
            let new = held(list);
            assert_eq!([new.standing(&secret, None), new.standing(&certificate, Some(&said))], wants, "{what}");
        };
        let (good, gone) = (Standing::Good(None), Standing::Withdrawn);
        let until = |unix| Standing::Good(Some(unix));
        check("nothing", &|_| {}, [good, until(2000)]);
        check("others", &|list| drop(list.drain(..2)), [good, until(2000)]);
        check("all gone", &Vec::clear, [gone, gone]);
        check("renamed", &|list| list[2].id = "web-9".into(), [gone, until(2000)]);
        check("this secret kept", &|list| list[2].proof = secrets(&["new", "third"]), [good, until(2000)]);
        check("this secret gone", &|list| list[2].proof = secrets(&["its successor"]), [gone, until(2000)]);
        check("another name", &|list| list[3].proof = name("web-5.workers.internal"), [good, gone]);
        check("another proof", &|list| list[3].proof = secrets(&["web-4.workers.internal"]), [good, gone]);
        check("other order", &|list| list[2].origins.reverse(), [good, until(2000)]);
        check("an origin less", &|list| drop(list[2].origins.pop()), [gone, until(2000)]);
        check("an origin more", &|list| list[3].origins.push(OriginPattern::Any), [good, gone]);
        check("fewer links", &|list| list[2].links_max = 0, [good, until(2000)]);
        check("an end", &|list| list[2].expires_unix = Some(7), [until(7), until(2000)]);
        check("a later end", &|list| list[3].expires_unix = Some(3000), [good, until(3000)]);
        check("no end but the certificate's", &|list| list[3].expires_unix = None, [good, until(5000)]);
        check("setups as before the drafts", &|list| list[2].legacy = true, [good, until(2000)]);
        let mut list = sample();
        list[2].legacy = true;
        let before = held(list.clone()).check(by(&bearer("third")), 0, || true).ok().unwrap();
        assert_eq!(old.standing(&before, None), good, "it may, and has not");
        let before = before.sets_up_as_before_the_drafts();
        assert_eq!([held(list).standing(&before, None), old.standing(&before, None)], [good, gone]);
        // What becomes of the certificate itself.
        for (said, want) in [
            (None, gone),
            (Some(vouched(&["web-4.workers.internal"], 1900)), until(1900)),
            (Some(vouched(&["web-4.workers.internal"], 9000)), until(2000)),
            (Some(vouched(&["web-5.workers.internal"], 5000)), gone),
        ] {
            assert_eq!(old.standing(&certificate, said.as_ref()), want, "{said:?}");
        }
    }

    #[test]
    fn all_badges_of_a_credential_share_its_seats() {
        let credentials = held(sample());
        let badges =
            ["third", "its successor"].map(|secret| credentials.check(by(&bearer(secret)), 0, || true).ok().unwrap());
        let seat = badges[0].take_seat();
        assert!(seat.is_some() && badges[1].take_seat().is_none());
        drop(seat);
        assert!(badges[1].take_seat().is_some());
    }
}
