//! The network interfaces of this network namespace, by rtnetlink.
//!
//! Not by /sys/class/net, which shows the namespace in which it was mounted.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage, LinkXdp};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU.
    pub mtu: u32,
    /// The XDP program that holds it, if one does.
    pub xdp_program: Option<u32>,
    /// The bridge or bond that it is part of.
    pub controller: Option<u32>,
    /// The interface of this namespace that it stands on: a VLAN's, a macvlan's.
    pub lower: Option<u32>,
}

/// All interfaces, in the order of their indexes.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut found = Vec::new();
    dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
        if let RouteNetlinkMessage::NewLink(link) = message {
            found.push(describe(link));
        }
    })?;
    found.sort_by_key(|interface: &Interface| interface.index);
    Ok(found)
}

/// Asks for a whole table of the kernel's, entry by entry.
pub(crate) fn dump(what: RouteNetlinkMessage, mut take: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(what), 0)?;
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let len = message.header.length as usize;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(message) => take(message),
                _ => {}
            }
            // Messages are aligned to four bytes; a length of zero would never end.
            rest = rest.get(len.next_multiple_of(4).max(4)..).unwrap_or_default();
        }
    }
}

fn request(what: RouteNetlinkMessage) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_DUMP | NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(what));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn describe(link: LinkMessage) -> Interface {
    let mut interface = Interface {
        index: link.header.index,
        name: String::new(),
        mtu: 0,
        xdp_program: None,
        controller: None,
        lower: None,
    };
    let mut is_pair = false;
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name = name,
            LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
            LinkAttribute::Controller(index) => interface.controller = Some(index),
            LinkAttribute::Link(index) => interface.lower = Some(index),
            LinkAttribute::LinkInfo(infos) => is_pair = infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
            LinkAttribute::Xdp(xdp) => {
                interface.xdp_program = xdp.into_iter().find_map(|attribute| match attribute {
                    LinkXdp::ProgId(id)
                    | LinkXdp::DrvProgId(id)
                    | LinkXdp::SkbProgId(id)
                    | LinkXdp::HwProgId(id) => Some(id),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    // A veth names its peer there, which it does not stand on.
    interface.lower = interface.lower.filter(|_| !is_pair);
    interface
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_always_there() {
        let found = interfaces().unwrap();
        assert!(found.iter().any(|interface| interface.name == "lo" && interface.mtu > 0), "{found:?}");
    }
}
