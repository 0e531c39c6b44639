//! Who takes part: phones, proxies, servers, each with an address for signalling and one for media.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A user agent or a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// User part of its URI.
    pub user: String,
    /// Where its signalling comes from and goes to.
    pub sip: SocketAddr,
    /// Where its SDP says that it listens.
    pub media: SocketAddr,
    /// As in Via.
    pub transport: &'static str,
}

impl Party {
    /// Phone number `index`.
    pub fn phone(index: u8) -> Self {
        let host = 10 + index;
        Self::at(format!("{}", 1000 + u16::from(index)), Ipv4Addr::new(10, 16, 0, host), 16_384)
    }

    /// The PBX.
    pub fn pbx() -> Self {
        Self::at("200".to_owned(), Ipv4Addr::new(10, 7, 0, 5), 20_000)
    }

    /// A proxy, a media server, or another carrier's gateway.
    pub fn server(index: u8) -> Self {
        Self::at(format!("srv{index}"), Ipv4Addr::new(10, 7, 1, index), 30_000)
    }

    fn at(user: String, host: Ipv4Addr, media: u16) -> Self {
        let host = IpAddr::V4(host);
        let (sip, media) = (SocketAddr::new(host, 5060), SocketAddr::new(host, media));
        Self { user, sip, media, transport: "UDP" }
    }

    /// The same party over IPv6.
    #[must_use]
    pub fn v6(mut self) -> Self {
        let IpAddr::V4(host) = self.sip.ip() else { return self };
        let [_, net, sub, last] = host.octets().map(u16::from);
        let host = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 7, net, sub, 0, 0, last));
        self.sip.set_ip(host);
        self.media.set_ip(host);
        self
    }

    /// With another media port.
    #[must_use]
    pub fn media_port(mut self, port: u16) -> Self {
        self.media.set_port(port);
        self
    }

    /// With another signalling port and transport.
    #[must_use]
    pub fn over(mut self, transport: &'static str, port: u16) -> Self {
        self.transport = transport;
        self.sip.set_port(port);
        self
    }

    /// Its URI, without brackets.
    pub fn uri(&self) -> String {
        format!("sip:{}@{}", self.user, self.sip)
    }

    /// Its place in Via, without a branch.
    pub fn via(&self) -> String {
        format!("SIP/2.0/{} {}", self.transport, self.sip)
    }
}
