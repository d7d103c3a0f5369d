//! Signed tokens: which are good, which of the many that are nearly so are not, and what becomes of links when a key goes. The
//! tokens are signed here, by hand, from their three parts.
#![allow(clippy::disallowed_methods)] // tests wait on the wall clock, outside of any core

mod common;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use common::tls::Files;
use common::{HOST, ORIGIN, Peer, SECRET, TestEdge, basic, get, setting, setups};
use ptth::edge::config::{EdgeConfig, TokenRules};
use ptth::edge::credentials::Shown;
use ptth::edge::register::Register;
use ptth::edge::tokens::{Claims, Denied, Tokens};
use ptth::limits;
use ptth::settings::{At, Mistakes, Place};
use ptth::wire::OriginPattern;
use ptth::wire::setup::Presented;
use serde_json::{Value, json};

/// The longest that a token of these tests may last.
const LIFETIME_S: u64 = 7_200;
const NOW_UNIX: u64 = 1_767_225_600;
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "ptth";

enum Signer {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
}

impl Signer {
    fn ed() -> Signer {
        Signer::Ed(Ed25519KeyPair::generate().unwrap())
    }

    fn ec() -> Signer {
        Signer::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn alg(&self) -> &'static str {
        match self {
            Signer::Ed(_) => "EdDSA",
            Signer::Ec(_) => "ES256",
        }
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Signer::Ed(key) => key.sign(bytes).as_ref().to_vec(),
            Signer::Ec(key) => key.sign(&SystemRandom::new(), bytes).unwrap().as_ref().to_vec(),
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        match self {
            Signer::Ed(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": encoded(key.public_key().as_ref()) })
            }
            Signer::Ec(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": encoded(x), "y": encoded(y) })
            }
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        self.token_of(&header.to_string(), &claims.to_string())
    }

    fn token_of(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encoded(header.as_bytes()), encoded(claims.as_bytes()));
        format!("{signed}.{}", encoded(&self.sign(signed.as_bytes())))
    }

    /// A good one.
    fn good(&self, kid: &str) -> String {
        self.token(&header(self, kid), &claims())
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn header(signer: &Signer, kid: &str) -> Value {
    json!({ "alg": signer.alg(), "kid": kid, "typ": "JWT" })
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "web-1", "exp": NOW_UNIX + 60,
        "origins": ["https://app.example", "*.app.example"], "max_links": 3,
    })
}

/// `change`, made to it.
fn but(value: Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut value = value;
    change(&mut value);
    value
}

fn with(value: Value, name: &str, member: Value) -> Value {
    but(value, |value| value[name] = member)
}

fn without(value: Value, name: &str) -> Value {
    but(value, |value| drop(value.as_object_mut().unwrap().remove(name)))
}

fn rules() -> TokenRules {
    let jwks_file = At { value: "jwks.json".into(), place: Place::TOP };
    TokenRules {
        jwks_file,
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
        lifetime_ms_max: LIFETIME_S * 1_000,
        denied_file: None,
    }
}

fn parse(keys: &[Value]) -> Result<(Tokens, Mistakes), Mistakes> {
    Tokens::parse(&rules(), "jwks.json", json!({ "keys": keys }).to_string().as_bytes())
}

/// The keys `ed` and `ec`, and who signs with them.
struct House {
    ed: Signer,
    ec: Signer,
    tokens: Tokens,
}

impl House {
    fn new() -> House {
        let (ed, ec) = (Signer::ed(), Signer::ec());
        let (tokens, warnings) = parse(&[ed.jwk("ed"), ec.jwk("ec")]).unwrap();
        assert!(warnings.list().is_empty(), "{warnings}");
        House { ed, ec, tokens }
    }

    fn read(&self, token: &str) -> Result<Claims, &'static str> {
        self.tokens.read(token.as_bytes(), NOW_UNIX)
    }

    #[track_caller]
    fn good(&self, token: &str) -> Claims {
        self.read(token).unwrap_or_else(|why| panic!("{why}: {token}"))
    }

    #[track_caller]
    fn bad(&self, token: &str, want: &str) {
        let why = self.read(token).expect_err(token);
        assert!(why.contains(want), "{why:?} is not about {want:?}: {token}");
    }
}

#[test]
fn a_token_says_who_its_worker_is_and_what_it_serves() {
    let house = House::new();
    for (signer, kid) in [(&house.ed, "ed"), (&house.ec, "ec")] {
        let claims = house.good(&signer.good(kid));
        assert_eq!((claims.id.as_str(), claims.links_max, claims.expires_unix), ("web-1", 3, NOW_UNIX + 60));
        let origins = ["https://app.example", "*.app.example"].map(|text| OriginPattern::parse(text).unwrap());
        assert_eq!(claims.origins, origins);
        assert_eq!(claims.key.name, kid);
        assert!(house.tokens.has_key(&claims.key));
    }
}

