//! What the traffic generator's two halves agree on: how everything that varies in a frame follows from the
//! number of frames sent before it.

/// Bytes of a frame that the program writes within: Ethernet, IPv4, UDP and RTP headers.
pub const FRAME: usize = 14 + 20 + 8 + 12;
/// Lowest UDP port of the streams; both ends of a stream use the same.
pub const FIRST_PORT: u16 = 16_384;
/// Streams that share a source address: every second port from [`FIRST_PORT`].
pub const STREAMS_PER_ADDRESS: u32 = 16_384;
/// SSRC of the first stream.
pub const FIRST_SSRC: u32 = 0x5650_0000;
/// Timestamp units between the packets of a stream, at least: 20 ms at 8 kHz.
pub const LEAST_STEP: u32 = 160;

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Spec {
    /// Frames a second, all streams together; zero for as many as possible.
    pub rate_pps: u64,
    /// Frames to send; then it idles.
    pub limit: u64,
    /// Streams.
    pub streams: u32,
    /// Ones' complement sum of the template's IPv4 header with zero where the program writes.
    pub ip_sum: u32,
    /// The same of its pseudo-header and UDP datagram.
    pub udp_sum: u32,
    /// Timestamp units between the packets of a stream.
    pub timestamp_step: u32,
}

impl Spec {
    /// Sends nothing.
    pub const IDLE: Self =
        Self { rate_pps: 0, limit: 0, streams: 1, ip_sum: 0, udp_sum: 0, timestamp_step: LEAST_STEP };

    /// The memory image of this structure: what the loader writes over the object's default.
    pub fn to_ne_bytes(&self) -> [u8; size_of::<Self>()] {
        let Self { rate_pps, limit, streams, ip_sum, udp_sum, timestamp_step } = self;
        let longs = [rate_pps, limit].into_iter().flat_map(|v| v.to_ne_bytes());
        let words = [streams, ip_sum, udp_sum, timestamp_step].into_iter().flat_map(|v| v.to_ne_bytes());
        let mut image = [0; size_of::<Self>()];
        for (to, from) in image.iter_mut().zip(longs.chain(words)) {
            *to = from;
        }
        image
    }

    /// May another frame go now?
    #[inline(always)]
    pub fn is_due(&self, progress: &Progress, now_ns: u64) -> bool {
        if progress.sent >= self.limit {
            return false;
        }
        let elapsed_ns = now_ns.wrapping_sub(progress.started_ns);
        // Ten Mpps for half an hour stay below 2^64.
        self.rate_pps == 0 || progress.sent <= elapsed_ns.wrapping_mul(self.rate_pps) / 1_000_000_000
    }

    /// Checksum of the IPv4 header.
    #[inline(always)]
    pub fn ip_checksum(&self, stream: &Stream) -> u16 {
        complement(self.ip_sum + u32::from(stream.ip_id) + u32::from(stream.src_low))
    }

    /// Checksum of the UDP datagram. The fields were zero in `udp_sum`.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of 32-bit fields")]
    pub fn udp_checksum(&self, stream: &Stream) -> u16 {
        let halves = |v: u32| (v >> 16) + u32::from(v as u16);
        let ports = 2 * u32::from(stream.port);
        let rtp = u32::from(stream.seq) + halves(stream.timestamp) + halves(stream.ssrc);
        match complement(self.udp_sum + u32::from(stream.src_low) + ports + rtp) {
            // Zero would mean "no checksum" (RFC 768).
            0 => 0xffff,
            sum => sum,
        }
    }
}

/// How far a generator has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Progress {
    /// Monotonic time of the first call.
    pub started_ns: u64,
    /// Monotonic time of the last frame sent.
    pub last_ns: u64,
    /// Frames sent.
    pub sent: u64,
    /// Calls that found nothing due.
    pub held_back: u64,
    /// Stream of the next frame.
    pub stream: u32,
    /// Times that every stream had its turn.
    pub round: u32,
}

impl Progress {
    /// Words of eight bytes in this structure.
    pub const WORDS: usize = size_of::<Self>() / 8;

    /// Counts a frame and says what is in it.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "sequence numbers and identifications wrap")]
    pub fn next(&mut self, spec: &Spec) -> Stream {
        let (index, round) = (self.stream, self.round);
        self.sent += 1;
        self.stream += 1;
        if self.stream >= spec.streams {
            self.stream = 0;
            self.round = self.round.wrapping_add(1);
        }
        Stream {
            port: FIRST_PORT + (index % STREAMS_PER_ADDRESS * 2) as u16,
            src_low: (index / STREAMS_PER_ADDRESS) as u16 + 1,
            ssrc: FIRST_SSRC.wrapping_add(index),
            seq: round as u16,
            timestamp: round.wrapping_mul(spec.timestamp_step),
            ip_id: self.sent as u16,
        }
    }
}

/// What is in a frame besides the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Source and destination port.
    pub port: u16,
    /// Lower half of the source address.
    pub src_low: u16,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Sequence number.
    pub seq: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// IPv4 identification.
    pub ip_id: u16,
}

/// Ones' complement sum of 16-bit words; an odd last byte counts as the upper half.
pub fn sum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map_or(0, |&byte| u32::from(byte) << 8);
    let sum = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).fold(last, |a, b| a + b);
    u32::from(fold(sum))
}

#[inline(always)]
fn complement(sum: u32) -> u16 {
    !fold(sum)
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "two folds leave 16 bits of any 32-bit sum")]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_take_turns_and_every_round_advances_all() {
        let spec = Spec { streams: 3, limit: 10, ..Spec::IDLE };
        let mut progress = Progress::default();
        for sent in 0..7_u32 {
            let stream = progress.next(&spec);
            assert_eq!(stream.ssrc, FIRST_SSRC + sent % 3);
            assert_eq!(u32::from(stream.seq), sent / 3);
            assert_eq!(stream.timestamp, sent / 3 * 160);
        }
        assert_eq!(progress.sent, 7);
    }

    #[test]
    fn a_rate_lets_the_first_frame_go_at_once_and_no_more_than_is_due() {
        let spec = Spec { rate_pps: 1_000, limit: u64::MAX, ..Spec::IDLE };
        let mut progress = Progress { started_ns: 5, ..Progress::default() };
        assert!(spec.is_due(&progress, 5));
        progress.sent = 1;
        assert!(!spec.is_due(&progress, 5 + 999_999));
        assert!(spec.is_due(&progress, 5 + 1_000_000));
    }

    #[test]
    fn nothing_is_due_beyond_the_limit() {
        let spec = Spec { limit: 2, ..Spec::IDLE };
        assert!(!spec.is_due(&Progress { sent: 2, ..Progress::default() }, 1));
    }
}
