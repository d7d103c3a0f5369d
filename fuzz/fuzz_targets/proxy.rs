#![no_main]
//! The front of a connection from a load balancer: however it is cut, the same verdict; and an address that was read is one
//! that the header's own text or bytes hold.

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use ptth::limits::{PROXY_V1_BYTES_MAX, PROXY_V2_BYTES_MAX};
use ptth::wire::{Introduced, parse_proxy};

fuzz_target!(|input: &[u8]| {
    let whole = parse_proxy(input);
    for cut in 0..input.len() {
        match parse_proxy(&input[..cut]) {
            Ok(None) => {}
            early => {
                assert_eq!(early, whole, "cut {cut}");
                break;
            }
        }
    }
    if input.len() >= 16 + PROXY_V2_BYTES_MAX {
        assert_ne!(whole, Ok(None), "there is a verdict at last");
    }
    let Ok(Some((bytes, introduced))) = whole else { return };
    let header = &input[..bytes];
    let Introduced::From(client) = introduced else { return };
    assert_eq!(client.ip(), client.ip().to_canonical());
    if header[0] == b'P' {
        assert!(bytes <= PROXY_V1_BYTES_MAX);
        let text = std::str::from_utf8(header).unwrap().strip_suffix("\r\n").unwrap();
        let words: Vec<&str> = text.split(' ').collect();
        let [_, _, source, _, port, _] = words[..] else { panic!("{text}") };
        assert_eq!(SocketAddr::new(source.parse::<IpAddr>().unwrap().to_canonical(), port.parse().unwrap()), client);
    } else {
        assert_eq!(bytes, 16 + usize::from(u16::from_be_bytes([header[14], header[15]])));
        assert_eq!(header[12], 0x21);
        let port_at = if header[13] == 0x11 { 24 } else { 48 };
        assert_eq!(header[port_at..port_at + 2], client.port().to_be_bytes());
    }
});
