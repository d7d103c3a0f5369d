//! `ptth credential new`: a secret, and the block that lets an edge know it again. Nothing is kept.

use super::Stop;
use crate::edge::config::{SecretHash, check_name};
use crate::wire::origin::OriginPattern;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

/// Bits of a secret / 8: no dictionary and no search finds it, so a plain hash keeps it.
const SECRET_BYTES: usize = 32;

/// The line for the worker, an empty line, and the block for the edge.
pub(super) fn new(name: &str, origins: &[String]) -> Result<String, Stop> {
    check_name(name).map_err(|reason| Stop::usage(format_args!("NAME {reason}; write a name such as web-1")))?;
    let mut patterns = Vec::new();
    for origin in origins {
        let pattern = OriginPattern::parse(origin).map_err(|reason| {
            Stop::usage(format_args!("--origin is not an origin, {reason}; write one such as https://app.example.com"))
        })?;
        patterns.push(format!("\"{pattern}\""));
    }
    let mut bytes = [0_u8; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| Stop::Failure(format!("no random bytes from the system: {error}")))?;
    Ok(shown(name, &BASE64_URL_SAFE_NO_PAD.encode(bytes), &patterns))
}

fn shown(name: &str, secret: &str, patterns: &[String]) -> String {
    let hash = SecretHash::of(secret.as_bytes());
    let origins = match patterns {
        [] => "[\"https://app.example.com\"]   # what this worker may register".to_owned(),
        patterns => format!("[{}]", patterns.join(", ")),
    };
    format!(
        "{name}:{secret}\n\n[[credential]]\nid          = \"{name}\"\nsecret_hash = \"{hash}\"\n\
         origins     = {origins}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_has_the_hash_of_the_secret_alone() {
        let want = "web-1:abc\n\n[[credential]]\nid          = \"web-1\"\n\
            secret_hash = \"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n\
            origins     = [\"http://a.example\", \"*\"]\n";
        assert_eq!(shown("web-1", "abc", &["\"http://a.example\"".into(), "\"*\"".into()]), want);
    }
}