#[test]
fn what_may_stand_in_a_token_and_what_may_be_missing() {
    let house = House::new();
    let ed = |claims: Value| house.ed.token(&header(&house.ed, "ed"), &claims);
    for claims in [
        with(claims(), "aud", json!([AUDIENCE, "others"])),
        with(claims(), "aud", json!(["others", AUDIENCE])),
        with(claims(), "nbf", json!(NOW_UNIX)),
        with(claims(), "nbf", json!(0)),
        with(claims(), "nbf", json!(NOW_UNIX + limits::TOKEN_SKEW_S)),
        with(claims(), "exp", json!(NOW_UNIX + 1)),
        with(claims(), "exp", json!(NOW_UNIX + LIFETIME_S)),
        with(claims(), "iat", json!("whenever")),
        with(claims(), "sub", json!("system:serviceaccount:a:b")),
        with(claims(), "others", json!({ "a": [1, 2, { "b": null }] })),
    ] {
        house.good(&ed(claims));
    }
    assert_eq!(house.good(&ed(without(claims(), "max_links"))).links_max, limits::CREDENTIAL_LINKS);
    assert_eq!(house.good(&ed(with(claims(), "exp", json!(NOW_UNIX as f64 + 1.9)))).expires_unix, NOW_UNIX + 1);
    let twice = with(claims(), "origins", json!(["app.example", "APP.example"]));
    assert_eq!(house.good(&ed(twice)).origins.len(), 1);
    for header in [
        json!({ "alg": "EdDSA", "kid": "ed" }),
        json!({ "alg": "Ed25519", "kid": "ed", "typ": "at+jwt" }),
        json!({ "alg": "EdDSA", "kid": "ed", "typ": "jwt", "jku": "https://evil.example", "cty": 1 }),
    ] {
        house.good(&house.ed.token(&header, &claims()));
    }
}

