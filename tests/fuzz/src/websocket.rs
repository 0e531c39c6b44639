//! Any bytes as frames of WebSocket, and frames that are made of them.

use voxprobe::sip::websocket::{Front, Handshake, begins_with_sip, split};

use super::Input;

/// Reads them, and wraps them up to unwrap them again.
pub fn run(bytes: &[u8]) {
    begins_with_sip(bytes);
    if let Handshake::Upgrade(length) | Handshake::Http(length) = Handshake::read(bytes) {
        assert!(length <= bytes.len());
        assert_eq!(Handshake::read(&bytes[..length]), Handshake::read(bytes), "by what is behind it");
    }
    let mut rest = bytes;
    loop {
        match split(rest) {
            Front::Message { payload, length, frames } => {
                assert!(payload.len() < length && length <= rest.len() && frames > 0);
                let alone = split(&rest[..length]);
                assert_eq!(alone, Front::Message { payload, length, frames }, "by what is behind it");
                rest = &rest[length..];
            }
            Front::Other(length) => {
                assert!((2..=rest.len()).contains(&length));
                rest = &rest[length..];
            }
            Front::Incomplete(count) => {
                assert!(count > rest.len(), "{count} bytes are there");
                break;
            }
            Front::Malformed => break,
        }
    }
    made(bytes);
}

/// A message in as many frames as the input says, with pings between them.
fn made(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (mut stream, mut carried, mut frames) = (Vec::new(), Vec::new(), 0);
    loop {
        let kind = input.byte();
        let count = usize::from(input.word() % 700);
        let payload = input.take(count);
        if carried.len() + stream.len() > 32 << 10 {
            return;
        }
        let is_last = input.is_empty();
        let opcode = if frames == 0 { 1 } else { 0 };
        let mask = (kind & 1 != 0).then(|| [kind, 7, kind.wrapping_mul(3), 0xff]);
        frame(&mut stream, if is_last { 0x80 | opcode } else { opcode }, payload, mask, kind >> 1);
        carried.extend_from_slice(payload);
        frames += 1;
        if is_last {
            break;
        }
        if kind & 8 != 0 {
            frame(&mut stream, 0x89, b"ping", mask, 0);
            frames += 1;
        }
    }
    match split(&stream) {
        Front::Message { payload, length, frames: read } => {
            assert_eq!((&*payload, length, read), (&carried[..], stream.len(), frames));
        }
        other => panic!("{other:?}"),
    }
}

fn frame(stream: &mut Vec<u8>, first: u8, payload: &[u8], mask: Option<[u8; 4]>, field: u8) {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    stream.push(first);
    match (payload.len(), field % 3) {
        (length @ ..=125, 0) => stream.push(masked | length as u8),
        (length, 0 | 1) => {
            stream.push(masked | 126);
            stream.extend((length as u16).to_be_bytes());
        }
        (length, _) => {
            stream.push(masked | 127);
            stream.extend((length as u64).to_be_bytes());
        }
    }
    let key = mask.inspect(|key| stream.extend(key)).unwrap_or_default();
    stream.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
}
