//! Whoever is answered in one go is answered as parser and classifier would have answered.

use super::{TAGGED, TCP, UDP};
use crate::classify::{self, Endpoints, Verdict};
use crate::config::{Config, EndpointKey, MediaRule, Role, tunnels};
use crate::parse::Layers;
use crate::sample::{Vec, ethernet, fragment, ipv4, ipv6, options, rtp, tcp, udp, vec};

const ICMP: u8 = 1;
const ESP: u8 = 50;
const ICMPV6: u8 = 58;

/// Who was found, and what the configuration names: as the kernel's tables have it.
struct Known<'a> {
    config: &'a Config,
    announced: &'a [EndpointKey],
}

impl Endpoints for Known<'_> {
    fn is_announced(&self, key: &EndpointKey) -> bool {
        self.announced.contains(key)
    }

    fn role(&self, protocol: u8, port: u16) -> Role {
        let Config { sip_ports, tls_ports, tunnel_ports, carrier_ports, .. } = self.config;
        let others =
            if protocol == UDP { &tunnel_ports[..] } else { &[&tls_ports[..], carrier_ports].concat() };
        let is_named = port != 0 && (sip_ports.contains(&port) || others.contains(&port));
        let is_found = protocol == UDP && self.announced.iter().any(|key| key.port == u32::from(port));
        let role = if is_named { Role::NAMED } else { Role::NONE };
        role.and(if is_found { Role::FOUND } else { Role::NONE })
    }
}

/// Nobody was found, and any port may mean anything.
struct Unsure;

impl Endpoints for Unsure {
    fn is_announced(&self, _: &EndpointKey) -> bool {
        false
    }
}

/// A generator (xorshift64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Something between usual and odd.
    fn frame(&mut self) -> Vec<u8> {
        let mut payload = match self.below(6) {
            0 => vec![0x12; self.below(60)],
            1 => vec![],
            _ => rtp(self.one(&[0, 3, 4, 5, 20, 21, 80, 160])),
        };
        if let Some(first) = payload.first_mut() {
            *first = self.one(&[0x80, 0x80, 0x80, 0x80, 0x90, 0xa0, 0x81, 0x8f, 0x40]);
        }
        if let Some(second) = payload.get_mut(1) {
            *second = self.one(&[0, 8, 0x80, 96, 101, 191, 192, 200, 223, 224]);
        }
        let ports =
            [20_000, 30_000, 20_000, 30_000, 1_023, 1_024, 0, 53, 443, 5060, 5061, 4789, 2002, 65_535];
        let (src, dst) = (self.one(&ports), self.one(&ports));
        let protocol = match self.below(4) {
            0 => self.one(&[1, 4, 41, 47, 50, 51, 58, 59, 60]),
            _ => self.one(&[UDP, UDP, TCP]),
        };
        let data = if protocol == TCP { tcp(src, dst, &payload) } else { udp(src, dst, &payload) };
        let packet = if self.below(3) == 0 {
            let extensions = match self.below(6) {
                0 => vec![options(0, 8)],
                1 => vec![fragment(self.one(&[0, 1, 8]))],
                _ => vec![],
            };
            ipv6(&extensions, protocol, &data)
        } else {
            let options: &[u8] = if self.below(8) == 0 { &[1, 1, 1, 0] } else { &[] };
            ipv4(options, self.one(&[0, 0, 0x4000, 0x8000, 0x2000, 1]), protocol, &data)
        };
        let tags: &[(u16, u16)] = match self.below(8) {
            0 => &[(0x8100, 100)],
            1 => &[(0x88a8, 7)],
            2 => &[(0x9100, 7), (0x8100, 100)],
            _ => &[],
        };
        let mut frame = ethernet(tags, &packet);
        match self.below(6) {
            0 => frame.truncate(self.below(frame.len() + 1)),
            1 => frame.extend(vec![0; self.below(40)]),
            _ => {}
        }
        // The headers are what counts.
        for _ in 0..self.below(8).saturating_sub(4) {
            let bound = frame.len().min(80);
            if let Some(octet) = frame.get_mut(self.below(bound.max(1))) {
                *octet = match self.below(3) {
                    0 => *octet ^ 1 << self.below(8),
                    1 => 0,
                    _ => u8::try_from(self.below(256)).unwrap(),
                };
            }
        }
        frame
    }
}

fn rule(rule: MediaRule) -> Config {
    Config { media_rule: rule as u8, ..Config::DEFAULT }.looking_inside()
}

fn configs() -> Vec<Config> {
    let live = Config::DEFAULT.looking_inside();
    vec![
        live,
        rule(MediaRule::Announced),
        rule(MediaRule::Anything),
        Config { rtp_low: 20_000, rtp_high: 29_999, tunnels: tunnels::PROTOCOLS, ..live },
        Config::DEFAULT.without_tunnels(),
    ]
}

