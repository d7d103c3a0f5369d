//! Frames of an HTTP/2 connection, whole and cut at each byte.

use ptth::wire::frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PUSH_PROMISE, SETTINGS};
use ptth::wire::{FrameHead, FrameScan};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload_bytes: u32) -> (FrameHead, Vec<u8>) {
    let mut bytes = payload_bytes.to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&(stream | 1 << 31).to_be_bytes()); // the reserved bit is nobody's
    // What looks like a frame's head in a payload is none.
    bytes.extend((0..payload_bytes).map(|index| [0, 0, 1, PING, 0, 0, 0, 0, 0][index as usize % 9]));
    (FrameHead { payload_bytes, kind, flags, stream }, bytes)
}

/// The heads in `pieces`, and whether a header block was open after each piece.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<FrameHead>, Vec<bool>) {
    let mut scan = FrameScan::client();
    let (mut heads, mut open) = (Vec::new(), Vec::new());
    for mut piece in pieces {
        while let Some(head) = scan.next(&mut piece) {
            heads.push(head);
        }
        assert!(piece.is_empty(), "it takes all that it was given");
        open.push(scan.is_in_block());
    }
    (heads, open)
}

#[track_caller]
fn check(frames: &[(u8, u8, u32, u32)], is_open: bool) {
    let (want, bytes): (Vec<_>, Vec<_>) =
        frames.iter().map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, *payload)).unzip();
    let bytes = [PREFACE, &bytes.concat()].concat();
    let (heads, open) = read([&bytes[..]]);
    assert_eq!((&heads, open), (&want, vec![is_open]), "whole");
    for cut in 0..bytes.len() {
        let (heads, open) = read([&bytes[..cut], &bytes[cut..]]);
        assert_eq!((&heads, open[1]), (&want, is_open), "cut {cut}");
    }
    let (heads, open) = read(bytes.chunks(1));
    assert_eq!((&heads, *open.last().unwrap()), (&want, is_open), "byte by byte");
}

#[test]
fn every_frame_is_found_and_no_payload_is_read() {
    check(&[], false);
    check(&[(SETTINGS, 0, 0, 0)], false);
    check(&[(SETTINGS, 0, 0, 18), (SETTINGS, 1, 0, 0), (DATA, END_STREAM, 1, 1), (DATA, 0, 3, 300)], false);
    check(&[(PING, 0, 0, 8), (255, 255, 0x7fff_ffff, 9), (16, 0, 0, 17)], false);
    check(&[(HEADERS, END_HEADERS | END_STREAM, 1, 20), (HEADERS, END_HEADERS, 3, 0), (DATA, 0, 3, 1)], false);
}

#[test]
fn a_header_block_is_open_until_its_last_frame_has_come() {
    check(&[(HEADERS, 0, 1, 10)], true);
    check(&[(HEADERS, END_STREAM, 1, 0)], true);
    check(&[(HEADERS, 0, 1, 10), (CONTINUATION, 0, 1, 0), (CONTINUATION, 0, 1, 7)], true);
    check(&[(HEADERS, 0, 1, 10), (CONTINUATION, END_HEADERS, 1, 3)], false);
    check(&[(PUSH_PROMISE, 0, 1, 10)], true);
    check(&[(DATA, 0, 1, 10), (PING, 0, 0, 8)], false);
    // A whole block in one frame is open while its payload is under way.
    let (_, bytes) = frame(HEADERS, END_HEADERS, 1, 5);
    for cut in 0..bytes.len() {
        let (_, open) = read([PREFACE, &bytes[..cut]]);
        assert_eq!(open[1], cut >= 9, "cut {cut}");
    }
}

#[test]
fn the_largest_frame_is_skipped_to_its_end() {
    let (head, bytes) = frame(DATA, 0, 1, (1 << 24) - 1);
    let (ping, after) = frame(PING, 0, 0, 8);
    let pieces = std::iter::once(PREFACE).chain(bytes.chunks(65_537)).chain([&after[..]]);
    assert_eq!(read(pieces).0, [head, ping]);
}

#[test]
fn a_server_is_between_frames_only_where_another_may_stand() {
    let frames = [
        frame(SETTINGS, 0, 0, 6),
        frame(SETTINGS, 1, 0, 0),
        frame(HEADERS, 0, 1, 5),
        frame(CONTINUATION, END_HEADERS, 1, 4),
        frame(DATA, END_STREAM, 1, 20),
    ];
    let mut scan = FrameScan::server();
    let mut between = vec![0];
    let mut at = 0;
    assert!(scan.is_between_frames());
    for byte in frames.iter().flat_map(|(_, bytes)| bytes) {
        scan.next(&mut &[*byte][..]);
        at += 1;
        if scan.is_between_frames() {
            between.push(at);
        }
    }
    // Never between HEADERS and its CONTINUATION (RFC 9113 §6.10).
    assert_eq!(between, [0, 15, 24, 24 + 14 + 13, 24 + 14 + 13 + 29]);
    assert_eq!(FrameHead::read(&frames[0].1), Some(frames[0].0));
    assert_eq!(FrameHead::read(&frames[0].1[..8]), None);
}
