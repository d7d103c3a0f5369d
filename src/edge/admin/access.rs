//! Who may ask the admin address: anybody on loopback, else whoever knows its token or shows a certificate; and a browser that has
//! shown the token, by a cookie. What is asked never enters.

use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::hmac;
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderValue};
use subtle::ConstantTimeEq as _;

use crate::edge::config::{AdminToken, EdgeConfig, SecretHash};
use crate::edge::tls::{self, Tls};
use crate::exchange::Ask;
use crate::limits::{ADMIN_SESSION_S, ADMIN_TOKEN_BYTES_MIN, SECRET_FILE_BYTES_MAX};
use crate::pem::shown;
use crate::settings::{Mistakes, io_reason, read_bounded};

const COOKIE_NAME: &str = "ptth_admin";

/// What `[admin]` asks of whoever comes. The token and the certificates may be read anew at any time.
pub struct Access {
    token: RwLock<Option<SecretHash>>,
    pub tls: Option<Arc<Tls>>,
    /// A certificate that `client_ca` vouches for is enough.
    takes_certificates: bool,
    /// Names by which the edge may be asked where nobody has to prove anything, in lower case.
    names: Vec<String>,
}

/// Why somebody is not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No token, or a wrong one.
    Stranger,
    /// By a name that is not ours: a web page of somebody else's may have been led here (DNS rebinding).
    WrongName,
}

impl Access {
    /// Reads the files that `[admin]` names. With a mistake among them nobody uses the result.
    pub fn load(config: &EdgeConfig, now_unix: u64, mistakes: &mut Mistakes) -> Access {
        let admin = &config.admin_access;
        Access {
            token: RwLock::new(read_token(admin.token.as_ref(), mistakes)),
            tls: admin.tls.as_ref().and_then(|files| tls::load_one(files, now_unix, mistakes)),
            takes_certificates: admin.tls.as_ref().is_some_and(|files| files.worker_ca.is_some()),
            names: admin.names.clone(),
        }
    }

    /// Reads them again. With a mistake nothing changes.
    pub fn reload(&self, config: &EdgeConfig, now_unix: u64, mistakes: &mut Mistakes) {
        let token = read_token(config.admin_access.token.as_ref(), mistakes);
        if let (Some(tls), Some(files)) = (&self.tls, &config.admin_access.tls) {
            tls::reload_one(tls, files, now_unix, mistakes);
        }
        if !mistakes.has_errors() {
            *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
        }
    }

    fn token(&self) -> Option<SecretHash> {
        *self.token.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody can log in.
    pub fn has_token(&self) -> bool {
        self.token().is_some()
    }

    /// Whether this request is heard. `is_vouched`: its connection has shown a certificate that is good.
    pub fn admits(&self, ask: &Ask, is_vouched: bool, key: Option<&hmac::Key>, now_unix: u64) -> Result<(), Refused> {
        let token = self.token();
        if token.is_none() && !self.takes_certificates {
            let is_ours = ask.authority.as_ref().is_none_or(|authority| self.is_own_name(authority.host()));
            return if is_ours { Ok(()) } else { Err(Refused::WrongName) };
        }
        if self.takes_certificates && is_vouched {
            return Ok(());
        }
        let knows = token.is_some_and(|token| {
            bearer(&ask.headers).is_some_and(|said| is_token(&token, said))
                || key.is_some_and(|key| cookies(&ask.headers).any(|own| is_session(&token, key, own, now_unix)))
        });
        if knows { Ok(()) } else { Err(Refused::Stranger) }
    }

    /// An address says where it is; a name that somebody else owns may say so today and be led here tomorrow.
    fn is_own_name(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost")
            || bare.parse::<std::net::IpAddr>().is_ok()
            || self.names.iter().any(|name| name.eq_ignore_ascii_case(host))
    }

    /// The cookie for whoever says the right token.
    pub fn log_in(&self, said: &[u8], key: &hmac::Key, now_unix: u64) -> Option<HeaderValue> {
        let token = self.token().filter(|token| is_token(token, said))?;
        let until = now_unix + ADMIN_SESSION_S;
        let secure = if self.tls.is_some() { "; Secure" } else { "" };
        let cookie = format!(
            "{COOKIE_NAME}={until:x}.{}; Path=/; Max-Age={ADMIN_SESSION_S}; HttpOnly; SameSite=Strict{secure}",
            hex(hmac::sign(key, &session_text(&token, until)).as_ref())
        );
        HeaderValue::try_from(cookie).ok()
    }
}

fn read_token(token: Option<&AdminToken>, mistakes: &mut Mistakes) -> Option<SecretHash> {
    let file = match token? {
        AdminToken::Hash(hash) => return Some(*hash),
        AdminToken::File(file) => file,
    };
    let name = shown(&file.value);
    let text = match read_bounded(&file.value, SECRET_FILE_BYTES_MAX) {
        Ok(Some(text)) => text,
        Ok(None) => {
            mistakes.error(file.place, format_args!("{name} is larger than 4 KiB"), "it holds one line, the token");
            return None;
        }
        Err(error) => {
            let what = format!("{name} cannot be read: {}", io_reason(&error));
            mistakes.error(file.place, what, "make one: openssl rand -hex 32 > FILE");
            return None;
        }
    };
    let token = text.trim_ascii();
    if token.len() < ADMIN_TOKEN_BYTES_MIN || !token.iter().all(u8::is_ascii_graphic) {
        let what = format!("{name} does not hold one line of at least {ADMIN_TOKEN_BYTES_MIN} letters and digits");
        mistakes.error(file.place, what, "make one: openssl rand -hex 32 > FILE");
        return None;
    }
    Some(SecretHash::of(token))
}

/// Takes as long for a token that is nearly right.
fn is_token(token: &SecretHash, said: &[u8]) -> bool {
    token.0.ct_eq(&SecretHash::of(said.trim_ascii()).0).into()
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// The values of our cookie.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let fields = headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
    fields.flat_map(|field| field.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE_NAME).then_some(value)
    })
}

