//! How a byte stream is cut into messages, and where in it one may begin.

use std::ops::Range;

use crate::decode::tunnel::{Region, guess_link, hep, rpcap};

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) enum Framing {
    Rpcap,
    Hep,
}

/// What the beginning of some bytes says of the message that they begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// Too few bytes to say.
    More,
    /// So long; they need not all be there.
    Long(usize),
    /// No message begins so.
    Bad,
}

impl Framing {
    /// What a first segment without any context looks like, if it looks like one at all: the beginning of a message
    /// that is hardly anything else.
    pub(in crate::decode) fn recognise(payload: &[u8]) -> Option<Self> {
        let framing = match payload {
            [0, rpcap::kind::PACKET, 0, 0, ..] => Self::Rpcap,
            [b'H', b'E', b'P', b'3', ..] => Self::Hep,
            _ => return None,
        };
        (framing.proof(payload) == Proof::Yes).then_some(framing)
    }

    pub(super) fn measure(self, bytes: &[u8]) -> Measure {
        match self {
            Self::Rpcap => {
                let Some(octets) = bytes.first_chunk() else { return Measure::More };
                let Some(head) = rpcap::head(*octets) else { return Measure::Bad };
                if head.kind == rpcap::kind::PACKET {
                    let Some(octets) = bytes.get(rpcap::HEADER..).and_then(<[u8]>::first_chunk) else {
                        return Measure::More;
                    };
                    if rpcap::packet(*octets, head.length).is_none() {
                        return Measure::Bad;
                    }
                }
                Measure::Long(head.length)
            }
            Self::Hep => {
                let Some(&[h, e, p, three, l0, l1]) = bytes.first_chunk() else { return Measure::More };
                let length = usize::from(u16::from_be_bytes([l0, l1]));
                if [h, e, p, three] != hep::MAGIC || length < hep::HEADER {
                    return Measure::Bad;
                }
                Measure::Long(length)
            }
        }
    }

    /// Are the bytes exactly one or more whole messages? Then they need no context to be read.
    pub(super) fn is_whole(self, bytes: &[u8]) -> bool {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.measure(rest) {
                Measure::Long(length) if length <= rest.len() => at += length,
                _ => return false,
            }
        }
        at > 0
    }

    /// Where, from `from` on, a message proves to begin.
    pub(super) fn find(self, bytes: &[u8], from: usize) -> Found {
        let mut doubtful = None;
        for at in from..bytes.len() {
            match self.proof(bytes.get(at..).unwrap_or_default()) {
                Proof::Yes => return Found::At(at),
                Proof::NotYet => doubtful = doubtful.or(Some(at)),
                Proof::No => {}
            }
        }
        Found::LookAgainFrom(doubtful.unwrap_or(bytes.len()))
    }

    /// Does a message begin here, beyond doubt? Its header must be right, and then either the frame in it must have the
    /// shape of one, or another right header must follow it.
    fn proof(self, bytes: &[u8]) -> Proof {
        let magic: &[u8] = match self {
            Self::Rpcap => &[0, rpcap::kind::PACKET, 0, 0],
            Self::Hep => &hep::MAGIC,
        };
        let compared = magic.len().min(bytes.len());
        if bytes.get(..compared) != magic.get(..compared) {
            return Proof::No;
        }
        let length = match self.measure(bytes) {
            Measure::Long(length) => length,
            Measure::More => return Proof::NotYet,
            Measure::Bad => return Proof::No,
        };
        if let Some(next) = bytes.get(length..).filter(|next| !next.is_empty()) {
            match self.measure(next) {
                Measure::Long(_) => return Proof::Yes,
                Measure::Bad => return Proof::No,
                Measure::More => {}
            }
        }
        let has_shape = match self {
            Self::Rpcap => {
                let header = rpcap::HEADER + rpcap::PACKET_HEADER;
                let frame = bytes.get(header..length.min(bytes.len())).unwrap_or_default();
                guess_link(Region::new(frame, length.saturating_sub(header))).is_some()
            }
            // The first chunk of every agent: vendor 0, address family, seven octets.
            Self::Hep => bytes.get(hep::HEADER..).is_some_and(|chunk| chunk.starts_with(&[0, 0, 0, 1, 0, 7])),
        };
        if has_shape { Proof::Yes } else { Proof::NotYet }
    }
}

/// What [`Framing::find`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A message begins here.
    At(usize),
    /// None is certain; with more bytes, this may be the first.
    LookAgainFrom(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Yes,
    /// Nothing speaks against it.
    NotYet,
    No,
}

/// Messages that were cut out of a stream: where they lie in `bytes`.
#[derive(Debug, Default)]
pub(in crate::decode) struct Messages {
    pub(in crate::decode) bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
    /// Sequence numbers at which they began in the stream.
    began: Vec<u32>,
    at: usize,
}

impl Messages {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ranges.clear();
        self.began.clear();
        self.at = 0;
    }

    /// Adds a message that began at `seq`.
    pub(super) fn push(&mut self, seq: u32, message: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(message);
        self.ranges.push(start..self.bytes.len());
        self.began.push(seq);
    }

    /// Where in the stream they began, and how long they are.
    pub(super) fn places(&self) -> impl Iterator<Item = (u32, usize)> {
        self.began.iter().copied().zip(self.ranges.iter().map(Range::len))
    }

    /// Where the next one lies.
    pub(in crate::decode) fn next(&mut self) -> Option<Range<usize>> {
        let range = self.ranges.get(self.at).cloned();
        self.at += usize::from(range.is_some());
        range
    }
}
