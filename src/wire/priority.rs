//! The `Priority` field (RFC 9218), as far as an edge needs it. What is done with an urgency is decided elsewhere.

use std::convert::Infallible;

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::visitor::{DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor};
use sfv::{BareItemFromInput, KeyRef, Parser};

use crate::ids::Class;
use crate::limits::URGENCY_MAX;

const _: () = assert!(URGENCY_MAX as usize + 1 == Class::COUNT);

pub static PRIORITY: HeaderName = HeaderName::from_static("priority");

/// What a client asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientPriority {
    /// `u`, 0 most urgent to 7; `None` if it was not said.
    pub urgency: Option<u8>,
    /// `i`.
    pub incremental: bool,
}

/// Reads all `Priority` fields of a request. Parameters that are unknown, out of range or of another type are ignored
/// (RFC 9218 §4), and so is everything if it is no structured dictionary (RFC 9651 §4.2). Allocates only for strings
/// and bytes that nobody looks at, at most the field's own size.
#[must_use]
pub fn client_priority(headers: &HeaderMap) -> ClientPriority {
    let mut priority = ClientPriority::default();
    for value in headers.get_all(&PRIORITY) {
        // A member that is cut in two by the end of a line is garbage, too: no client of good will writes one.
        if Parser::new(value.as_bytes()).parse_dictionary_with_visitor(Reading(&mut priority)).is_err() {
            return ClientPriority::default();
        }
    }
    priority
}

/// The field's value for a worker. `urgency` above `URGENCY_MAX` is taken as that.
#[must_use]
pub fn priority_value(urgency: u8, incremental: bool) -> HeaderValue {
    const VALUES: [[&str; 2]; 8] = [
        ["u=0", "u=0, i"],
        ["u=1", "u=1, i"],
        ["u=2", "u=2, i"],
        ["u=3", "u=3, i"],
        ["u=4", "u=4, i"],
        ["u=5", "u=5, i"],
        ["u=6", "u=6, i"],
        ["u=7", "u=7, i"],
    ];
    HeaderValue::from_static(VALUES[usize::from(urgency.min(URGENCY_MAX))][usize::from(incremental)])
}

/// Where the parser puts what it reads. Of a key that is there twice the last one counts, whatever its type is
/// (RFC 9651 §4.2.2), so each begins with its default.
struct Reading<'p>(&'p mut ClientPriority);

impl<'de> DictionaryVisitor<'de> for Reading<'_> {
    type Out = ();
    type Error = Infallible;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Infallible> {
        let default = ClientPriority::default();
        Ok(match key.as_str() {
            "u" => {
                self.0.urgency = default.urgency;
                Some(Member::Urgency(&mut self.0.urgency))
            }
            "i" => {
                self.0.incremental = default.incremental;
                Some(Member::Incremental(&mut self.0.incremental))
            }
            _ => None, // read all the same: one wrong byte makes the whole field worthless
        })
    }

    fn finish(self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A member that is known, before its value.
enum Member<'p> {
    Urgency(&'p mut Option<u8>),
    Incremental(&'p mut bool),
}

impl<'de> EntryVisitor<'de> for Member<'_> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'de>, Infallible> {
        Ok(move |value: BareItemFromInput<'de>| {
            match (self, value) {
                (Member::Urgency(urgency), BareItemFromInput::Integer(number)) => {
                    *urgency = u8::try_from(i64::from(number)).ok().filter(|urgency| *urgency <= URGENCY_MAX);
                }
                (Member::Incremental(incremental), BareItemFromInput::Boolean(flag)) => *incremental = flag,
                _ => {}
            }
            Ok::<_, Infallible>(Ignored)
        })
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Infallible> {
        Ok(Ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[&'static str], urgency: Option<u8>, incremental: bool) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&PRIORITY, HeaderValue::from_static(value));
        }
        assert_eq!(client_priority(&headers), ClientPriority { urgency, incremental }, "{values:?}");
    }

    #[test]
    fn a_priority_is_read_as_a_structured_dictionary() {
        check(&[], None, false);
        check(&[""], None, false);
        check(&["u=0"], Some(0), false);
        check(&["u=7, i"], Some(7), true);
        check(&["i,u=2"], Some(2), true);
        check(&["i=?1"], None, true);
        check(&["i=?0, u=1"], Some(1), false);
        check(&["u=1", "i"], Some(1), true);
        check(&["u=1", "u=5"], Some(5), false);
        check(&["u=1;foo=bar;baz, i;q=0.5"], Some(1), true);
        check(&["u=1, x=\"a, u=7\\\"\", y=(1 2;a \"b\"), z=:aGk=:, t=tok/en"], Some(1), false);
        // of another type or out of range: that one is ignored
        check(&["u=8"], None, false);
        check(&["u=-1, i"], None, true);
        check(&["u=1.0"], None, false);
        check(&["u=high"], None, false);
        check(&["u, i=1"], None, false);
        check(&["U=1"], None, false);
        check(&["u=1.0, i=\"?1\""], None, false);
        check(&["u=(1), i"], None, true);
        check(&["u=@1, i"], None, true);
        // the last member of a name counts, also if it is the one that is ignored
        check(&["u=1, i, u=high"], None, true);
        check(&["u=1, u=(2 3), u=4"], Some(4), false);
        check(&["u=1, i", "u=9, i=0"], None, false);
        // no dictionary at all: nothing counts
        check(&["u=1,"], None, false);
        check(&["u=1 i"], None, false);
        check(&["u=1,,i"], None, false);
        check(&["u=, i"], None, false);
        check(&["u = 1"], None, false);
        check(&["i, u=1, x=\"open"], None, false);
        check(&["u=1", "?"], None, false);
        check(&["u=1234567890123456"], None, false);
        check(&["i, y=(1"], None, false);
    }

    #[test]
    fn a_worker_sees_the_class_and_i() {
        assert_eq!(priority_value(0, false), "u=0");
        assert_eq!(priority_value(5, true), "u=5, i");
        assert_eq!(priority_value(200, false), "u=7");
    }
}
