//! Reassembly of fragmented UDP, and of what tunnels are made of: bounded, timed out, overlaps refused.
//!
//! A SIP message with much SDP does not fit one frame; without reassembly it and all media that it announces
//! would be missing. A tunnel makes every full frame inside it too long. Copies of fragments do not disturb: each goes
//! to the first incomplete datagram of its key that lacks it, so that a datagram captured twice is reassembled twice;
//! and what comes in a tunnel is never joined with what comes beside it.
//!
//! A fragment is accounted for when its datagram is: completed, it is analysed; given up, it is lost.

use std::collections::HashMap;
use std::hash::BuildHasher as _;

use etherparse::defrag::IpDefragBuf;
use etherparse::{IpFragOffset, IpNumber};
use probe_ebpf::Layers;
use rustc_hash::FxBuildHasher;

use super::Seen;

use crate::packet::{Carrier, Encapsulation, Nanos};

/// Datagrams in progress.
const MAX_DATAGRAMS: usize = 1024;
/// Bytes held by them together.
const MAX_BYTES: usize = 16 << 20;
/// How long one may take; Linux's own default (ipfrag_time).
const TIMEOUT_NS: i64 = 30_000_000_000;
/// Copies of one datagram in progress at once.
const MAX_COPIES: usize = 8;

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It waits for others.
    Held,
    /// It makes no sense, or overlaps another in part; its datagram is given up.
    Refused,
    /// It was the last one missing.
    Complete,
}

/// What RFC 791 and RFC 8200 say identifies the datagram of a fragment, and how it came here. The protocol is only
/// RFC 791's; that the fragments of an IPv6 datagram name different ones, nobody was seen to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    addresses: [u8; 32],
    id: u32,
    protocol: u8,
    carried: Carried,
}

/// Frames remembered of one datagram: 64 KiB in fragments of 1,400 bytes.
const MAX_PARTS: usize = 47;

/// How a fragment came here: path and session.
pub type Carried = (Encapsulation, Carrier);

/// See the module.
#[derive(Debug, Default)]
pub struct Fragments {
    datagrams: HashMap<Key, Vec<Datagram>, FxBuildHasher>,
    count: usize,
    bytes: usize,
    lost: u64,
    completed: u64,
    /// Frames of the fragments of the datagram that was completed last.
    parts: Vec<u64>,
}

#[derive(Debug)]
struct Datagram {
    began: Nanos,
    /// By which way its first fragment came.
    way: u64,
    fragments: u64,
    /// Their frames; the first few.
    frames: Vec<u64>,
    buffer: IpDefragBuf,
}

/// A fragment as its header describes it.
struct Piece<'a> {
    key: Key,
    offset: u16,
    more: bool,
    data: &'a [u8],
}

impl Fragments {
    /// Takes one fragment. On [`Outcome::Complete`], `whole` holds the datagram as the frame it would have been.
    pub(super) fn observe(
        &mut self,
        seen: &Seen,
        bytes: &[u8],
        layers: &Layers,
        whole: &mut Vec<u8>,
    ) -> Outcome {
        let Seen { time, number, .. } = *seen;
        let Some(piece) = piece((seen.path, seen.carrier), bytes, layers) else {
            self.lost += 1;
            return Outcome::Refused;
        };
        let way = way(seen, bytes, layers);
        self.make_room(time, piece.data.len());
        let copies = self.datagrams.entry(piece.key).or_default();
        // Identifications come round within minutes: what is left of the last datagram is not of this one.
        copies.retain(|datagram| {
            let keep = time.since(datagram.began) < TIMEOUT_NS;
            if !keep {
                self.count -= 1;
                self.bytes -= datagram.buffer.data().len();
                self.lost += datagram.fragments;
            }
            keep
        });
        let end = usize::from(piece.offset) + piece.data.len();
        let mut target = None;
        for (at, datagram) in copies.iter().enumerate() {
            match datagram.overlap(usize::from(piece.offset), end) {
                // Those that came the same way belong together; where there is none, any will do.
                Overlap::None if datagram.way == way => {
                    target = Some(at);
                    break;
                }
                Overlap::None => target = target.or(Some(at)),
                Overlap::Whole => {}
                Overlap::Part => {
                    // The two cannot both be right, and which one the receiver believed is unknown (RFC 5722).
                    let refused = copies.swap_remove(at);
                    if copies.is_empty() {
                        self.datagrams.remove(&piece.key);
                    }
                    self.count -= 1;
                    self.bytes -= refused.buffer.data().len();
                    self.lost += refused.fragments + 1;
                    return Outcome::Refused;
                }
            }
        }
        let at = match target {
            Some(at) => at,
            None if copies.len() >= MAX_COPIES => {
                self.lost += 1;
                return Outcome::Refused;
            }
            None => {
                let buffer = IpDefragBuf::new(IpNumber(layers.protocol), Vec::new(), Vec::new());
                copies.push(Datagram { began: time, way, fragments: 0, frames: Vec::new(), buffer });
                self.count += 1;
                copies.len() - 1
            }
        };
        let Some(datagram) = copies.get_mut(at) else { return Outcome::Refused };
        let before = datagram.buffer.data().len();
        datagram.fragments += 1;
        if datagram.frames.len() < MAX_PARTS {
            datagram.frames.push(number);
        }
        let added = IpFragOffset::try_new(piece.offset / 8)
            .is_ok_and(|offset| datagram.buffer.add(offset, piece.more, piece.data).is_ok());
        // A last fragment that ends before another one cuts off what is behind it.
        self.bytes = self.bytes + datagram.buffer.data().len() - before;
        if added && !datagram.buffer.is_complete() {
            return Outcome::Held;
        }
        let datagram = copies.swap_remove(at);
        if copies.is_empty() {
            self.datagrams.remove(&piece.key);
        }
        self.count -= 1;
        self.bytes -= datagram.buffer.data().len();
        if !added || !lay_out(bytes, layers, datagram.buffer.data(), whole) {
            self.lost += datagram.fragments;
            return Outcome::Refused;
        }
        // The frame that completed it is accounted for as what the datagram is.
        self.completed += datagram.fragments - 1;
        self.parts = datagram.frames;
        Outcome::Complete
    }

