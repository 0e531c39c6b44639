//! Frames of every kind.

use probe_ebpf::Verdict;
use voxlab::frames::{Datagram, invite, rtcp, rtp, sip, tcp, udp};
use voxlab::tunnels::{Tunnel, tunnel};

pub(crate) const ETHERNET_HEADER: usize = 14;

/// RTP from 10.0.0.1:20000 to 10.0.0.2:30000, not to be fragmented, and with a flow label if it becomes IPv6.
pub(crate) fn media() -> Datagram {
    rtp().varied(160).over(udp()).fragment(0x4000).flow_label(0x54321)
}

/// Frames of every kind, each with its name and its verdict under [`MediaRule::Range`].
pub(crate) fn table() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    const OPTIONS: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
    let options =
        |count: usize| (0..count).fold(media().v6(), |datagram, _| datagram.extension(60, &OPTIONS));
    let behind_options = media().v6().extension(0, &OPTIONS).extension(60, &OPTIONS);
    let qinq = || media().tag(0x88a8, 0x0064).tag(0x8100, 0x00c8);
    let to = |port: u16| udp().ports(20_000, port);
    let sip_tcp = tcp().ports(20_000, 5060);
    let arp = [&[0xff; 6][..], &[2; 6], &[8, 6], &[0; 46]].concat();
    let stun = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    let table = [
        ("RTP", media(), Verdict::Rtp),
        ("RTP without checksum", media().checksum(0), Verdict::Rtp),
        ("RTP with any checksum", media().checksum(0xbeef), Verdict::Rtp),
        ("RTP without payload", rtp().payload(&[]).over(media()), Verdict::Rtp),
        ("RTP of a telephone event", rtp().payload(&[1, 10, 0, 160]).over(media()), Verdict::Rtp),
        ("RTP of a telephone event in QinQ", rtp().payload(&[1, 10, 0, 160]).over(qinq().v6()), Verdict::Rtp),
        ("RTP of five bytes", rtp().varied(5).over(media()), Verdict::Rtp),
        ("RTP with odd payload", rtp().varied(33).over(media()), Verdict::Rtp),
        ("RTP in 802.1Q", media().vlan(0x6123), Verdict::Rtp),
        ("RTP in 802.1ad", media().tag(0x88a8, 1), Verdict::Rtp),
        ("RTP in 0x9100", media().tag(0x9100, 0x0fff), Verdict::Rtp),
        ("RTP in QinQ", qinq(), Verdict::Rtp),
        ("RTP under three tags", qinq().vlan(3), Verdict::NotIp),
        ("RTP behind IP options", media().ip_options(&[1; 40]), Verdict::Rtp),
        ("RTP over IPv6", media().v6(), Verdict::Rtp),
        ("RTP over IPv6, any checksum", media().v6().checksum(0xbeef), Verdict::Rtp),
        ("RTP over IPv6 in QinQ", qinq().v6(), Verdict::Rtp),
        ("RTP behind IPv6 options", behind_options, Verdict::Rtp),
        ("RTP behind six IPv6 options", options(6), Verdict::Rtp),
        ("RTP behind seven IPv6 options", options(7), Verdict::TooDeep),
        ("IPv6 fragment, first", media().v6().fragment_header(1), Verdict::Fragment),
        ("IPv6 fragment, later", media().v6().fragment_header(0x0100), Verdict::Fragment),
        ("IPv6 fragment, atomic", media().v6().fragment_header(0), Verdict::Rtp),
        ("IPv4 fragment, first", media().fragment(0x2000), Verdict::Fragment),
        ("IPv4 fragment, later", media().fragment(0x00b9), Verdict::Fragment),
        ("IPv4 fragment of TCP", tcp().fragment(0x2000).payload(&[0; 172]), Verdict::OtherIp),
        ("RTCP", to(30_001).payload(&rtcp()), Verdict::Rtcp),
        ("SIP", sip(&invite(900)), Verdict::SipUdp),
        ("SIP from port 5080", sip(&invite(100)).ports(5080, 30_000), Verdict::SipUdp),
        ("SIP keep-alive", to(5060), Verdict::SipUdp),
        ("SIP over TCP", sip_tcp.clone().payload(invite(900).as_bytes()), Verdict::SipTcp),
        ("SIP over TCP, acknowledgement", sip_tcp, Verdict::SipTcpEmpty),
        ("SIP over TLS", tcp().ports(20_000, 5061).payload(&[3; 1000]), Verdict::SipTls),
        ("SIP over TLS, short", tcp().ports(20_000, 5061).payload(&[23, 3, 3, 0, 2, 9, 9]), Verdict::SipTls),
        ("SIP over TLS, acknowledgement", tcp().ports(20_000, 5061), Verdict::SipTcpEmpty),
        (
            "SIP in clear on the port of TLS",
            tcp().ports(20_000, 5061).payload(invite(900).as_bytes()),
            Verdict::SipTcp,
        ),
        ("SIP, jumbo", sip(&invite(8_000)), Verdict::SipUdp),
        ("SIP, longer than a record", sip(&invite(20_000)), Verdict::SipUdp),
        ("RTP, jumbo", rtp().seq(7).varied(8_000).over(media()), Verdict::Rtp),
        ("other TCP", tcp().ports(20_000, 443).payload(&[0; 100]), Verdict::OtherTcp),
        ("DNS", to(53).payload(&[0x12; 40]), Verdict::OtherUdp),
        ("RTP below the range", rtp().over(to(1_000)), Verdict::OtherUdp),
        ("STUN", to(30_000).payload(&stun), Verdict::OtherUdp),
        ("ICMP", udp().protocol(1).payload(&[8; 40]), Verdict::OtherIp),
        ("ICMP in 802.1Q", udp().protocol(1).vlan(7).payload(&[8; 40]), Verdict::OtherIp),
        ("ICMP over IPv6", udp().protocol(58).v6().payload(&[8; 40]), Verdict::OtherIp),
        ("ESP", udp().protocol(50).payload(&[0x80; 172]), Verdict::OtherIp),
        ("GRE", udp().protocol(47).payload(&[0; 60]), Verdict::Tunnel),
        ("GRE over IPv6", udp().protocol(47).v6().payload(&[0; 60]), Verdict::Tunnel),
        ("GRE in pieces", udp().protocol(47).fragment(0x2000).payload(&[0; 60]), Verdict::Fragment),
        ("IPv4 in IP", udp().protocol(4).payload(&[0x45; 60]), Verdict::Tunnel),
        ("IPv6 in IP", udp().protocol(41).vlan(7).payload(&[0x60; 60]), Verdict::Tunnel),
        ("VXLAN", to(4789).payload(&[8; 80]), Verdict::Tunnel),
        ("GTP-U over IPv6", udp().ports(2152, 2152).v6().payload(&[0x30; 80]), Verdict::Tunnel),
        ("rpcap over UDP", udp().ports(2002, 20_000).payload(&[0; 80]), Verdict::Tunnel),
        ("HEP, longer than a record", to(9060).payload(&b"x".repeat(20_000)), Verdict::Tunnel),
        ("rpcap", tcp().ports(2002, 20_000).payload(&[0; 900]), Verdict::Tunnel),
        ("rpcap, acknowledgement", tcp().ports(20_000, 2002), Verdict::OtherTcp),
    ];
    let cut = |length: usize| media().ethernet()[..length].to_vec();
    let frames = table.map(|(name, datagram, verdict)| (name, datagram.ethernet(), verdict));
    let labelled = |ethertype: u16| [&[2; 12][..], &ethertype.to_be_bytes(), &[0x45; 50]].concat();
    let tagged = [&[2; 12][..], &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 0x88, 0x64], &[0x11; 50]].concat();
    let raw = [
        ("MPLS", labelled(0x8847), Verdict::Tunnel),
        ("MPLS, upstream label", labelled(0x8848), Verdict::Tunnel),
        ("PPPoE under two tags", tagged, Verdict::Tunnel),
        ("PPPoE discovery", labelled(0x8863), Verdict::NotIp),
        ("ARP", arp, Verdict::NotIp),
        ("Ethernet header alone", cut(ETHERNET_HEADER), Verdict::Truncated),
        ("UDP header cut off", cut(38), Verdict::Truncated),
    ];
    let tunnels = Tunnel::ALL.into_iter().map(|kind| {
        let inner = if kind == Tunnel::Hep { sip(&invite(300)) } else { media().v6() };
        (kind.name(), kind.carry(&inner, 1, 1, tunnel()).ethernet(), Verdict::Tunnel)
    });
    frames.into_iter().chain(raw).chain(tunnels).collect()
}