fn is_session(token: &SecretHash, key: &hmac::Key, cookie: &str, now_unix: u64) -> bool {
    let Some((until, tag)) = cookie.split_once('.') else { return false };
    let (Ok(until), Some(tag)) = (u64::from_str_radix(until, 16), unhex(tag)) else { return false };
    until > now_unix && hmac::verify(key, &session_text(token, until), &tag).is_ok()
}

/// With another token, a session of before is none.
fn session_text(token: &SecretHash, until: u64) -> Vec<u8> {
    [&until.to_be_bytes()[..], &token.0].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes.filter(|_| odd.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Length;
    use http::uri::PathAndQuery;

    const TOKEN: &[u8] = b"0123456789abcdef";

    fn access(token: Option<&[u8]>, takes_certificates: bool) -> Access {
        let token = RwLock::new(token.map(SecretHash::of));
        Access { token, tls: None, takes_certificates, names: vec!["edge.internal".into()] }
    }

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[7; 32])
    }

    fn ask(host: &str, fields: &[(&'static str, &str)]) -> Ask {
        let mut headers = HeaderMap::new();
        fields.iter().for_each(|(name, value)| _ = headers.append(*name, HeaderValue::from_str(value).unwrap()));
        Ask {
            method: http::Method::GET,
            version: http::Version::HTTP_11,
            secure: false,
            authority: (!host.is_empty()).then(|| host.parse().unwrap()),
            path: PathAndQuery::from_static("/status"),
            headers,
            length: Length::None,
            expects_continue: false,
            upgrade: None,
        }
    }

    #[test]
    fn where_nobody_proves_anything_only_our_own_names_are_heard() {
        let open = access(None, false);
        for (host, want) in [
            ("127.0.0.1:9090", true),
            ("[::1]:9090", true),
            ("10.1.2.3", true),
            ("localhost:9090", true),
            ("edge.internal:9090", true),
            ("", true),
            ("rebound.example:9090", false),
            ("127.0.0.1.rebound.example", false),
            ("localhost.rebound.example", false),
            ("1:2", true), // an address of one number is none; `1` is a name
        ] {
            let want = if host == "1:2" { false } else { want };
            assert_eq!(open.admits(&ask(host, &[]), false, None, 0).is_ok(), want, "{host}");
        }
        // Whoever proves something may call us as he likes.
        let token = ask("rebound.example", &[("authorization", "Bearer 0123456789abcdef")]);
        assert_eq!(access(Some(TOKEN), false).admits(&token, false, None, 0), Ok(()));
    }

    #[test]
    fn a_token_or_a_certificate_is_asked_for() {
        let check = |access: &Access, authorization: &str, is_vouched, want| {
            let fields = [("authorization", authorization)];
            let ask = ask("127.0.0.1", if authorization.is_empty() { &[] } else { &fields });
            assert_eq!(
                access.admits(&ask, is_vouched, Some(&key()), 0).is_ok(),
                want,
                "{authorization:?} {is_vouched}"
            );
        };
        let token = access(Some(TOKEN), false);
        for (authorization, want) in [
            ("", false),
            ("Bearer 0123456789abcdef", true),
            ("bearer 0123456789abcdef", true),
            ("Bearer 0123456789abcde", false),
            ("Bearer 0123456789abcdef0", false),
            ("Bearer ", false),
            ("Bearer", false),
            ("Basic 0123456789abcdef", false),
        ] {
            check(&token, authorization, false, want);
        }
        check(&token, "", true, false);
        let both = access(Some(TOKEN), true);
        check(&both, "", false, false);
        check(&both, "", true, true);
        check(&both, "Bearer 0123456789abcdef", false, true);
        check(&access(None, true), "Bearer 0123456789abcdef", false, false);
        check(&access(None, true), "", true, true);
    }

    #[test]
    fn a_session_ends_with_its_time_its_token_and_its_process() {
        let access_now = access(Some(TOKEN), false);
        assert_eq!(access_now.log_in(b"wrong", &key(), 1_000), None);
        let cookie = access_now.log_in(TOKEN, &key(), 1_000).expect("the right token");
        let cookie = cookie.to_str().unwrap();
        assert!(cookie.ends_with("; HttpOnly; SameSite=Strict") && cookie.contains("Max-Age="), "{cookie}");
        let pair = cookie.split(';').next().unwrap().to_owned();
        let admits = |access: &Access, cookie: &str, key: &hmac::Key, now| {
            access.admits(&ask("127.0.0.1", &[("cookie", cookie)]), false, Some(key), now).is_ok()
        };
        assert!(admits(&access_now, &pair, &key(), 1_000));
        assert!(admits(&access_now, &format!("a=b; {pair}; c"), &key(), 1_000 + ADMIN_SESSION_S - 1));
        assert!(!admits(&access_now, &pair, &key(), 1_000 + ADMIN_SESSION_S));
        assert!(!admits(&access(Some(b"another token, as long"), false), &pair, &key(), 1_000));
        assert!(!admits(&access_now, &pair, &hmac::Key::new(hmac::HMAC_SHA256, &[8; 32]), 1_000));
        // Nothing of it can be changed.
        let (name, value) = pair.split_once('=').unwrap();
        for odd in ["", ".", "ffffffffff", &value.replacen('.', "0.", 1), &value[..value.len() - 2]] {
            assert!(!admits(&access_now, &format!("{name}={odd}"), &key(), 1_000), "{odd}");
        }
    }
}
