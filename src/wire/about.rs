//! What a worker says about itself in its setup: fields of our own, for whoever looks at an edge's links. No decision is made by
//! them; who a worker is, its credential says.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName};
use sfv::visitor::{DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor};
use sfv::{BareItemFromInput, KeyRef, Parser};

use crate::limits::{LABEL_BYTES_MAX, LABELS_MAX, NAME_BYTES_MAX};

static WORKER_ID: HeaderName = HeaderName::from_static("ptth-worker-id");
/// A structured dictionary of strings (RFC 9651 §3.2).
static WORKER_LABELS: HeaderName = HeaderName::from_static("ptth-worker-labels");

/// A worker by its own words, bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    pub id: Option<String>,
    /// Each name once, in the worker's order.
    pub labels: Vec<(String, String)>,
}

/// Letters, digits, `.`, `_` and `-`, as in names of pools and credentials.
#[must_use]
pub fn is_worker_id(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// A key of a structured dictionary (RFC 9651 §3.1.2).
#[must_use]
pub fn is_label_name(text: &str) -> bool {
    text.len() <= LABEL_BYTES_MAX && KeyRef::from_str(text).is_ok()
}

/// Printable ASCII.
#[must_use]
pub fn is_label_value(text: &str) -> bool {
    text.len() <= LABEL_BYTES_MAX && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
}

impl About {
    /// Appends the fields of a setup. What is said in them has been checked.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut text = String::new();
        if let Some(id) = &self.id {
            let _ = write!(text, "PTTH-Worker-Id: {id}\r\n");
        }
        for (index, (name, value)) in self.labels.iter().enumerate() {
            text += if index == 0 { "PTTH-Worker-Labels: " } else { ", " };
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = write!(text, "{name}=\"{escaped}\"");
        }
        if !self.labels.is_empty() {
            text += "\r\n";
        }
        out.extend_from_slice(text.as_bytes());
    }

    /// The labels on a log line: `zone=a rack=b`.
    #[must_use]
    pub fn shown(&self) -> String {
        let labels: Vec<_> = self.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        labels.join(" ")
    }

    /// Reads the fields of a setup; both may be missing.
    ///
    /// # Errors
    /// Says what is malformed, or above its bounds.
    pub fn read(headers: &HeaderMap) -> Result<About, &'static str> {
        let one = |name: &HeaderName, twice| {
            let mut values = headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (value, None) => Ok(value),
                _ => Err(twice),
            }
        };
        let mut about = About::default();
        if let Some(id) = one(&WORKER_ID, "more than one PTTH-Worker-Id")? {
            let id = id.to_str().ok().filter(|id| is_worker_id(id));
            about.id = Some(id.ok_or("a PTTH-Worker-Id that is no name of a worker")?.to_owned());
        }
        if let Some(labels) = one(&WORKER_LABELS, "more than one PTTH-Worker-Labels")? {
            let parser = Parser::new(labels.as_bytes());
            let read = parser.parse_dictionary_with_visitor(Reading(&mut about.labels));
            read.map_err(|_| "PTTH-Worker-Labels that are no dictionary of short strings")?;
        }
        Ok(about)
    }
}

/// What the parser does not know to refuse.
#[derive(Debug)]
struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no label")
    }
}

impl std::error::Error for Refused {}

struct Reading<'l>(&'l mut Vec<(String, String)>);

impl<'de> DictionaryVisitor<'de> for Reading<'_> {
    type Out = ();
    type Error = Refused;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Refused> {
        let is_known = self.0.iter().any(|(name, _)| name == key.as_str());
        if is_known || self.0.len() == LABELS_MAX || key.as_str().len() > LABEL_BYTES_MAX {
            return Err(Refused);
        }
        Ok(Member { name: key.as_str(), labels: &mut *self.0 })
    }

    fn finish(self) -> Result<(), Refused> {
        Ok(())
    }
}

/// A label before its value.
struct Member<'l, 'de> {
    name: &'de str,
    labels: &'l mut Vec<(String, String)>,
}

impl<'de> EntryVisitor<'de> for Member<'_, 'de> {
    type Error = Refused;

    fn item(self) -> Result<impl ItemVisitor<'de>, Refused> {
        Ok(move |value: BareItemFromInput<'de>| match value {
            BareItemFromInput::String(text) if text.as_str().len() <= LABEL_BYTES_MAX => {
                self.labels.push((self.name.to_owned(), text.as_str().to_owned()));
                Ok(Ignored)
            }
            _ => Err(Refused),
        })
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Refused> {
        Err::<Ignored, Refused>(Refused)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    type Want<'a> = Option<(Option<&'a str>, &'a [(&'a str, &'a str)])>;

    #[track_caller]
    fn check(ids: &[&'static str], labels: &[&'static str], want: Want) {
        let mut headers = HeaderMap::new();
        for (name, values) in [(&WORKER_ID, ids), (&WORKER_LABELS, labels)] {
            for value in values {
                headers.append(name, HeaderValue::from_static(value));
            }
        }
        let want = want.map(|(id, labels)| About {
            id: id.map(str::to_owned),
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        });
        assert_eq!(About::read(&headers).ok(), want, "{ids:?} {labels:?}");
    }

    #[test]
    fn what_a_worker_says_about_itself_is_read_within_bounds() {
        check(&[], &[], Some((None, &[])));
        check(&["host-1.example_x"], &[], Some((Some("host-1.example_x"), &[])));
        check(&[], &[r#"zone="a", rack="b 1\"\\""#], Some((None, &[("zone", "a"), ("rack", "b 1\"\\")])));
        check(&["a"], &[r#"*x.y-z_1="";p=1"#], Some((Some("a"), &[("*x.y-z_1", "")])));
        check(&["a"], &[""], Some((Some("a"), &[])));
        for id in ["", "a b", "a/b", "a\"", "0123456789012345678901234567890123456789012345678901234567890123456789"] {
            check(&[id], &[], None);
        }
        check(&["a", "b"], &[], None);
        check(&[], &[r#"a="1""#, r#"b="2""#], None);
        for labels in [
            "zone=a",
            "zone",
            "zone=1",
            "zone=(\"a\")",
            "Zone=\"a\"",
            "zone=\"a\",",
            "zone=\"a",
            "zone=\"a\", zone=\"b\"",
            "=\"a\"",
            "zone=\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
        ] {
            check(&[], &[labels], None);
        }
        let many = |count: usize| {
            let labels: Vec<_> = (0..count).map(|n| format!("l{n}=\"v\"")).collect();
            let mut headers = HeaderMap::new();
            headers.insert(&WORKER_LABELS, HeaderValue::try_from(labels.join(", ")).unwrap());
            About::read(&headers).ok().map(|about| about.labels.len())
        };
        assert_eq!((many(LABELS_MAX), many(LABELS_MAX + 1)), (Some(LABELS_MAX), None));
    }

    #[test]
    fn what_was_put_is_what_is_read() {
        let labels = vec![("zone".to_owned(), "a \"quoted\" \\ b".to_owned()), ("x".to_owned(), String::new())];
        let about = About { id: Some("host-1".into()), labels };
        let mut out = Vec::new();
        about.put(&mut out);
        let mut headers = HeaderMap::new();
        for line in std::str::from_utf8(&out).unwrap().trim_end().split("\r\n") {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        assert_eq!(About::read(&headers), Ok(about));
    }
}
