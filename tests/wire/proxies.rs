//! PROXY headers, and whose connection they say it is.

use ptth::limits::{PROXY_V1_BYTES_MAX, PROXY_V2_BYTES_MAX};
use ptth::wire::{Introduced, parse_proxy};

/// Whole, with other bytes behind it, and cut at each byte. `want` is the address, or `itself`, or a part of the reason.
#[track_caller]
fn check(header: &[u8], want: Result<&str, &str>) {
    let shown = String::from_utf8_lossy(header);
    let want = want.map(|who| match who {
        "itself" => Introduced::Itself,
        address => Introduced::From(address.parse().unwrap()),
    });
    for behind in
        [&b""[..], b"\x16", b"GET / HTTP/1.1\r\n", b"PROXY TCP4 1.1.1.1 2.2.2.2 3 4\r\n", b"\r\n\r\n\0\r\nQUIT\n"]
    {
        let input = [header, behind].concat();
        match (parse_proxy(&input), want) {
            (Ok(Some(got)), Ok(want)) => assert_eq!(got, (header.len(), want), "{shown:?} before {behind:?}"),
            (Err(got), Err(want)) => assert!(got.contains(want), "{shown:?} before {behind:?}: {got}"),
            (got, want) => panic!("{shown:?} before {behind:?}: {got:?}, not {want:?}"),
        }
    }
    for cut in 0..header.len() {
        match (parse_proxy(&header[..cut]), want) {
            (Ok(None), _) => {}
            (Err(early), Err(want)) => assert!(early.contains(want), "cut {cut} of {shown:?}: {early}"),
            (early, _) => panic!("cut {cut} of {shown:?}: {early:?}"),
        }
    }
}

#[test]
fn a_line_of_version_1_names_the_client() {
    for (line, want) in [
        ("TCP4 192.0.2.7 198.51.100.1 4711 443", Ok("192.0.2.7:4711")),
        ("TCP4 255.255.255.255 255.255.255.255 65535 65535", Ok("255.255.255.255:65535")),
        ("TCP4 0.0.0.0 0.0.0.0 0 0", Ok("0.0.0.0:0")),
        ("TCP6 2001:db8::7 2001:db8::1 4711 443", Ok("[2001:db8::7]:4711")),
        ("TCP6 2001:DB8:0:0:0:0:0:7 ::1 1 2", Ok("[2001:db8::7]:1")),
        ("TCP6 ::ffff:192.0.2.7 ::1 1 2", Ok("192.0.2.7:1")),
        (
            "TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
            Ok("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
        ),
        ("UNKNOWN", Ok("itself")),
        ("UNKNOWN ", Ok("itself")),
        ("UNKNOWN 192.0.2.7 198.51.100.1 4711 443", Ok("itself")),
        ("UNKNOWN a b c d e f g h i j", Ok("itself")),
        ("UNKNOWN \u{e9}", Ok("itself")),
        // one word wrong
        ("", Err("unknown protocol")),
        ("UNKNOWNS", Err("unknown protocol")),
        ("tcp4 192.0.2.7 198.51.100.1 4711 443", Err("unknown protocol")),
        ("TCP5 192.0.2.7 198.51.100.1 4711 443", Err("unknown protocol")),
        (" TCP4 192.0.2.7 198.51.100.1 4711 443", Err("unknown protocol")),
        ("UDP4 192.0.2.7 198.51.100.1 4711 443", Err("unknown protocol")),
        ("TCP4", Err("impossible address")),
        ("TCP4 ", Err("impossible address")),
        ("TCP4 192.0.2.7", Err("impossible address")),
        ("TCP4 192.0.2.256 198.51.100.1 4711 443", Err("impossible address")),
        ("TCP4 192.0.2 198.51.100.1 4711 443", Err("impossible address")),
        ("TCP4 192.0.02.7 198.51.100.1 4711 443", Err("impossible address")),
        ("TCP4 192.0.2.7 x 4711 443", Err("impossible address")),
        ("TCP4 192.0.2.7  198.51.100.1 4711 443", Err("impossible address")),
        ("TCP4 2001:db8::7 2001:db8::1 4711 443", Err("impossible address")),
        ("TCP6 192.0.2.7 198.51.100.1 4711 443", Err("impossible address")),
        ("TCP6 [2001:db8::7] 2001:db8::1 4711 443", Err("impossible address")),
        ("TCP6 fe80::1%eth0 2001:db8::1 4711 443", Err("impossible address")),
        ("TCP4 192.0.2.7 198.51.100.1", Err("impossible port")),
        ("TCP4 192.0.2.7 198.51.100.1 4711", Err("impossible port")),
        ("TCP4 192.0.2.7 198.51.100.1 4711 ", Err("impossible port")),
        ("TCP4 192.0.2.7 198.51.100.1 65536 443", Err("impossible port")),
        ("TCP4 192.0.2.7 198.51.100.1 04711 443", Err("impossible port")),
        ("TCP4 192.0.2.7 198.51.100.1 +4711 443", Err("impossible port")),
        ("TCP4 192.0.2.7 198.51.100.1 4711 -1", Err("impossible port")),
        ("TCP4 192.0.2.7 198.51.100.1 4711\t443", Err("impossible port")),
        ("TCP4 192.0.2.7 198.51.100.1 4711 443 ", Err("something behind")),
        ("TCP4 192.0.2.7 198.51.100.1 4711 443 x", Err("something behind")),
        ("TCP4 192.0.2.7 198.51.100.1 4711 443\0", Err("impossible port")),
    ] {
        check(format!("PROXY {line}\r\n").as_bytes(), want);
    }
}

#[test]
fn a_line_of_version_1_ends_with_cr_lf_and_in_time() {
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(PROXY_V1_BYTES_MAX - 16));
    assert_eq!(longest.len(), PROXY_V1_BYTES_MAX);
    check(longest.as_bytes(), Ok("itself"));
    let too_long = longest.replacen('x', "xx", 1);
    check(too_long.as_bytes(), Err("longer than 107 bytes"));
    check("PROXY UNKNOWN ".repeat(20).as_bytes(), Err("longer than 107 bytes"));
    // a space and a line feed end no line, whatever follows or does not
    check(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443 \n", Err("something else than CR LF"));
    check(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n", Err("something else than CR LF"));
    check(b"PROXY UNKNOWN\n\r\n", Err("something else than CR LF"));
    check(b"PROXY UNKNOWN\r\r\n", Err("something else than CR LF"));
    check(b"PROXY UNKNOWN\rx\n", Err("something else than CR LF"));
}

#[test]
fn what_begins_otherwise_is_no_header() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PRI * HTTP/2.0\r\n",
        b"POST / HTTP/1.1\r\n",
        b"PROXYTCP4",
        b"PROXY\tTCP4",
        b"proxy TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
        b"\x16\x03\x01",
        b"\0",
        b"\n",
        b"\r\nPROXY UNKNOWN\r\n",
        b"\r\n\r\nPROXY",
        b"\r\n\r\n\0\r\nQUIT\r",
    ] {
        check(bytes, Err("does not begin with a PROXY header"));
    }
    assert_eq!(parse_proxy(b""), Ok(None));
}

