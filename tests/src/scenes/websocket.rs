//! SIP over WebSocket (RFC 7118): the handshake, and frames of RFC 6455.

use crate::sip::message::Message;

/// The client's side of the handshake (RFC 6455, 1.3: the example's key).
pub(super) const REQUEST: &str = "GET / HTTP/1.1\r\nHost: pbx.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sip\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// The server's.
pub(super) const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: sip\r\n\r\n";

/// One final text frame; a client masks what it sends (RFC 6455, 5.2).
pub(super) fn frame(message: &Message, mask: Option<[u8; 4]>) -> Vec<u8> {
    let text = message.to_string();
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![0x81];
    match u16::try_from(text.len()) {
        Ok(length @ 0..=125) => frame.push(masked + length.to_be_bytes()[1]),
        Ok(length) => {
            frame.push(masked + 126);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(masked + 127);
            frame.extend((text.len() as u64).to_be_bytes());
        }
    }
    frame.extend(mask.unwrap_or_default().iter().take(if mask.is_some() { 4 } else { 0 }));
    let mask = mask.unwrap_or_default();
    frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(octet, mask)| octet ^ mask));
    frame
}
