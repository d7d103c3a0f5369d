//! The `Priority` field (RFC 9218), as far as an edge needs it. What is done with an urgency is decided elsewhere.

use http::{HeaderMap, HeaderName, HeaderValue};

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
/// (RFC 9218 §4), and so is everything if it is no structured dictionary (RFC 8941 §4.2).
#[must_use]
pub fn client_priority(headers: &HeaderMap) -> ClientPriority {
    let mut priority = ClientPriority::default();
    for value in headers.get_all(&PRIORITY) {
        let read = dictionary(value.as_bytes(), |key, value| match (key, value) {
            (b"u", Bare::Integer(urgency)) => {
                priority.urgency = u8::try_from(urgency).ok().filter(|urgency| *urgency <= 7);
            }
            (b"i", Bare::Boolean(incremental)) => priority.incremental = incremental,
            _ => {}
        });
        if read.is_none() {
            return ClientPriority::default();
        }
    }
    priority
}

/// The field's value for a worker. `urgency` above 7 is taken as 7.
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
    HeaderValue::from_static(VALUES[usize::from(urgency.min(7))][usize::from(incremental)])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bare {
    Integer(i64),
    Boolean(bool),
    Other,
}

/// Shows each member of a dictionary; `None` if it is malformed. Each byte is looked at once or twice.
fn dictionary(text: &[u8], mut member: impl FnMut(&[u8], Bare)) -> Option<()> {
    let mut text = Text(text.trim_ascii_start());
    while !text.0.is_empty() {
        let key = text.key()?;
        let value = if text.eat(b'=') {
            if text.0.first() == Some(&b'(') { text.inner_list()? } else { text.bare()? }
        } else {
            Bare::Boolean(true)
        };
        text.parameters()?;
        member(key, value);
        text.skip(|byte| matches!(byte, b' ' | b'\t'));
        if text.0.is_empty() {
            break;
        }
        if !text.eat(b',') {
            return None;
        }
        text.skip(|byte| matches!(byte, b' ' | b'\t'));
        if text.0.is_empty() {
            return None; // a comma at the end
        }
    }
    Some(())
}

/// What is left of a structured field.
struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    fn eat(&mut self, byte: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let bytes = self.0.iter().position(|byte| !wanted(*byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(bytes);
        self.0 = rest;
        taken
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        if !matches!(self.0.first(), Some(b'a'..=b'z' | b'*')) {
            return None;
        }
        Some(self.skip(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*')))
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.skip(|byte| byte == b' ');
            self.key()?;
            if self.eat(b'=') {
                self.bare()?;
            }
        }
        Some(())
    }

    fn inner_list(&mut self) -> Option<Bare> {
        self.eat(b'(');
        loop {
            self.skip(|byte| byte == b' ');
            if self.eat(b')') {
                return Some(Bare::Other);
            }
            self.bare()?;
            self.parameters()?;
            if !matches!(self.0.first(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn bare(&mut self) -> Option<Bare> {
        match self.0.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => {
                self.eat(b'"');
                loop {
                    self.skip(|byte| matches!(byte, 0x20..=0x7E) && !matches!(byte, b'"' | b'\\'));
                    if self.eat(b'"') {
                        return Some(Bare::Other);
                    }
                    if !self.eat(b'\\') || !(self.eat(b'"') || self.eat(b'\\')) {
                        return None;
                    }
                }
            }
            b':' => {
                self.eat(b':');
                self.skip(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
                self.eat(b':').then_some(Bare::Other)
            }
            b'?' => {
                self.eat(b'?');
                if self.eat(b'1') { Some(Bare::Boolean(true)) } else { self.eat(b'0').then_some(Bare::Boolean(false)) }
            }
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => {
                self.skip(|byte| super::token::is_tchar(byte) || matches!(byte, b':' | b'/'));
                Some(Bare::Other)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Bare> {
        let negative = self.eat(b'-');
        let whole = self.skip(|byte| byte.is_ascii_digit());
        if self.eat(b'.') {
            let fraction = self.skip(|byte| byte.is_ascii_digit());
            return (matches!(whole.len(), 1..=12) && matches!(fraction.len(), 1..=3)).then_some(Bare::Other);
        }
        if whole.len() > 15 {
            return None;
        }
        let number = i64::try_from(super::token::decimal(whole)?).ok()?;
        Some(Bare::Integer(if negative { -number } else { number }))
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
