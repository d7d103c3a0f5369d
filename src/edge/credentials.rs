//! Who a worker is, from the credential of its setup, and what it may register. Link counts never enter.

use super::config::{Credential, Pool, SecretHash};
use super::patterns::includes;
use crate::ids::CredentialId;
use crate::wire::origin::Origin;
use crate::wire::setup::Presented;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

/// The credentials of one configuration.
#[derive(Debug, Default)]
pub struct Credentials {
    list: Vec<Credential>,
}

/// Why a setup is answered 401. The worker never learns which; the log does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No credential, or one of an unknown scheme.
    Missing,
    /// No credential has this secret, or, for Basic, this id with this secret.
    Wrong,
    Expired(CredentialId),
}

impl Credentials {
    #[must_use]
    pub fn new(list: &[Credential]) -> Credentials {
        Credentials { list: list.to_vec() }
    }

    /// # Panics
    /// With an id of another configuration.
    #[must_use]
    pub fn get(&self, id: CredentialId) -> &Credential {
        &self.list[usize::from(id.0)]
    }

    /// Checks what a setup presents: `Basic` with id and secret, or `Bearer` with the secret alone (RFC 7617,
    /// RFC 6750). Every credential is compared, each in constant time, so the time tells nothing about which one was
    /// close.
    ///
    /// # Errors
    /// When the setup is to be answered 401.
    pub fn check(&self, presented: Option<&Presented>, now_unix: u64) -> Result<CredentialId, Refusal> {
        let (id, secret) = match presented {
            Some(Presented::Basic { id, secret }) => (Some(id.as_bytes()), secret),
            Some(Presented::Bearer(secret)) => (None, secret),
            None => return Err(Refusal::Missing),
        };
        let hash = SecretHash::of(secret);
        let mut found = u32::MAX;
        for (index, credential) in (0_u32..).zip(&self.list) {
            let same_id = id.map_or(Choice::from(1), |id| id.ct_eq(credential.id.as_bytes()));
            let same = same_id & hash.0.ct_eq(&credential.secret_hash.0);
            found.conditional_assign(&index, same);
        }
        let id = u16::try_from(found).map(CredentialId).map_err(|_| Refusal::Wrong)?;
        match self.get(id).expires_unix {
            Some(expires) if expires <= now_unix => Err(Refusal::Expired(id)),
            _ => Ok(id),
        }
    }

    /// Whether this credential may register `origin`.
    #[must_use]
    pub fn may_register(&self, id: CredentialId, origin: &Origin) -> bool {
        self.get(id).origins.iter().any(|pattern| pattern.covers(origin))
    }

    /// Whether this credential may register `pool` by its name: that is every origin that the pool takes.
    #[must_use]
    pub fn may_register_pool(&self, id: CredentialId, pool: &Pool) -> bool {
        let own = &self.get(id).origins;
        pool.origins.iter().all(|wanted| own.iter().any(|pattern| includes(pattern, wanted)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::origin::OriginPattern;

    fn credential(id: &str, secret: &str, origins: &[&str], expires_unix: Option<u64>) -> Credential {
        Credential {
            id: id.into(),
            secret_hash: SecretHash::of(secret.as_bytes()),
            origins: origins.iter().map(|o| OriginPattern::parse(o).unwrap()).collect(),
            links_max: 1,
            expires_unix,
        }
    }

    fn sample() -> Credentials {
        Credentials::new(&[
            credential("web-1", "s3cret", &["https://app.example.com"], None),
            credential("web-2", "other:with:colons", &["*.example.com"], Some(1000)),
            credential("web-3", "third", &["app.example.com", "https://b.example"], None),
        ])
    }

    fn basic(id: &str, secret: &str) -> Presented {
        Presented::Basic { id: id.into(), secret: secret.into() }
    }

    fn bearer(secret: &str) -> Presented {
        Presented::Bearer(secret.into())
    }

    #[track_caller]
    fn check(presented: &Presented, now_unix: u64, want: Result<u16, Refusal>) {
        let got = sample().check(Some(presented), now_unix);
        assert_eq!(got, want.map(CredentialId), "{presented:?} at {now_unix}");
    }

    #[test]
    fn a_secret_opens_its_own_credential_only() {
        for (presented, want) in [
            (basic("web-1", "s3cret"), Ok(0)),
            (basic("web-2", "other:with:colons"), Ok(1)),
            (bearer("s3cret"), Ok(0)),
            (bearer("third"), Ok(2)),
            (bearer("other:with:colons"), Ok(1)),
            (basic("web-2", "s3cret"), Err(Refusal::Wrong)),
            (basic("web-1", ""), Err(Refusal::Wrong)),
            (basic("", "s3cret"), Err(Refusal::Wrong)),
            (basic("", ""), Err(Refusal::Wrong)),
            (basic("web-1", "s3cre"), Err(Refusal::Wrong)),
            (basic("web-1", "s3crett"), Err(Refusal::Wrong)),
            (basic("web-1", "S3cret"), Err(Refusal::Wrong)),
            (basic("WEB-1", "s3cret"), Err(Refusal::Wrong)),
            (basic("web-4", "s3cret"), Err(Refusal::Wrong)),
            (bearer("web-1:s3cret"), Err(Refusal::Wrong)),
            (bearer("web-1"), Err(Refusal::Wrong)),
            (bearer(""), Err(Refusal::Wrong)),
        ] {
            check(&presented, 0, want);
        }
        assert_eq!(sample().check(None, 0), Err(Refusal::Missing));
        assert_eq!(Credentials::default().check(Some(&bearer("s3cret")), 0), Err(Refusal::Wrong));
    }

    #[test]
    fn a_credential_ends_in_the_second_that_it_names() {
        let web_2 = basic("web-2", "other:with:colons");
        check(&web_2, 999, Ok(1));
        check(&web_2, 1000, Err(Refusal::Expired(CredentialId(1))));
        check(&web_2, 1001, Err(Refusal::Expired(CredentialId(1))));
        check(&bearer("other:with:colons"), 1001, Err(Refusal::Expired(CredentialId(1))));
        check(&basic("web-2", "wrong"), 1001, Err(Refusal::Wrong));
    }

    #[test]
    fn a_credential_registers_what_its_origins_cover() {
        let credentials = sample();
        for (id, origin, want) in [
            (0, "https://app.example.com", true),
            (0, "https://app.example.com:443", true),
            (0, "http://app.example.com", false),
            (0, "https://b.example", false),
            (1, "http://x.example.com:8080", true),
            (1, "https://example.com", false),
            (2, "http://app.example.com", true),
            (2, "https://b.example", true),
        ] {
            let origin = Origin::parse(origin).unwrap();
            assert_eq!(credentials.may_register(CredentialId(id), &origin), want, "{id} {origin}");
        }
    }

    #[test]
    fn a_pool_by_name_needs_all_of_its_origins() {
        let credentials = sample();
        for (id, origins, want) in [
            (0, &["https://app.example.com"][..], true),
            (0, &["https://app.example.com", "https://b.example"], false),
            (0, &["app.example.com"], false),
            (1, &["https://app.example.com", "*.eu.example.com"], true),
            (1, &["*"], false),
            (2, &["https://app.example.com", "https://b.example"], true),
        ] {
            let pool = Pool::new("p", origins.iter().map(|o| OriginPattern::parse(o).unwrap()).collect());
            assert_eq!(credentials.may_register_pool(CredentialId(id), &pool), want, "{id} {origins:?}");
        }
    }
}