const V4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xBB];
const V6: [u8; 36] = [
    0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 1, 0x12, 0x67, 0x01, 0xBB,
];

/// Version and command, family and protocol, and what follows with its true length.
fn version_2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, family]);
    header.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
    header.extend(block);
    header
}

#[test]
fn a_header_of_version_2_names_the_client() {
    let mapped = [&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 7][..], &V6[16..]].concat();
    let with_tlv = |addresses: &[u8], bytes: usize| [addresses, &vec![0x04; bytes - addresses.len()][..]].concat();
    for (command, family, block, want) in [
        (0x21, 0x11, V4.to_vec(), Ok("192.0.2.7:4711")),
        (0x21, 0x21, V6.to_vec(), Ok("[2001:db8::7]:4711")),
        (0x21, 0x21, mapped, Ok("192.0.2.7:4711")),
        (0x21, 0x11, with_tlv(&V4, 19), Ok("192.0.2.7:4711")),
        (0x21, 0x21, with_tlv(&V6, PROXY_V2_BYTES_MAX), Ok("[2001:db8::7]:4711")),
        // nobody knows
        (0x21, 0x00, Vec::new(), Ok("itself")),
        (0x21, 0x00, V4.to_vec(), Ok("itself")),
        (0x21, 0x31, vec![b'x'; 216], Ok("itself")),
        // a look whether somebody is there: its block counts for nothing
        (0x20, 0x00, Vec::new(), Ok("itself")),
        (0x20, 0x11, V4.to_vec(), Ok("itself")),
        (0x20, 0x21, V4.to_vec(), Ok("itself")),
        (0x20, 0xFF, vec![0xFF; 3], Ok("itself")),
        // one byte wrong
        (0x11, 0x11, V4.to_vec(), Err("unknown version")),
        (0x31, 0x11, V4.to_vec(), Err("unknown version")),
        (0x01, 0x11, V4.to_vec(), Err("unknown version")),
        (0x22, 0x11, V4.to_vec(), Err("unknown command")),
        (0x2F, 0x11, V4.to_vec(), Err("unknown command")),
        (0x21, 0x10, V4.to_vec(), Err("unknown family or protocol")),
        (0x21, 0x01, V4.to_vec(), Err("unknown family or protocol")),
        (0x21, 0x13, V4.to_vec(), Err("unknown family or protocol")),
        (0x21, 0x41, V4.to_vec(), Err("unknown family or protocol")),
        (0x21, 0x12, V4.to_vec(), Err("datagrams")),
        (0x21, 0x22, V6.to_vec(), Err("datagrams")),
        (0x21, 0x32, vec![b'x'; 216], Err("datagrams")),
        (0x21, 0x11, V4[..11].to_vec(), Err("too short")),
        (0x21, 0x21, V6[..35].to_vec(), Err("too short")),
        (0x21, 0x21, V4.to_vec(), Err("too short")),
        (0x21, 0x31, vec![b'x'; 215], Err("too short")),
        (0x21, 0x11, with_tlv(&V4, PROXY_V2_BYTES_MAX + 1), Err("too long")),
        (0x20, 0x00, vec![0; 0xFFFF], Err("too long")),
    ] {
        check(&version_2(command, family, &block), want);
    }
}