fn announced() -> [EndpointKey; 2] {
    let v4 = [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([10, 0, 0, 2])];
    let v6 = [0x2001_0db8_u32.to_be(), 0, 0, 2_u32.to_be()];
    [EndpointKey { address: v4, port: 30_000 }, EndpointKey { address: v6, port: 30_000 }]
}

/// What this says, with the tags that the parser reads.
fn quick<E: Endpoints>(frame: &[u8], config: &Config, endpoints: &E) -> Option<(Verdict, Layers)> {
    super::ethernet(frame, config, endpoints).map(|(verdict, layers)| {
        let tag = frame.get(14..16).map_or(0, |tag| u16::from_be_bytes([tag[0], tag[1]]));
        let tags = if layers.ip == TAGGED { (tag, 1) } else { (0, 0) };
        (verdict, Layers { outer_vlan: tags.0, vlan_tags: tags.1, ..layers })
    })
}

#[test]
fn whoever_gets_an_answer_gets_that_of_parser_and_classifier() {
    let mut random = Random(1);
    let (mut answered, mut of_media) = (0, 0);
    let announced = announced();
    let configs = configs();
    for round in 0..200_000 {
        let frame = random.frame();
        let config = &configs[random.below(configs.len())];
        let known = Known { config, announced: &announced[..random.below(3)] };
        for (said, (verdict, layers)) in [
            (quick(&frame, config, &known), classify::ethernet(frame.as_slice(), config, &known)),
            (quick(&frame, config, &Unsure), classify::ethernet(frame.as_slice(), config, &Unsure)),
        ] {
            let Some(said) = said else { continue };
            assert_eq!((said.0, Some(said.1)), (verdict, layers), "round {round}: {frame:02x?}");
            answered += 1;
            if verdict == Verdict::Rtp {
                of_media += 1;
                let is_short = classify::is_short_rtp(frame.as_slice(), &said.1);
                let end = said.1.transport + usize::from(said.1.transport_len);
                assert!(!is_short && end <= frame.len(), "round {round}: {frame:02x?}");
            }
        }
    }
    assert!(answered > 20_000 && of_media > 2_000, "{answered} answers, {of_media} of media");
}

#[test]
fn what_is_usual_gets_an_answer() {
    let config = Config::DEFAULT.looking_inside();
    let announced = announced();
    let known = Known { config: &config, announced: &announced };
    let others = Known { config: &config, announced: &[] };
    let media = udp(20_000, 30_000, &rtp(160));
    let speech = udp(20_000, 30_000, &rtp(10));
    for (data, protocol, verdict) in [
        (tcp(20_000, 443, &[0; 900]), TCP, Verdict::OtherTcp),
        (tcp(20_000, 443, &[]), TCP, Verdict::OtherTcp),
        (udp(20_000, 53, &[0x12; 40]), UDP, Verdict::OtherUdp),
        (udp(20_000, 53, &rtp(160)), UDP, Verdict::OtherUdp),
        (media, UDP, Verdict::Rtp),
        (speech, UDP, Verdict::Rtp),
        (vec![8; 64], ICMP, Verdict::OtherIp),
        (vec![8; 64], ICMPV6, Verdict::OtherIp),
        (vec![8; 1_400], ESP, Verdict::OtherIp),
    ] {
        for (tags, v6) in [(&[][..], false), (&[(0x8100, 9)], false), (&[], true)] {
            let packet = if v6 { ipv6(&[], protocol, &data) } else { ipv4(&[], 0x4000, protocol, &data) };
            let frame = ethernet(tags, &packet);
            for endpoints in [&known, &others] {
                let said = super::ethernet(frame.as_slice(), &config, endpoints).map(|(verdict, _)| verdict);
                assert_eq!(said, Some(verdict), "{tags:?} {v6}");
            }
        }
    }
}

#[test]
fn announced_media_needs_no_range() {
    let config = Config { media_rule: MediaRule::Announced as u8, ..Config::DEFAULT };
    let announced = announced();
    let known = Known { config: &config, announced: &announced };
    let verdict = |src: u16, dst: u16, v6: bool| {
        let data = udp(src, dst, &rtp(160));
        let packet = if v6 { ipv6(&[], UDP, &data) } else { ipv4(&[], 0, UDP, &data) };
        super::ethernet(ethernet(&[], &packet).as_slice(), &config, &known).map(|(verdict, _)| verdict)
    };
    for v6 in [false, true] {
        assert_eq!(verdict(9, 30_000, v6), Some(Verdict::Rtp));
        // The port is 10.0.0.1's, who announced nothing.
        assert_eq!(verdict(30_000, 9, v6), Some(Verdict::OtherUdp));
    }
}
