//! A record as a line of text, in which nothing that came from outside can end the line, or a value in quotes. Files and clocks
//! never enter.

use super::record::{Record, Text};
use super::rules::{Field, Format, Part};
use crate::clock::Now;
use crate::edge::priority::DecidedBy;
use crate::events::{Dispatch, Label as _, RefusalReason};
use crate::wire::write::put_decimal;

/// Makes the lines of one generation.
pub struct Writer {
    format: Format,
    generation: u64,
    pools: Vec<String>,
    /// The second whose text is at hand, as it stands in front of the milliseconds.
    second: i64,
    second_text: String,
    scratch: Vec<u8>,
}

/// The two clocks at one moment: with them a moment of the one is told in the other.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    pub now: Now,
    pub unix_ms: u64,
}

impl Clocks {
    fn unix_ms_of(self, moment: Now) -> u64 {
        self.unix_ms.saturating_sub(self.now.ms_since(moment))
    }
}

/// A field's value. `Word` is our own; `Outside` may be anything.
enum Value<'v> {
    Number(u64),
    Word(&'v [u8]),
    Outside(&'v [u8]),
}

impl Writer {
    /// `pools` are the names of the generation's, in their order.
    #[must_use]
    pub fn new(format: Format, generation: u64, pools: Vec<String>) -> Writer {
        Writer { format, generation, pools, second: i64::MIN, second_text: String::new(), scratch: Vec::new() }
    }

    /// Appends the line of `record`, with its newline.
    pub fn put(&mut self, out: &mut Vec<u8>, record: &Record, clocks: Clocks) {
        // The format is lent, not changed: what is made on the way is ours.
        let format = std::mem::replace(&mut self.format, Format::Json);
        match &format {
            Format::Json => self.put_json(out, record, clocks),
            Format::Text(parts) => {
                for part in parts {
                    match part {
                        Part::Literal(literal) => out.extend_from_slice(literal.as_bytes()),
                        Part::Field(field) => match self.value(*field, record, clocks) {
                            None => out.push(b'-'),
                            Some(Value::Number(number)) => put_decimal(out, number),
                            Some(Value::Word(word)) => out.extend_from_slice(word),
                            Some(Value::Outside(text)) => put_text(out, text),
                        },
                    }
                }
            }
        }
        self.format = format;
        out.push(b'\n');
    }

    fn put_json(&mut self, out: &mut Vec<u8>, record: &Record, clocks: Clocks) {
        let mut before = b'{';
        for field in Field::ALL {
            let Some(value) = self.value(*field, record, clocks) else { continue };
            out.push(before);
            before = b',';
            out.push(b'"');
            out.extend_from_slice(field.name().as_bytes());
            out.extend_from_slice(b"\":");
            match value {
                Value::Number(number) => put_decimal(out, number),
                Value::Word(text) | Value::Outside(text) => {
                    out.push(b'"');
                    put_json_text(out, text);
                    out.push(b'"');
                }
            }
        }
        out.push(b'}');
    }

    fn value<'v>(&'v mut self, field: Field, record: &'v Record, clocks: Clocks) -> Option<Value<'v>> {
        let text = |text: Text| Some(record.texts.get(text)).filter(|text| !text.is_empty()).map(Value::Outside);
        let word = |word: &'v str| Value::Word(word.as_bytes());
        Some(match field {
            Field::Time => {
                self.put_time(clocks.unix_ms_of(record.received));
                Value::Word(&self.scratch)
            }
            Field::Client => self.made(|out| drop(std::io::Write::write_fmt(out, format_args!("{}", record.client)))),
            Field::Method => return text(Text::Method),
            Field::Scheme => {
                record.version?;
                word(if record.is_secure { "https" } else { "http" })
            }
            Field::Host => return text(Text::Host),
            Field::Path => return text(Text::Path),
            Field::Protocol => word(match record.version? {
                http::Version::HTTP_10 => "HTTP/1.0",
                http::Version::HTTP_11 => "HTTP/1.1",
                http::Version::HTTP_2 => "HTTP/2",
                _ => return None,
            }),
            Field::Status => Value::Number(u64::from(record.status)),
            Field::Fault => word(RefusalReason::word(record.fault?)),
            Field::FaultDetail => word(record.fault?.detail()),
            Field::ProxyError => word(record.fault?.proxy_error()?),
            Field::BytesUp => Value::Number(record.bytes_up),
            Field::BytesDown => Value::Number(record.bytes_down),
            Field::RouteUs => Value::Number(us(record.left.unwrap_or(record.ended), record.received)),
            Field::QueueUs => Value::Number(us(record.granted.unwrap_or(record.ended), record.left?)),
            Field::WorkerUs => Value::Number(us(record.began.unwrap_or(record.ended), record.granted?)),
            Field::SendUs => Value::Number(us(record.ended, record.began?)),
            Field::TotalUs => Value::Number(us(record.ended, record.received)),
            Field::Pool => word(self.pools.get(usize::from(record.routed?.pool.0))?),
            Field::Class => Value::Number(u64::from(record.routed?.class.urgency())),
            Field::ClassBy => match record.routed?.by {
                Some(DecidedBy::Rule(index)) => self.made(|out| {
                    out.extend_from_slice(b"rule:");
                    put_decimal(out, u64::from(index) + 1);
                }),
                Some(DecidedBy::Header) => word("header"),
                Some(DecidedBy::Clamp) => word("clamp"),
                Some(DecidedBy::Default) => word("default"),
                None => word("aged"),
            },
            // As in /status, but that generations come and go here.
            Field::Link => {
                let (generation, core, link) = record.link?;
                let is_other = generation != self.generation;
                self.made(|out| {
                    if is_other {
                        put_decimal(out, generation);
                        out.push(b'/');
                    }
                    put_decimal(out, u64::from(core.0));
                    out.push(b'-');
                    put_decimal(out, link.0);
                })
            }
            Field::Worker => return text(Text::Worker),
            Field::WorkerId => return text(Text::WorkerId),
            Field::Dispatch => word(Dispatch::NAMES[record.dispatch?.index()]),
            Field::Attempts => Value::Number(u64::from(record.attempts)),
            Field::Core => Value::Number(u64::from(record.core.0)),
            Field::Generation => Value::Number(self.generation),
            Field::RequestId => return text(Text::RequestId),
            Field::Traceparent => return text(Text::Traceparent),
            Field::UserAgent => return text(Text::UserAgent),
        })
    }

    fn made(&mut self, make: impl FnOnce(&mut Vec<u8>)) -> Value<'_> {
        self.scratch.clear();
        make(&mut self.scratch);
        Value::Word(&self.scratch)
    }

    /// RFC 3339, UTC, to the millisecond.
    fn put_time(&mut self, unix_ms: u64) {
        let second = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX);
        if second != self.second {
            self.second = second;
            let moment = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX);
            self.second_text = moment.to_string();
            self.second_text.truncate("2026-11-26T00:00:00".len());
        }
        let ms = unix_ms % 1_000;
        let digit = |part: u64| b'0' + (part % 10) as u8;
        self.scratch.clear();
        self.scratch.extend_from_slice(self.second_text.as_bytes());
        self.scratch.extend([b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z']);
    }
}

