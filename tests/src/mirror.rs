//! The story's second tap: every frame that reaches the gateway, once more at a mirror port.
//!
//! The copy has another destination MAC and an IP ID of zero, as if a second device on the path had written
//! the header anew, and comes some tens of microseconds after the frame: the time that it takes a thread to wake
//! and send it. Frames are read where they leave the phones and the PBX, so that each crossing of the gateway
//! gives exactly one copy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::link::RawSocket;
use crate::topology::Topology;

/// No interface of the gateway has it: its IP stack drops the copies as another host's.
const TAP_MAC: [u8; 6] = [0x02, 0x60, 0x03, 0x00, 0x00, 0x99];

const MAX_FRAME: usize = 9216;

/// Copies frames until dropped.
#[derive(Debug)]
pub struct Mirror {
    stop: Arc<AtomicBool>,
    copied: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Mirror {
    /// Starts copying. `topology` must have been made with a mirror port.
    pub fn start(topology: &Topology) -> Result<Self> {
        let span = topology.span.as_ref().context("this lab has no mirror port")?;
        let mut mirror = Self { stop: Arc::default(), copied: Arc::default(), threads: Vec::new() };
        for (namespace, interface) in [(&topology.phones, "phones0"), (&topology.pbx, "pbx0")] {
            let reader = namespace.within(|| RawSocket::reader(interface))??;
            reader.set_timeout(Duration::from_millis(100)).context("cannot bound the mirror's wait")?;
            let writer = span.within(|| RawSocket::writer("span0"))??;
            let (stop, copied) = (Arc::clone(&mirror.stop), Arc::clone(&mirror.copied));
            let copy = move || copy_until(&stop, &copied, &reader, &writer);
            let thread = thread::Builder::new().name(format!("mirror-{interface}")).spawn(copy);
            mirror.threads.push(thread.context("cannot start the mirror's thread")?);
        }
        Ok(mirror)
    }

    /// Frames copied so far.
    pub fn copied(&self) -> u64 {
        self.copied.load(Ordering::Relaxed)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn copy_until(stop: &AtomicBool, copied: &AtomicU64, reader: &RawSocket, writer: &RawSocket) {
    let mut frame = vec![0; MAX_FRAME];
    while !stop.load(Ordering::Relaxed) {
        match reader.receive_outgoing(&mut frame) {
            Ok(Some(length)) => {
                let Some(frame) = frame.get_mut(..length) else { continue };
                if rewrite(frame) && writer.send(frame).is_ok() {
                    copied.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(None) => {}
            // The interface is gone: so is the lab.
            Err(_) => return,
        }
    }
}

/// Makes the copy's header. `false` for what is not IP: a mirror of ARP or LLDP would only confuse.
fn rewrite(frame: &mut [u8]) -> bool {
    let ethertype = frame.get(12..14).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let ip = match ethertype {
        Some(0x0800) if frame.len() >= 34 => true,
        Some(0x86dd) => false,
        _ => return false,
    };
    frame[..6].copy_from_slice(&TAP_MAC);
    if ip {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
        let header = usize::from(frame[14] & 0x0f) * 4;
        if let Some(header) = frame.get(14..14 + header) {
            let checksum = internet_checksum(header);
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
    }
    true
}

fn internet_checksum(header: &[u8]) -> u16 {
    let (words, _) = header.as_chunks::<2>();
    let mut sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use etherparse::PacketBuilder;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let source = Ipv4Addr::new(10, 60, 1, 11).octets();
        let destination = Ipv4Addr::new(10, 60, 2, 10).octets();
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4(source, destination, 64)
            .udp(16384, 20000);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).expect("a Vec takes all");
        bytes[18..20].copy_from_slice(&0x1234_u16.to_be_bytes());
        bytes
    }

    #[test]
    fn a_copy_differs_in_destination_mac_ip_id_and_header_checksum_only() {
        let original = frame(b"payload");
        let mut copy = original.clone();
        assert!(rewrite(&mut copy));

        let headers = etherparse::SlicedPacket::from_ethernet(&copy).expect("still a packet");
        let Some(etherparse::NetSlice::Ipv4(ip)) = headers.net else { panic!("still IPv4") };
        assert_eq!(ip.header().identification(), 0);
        assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
        assert_eq!(copy[..6], TAP_MAC);

        let mut differing: Vec<usize> = (0..copy.len()).filter(|&at| copy[at] != original[at]).collect();
        differing.retain(|at| !(0..6).contains(at) && !(18..20).contains(at) && !(24..26).contains(at));
        assert_eq!(differing, [0_usize; 0]);
    }

    #[test]
    fn what_is_not_ip_is_not_copied() {
        let mut arp = [0_u8; 60];
        arp[12..14].copy_from_slice(&0x0806_u16.to_be_bytes());
        assert!(!rewrite(&mut arp));
    }
}
