//! Inverted HTTP (draft-thomson-ptth-potato): the names by which a TLS handshake itself turns the roles. Who may do that never
//! enters.

use super::setup::ChannelVersion;

/// The ALPN ids of all revisions, in the order in which an edge prefers them: HTTP/2 first, later revisions first. Its
/// predecessor (draft-bt-httpbis-reverse-http) has one, for HTTP/2.
pub const INVERTED: [(&[u8], ChannelVersion); 7] = [
    (&[0xd5, 0x87, 0xc9, 0xa5], ChannelVersion::H2), // -02
    (b"ph2", ChannelVersion::H2),                    // -01
    (b"rh2", ChannelVersion::H2),                    // -00
    (b"h2-reverse", ChannelVersion::H2),
    (&[0xc6, 0x96, 0xc9, 0xa5], ChannelVersion::H1), // -02
    (b"ph1", ChannelVersion::H1),                    // -01
    (b"rh1", ChannelVersion::H1),                    // -00
];

/// What is spoken after a handshake that chose `id`, if that turned the roles.
#[must_use]
pub fn inverted(id: &[u8]) -> Option<ChannelVersion> {
    INVERTED.iter().find(|(known, _)| *known == id).map(|(_, version)| *version)
}