fn us(later: Now, earlier: Now) -> u64 {
    // Each moment is cut to its microsecond first, so that the parts add up to the whole.
    (later.0 / 1_000).saturating_sub(earlier.0 / 1_000)
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Whatever is not printable ASCII, a quotation mark and a backslash as `\xHH`.
fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => {
                out.extend([b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            byte => out.push(byte),
        }
    }
}

/// RFC 8259 §7. What is no UTF-8 becomes U+FFFD: JSON has no way to say a byte.
fn put_json_text(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend([b'\\', c as u8]),
                // Those above ASCII move a terminal's cursor, too; two more are ends of lines to some.
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                    let code = c as u32 as usize;
                    out.extend(*b"\\u");
                    out.extend([12, 8, 4, 0].map(|shift| HEX[code >> shift & 15]));
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend(*b"\\ufffd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::log::record::{Routed, Texts};
    use crate::fault::Fault;
    use crate::ids::{Class, CoreId, LinkId, PoolId};

    /// Served by a link of another core after a wait.
    fn record() -> Record {
        let routed = Routed { pool: PoolId(1), class: Class::of(2), by: Some(DecidedBy::Rule(2)) };
        Record {
            core: CoreId(1),
            client: "2001:db8::7".parse().unwrap(),
            received: Now(1_000_000_400),
            left: Some(Now(1_000_010_900)),
            granted: Some(Now(1_002_010_100)),
            began: Some(Now(1_005_000_000)),
            ended: Now(1_005_500_999),
            routed: Some(routed),
            link: Some((7, CoreId(0), LinkId(12))),
            dispatch: Some(Dispatch::CrossAsleep),
            attempts: 2,
            status: 200,
            fault: None,
            version: Some(http::Version::HTTP_11),
            is_secure: true,
            bytes_up: 0,
            bytes_down: u64::MAX,
            texts: Texts::of([
                b"GET",
                b"app.example:8443",
                b"/a",
                b"0123",
                b"00-4b-00-01",
                b"curl/8",
                b"web-1",
                b"host-1",
            ]),
        }
    }

    /// Of a head that could not be read.
    fn refused() -> Record {
        let nothing = Texts::of([b"", b"", b"", b"", b"", b"", b"", b""]);
        Record {
            left: None,
            granted: None,
            began: None,
            routed: None,
            link: None,
            dispatch: None,
            attempts: 0,
            status: 400,
            fault: Some(Fault::ClientMalformed("a bare LF")),
            version: None,
            bytes_down: 0,
            texts: nothing,
            ..record()
        }
    }

    fn line(format: Format, record: &Record) -> String {
        let mut writer = Writer::new(format, 8, vec!["one".into(), "two".into()]);
        let clocks = Clocks { now: Now(61_000_000_000), unix_ms: 1_790_000_060_999 };
        let mut out = Vec::new();
        writer.put(&mut out, record, clocks);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_line_in_json_has_every_field_that_has_a_value() {
        assert_eq!(
            line(Format::Json, &record()),
            "{\"time\":\"2026-09-21T14:13:21.000Z\",\"client\":\"2001:db8::7\",\"method\":\"GET\",\"scheme\":\"https\",\
             \"host\":\"app.example:8443\",\"path\":\"/a\",\"protocol\":\"HTTP/1.1\",\"status\":200,\"bytes_up\":0,\
             \"bytes_down\":18446744073709551615,\"route_us\":10,\"queue_us\":2000,\"worker_us\":2990,\"send_us\":500,\
             \"total_us\":5500,\"pool\":\"two\",\"class\":2,\"class_by\":\"rule:3\",\"link\":\"7/0-12\",\
             \"worker\":\"web-1\",\"worker_id\":\"host-1\",\"dispatch\":\"cross_asleep\",\"attempts\":2,\"core\":1,\
             \"generation\":8,\"request_id\":\"0123\",\"traceparent\":\"00-4b-00-01\",\"user_agent\":\"curl/8\"}\n"
        );
        assert_eq!(
            line(Format::Json, &refused()),
            "{\"time\":\"2026-09-21T14:13:21.000Z\",\"client\":\"2001:db8::7\",\"status\":400,\
             \"fault\":\"client_malformed\",\"fault_detail\":\"a bare LF\",\"proxy_error\":\"http_request_error\",\
             \"bytes_up\":0,\"bytes_down\":0,\"route_us\":5500,\"total_us\":5500,\"attempts\":0,\"core\":1,\
             \"generation\":8}\n"
        );
    }

    #[test]
    fn a_line_of_text_has_what_its_format_says_and_a_dash_for_nothing() {
        let parts = [Field::Time, Field::Client, Field::Status, Field::Path, Field::Link, Field::ProxyError];
        let mut format = Vec::new();
        for field in parts {
            format.extend([Part::Field(field), Part::Literal(" ".into())]);
        }
        format.pop();
        let format = Format::Text(format);
        assert_eq!(line(format.clone(), &record()), "2026-09-21T14:13:21.000Z 2001:db8::7 200 /a 7/0-12 -\n");
        let want = "2026-09-21T14:13:21.000Z 2001:db8::7 400 - - http_request_error\n";
        assert_eq!(line(format, &refused()), want);
    }

    #[test]
    fn the_times_of_a_request_add_up_to_the_whole() {
        let ends = [1_000_000_400_u64, 1_000_010_999, 1_002_010_001, 1_005_000_999, 1_005_500_000];
        for have in 0..=3 {
            let moment = |index: usize| (index <= have).then(|| Now(ends[index]));
            let (left, granted, began) = (moment(1), moment(2), moment(3));
            let record = Record { received: Now(ends[0]), left, granted, began, ended: Now(ends[4]), ..record() };
            let line: serde_json::Value = serde_json::from_str(&line(Format::Json, &record)).expect("JSON");
            let parts: Vec<Option<u64>> =
                ["route_us", "queue_us", "worker_us", "send_us"].iter().map(|name| line[name].as_u64()).collect();
            assert_eq!(parts.iter().flatten().sum::<u64>(), line["total_us"].as_u64().unwrap(), "{line}");
            assert_eq!(parts.iter().flatten().count(), have + 1, "{line}");
        }
    }

    #[test]
    fn a_moment_is_told_to_the_millisecond_over_the_end_of_a_second() {
        let mut writer = Writer::new(Format::Json, 1, Vec::new());
        for (unix_ms, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_790_000_000_999, "2026-09-21T14:13:20.999Z"),
            (1_790_000_001_007, "2026-09-21T14:13:21.007Z"),
            (951_782_400_010, "2000-02-29T00:00:00.010Z"),
        ] {
            writer.put_time(unix_ms);
            assert_eq!(String::from_utf8_lossy(&writer.scratch), want);
        }
    }

    /// Every byte, at the begin, in the middle and at the end of what a client sent.
    #[test]
    fn nothing_from_outside_ends_a_line_or_a_quoted_value() {
        for byte in 0..=u8::MAX {
            for outside in [vec![byte, b'a'], vec![b'a', byte, b'a'], vec![b'a', byte], vec![0xc3, byte]] {
                let texts = Texts::of([b"GET", &outside, &outside, b"", b"", &outside, b"web-1", b""]);
                let record = Record { texts, ..record() };
                let json = line(Format::Json, &record);
                assert_eq!(json.find('\n'), Some(json.len() - 1), "{json:?}");
                assert!(json.trim_end().chars().all(|c| !c.is_control()), "{json:?}");
                let value: serde_json::Value = serde_json::from_str(&json).expect(&json);
                assert_eq!(value["path"], String::from_utf8_lossy(&outside).as_ref(), "{json:?}");
                let format = [Part::Literal("\"".into()), Part::Field(Field::Path), Part::Literal("\"".into())];
                let text = line(Format::Text(format.to_vec()), &record);
                let inside = text.strip_prefix('"').and_then(|text| text.strip_suffix("\"\n")).expect("quotes");
                assert!(inside.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"'), "{text:?}");
                assert_eq!(unescaped(inside), outside);
            }
        }
    }

    /// What a reader of a text line does.
    fn unescaped(text: &str) -> Vec<u8> {
        let mut parts = text.split("\\x");
        let mut bytes = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
            bytes.extend_from_slice(&part.as_bytes()[2..]);
        }
        bytes
    }
}
