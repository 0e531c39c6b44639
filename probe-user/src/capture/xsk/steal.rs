//! Is an interface the host's own? Then taking its frames cuts the host off.
//!
//! It is, if it has an address or a route, if it is part of a bridge or a bond, or if a VLAN or the like stands on it that has
//! an address. What every interface has by itself does not count: a link-local IPv6 address, and the routes that
//! come with it.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

use crate::capture::live::{Interface, LiveError, Rung, Tap, dump, interfaces};

/// Refuses every tap that the host uses, or with `steal` says what it loses.
pub(crate) fn check(taps: &[Tap], steal: bool, ladder: &mut Vec<Rung>) -> Result<(), LiveError> {
    let all = interfaces().map_err(LiveError::Interfaces)?;
    let addresses = addresses().map_err(LiveError::Addresses)?;
    let routes = routes().map_err(LiveError::Addresses)?;
    for tap in taps {
        let uses = uses(tap.index, &all, &addresses, &routes);
        if uses.is_empty() {
            continue;
        }
        let uses = uses.join(", ");
        if !steal {
            return Err(LiveError::InUse { interface: tap.name.clone(), uses });
        }
        let outcome =
            format!("its SIP, RTP and RTCP no longer reach this host, which uses it: {uses} (--steal)");
        ladder.push(Rung { what: format!("{}: mirror", tap.name), outcome, ok: true });
    }
    Ok(())
}

/// What stands on an interface, by index.
type Owned = (u32, String);

fn uses(index: u32, all: &[Interface], addresses: &[Owned], routes: &[Owned]) -> Vec<String> {
    /// More would not fit a line, and one is enough.
    const MOST: usize = 4;
    let name = |index| {
        let named = all.iter().find(|interface| interface.index == index);
        named.map_or_else(|| format!("interface {index}"), |interface| interface.name.clone())
    };
    let of = |index, what: &[Owned]| -> Vec<String> {
        what.iter().filter(|(owner, _)| *owner == index).map(|(_, text)| text.clone()).collect()
    };
    let mut uses: Vec<_> =
        of(index, addresses).into_iter().map(|address| format!("address {address}")).collect();
    uses.extend(of(index, routes).into_iter().map(|route| format!("route to {route}")));
    let controller = all.iter().find(|interface| interface.index == index).and_then(|own| own.controller);
    uses.extend(controller.map(|controller| format!("part of {}", name(controller))));
    for upper in all.iter().filter(|upper| upper.lower == Some(index)) {
        let on_it = of(upper.index, addresses).into_iter();
        uses.extend(on_it.map(|address| format!("address {address} of {}", upper.name)));
    }
    uses.truncate(MOST);
    uses
}

fn addresses() -> io::Result<Vec<Owned>> {
    let mut found = Vec::new();
    dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| {
        if let RouteNetlinkMessage::NewAddress(message) = message {
            // Of a point-to-point interface the first is the peer's, and the local one comes besides.
            let address = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let address = address.or_else(|| {
                message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })
            });
            found.extend(
                address.filter(|address| !comes_by_itself(*address)).map(|address| {
                    (message.header.index, format!("{address}/{}", message.header.prefix_len))
                }),
            );
        }
    })?;
    Ok(found)
}

fn routes() -> io::Result<Vec<Owned>> {
    /// The table of the host's own addresses, of which the addresses themselves tell.
    const RT_TABLE_LOCAL: u8 = 255;
    let mut found = Vec::new();
    dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()), |message| {
        let RouteNetlinkMessage::NewRoute(route) = message else { return };
        if route.header.table == RT_TABLE_LOCAL {
            return;
        }
        let destination = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
            _ => None,
        });
        if destination.is_some_and(comes_by_itself) {
            return;
        }
        let text = destination.map_or_else(
            || "everywhere (default)".to_owned(),
            |address| format!("{address}/{}", route.header.destination_prefix_length),
        );
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => found.push((*index, text.clone())),
                RouteAttribute::MultiPath(hops) => {
                    found.extend(hops.iter().map(|hop| (hop.interface_index, text.clone())));
                }
                _ => {}
            }
        }
    })?;
    Ok(found)
}

/// fe80::/10, and the multicast ff00::/8 that every interface listens to.
fn comes_by_itself(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_multicast() || is_link_local(address),
    }
}

fn is_link_local(address: Ipv6Addr) -> bool {
    let [first, ..] = address.segments();
    first & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, name: &str) -> Interface {
        Interface { index, name: name.into(), mtu: 1_500, xdp_program: None, controller: None, lower: None }
    }

    #[test]
    fn an_interface_that_nobody_uses_has_no_uses() {
        let all = [interface(2, "eth0"), interface(3, "eth1")];
        let addresses = [(2, "10.0.0.1/24".to_owned())];
        assert!(uses(3, &all, &addresses, &[]).is_empty());
        assert_eq!(
            uses(2, &all, &addresses, &[(2, "10.0.0.0/24".into())]),
            ["address 10.0.0.1/24", "route to 10.0.0.0/24"]
        );
    }

    #[test]
    fn a_port_of_a_bridge_and_what_stands_on_an_interface_count() {
        let bridge = interface(2, "br0");
        let port = Interface { controller: Some(2), ..interface(3, "eth1") };
        let trunk = interface(4, "eth2");
        let vlan = Interface { lower: Some(4), ..interface(5, "eth2.7") };
        let all = [bridge, port, trunk, vlan];
        assert_eq!(uses(3, &all, &[], &[]), ["part of br0"]);
        assert_eq!(uses(4, &all, &[(5, "10.7.0.1/16".into())], &[]), ["address 10.7.0.1/16 of eth2.7"]);
        assert!(uses(4, &all, &[], &[]).is_empty());
    }

    #[test]
    fn what_every_interface_has_does_not_count() {
        for own in ["10.0.0.1", "0.0.0.0", "2001:db8::1", "fd00::1", "169.254.1.1"] {
            assert!(!comes_by_itself(own.parse().unwrap()), "{own}");
        }
        for by_itself in ["fe80::1", "febf::1", "ff02::1"] {
            assert!(comes_by_itself(by_itself.parse().unwrap()), "{by_itself}");
        }
    }

    #[test]
    fn the_tables_of_this_host_can_be_read() {
        assert!(addresses().is_ok());
        assert!(routes().is_ok());
    }
}
