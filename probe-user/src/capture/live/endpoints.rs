//! The kernel's tables of who was found to be ours while the probe runs.
//!
//! ```text
//!   SDP, rpcap's control connection ─▶ insert, remove ─┬▶ ENDPOINTS  address and port: is it ours?
//!                                                      ├▶ NEAR*      the same, where a look costs less
//!                   ports of the configuration ────────┴▶ PORTS      two bits a port: is it worth asking?
//! ```
//!
//! A port has the role [`FOUND`](Role::FOUND) while at least one entry has that port, and [`NAMED`](Role::NAMED) always if the
//! configuration names it. Entry first, then its [bucket](probe_ebpf::announced), role last, both ways: the kernel wants all of
//! them, so an entry counts from the last write to the first.

use aya::Pod;
use aya::maps::{Array, HashMap, MapData, MapError};
use probe_ebpf::announced::{Ipv4, Ipv6};
use probe_ebpf::config::{PORT_WORDS, Role, port_place};
use probe_ebpf::parse::{TCP, UDP};
use probe_ebpf::{Config, EndpointKey};
use rustc_hash::FxHashMap;
use rustix::io::Errno;

use super::near::Near;
use crate::packet::Endpoint;

/// See the module. Bounded by the kernel's table, [`MAX_ENDPOINTS`](probe_ebpf::config::MAX_ENDPOINTS).
pub struct KernelEndpoints {
    map: HashMap<MapData, EndpointWords, u32>,
    near: (Near<Ipv4>, Near<Ipv6>),
    ports: Array<MapData, PortWords>,
    /// What `ports` holds.
    words: Box<PortWords>,
    /// Entries by protocol and port.
    entries: FxHashMap<(u8, u16), u32>,
    failed: u64,
}

type EndpointWords = [u32; 5];
/// The variable `PORTS` of the programs, as a map's only entry.
type PortWords = [u64; PORT_WORDS];

const _: () = {
    const fn is_pod<T: Pod>() {}
    is_pod::<EndpointWords>();
    is_pod::<PortWords>();
};

impl KernelEndpoints {
    /// Empty tables, but for the ports that the configuration names.
    ///
    /// # Errors
    /// If the kernel refuses those.
    #[expect(clippy::large_stack_arrays, reason = "32 KiB, once, when a capture starts")]
    pub(super) fn new(
        map: HashMap<MapData, EndpointWords, u32>,
        near: (Near<Ipv4>, Near<Ipv6>),
        mut ports: Array<MapData, PortWords>,
        config: &Config,
    ) -> Result<Self, MapError> {
        let mut words = Box::new([0; PORT_WORDS]);
        for (protocol, port) in configured(config) {
            let (index, shift) = port_place(protocol, port);
            if let Some(word) = words.get_mut(index as usize) {
                *word |= Role::NAMED.bits() << shift;
            }
        }
        ports.set(0, *words, 0)?;
        Ok(Self { map, near, ports, words, entries: FxHashMap::default(), failed: 0 })
    }

    /// Media sent to or from `endpoint` counts from now on. False if the kernel's table is full; such media is
    /// then taken only by the rule for unannounced media.
    pub fn insert(&mut self, endpoint: Endpoint) -> bool {
        self.insert_key(endpoint.key(), UDP, endpoint.port)
    }

    /// No longer. False if it was not there.
    pub fn remove(&mut self, endpoint: Endpoint) -> bool {
        self.remove_key(endpoint.key(), UDP, endpoint.port)
    }

    /// TCP data sent to or from `endpoint` is forwarded from now on, as on the ports that carry captured frames. False
    /// if the kernel's table is full.
    pub fn insert_carrier(&mut self, endpoint: Endpoint) -> bool {
        self.insert_key(endpoint.key().of_carrier(), TCP, endpoint.port)
    }

    /// No longer. False if it was not there.
    pub fn remove_carrier(&mut self, endpoint: Endpoint) -> bool {
        self.remove_key(endpoint.key().of_carrier(), TCP, endpoint.port)
    }

    /// Insertions and removals that the kernel refused, for the report.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    fn insert_key(&mut self, key: EndpointKey, protocol: u8, port: u16) -> bool {
        /// Of include/uapi/linux/bpf.h: an entry that is there is left alone, and said to be there.
        const BPF_NOEXIST: u64 = 1;
        match self.map.insert(key.words(), 1, BPF_NOEXIST) {
            Ok(()) => {}
            Err(error) if is_errno(&error, Errno::EXIST) => return true,
            Err(_) => {
                self.failed += 1;
                return false;
            }
        }
        let is_near = self.near.0.insert(&key) && self.near.1.insert(&key);
        self.failed += u64::from(!is_near);
        let entries = self.entries.entry((protocol, port)).or_default();
        *entries += 1;
        (*entries > 1 || self.set_found(protocol, port, true)) && is_near
    }

    fn remove_key(&mut self, key: EndpointKey, protocol: u8, port: u16) -> bool {
        match self.map.remove(&key.words()) {
            Ok(()) => {}
            Err(MapError::KeyNotFound | MapError::ElementNotFound) => return false,
            Err(error) => {
                self.failed += u64::from(!is_errno(&error, Errno::NOENT));
                return false;
            }
        }
        let is_gone = self.near.0.remove(&key) && self.near.1.remove(&key);
        self.failed += u64::from(!is_gone);
        if let Some(entries) = self.entries.get_mut(&(protocol, port)) {
            *entries -= 1;
            if *entries == 0 {
                self.entries.remove(&(protocol, port));
                // A role that stays costs time, no frame.
                self.set_found(protocol, port, false);
            }
        }
        true
    }

    fn set_found(&mut self, protocol: u8, port: u16, found: bool) -> bool {
        let (index, shift) = port_place(protocol, port);
        let Some(word) = self.words.get_mut(index as usize) else { return false };
        let bit = Role::FOUND.bits() << shift;
        *word = if found { *word | bit } else { *word & !bit };
        let written = self.ports.set(0, *self.words, 0).is_ok();
        self.failed += u64::from(!written);
        written
    }
}

/// Protocol and port of all that a configuration names: signalling and carriers of tunnels.
fn configured(config: &Config) -> impl Iterator<Item = (u8, u16)> {
    let udp = config.sip_ports.iter().chain(&config.tunnel_ports).map(|port| (UDP, *port));
    let of_tcp = config.sip_ports.iter().chain(&config.tls_ports).chain(&config.carrier_ports);
    udp.chain(of_tcp.map(|port| (TCP, *port))).filter(|(_, port)| *port != 0)
}

fn is_errno(error: &MapError, errno: Errno) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(errno.raw_os_error()))
}
