//! Media streams: sequence, jitter, and two ledgers side by side.
//!
//! ```text
//!   RtpPacket ─▶ Stream ─┬─▶ raw: every frame as captured, as tshark 4.0 counts          (raw)
//!                        ├─▶ sequence: RFC 3550 A.1, extended numbers, restarts          (sequence)
//!                        ├─▶ dedup::window: first copy, copy, late, conflict
//!                        └─▶ first copies only ─▶ quality                                (quality)
//!                              ├─▶ loss, jitter, interruptions                           (unique, rate)
//!                              ├─▶ arrivals against timestamps, drift, delay variation   (timeline, drift, delay)
//!                              ├─▶ what a de-jitter buffer discards, bursts and gaps     (playout, loss)
//!                              └─▶ mean opinion scores                                   (impairment, emodel, opinion)
//! ```
//!
//! Most packets change the same few numbers in all of these: while nothing out of the ordinary happens, they are lent to a
//! [`run`].
//!
//! Free of I/O and of clocks: time is what the packets carry.

pub mod codec;
pub mod delay;
pub mod demux;
pub mod drift;
pub mod emodel;
pub mod events;
pub mod impairment;
pub mod incidents;
pub mod legs;
pub mod loss;
pub mod opinion;
pub mod playout;
pub mod quality;
pub mod rate;
pub mod raw;
pub mod run;
pub mod sequence;
pub mod stream;
pub mod timeline;
pub mod unique;

pub use stream::{KeyWords, Stream, StreamKey};

#[cfg(test)]
mod cost_tests;

#[cfg(test)]
pub(crate) mod testing {
    //! Packets for tests: PCMU at 20 ms, one tap, perfect unless changed.

    use crate::packet::{
        Carrier, Encapsulation, Endpoint, Evidence, Flow, MediaId, Nanos, RtpHeader, RtpPacket, Tap, Vlans,
    };
    use probe_ebpf::Fingerprint;

    impl RtpPacket {
        /// Makes it one from another port.
        pub(crate) fn send_from(&mut self, port: u16) {
            self.flow = Flow { src: Endpoint { port, ..flow().src }, ..flow() }.into();
        }

        /// Makes it arrive later, by the tap's clock and ours.
        pub(crate) fn delay(&mut self, ns: u64) {
            self.time.0 += ns;
            self.tap_time.0 += ns;
        }
    }

    /// From whom to whom they are.
    pub(crate) fn flow() -> Flow {
        Flow { src: Endpoint::v4([10, 0, 0, 1], 4000), dst: Endpoint::v4([10, 0, 0, 2], 5000) }
    }

    /// The packet with (extended) sequence number `seq`, arriving at its nominal time.
    #[expect(clippy::cast_possible_truncation, reason = "what the wire has room for")]
    pub(crate) fn packet(seq: u64) -> RtpPacket {
        RtpPacket {
            time: Nanos(1_000_000_000_000 + seq * 20_000_000),
            tap_time: Nanos(1_000_000_000_000 + seq * 20_000_000),
            number: seq + 1,
            flow: flow().into(),
            rtp: RtpHeader {
                payload_type: 0,
                marker: false,
                seq: (seq & 0xffff) as u16,
                timestamp: (seq as u32).wrapping_mul(160),
                ssrc: 0x1234_5678,
            },
            udp_len: 180,
            is_hash_cut: false,
            payload_head: None,
            fingerprint: Fingerprint { value: (seq as u16).wrapping_mul(31), hashed: false },
            evidence: Evidence {
                tap: Tap::new(0, false),
                dst_mac: [2, 0, 0, 0, 0, 1],
                src_mac: [2, 0, 0, 0, 0, 2],
                vlans: Vlans::default(),
                ttl: 64,
                tos: 0xb8,
                ip_id: seq as u16,
                encapsulation: Encapsulation::NONE,
                carrier: Carrier::NONE,
            },
            media: MediaId::UNANNOUNCED,
        }
    }
}
