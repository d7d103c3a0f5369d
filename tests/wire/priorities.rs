//! What clients write into `Priority` (RFC 9218), and what is made of it: at worst nothing.

use http::{HeaderMap, HeaderValue};
use ptth::limits::URGENCY_MAX;
use ptth::wire::priority::{ClientPriority, PRIORITY, client_priority, priority_value};

fn read(lines: &[&[u8]]) -> ClientPriority {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(&PRIORITY, HeaderValue::from_bytes(line).unwrap());
    }
    client_priority(&headers)
}

/// Each is no structured dictionary, though most hold something that looks like an urgency.
const GARBAGE: [&str; 56] = [
    "u=",
    "u=,",
    "u=1,",
    "u=1, ",
    ",u=1",
    ",",
    ",,",
    "u=1,,i",
    "u=1 i",
    "u=1; I",
    "u=1;",
    "u=1;=2",
    "u=1;A",
    "u=1,;i",
    "u =1",
    "u= 1",
    "u==1",
    "u:1",
    "=1",
    "1",
    "1=u",
    "-1",
    "u=-",
    "u=--1",
    "u=+1",
    "u=1.",
    "u=.1",
    "u=1.2345",
    "u=1.2.3",
    "u=1e0",
    "u=0x1",
    "u=1000000000000000",
    "u=1234567890123.0",
    "u=1, i=?",
    "u=1, i=?2",
    "u=1, i=?true",
    "u=1, ?1",
    "u=1, \"i\"",
    "u=1, x=\"open",
    "u=1, x=\"a\\b\"",
    "u=1, x=\"\\",
    "u=1, x='a'",
    "u=1, x=:aGk=",
    "u=1, x=:a b:",
    "u=1, x=:!:",
    "u=1, x=(1",
    "u=1, x=(1,2)",
    "u=1, x=(1)2",
    "u=1, x=((1))",
    "u=1, x={}",
    "u=1, x=@1.5",
    "u=1, x=%\"%ZZ\"",
    "u=1\tx",
    "U=1, U",
    "\"u=1\"",
    "u=1, \u{fc}=2",
];

#[test]
fn garbage_is_as_if_nothing_had_been_said() {
    for garbage in GARBAGE {
        assert_eq!(read(&[garbage.as_bytes()]), ClientPriority::default(), "{garbage:?}");
        assert_eq!(read(&[b"u=2, i", garbage.as_bytes()]), ClientPriority::default(), "{garbage:?} after another line");
        assert_eq!(
            read(&[garbage.as_bytes(), b"u=2, i"]),
            ClientPriority::default(),
            "{garbage:?} before another line"
        );
    }
    for byte in (0x80..=0xFF).chain([b'\t', b'#', b'@', b'<']) {
        assert_eq!(read(&[&[b'u', b'=', b'1', byte, b'x']]), ClientPriority::default(), "a byte of {byte:#x}");
    }
}

#[test]
fn a_long_field_is_read_to_its_end() {
    let many = "a, ".repeat(2_000);
    assert_eq!(read(&[format!("u=2, {many}i").as_bytes()]), ClientPriority { urgency: Some(2), incremental: true });
    for open in ["(", "\"", ":", "a;", "a=(", "x=\"\\\"", "%\"%c3%a4"] {
        let text = format!("u=2, i, {}", open.repeat(2_000));
        assert_eq!(read(&[text.as_bytes()]), ClientPriority::default(), "{open:?}, 2,000 times");
    }
}

/// Marsaglia's xorshift64*.
fn next(state: &mut u64, bound: usize) -> usize {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    usize::try_from(state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % bound
}

/// Whatever a client writes: what comes out is one of the sixteen values that a worker may be told, and reading that
/// again gives the same.
#[test]
fn any_bytes_become_one_of_sixteen_values() {
    const PARTS: [&[u8]; 24] = [
        b"u", b"i", b"=", b"u=3", b"u=8", b"i=?1", b"?0", b", ", b",", b";", b";q=1", b" ", b"\t", b"(", b")", b"\"",
        b"\\", b":", b"-", b"9", b".", b"\xff", b"@7", b"%\"",
    ];
    let mut state = 1;
    let mut meant_something = 0;
    for round in 0..50_000 {
        let text: Vec<u8> =
            (0..1 + next(&mut state, 10)).flat_map(|_| PARTS[next(&mut state, PARTS.len())]).copied().collect();
        let lines: Vec<&[u8]> =
            if round % 3 == 0 { text.splitn(2, |byte| *byte == b' ').collect() } else { vec![&text] };
        let priority = read(&lines);
        meant_something += usize::from(priority != ClientPriority::default());
        let urgency = priority.urgency.unwrap_or(3);
        assert!(urgency <= URGENCY_MAX, "round {round}: {text:?}");
        let told = priority_value(urgency, priority.incremental);
        let again = ClientPriority { urgency: Some(urgency), incremental: priority.incremental };
        assert_eq!(read(&[told.as_bytes()]), again, "round {round}: {text:?}");
    }
    assert!(meant_something > 500, "only {meant_something} of all lines say anything");
}

/// A field that is cut anywhere is either garbage or a shorter dictionary; of a whole member nothing is made up.
#[test]
fn a_field_that_is_cut_says_less_and_nothing_else() {
    let whole = b"u=5;x=\"a\\\"\";y=:aGk=:, i;z, n=(1 \"b\";c 2.5);d, t=tok/en";
    assert_eq!(read(&[whole]), ClientPriority { urgency: Some(5), incremental: true });
    for cut in 0..whole.len() {
        let part = read(&[&whole[..cut]]);
        assert!(matches!(part.urgency, None | Some(5)), "cut {cut}");
        assert!(!part.incremental || part.urgency == Some(5), "cut {cut}");
    }
}
