//! Any bytes as frames of a file, through the decoder: fragments, tunnels, and streams inside of them.

use probe_ebpf::{Config, EndpointKey, Endpoints};
use voxprobe::capture::file::{Frame, LinkType};
use voxprobe::decode::{Decoded, Decoder};
use voxprobe::packet::Nanos;

use super::Input;

/// Nobody announced anything.
struct Nobody;

impl Endpoints for Nobody {
    fn is_announced(&self, _: &EndpointKey) -> bool {
        false
    }
}

/// Decodes the input as a few frames.
pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut decoder = Decoder::new(Config::DEFAULT, true);
    let mut number = 0;
    while !input.is_empty() {
        number += 1;
        let kind = input.byte();
        let count = usize::from(input.word() & 0x3ff);
        let bytes = input.take(count);
        let link = [LinkType::Ethernet, LinkType::RawIp][usize::from(kind & 1)];
        let wire_len = u32::try_from(bytes.len()).unwrap_or(0) + u32::from(kind >> 4);
        let frame = Frame { time: Nanos(number * 1_000_000), number, interface: 0, link, bytes, wire_len };
        check(&decoder.frame(&frame, &Nobody), number);
        while let Some(decoded) = decoder.more(&Nobody) {
            check(&decoded, number);
        }
        decoder.take_parts();
    }
    decoder.finish();
    decoder.into_tunnels();
}

fn check(decoded: &Decoded<'_>, number: u64) {
    if let Decoded::Sip(datagram) | Decoded::Rtcp(datagram) | Decoded::Tls(datagram, _) = decoded {
        assert!(datagram.payload.len() <= datagram.claimed && datagram.number == number);
        assert_eq!(datagram.cut, datagram.payload.len() < datagram.claimed);
    }
    decoded.verdict();
}