#[test]
fn the_key_alone_says_what_its_tokens_are_signed_with() {
    let house = House::new();
    let evil = Signer::ed();
    let public = match &house.ed {
        Signer::Ed(key) => key.public_key().as_ref().to_vec(),
        Signer::Ec(_) => unreachable!(),
    };
    let about_alg = "alg is not its key's";
    for (header, want) in [
        (json!({ "alg": "none", "kid": "ed" }), about_alg),
        (json!({ "alg": "None", "kid": "ed" }), about_alg),
        (json!({ "alg": "HS256", "kid": "ed" }), about_alg),
        (json!({ "alg": "RS256", "kid": "ed" }), about_alg),
        (json!({ "alg": "ES256", "kid": "ed" }), about_alg),
        (json!({ "alg": "EdDSA", "kid": "ec" }), about_alg),
        (json!({ "alg": "eddsa", "kid": "ed" }), about_alg),
        (json!({ "alg": "", "kid": "ed" }), about_alg),
        (json!({ "alg": "EdDSA", "kid": "" }), "kid"),
        (json!({ "alg": "EdDSA", "kid": "ED" }), "kid"),
        (json!({ "alg": "EdDSA", "kid": "nobody" }), "kid"),
        (json!({ "alg": "EdDSA" }), "header"),
        (json!({ "kid": "ed" }), "header"),
        (json!({ "alg": 1, "kid": "ed" }), "header"),
        (json!({ "alg": null, "kid": "ed" }), "header"),
        (json!({ "alg": ["EdDSA"], "kid": "ed" }), "header"),
        (json!({ "alg": "EdDSA", "kid": "ed", "crit": ["exp"], "exp": 1 }), "critical"),
        (json!({ "alg": "EdDSA", "kid": "ed", "crit": [] }), "critical"),
        (json!({ "alg": "EdDSA", "kid": "ed", "crit": null }), "critical"),
        (json!({ "alg": "EdDSA", "kid": "ed", "crit": ["b64"], "b64": false }), "critical"),
        (json!({ "alg": "EdDSA", "kid": "ed", "typ": "dpop+jwt" }), "type"),
        (json!({ "alg": "EdDSA", "kid": "ed", "typ": null }), "header"),
        (json!(["EdDSA", "ed"]), "header"),
        (json!("EdDSA"), "header"),
        (json!(null), "header"),
    ] {
        house.bad(&house.ed.token(&header, &claims()), want);
        let unsigned =
            format!("{}.{}.", encoded(header.to_string().as_bytes()), encoded(claims().to_string().as_bytes()));
        house.bad(&unsigned, want);
    }
    house.bad(&house.ed.token_of(r#"{"alg":"EdDSA","alg":"none","kid":"ed"}"#, &claims().to_string()), "header");
    house.bad(&house.ed.token_of(r#"{"alg":"EdDSA","kid":"nobody","kid":"ed"}"#, &claims().to_string()), "header");
    house.bad(&house.ed.token_of(r#"{"alg":"EdDSA","kid":"ed"} x"#, &claims().to_string()), "header");
    // Signed by somebody else, who brings his key along; by the other key; by the public key as a secret.
    let about_signature = "signature is wrong";
    house.bad(&evil.good("ed"), about_signature);
    let brings = with(header(&house.ed, "ed"), "jwk", evil.jwk("ed"));
    house.bad(&evil.token(&brings, &claims()), about_signature);
    house.bad(&house.ec.token(&json!({ "alg": "EdDSA", "kid": "ed" }), &claims()), about_signature);
    let head = format!("{}.{}", encoded(br#"{"alg":"EdDSA","kid":"ed"}"#), encoded(claims().to_string().as_bytes()));
    house.bad(&format!("{head}.{}", encoded(&public)), about_signature);
    house.bad(&format!("{head}."), about_signature);
    house.bad(&format!("{head}.{}", encoded(&[0; 64])), about_signature);
    let ec_head = format!("{}.{}", encoded(br#"{"alg":"ES256","kid":"ec"}"#), encoded(claims().to_string().as_bytes()));
    house.bad(&format!("{ec_head}.{}", encoded(&[0; 64])), about_signature); // r = s = 0 (CVE-2022-21449)
}

#[test]
fn what_a_token_says_is_held_against_the_rules() {
    let house = House::new();
    for (claims, want) in [
        (without(claims(), "iss"), "claims"),
        (with(claims(), "iss", json!("https://issuer.example/")), "issuer"),
        (with(claims(), "iss", json!("")), "issuer"),
        (with(claims(), "iss", json!([ISSUER])), "claims"),
        (without(claims(), "aud"), "claims"),
        (with(claims(), "aud", json!("other")), "audience"),
        (with(claims(), "aud", json!("ptth ")), "audience"),
        (with(claims(), "aud", json!([])), "audience"),
        (with(claims(), "aud", json!(["other"])), "audience"),
        (with(claims(), "aud", json!({ "ptth": 1 })), "claims"),
        (with(claims(), "aud", json!([AUDIENCE, 1])), "claims"),
        (without(claims(), "exp"), "claims"),
        (with(claims(), "exp", json!(NOW_UNIX)), "expired"),
        (with(claims(), "exp", json!(NOW_UNIX as f64 + 0.9)), "expired"),
        (with(claims(), "exp", json!(0)), "expired"),
        (with(claims(), "exp", json!(-1)), "exp is no moment"),
        (with(claims(), "exp", json!((NOW_UNIX + 60).to_string())), "claims"),
        (with(claims(), "exp", json!(null)), "claims"),
        (with(claims(), "exp", json!(NOW_UNIX + LIFETIME_S + 1)), "further ahead than `lifetime_max`"),
        (with(claims(), "exp", json!(1.0e30)), "further ahead than `lifetime_max`"),
        (with(claims(), "exp", json!(u64::MAX)), "further ahead than `lifetime_max`"),
        (with(claims(), "nbf", json!(NOW_UNIX + limits::TOKEN_SKEW_S + 1)), "not good yet"),
        (with(claims(), "nbf", json!(1.0e30)), "not good yet"),
        (with(claims(), "nbf", json!(-5)), "nbf is no moment"),
        (with(claims(), "nbf", json!(null)), "claims"),
        (with(claims(), "nbf", json!("0")), "claims"),
        (without(claims(), "sub"), "claims"),
        (with(claims(), "sub", json!("")), "sub"),
        (with(claims(), "sub", json!("a b")), "sub"),
        (with(claims(), "sub", json!("a\nb")), "sub"),
        (with(claims(), "sub", json!("ä")), "sub"),
        (with(claims(), "sub", json!("x".repeat(limits::TOKEN_ID_BYTES_MAX + 1))), "sub"),
        (with(claims(), "sub", json!(1)), "claims"),
        (without(claims(), "origins"), "claims"),
        (with(claims(), "origins", json!([])), "no origins"),
        (with(claims(), "origins", json!("https://app.example")), "claims"),
        (with(claims(), "origins", json!("*")), "claims"),
        (with(claims(), "origins", json!(["null"])), "none"),
        (with(claims(), "origins", json!([null])), "claims"),
        (with(claims(), "origins", json!([""])), "none"),
        (with(claims(), "origins", json!(["https://app.example/"])), "none"),
        (with(claims(), "origins", json!(["https://app.example,https://b.example"])), "none"),
        (with(claims(), "origins", json!(["https%3A%2F%2Fapp.example"])), "none"),
        (with(claims(), "origins", json!(["app.example", "https://u@app.example"])), "none"),
        (with(claims(), "origins", json!(vec!["app.example"; limits::TOKEN_ORIGINS_MAX + 1])), "too many"),
        (with(claims(), "max_links", json!(0)), "max_links"),
        (with(claims(), "max_links", json!(limits::CREDENTIAL_LINKS_LIMIT + 1)), "max_links"),
        (with(claims(), "max_links", json!(-1)), "claims"),
        (with(claims(), "max_links", json!(1.5)), "claims"),
        (with(claims(), "max_links", json!(null)), "claims"),
        (json!([]), "claims"),
        (json!([ISSUER, AUDIENCE, "web-1", NOW_UNIX + 60, null, ["*"], null]), "claims"),
        (json!(null), "claims"),
    ] {
        for (signer, kid) in [(&house.ed, "ed"), (&house.ec, "ec")] {
            house.bad(&signer.token(&header(signer, kid), &claims), want);
        }
    }
    let doubled = claims().to_string().replacen('{', r#"{"exp":1,"#, 1);
    house.bad(&house.ed.token_of(&header(&house.ed, "ed").to_string(), &doubled), "claims");
    let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
    // Nobody falls into what is nested deeply: what is not looked at is skipped, and the rest is refused.
    let skipped = claims().to_string().replacen('{', &format!(r#"{{"x":{deep},"#), 1);
    house.good(&house.ed.token_of(&header(&house.ed, "ed").to_string(), &skipped));
    let looked_at = claims().to_string().replacen(r#""aud":"ptth""#, &format!(r#""aud":{deep}"#), 1);
    house.bad(&house.ed.token_of(&header(&house.ed, "ed").to_string(), &looked_at), "claims");
}

#[test]
fn a_token_with_any_bit_changed_or_any_byte_missing_is_refused() {
    let house = House::new();
    for token in [house.ed.good("ed"), house.ec.good("ec")] {
        for at in 0..token.len() {
            for bit in 0..8 {
                let mut bytes = token.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert!(house.tokens.read(&bytes, NOW_UNIX).is_err(), "byte {at}, bit {bit} of {token}");
            }
            for bytes in [&token[..at], &token[at + 1..]] {
                assert!(house.read(bytes).is_err(), "cut at {at} of {token}");
            }
            let doubled = format!("{}{}", &token[..=at], &token[at..]);
            assert!(house.read(&doubled).is_err(), "byte {at} twice in {token}");
        }
    }
}

#[test]
fn only_the_compact_form_is_read() {
    let house = House::new();
    let token = house.ed.good("ed");
    let parts: Vec<&str> = token.split('.').collect();
    let again =
        |engine: &base64::engine::GeneralPurpose, part: &str| engine.encode(URL_SAFE_NO_PAD.decode(part).unwrap());
    let padded: Vec<String> = parts.iter().map(|part| again(&URL_SAFE, part)).collect();
    for token in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "a.b.c".into(),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{}", parts[2]),
        format!("{token}\n"),
        format!(" {token}"),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}..{}", parts[0], parts[2]),
        format!("{}.{}.{}.{}.{}", parts[0], parts[1], parts[2], parts[1], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], padded[2]),
        format!("{}.{}.{}", parts[0], parts[1], again(&STANDARD, parts[2])),
        json!({ "protected": parts[0], "payload": parts[1], "signature": parts[2] }).to_string(),
    ] {
        assert!(house.read(&token).is_err(), "{token}");
    }
    let long =
        house.ed.token(&header(&house.ed, "ed"), &with(claims(), "x", json!("y".repeat(limits::TOKEN_BYTES_MAX))));
    house.bad(&long, "too long");
    let nearly = house.ed.token(&header(&house.ed, "ed"), &with(claims(), "x", json!("y".repeat(2_500))));
    assert!(nearly.len() < limits::TOKEN_BYTES_MAX);
    house.good(&nearly);
}

#[test]
fn a_jwks_is_read_with_what_can_be_used() {
    let (ed, ec) = (Signer::ed(), Signer::ec());
    let good = [
        ed.jwk("ed"),
        with(with(with(ec.jwk("ec"), "use", json!("sig")), "alg", json!("ES256")), "key_ops", json!(["verify"])),
    ];
    let (tokens, warnings) = parse(&good).unwrap();
    assert_eq!(format!("{tokens:?}"), r#"["ed", "ec"]"#);
    assert!(warnings.list().is_empty(), "{warnings}");
    for other in [
        json!({ "kty": "RSA", "kid": "rsa", "n": "AQAB", "e": "AQAB" }),
        json!({ "kty": "EC", "crv": "P-384", "kid": "x", "x": "", "y": "" }),
        json!({ "kty": "OKP", "crv": "X25519", "kid": "x", "x": "" }),
        with(ed.jwk("x"), "use", json!("enc")),
        with(ed.jwk("x"), "alg", json!("ES256")),
        with(ec.jwk("x"), "alg", json!("HS256")),
        with(ec.jwk("x"), "key_ops", json!(["sign"])),
    ] {
        let (tokens, warnings) = parse(&[good[0].clone(), other.clone()]).unwrap();
        assert_eq!(format!("{tokens:?}"), r#"["ed"]"#, "{other}");
        assert!(warnings.to_string().contains("is left out"), "{other}: {warnings}");
    }
    let (tokens, warnings) = parse(&[]).unwrap();
    assert!(tokens.read(ed.good("ed").as_bytes(), NOW_UNIX).is_err());
    assert!(warnings.to_string().contains("no token is good"), "{warnings}");
}

#[test]
fn a_jwks_that_is_wrong_is_a_mistake() {
    let (ed, ec) = (Signer::ed(), Signer::ec());
    let x = |bytes: usize| json!(encoded(&vec![7; bytes]));
    for (key, want) in [
        (with(ed.jwk("k"), "d", json!("secret")), "key `k` is a private key"),
        (json!({ "kty": "oct", "kid": "k", "k": "c2VjcmV0" }), "key `k` is a private key"),
        (without(ed.jwk("k"), "kid"), "key 2 has no usable `kid`"),
        (ed.jwk(""), "key `` has no usable `kid`"),
        (with(ed.jwk("k"), "kid", json!(7)), "key 2 has no usable `kid`"),
        (ed.jwk(&"k".repeat(limits::KEY_ID_BYTES_MAX + 1)), "has no usable `kid`"),
        (ec.jwk("first"), "key `first` is there twice"),
        (with(ed.jwk("k"), "x", x(31)), "key `k` has a coordinate"),
        (with(ed.jwk("k"), "x", x(33)), "key `k` has a coordinate"),
        (with(ed.jwk("k"), "x", json!("!")), "key `k` has a coordinate"),
        (without(ed.jwk("k"), "x"), "key `k` has a coordinate"),
        (without(ec.jwk("k"), "y"), "key `k` has a coordinate"),
        (with(ec.jwk("k"), "y", x(32)), "key `k` is no point of its curve"),
        (json!({ "kid": "k" }), "key `k` has no `kty`"),
        (json!(7), "key 2 has no `kty`"),
    ] {
        let mistakes = parse(&[Signer::ed().jwk("first"), key.clone()]).err().unwrap_or_else(|| panic!("{key}"));
        let text = mistakes.to_string();
        assert!(text.starts_with("jwks.json: ") && text.contains(want), "{want:?} is not in {text}");
        assert!(!text.contains("secret") && !text.contains("c2VjcmV0"), "{text}");
    }
    for (text, want) in [
        ("", "jwks.json:1:1: this is not a JSON object"),
        ("{\n \"keys\": [}", "jwks.json:2:11: this is not a JSON object"),
        ("[]", "this is not a JSON object"),
        ("{}", "there is no list `keys`"),
        ("{\"keys\": {}}", "there is no list `keys`"),
    ] {
        let mistakes = Tokens::parse(&rules(), "jwks.json", text.as_bytes()).expect_err(text).to_string();
        assert!(mistakes.contains(want), "{text}: {mistakes}");
    }
    let many: Vec<Value> = (0..=limits::JWKS_KEYS_MAX).map(|n| ed.jwk(&n.to_string())).collect();
    assert!(parse(&many).err().unwrap().to_string().contains("65 keys"));
}

#[test]
fn names_that_are_denied_stand_one_on_each_line() {
    let denied = Denied::parse("denied.txt", b"web-7\r\n\n  system:serviceaccount:a:b \n#x\nweb-7").unwrap();
    assert_eq!(denied.len(), 3);
    for (name, want) in [
        ("web-7", true),
        ("system:serviceaccount:a:b", true),
        ("#x", true),
        ("web-", false),
        ("web-77", false),
        ("WEB-7", false),
        ("", false),
    ] {
        assert_eq!(denied.has(name), want, "{name}");
    }
    assert!(Denied::parse("denied.txt", b"").unwrap().is_empty());
    let long = "x".repeat(limits::TOKEN_ID_BYTES_MAX + 1);
    for bad in ["a\nb c", "a\nb\u{e4}", &format!("a\n{long}"), "a\n[\"b\", \"c\"]"] {
        let mistakes = Denied::parse("denied.txt", bad.as_bytes()).err().expect(bad).to_string();
        assert!(mistakes.starts_with("denied.txt:2:1: this is no name of a token; write one `sub`"), "{mistakes}");
    }
    assert!(Denied::parse("denied.txt", b"\xff").is_err());
    let names = |count: usize| (0..count).map(|n| format!("web-{n}\n")).collect::<String>();
    assert_eq!(
        Denied::parse("d", names(limits::TOKENS_DENIED_MAX).as_bytes()).unwrap().len(),
        limits::TOKENS_DENIED_MAX
    );
    let many = Denied::parse("d", names(limits::TOKENS_DENIED_MAX + 1).as_bytes()).err().unwrap().to_string();
    assert!(many.contains("10001 names; 10000 at most"), "{many}");
}

// ---- an edge that believes tokens ----

struct Site {
    files: Files,
    edge: TestEdge,
}

impl Site {
    fn start(keys: &[Value]) -> Site {
        Site::start_with(keys, "", "")
    }

    /// With more keys in `tokens`, and more tables.
    fn start_with(keys: &[Value], more: &str, tables: &str) -> Site {
        let files = Files::new();
        files.write("jwks.json", &json!({ "keys": keys }).to_string());
        files.write("denied.txt", "");
        let line = format!(
            "tokens = {{ jwks_file = \"{}\", denied_file = \"{}\", issuer = \"{ISSUER}\", audience = \"{AUDIENCE}\"{more} }}",
            files.path("jwks.json"),
            files.path("denied.txt")
        );
        let shared = format!("[[pool]]\nname = \"shared\"\norigins = [\"*.tenants.example\"]\n{tables}");
        Site { edge: setting().cores(2).edge(&line).more(&shared).start(), files }
    }

    fn deny(&self, text: &str) {
        self.files.write("denied.new", text);
        std::fs::rename(self.files.0.join("denied.new"), self.files.0.join("denied.txt")).unwrap();
        self.edge.reload_files();
    }

    fn put(&self, text: &str) {
        self.files.write("jwks.new", text);
        std::fs::rename(self.files.0.join("jwks.new"), self.files.0.join("jwks.json")).unwrap();
        self.edge.reload_files();
    }

    fn set_up(&self, authorization: &str) -> (Peer, u16) {
        let setup = common::setup(ORIGIN, "http%2F1.1");
        let own = basic("web-1", SECRET);
        let (link, answer) = self.edge.set_up(&setup.replace(&own, authorization));
        (link, answer.status())
    }

    /// A link that is up.
    #[track_caller]
    fn link(&self, token: &str) -> Peer {
        let before = setups(&self.edge.status());
        let (link, status) = self.set_up(&format!("Bearer {token}"));
        assert_eq!(status, 101);
        self.edge.until(|status| setups(status) > before);
        link
    }
}

/// Claims for the pool `app`, good for a day.
fn real_claims(sub: &str) -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": sub, "exp": common::unix_seconds() + 86_400, "origins": [HOST],
        "max_links": 2,
    })
}

#[test]
fn a_worker_serves_with_a_token_as_its_credential() {
    let (ed, ec) = (Signer::ed(), Signer::ec());
    let site = Site::start(&[ed.jwk("ed"), ec.jwk("ec")]);
    for (signer, kid, sub) in [(&ed, "ed", "web-7"), (&ec, "ec", "system:serviceaccount:a:b")] {
        let mut link = site.link(&signer.token(&header(signer, kid), &real_claims(sub)));
        assert_eq!(site.edge.status()["links"][0]["worker"], sub);
        let mut client = site.edge.sent(get("/"));
        link.serve("with a token");
        assert_eq!(client.response().text(), "with a token");
        link.finish();
        site.edge.until_links(0);
    }
    // The secrets of the configuration are good beside them.
    assert_eq!(site.set_up(&basic("web-1", SECRET)).1, 101);
}

#[test]
fn a_token_serves_its_own_origins_and_holds_its_own_links() {
    let ed = Signer::ed();
    let site = Site::start(&[ed.jwk("ed")]);
    let token = |claims: &Value| format!("Bearer {}", ed.token(&header(&ed, "ed"), claims));
    assert_eq!(site.set_up(&token(&with(real_claims("a"), "origins", json!(["https://app.example"])))).1, 403);
    assert_eq!(site.set_up(&token(&with(real_claims("a"), "origins", json!(["other.example"])))).1, 403);
    assert_eq!(site.set_up(&token(&with(real_claims("a"), "origins", json!(["http://app.example"])))).1, 101);
    // Two links for each name, whichever token they come with.
    let held: Vec<(Peer, u16)> =
        (0..3).map(|n| site.set_up(&token(&with(real_claims("b"), "jti", json!(n))))).collect();
    assert_eq!(held.iter().map(|(_, status)| *status).collect::<Vec<_>>(), [101, 101, 429]);
    assert_eq!(site.set_up(&token(&real_claims("c"))).1, 101);
    assert_eq!(site.set_up(&token(&real_claims("web-1"))).1, 101, "a credential with this id has its own");
}

#[test]
fn a_token_for_one_origin_of_a_shared_pool_gets_nothing_of_the_others() {
    let ed = Signer::ed();
    let site = Site::start(&[ed.jwk("ed")]);
    let asks = |origins: &[&str]| {
        let claims = with(real_claims("a"), "origins", json!(origins));
        let bearer = format!("Bearer {}", ed.token(&header(&ed, "ed"), &claims));
        let setup = common::setup("http%3A%2F%2Fa.tenants.example", "http%2F1.1");
        let (link, answer) = site.edge.set_up(&setup.replace(&basic("web-1", SECRET), &bearer));
        drop(link);
        answer.status()
    };
    assert_eq!(asks(&["http://a.tenants.example"]), 403, "the pool's other tenants are not its own");
    assert_eq!(asks(&["http://a.tenants.example", "*.tenants.example"]), 101);
}

#[test]
fn a_bad_token_is_a_401_and_nothing_else() {
    let ed = Signer::ed();
    let site = Site::start(&[ed.jwk("ed")]);
    let good = ed.token(&header(&ed, "ed"), &real_claims("a"));
    let expired = ed.token(&header(&ed, "ed"), &with(real_claims("a"), "exp", json!(1_000_000_000)));
    let evil = Signer::ed().token(&header(&ed, "ed"), &real_claims("a"));
    for authorization in [
        format!("Bearer {}", &good[..good.len() - 1]),
        format!("Bearer {expired}"),
        format!("Bearer {evil}"),
        format!("Bearer {}", good.replacen('.', "", 1)),
        format!("Bearer {}", "x.".repeat(3_000)),
        "Bearer ..".into(),
        format!("Basic {}", STANDARD.encode(format!("a:{good}"))),
        format!("DPoP {good}"),
    ] {
        let (mut link, status) = site.set_up(&authorization);
        assert_eq!(status, 401, "{authorization}");
        link.ends();
    }
    // Where tokens are nobody's, a good one is a wrong secret.
    let plain = common::edge();
    let setup = common::setup(ORIGIN, "h2").replace(&basic("web-1", SECRET), &format!("Bearer {good}"));
    assert_eq!(plain.set_up(&setup).1.status(), 401);
}

#[test]
fn a_key_that_goes_takes_its_links_with_it_and_an_end_ends_them() {
    let (old, new) = (Signer::ed(), Signer::ec());
    let site = Site::start(&[old.jwk("old")]);
    let mut first = site.link(&old.token(&header(&old, "old"), &real_claims("a")));
    site.put(&json!({ "keys": [old.jwk("old"), new.jwk("new")] }).to_string());
    let second = site.link(&new.token(&header(&new, "new"), &real_claims("b")));
    // What cannot be read, or is not there, changes nothing.
    site.put("{");
    std::fs::remove_file(site.files.0.join("jwks.json")).unwrap();
    site.edge.reload_files();
    site.edge.until_links(2);
    site.put(&json!({ "keys": [new.jwk("new")] }).to_string());
    first.ends();
    site.edge.until_links(1);
    // Another key under the same name is another one.
    let again = Signer::ec();
    site.put(&json!({ "keys": [again.jwk("new")] }).to_string());
    let mut second = second;
    second.ends();
    // A token ends in its second.
    let ends = with(real_claims("c"), "exp", json!(common::unix_seconds() + 2));
    let mut third = site.link(&again.token(&header(&again, "new"), &ends));
    third.ends();
    site.edge.until_links(0);
}

#[test]
fn a_token_whose_end_is_too_far_ahead_is_refused() {
    let ed = Signer::ed();
    let site = Site::start_with(&[ed.jwk("ed")], ", lifetime_max = \"1h\"", "");
    let ends_in = |s: u64| {
        let claims = with(real_claims("a"), "exp", json!(common::unix_seconds() + s));
        site.set_up(&format!("Bearer {}", ed.token(&header(&ed, "ed"), &claims))).1
    };
    // An hour and some more than any setup takes.
    assert_eq!((ends_in(3_600), ends_in(3_600 + 2 * common::HANG.as_secs()), ends_in(86_400)), (101, 401, 401));
    // A day, where nothing is said.
    let site = Site::start(&[ed.jwk("ed")]);
    let ends_in = |s: u64| {
        let claims = with(real_claims("a"), "exp", json!(common::unix_seconds() + s));
        site.set_up(&format!("Bearer {}", ed.token(&header(&ed, "ed"), &claims))).1
    };
    assert_eq!((ends_in(86_400), ends_in(86_400 + 2 * common::HANG.as_secs())), (101, 401));
}

#[test]
fn a_name_that_is_denied_loses_its_links_and_gets_none() {
    let ed = Signer::ed();
    let site = Site::start(&[ed.jwk("ed")]);
    let token = |sub: &str| ed.token(&header(&ed, "ed"), &real_claims(sub));
    let status = |sub: &str| site.set_up(&format!("Bearer {}", token(sub))).1;
    let mut gone = [site.link(&token("web-7")), site.link(&token("web-7"))];
    let mut stays = site.link(&token("web-77"));
    site.deny("web-7\n");
    gone.iter_mut().for_each(Peer::ends);
    site.edge.until_links(1);
    assert_eq!(status("web-7"), 401);
    // What cannot be read, or is not there, changes nothing.
    site.deny("web-77 \x07\n");
    std::fs::remove_file(site.files.0.join("denied.txt")).unwrap();
    site.edge.reload_files();
    assert_eq!(status("web-7"), 401);
    let mut client = site.edge.sent(get("/"));
    stays.serve("not denied");
    assert_eq!(client.response().text(), "not denied");
    // A credential with this id is another one.
    site.deny("web-7\nweb-1\n");
    assert_eq!(site.set_up(&basic("web-1", SECRET)).1, 101);
    site.deny("");
    for _ in 0..3 {
        site.edge.reload_files();
        assert_eq!(status("web-7"), 401, "looks that are a moment apart see a file that somebody writes");
    }
}

#[test]
fn a_name_is_denied_until_the_file_has_stood_without_it_for_a_while() {
    let ed = Signer::ed();
    let files = Files::new();
    files.write("jwks.json", &json!({ "keys": [ed.jwk("ed")] }).to_string());
    let text = format!(
        "[edge]\ntokens = {{ jwks_file = \"{}\", denied_file = \"{}\", issuer = \"{ISSUER}\", audience = \"{AUDIENCE}\" }}\n\
         [[listen]]\naddress = \"127.0.0.1:1\"\naccept = [\"clients\", \"workers\"]\n\
         [[pool]]\nname = \"app\"\norigins = [\"{HOST}\"]\n",
        files.path("jwks.json"),
        files.path("denied.txt")
    );
    let (config, _) = EdgeConfig::parse("edge.toml", &text, NOW_UNIX).unwrap();
    let denied = |register: &Register| -> Vec<&str> {
        let is_denied = |sub: &&str| {
            let token = ed.token(&header(&ed, "ed"), &with(claims(), "sub", json!(sub)));
            let presented = Presented::Bearer(token.into());
            let shown = Shown { presented: Some(&presented), certificate: None };
            register.now().check(shown, NOW_UNIX, || true).is_err()
        };
        ["a", "b", "c"].into_iter().filter(is_denied).collect()
    };
    // Each text as it is found by one look after the other, the second of that look, and who is denied then. `None`: the file is
    // gone.
    type Look<'a> = (u64, Option<&'a str>, &'a [&'a str]);
    let check = |looks: &[Look<'_>]| {
        let ((_, first, want), rest) = looks.split_first().expect("a start");
        files.write("denied.txt", first.expect("it has to be there"));
        let register = Register::open(&config, NOW_UNIX).expect("a start");
        assert_eq!(denied(&register), *want);
        for (index, (second, text, want)) in (1..).zip(rest) {
            match text {
                Some(text) => files.write("denied.txt", text),
                None => std::fs::remove_file(files.0.join("denied.txt")).unwrap(),
            }
            register.look(&config, NOW_UNIX + second, false, 0, |_| true);
            assert_eq!(denied(&register), *want, "look {index} in second {second}: {text:?}");
        }
    };
    let (all, none): (&[&str], &[&str]) = (&["a", "b"], &[]);
    let (both, only_a, only_b) = (Some("a\nb\n"), Some("a\n"), Some("b\n"));
    let (empty, long) = (Some(""), limits::DENIED_LOST_S);
    let short = limits::DENIED_MISSED_S;
    // Rewritten in place: emptied, begun, whole.
    check(&[(0, both, all), (1, empty, all), (2, only_a, all), (3, Some("a\nb\nc\n"), &["a", "b", "c"])]);
    // However many looks there are in a moment, and while a slow writer has not begun.
    check(&[(0, both, all), (0, empty, all), (0, empty, all), (1, empty, all), (short, empty, all), (long, both, all)]);
    check(&[(0, both, all), (1, empty, all), (long, empty, all), (long + 1, empty, none)]);
    // Half of the names are there, or fewer.
    check(&[(0, both, all), (1, only_a, all), (short, only_a, all), (short + 1, only_a, &["a"])]);
    let three = Some("a\nb\nc\n");
    let abc: &[&str] = &["a", "b", "c"];
    check(&[(0, three, abc), (1, only_a, abc), (long, only_a, abc), (long + 1, only_a, &["a"])]);
    // Newcomers do not make up for them.
    let others = Some("a\nd\ne\n");
    check(&[(0, three, abc), (1, others, abc), (long, others, abc), (long + 1, others, &["a"])]);
    // One that was taken out, and what comes meanwhile.
    check(&[(0, both, all), (1, only_b, all), (short + 1, only_b, &["b"]), (short + 2, Some("b\nc\n"), &["b", "c"])]);
    check(&[(0, only_a, &["a"]), (1, only_b, all), (short, empty, all), (short + long, empty, none)]);
    // What was missed once and came back was never away, and is missed anew.
    check(&[(0, both, all), (1, empty, all), (2, both, all), (long + 1, empty, all), (2 * long + 1, empty, none)]);
    // While there is nothing to read the time does not run.
    check(&[(0, both, all), (1, empty, all), (2, None, all), (long + 1, empty, all), (2 * long + 1, empty, none)]);
    check(&[
        (0, both, all),
        (1, empty, all),
        (2, Some("a b"), all),
        (long + 1, empty, all),
        (2 * long + 1, empty, none),
    ]);
    // A clock that was set back waits the longer.
    check(&[
        (1_000, both, all),
        (1_000, empty, all),
        (0, empty, all),
        (999 + long, empty, all),
        (1_000 + long, empty, none),
    ]);
}

#[test]
fn a_token_passes_while_its_neighbours_fail() {
    let ed = Signer::ed();
    let limits = "[limits]\nsources_exempt = []\nsetup_failures_per_source_max = 2\n";
    let site = Site::start_with(&[ed.jwk("ed")], "", limits);
    let evil = format!("Bearer {}", Signer::ed().token(&header(&ed, "ed"), &real_claims("a")));
    let statuses: Vec<u16> = (0..4).map(|_| site.set_up(&evil).1).collect();
    assert_eq!(statuses, [401, 401, 429, 429]);
    let good = ed.token(&header(&ed, "ed"), &real_claims("a"));
    let _link = site.link(&good);
    assert_eq!(site.set_up(&evil).1, 429);
}

#[test]
fn an_edge_without_readable_keys_does_not_start() {
    let files = Files::new();
    let text = |keys: &str, denied: &str| {
        format!(
            "[edge]\ntokens = {{ jwks_file = \"{}\", denied_file = \"{}\", issuer = \"i\", audience = \"a\" }}\n\
             [[listen]]\naddress = \"127.0.0.1:1\"\naccept = [\"clients\", \"workers\"]\n\
             [[pool]]\nname = \"app\"\norigins = [\"{HOST}\"]\n",
            files.path(keys),
            files.path(denied)
        )
    };
    files.write("bad.json", "{}");
    files.write("good.json", "{ \"keys\": [] }");
    files.write("good.txt", "");
    files.write("bad.txt", "two names\n");
    for (keys, denied, want) in [
        ("missing.json", "good.txt", "missing.json: cannot be read: "),
        ("bad.json", "good.txt", "bad.json: there is no list"),
        ("good.json", "missing.txt", "missing.txt: cannot be read: "),
        ("good.json", "bad.txt", "bad.txt:1:1: this is no name of a token"),
    ] {
        let text = text(keys, denied);
        let (mut config, warnings) = ptth::edge::config::EdgeConfig::parse("edge.toml", &text, NOW_UNIX).unwrap();
        assert!(warnings.list().is_empty(), "{warnings}");
        config.listens[0].address.set_port(0);
        let why = ptth::edge::Edge::start(config).err().expect("it starts");
        assert!(why.contains(want), "{why}");
    }
}
