//! The frames of an HTTP/2 connection, whole and in pieces: the same ones, and no byte of another taken for one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptth::wire::{FrameHead, FrameScan};

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<FrameHead>, bool) {
    let (mut scan, mut heads) = (FrameScan::client(), Vec::new());
    for mut piece in pieces {
        while let Some(head) = scan.next(&mut piece) {
            heads.push(head);
        }
        assert!(piece.is_empty());
    }
    (heads, scan.is_in_block())
}

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    let whole = read([bytes]);
    assert_eq!(read(bytes.chunks(usize::from(step) + 1)), whole);
    // Every head but the last has its payload behind it.
    let mut at = 24;
    for head in &whole.0 {
        assert_eq!(bytes[at + 3], head.kind);
        at += 9 + head.payload_bytes as usize;
    }
    assert!(at + 9 > bytes.len(), "one was missed");
});
