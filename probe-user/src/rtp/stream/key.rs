//! What a stream is told from others by.

use crate::packet::{Flow, FlowWords, RtpPacket};

/// What makes two packets the same stream. Not the VLAN, the MACs, the tunnel or the tap: those are evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// Innermost addresses and ports.
    pub flow: Flow,
    /// Synchronisation source.
    pub ssrc: u32,
}

impl From<&RtpPacket> for StreamKey {
    fn from(packet: &RtpPacket) -> Self {
        KeyWords::from(packet).into()
    }
}

/// A [`StreamKey`] as numbers, for tables: it is hashed and compared in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct KeyWords {
    /// Innermost addresses and ports.
    pub flow: FlowWords,
    /// Synchronisation source.
    pub ssrc: u32,
}

impl From<&RtpPacket> for KeyWords {
    #[inline]
    fn from(packet: &RtpPacket) -> Self {
        Self { flow: packet.flow, ssrc: packet.rtp.ssrc }
    }
}

impl From<KeyWords> for StreamKey {
    fn from(KeyWords { flow, ssrc }: KeyWords) -> Self {
        Self { flow: flow.into(), ssrc }
    }
}