    /// Frames of the fragments of the datagram that was completed last.
    pub fn take_parts(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.parts)
    }

    /// Gives up what has waited too long; if that is not enough, everything: under a flood of fragments that
    /// never complete, which ones are meant is unknowable.
    fn make_room(&mut self, now: Nanos, more: usize) {
        if self.count < MAX_DATAGRAMS && self.bytes + more < MAX_BYTES {
            return;
        }
        let (mut lost, mut count, mut bytes) = (0, 0, 0);
        for copies in self.datagrams.values_mut() {
            copies.retain(|datagram| {
                let keep = now.since(datagram.began) < TIMEOUT_NS;
                if keep {
                    count += 1;
                    bytes += datagram.buffer.data().len();
                } else {
                    lost += datagram.fragments;
                }
                keep
            });
        }
        self.datagrams.retain(|_, copies| !copies.is_empty());
        (self.count, self.bytes) = (count, bytes);
        self.lost += lost;
        if self.count >= MAX_DATAGRAMS || self.bytes + more >= MAX_BYTES {
            self.clear();
        }
    }

    /// Gives up everything that waits.
    pub fn clear(&mut self) {
        let waiting: u64 = self.datagrams.values().flatten().map(|datagram| datagram.fragments).sum();
        self.lost += waiting;
        self.datagrams.clear();
        (self.count, self.bytes) = (0, 0);
    }

    /// Fragments given up since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Fragments of completed datagrams since the last call, without those that completed them.
    pub fn take_completed(&mut self) -> u64 {
        std::mem::take(&mut self.completed)
    }
}

enum Overlap {
    None,
    /// All of it is there already: this is a copy.
    Whole,
    Part,
}

impl Datagram {
    fn overlap(&self, start: usize, end: usize) -> Overlap {
        for section in self.buffer.sections() {
            let (s, e) = (usize::from(section.start), usize::from(section.end));
            if s <= start && end <= e {
                return Overlap::Whole;
            }
            if start < e && s < end {
                return Overlap::Part;
            }
        }
        Overlap::None
    }
}

/// What tells one tap's fragments from another's, hashed: interface, direction, link layer, TTL.
fn way(seen: &Seen, bytes: &[u8], layers: &Layers) -> u64 {
    let hop = bytes.get(layers.ip + if layers.v6 { 7 } else { 8 });
    FxBuildHasher.hash_one((seen.tap, seen.macs, bytes.get(..layers.ip), hop))
}

fn piece<'a>(carried: Carried, bytes: &'a [u8], layers: &Layers) -> Option<Piece<'a>> {
    let start = layers.transport;
    let data = bytes.get(start..start + usize::from(layers.transport_len)).filter(|data| !data.is_empty())?;
    let ip = bytes.get(layers.ip..)?;
    let mut addresses = [0; 32];
    let protocol = layers.protocol;
    if layers.v6 {
        addresses.copy_from_slice(ip.get(8..40)?);
        // The fragment header is the last before the fragment's data (RFC 8200, 4.5).
        let header = bytes.get(start.checked_sub(8)?..start)?;
        let &[_, _, o0, o1, i0, i1, i2, i3] = header else { return None };
        let field = u16::from_be_bytes([o0, o1]);
        let id = u32::from_be_bytes([i0, i1, i2, i3]);
        return Some(Piece {
            key: Key { addresses, id, protocol, carried },
            offset: field & 0xfff8,
            more: field & 1 != 0,
            data,
        });
    }
    addresses.get_mut(..8)?.copy_from_slice(ip.get(12..20)?);
    let id = u32::from(u16::from_be_bytes(*ip.get(4..)?.first_chunk()?));
    let field = u16::from_be_bytes(*ip.get(6..)?.first_chunk()?);
    let offset = (field & 0x1fff).checked_mul(8)?;
    let key = Key { addresses, id, protocol, carried };
    Some(Piece { key, offset, more: field & 0x2000 != 0, data })
}

/// Writes the frame that would have carried `data` unfragmented: the link layer and IP header of this
/// fragment, with the fields of fragmentation cleared.
fn lay_out(bytes: &[u8], layers: &Layers, data: &[u8], whole: &mut Vec<u8>) -> bool {
    whole.clear();
    let header_end = if layers.v6 { layers.ip + 40 } else { layers.transport };
    let Some(header) = bytes.get(..header_end) else { return false };
    whole.extend_from_slice(header);
    let ip_header = if layers.v6 { 0 } else { header_end - layers.ip };
    let Ok(length) = u16::try_from(ip_header + data.len()) else { return false };
    let Some(ip) = whole.get_mut(layers.ip..) else { return false };
    if layers.v6 {
        let [_, _, _, _, l0, l1, next, ..] = ip else { return false };
        ([*l0, *l1], *next) = (length.to_be_bytes(), layers.protocol);
    } else {
        let [_, _, l0, l1, _, _, f0, f1, ..] = ip else { return false };
        ([*l0, *l1], [*f0, *f1]) = (length.to_be_bytes(), [0, 0]);
    }
    whole.extend_from_slice(data);
    true
}
