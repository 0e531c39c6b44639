//! Sequence numbers made monotone (RFC 3550, A.1): cycles, dropouts, misorder, restarts.

/// Consecutive packets that make a source valid.
pub const MIN_SEQUENTIAL: u32 = 2;
/// A jump ahead of fewer numbers is loss.
const MAX_DROPOUT: u16 = 3000;
/// A step back of fewer numbers is a late packet or a copy.
const MAX_MISORDER: u16 = 100;
/// A restart begins this far above the last number, so that extended numbers of two runs never meet.
const RESTART_GAP: u64 = 1 << 16;

/// What a sequence number is to its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Believed: the extended number, ahead of all others or within the misorder range behind them.
    Number(u64),
    /// A jump too wide to believe yet.
    Stray,
    /// The second consecutive number after a jump: the sender restarted. Carries the extended numbers of the
    /// packet that jumped and of this one.
    Restart {
        /// Of the packet that had been a stray.
        stray: u64,
        /// Of this packet.
        number: u64,
    },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Sequence {
    top: u64,
    base: u64,
    /// The number after a stray; if it comes, the stray was a restart.
    restart_at: Option<u16>,
    /// Numbers expected in runs before the last restart.
    expected_before: u64,
    restarts: u32,
    /// Longest run of consecutive numbers, up to [`MIN_SEQUENTIAL`].
    sequential: u32,
}

impl Sequence {
    /// A stream whose first packet has the number `seq`. Its extended number is one cycle up, so that a packet
    /// that should have come before has one, too.
    pub fn new(seq: u16) -> Self {
        let first = RESTART_GAP + u64::from(seq);
        Self { top: first, base: first, restart_at: None, expected_before: 0, restarts: 0, sequential: 1 }
    }

    /// Extended number of the first packet.
    pub fn first(&self) -> u64 {
        self.base
    }

    /// Places one packet.
    pub fn observe(&mut self, seq: u16) -> Step {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the number on the wire")]
        let ahead = seq.wrapping_sub(self.top as u16);
        if ahead < MAX_DROPOUT {
            if ahead == 1 {
                self.sequential = MIN_SEQUENTIAL.min(self.sequential + 1);
            }
            self.top += u64::from(ahead);
            self.restart_at = None;
            return Step::Number(self.top);
        }
        let behind = ahead.wrapping_neg();
        if behind <= MAX_MISORDER {
            let number = self.top - u64::from(behind);
            // Reordering at the very start: the stream began before its first packet was seen.
            if self.restarts == 0 {
                self.base = self.base.min(number);
            }
            return Step::Number(number);
        }
        if self.restart_at == Some(seq) {
            return self.restart(seq);
        }
        self.restart_at = Some(seq.wrapping_add(1));
        Step::Stray
    }

    fn restart(&mut self, seq: u16) -> Step {
        self.expected_before += self.top - self.base + 1;
        let number = (self.top | (RESTART_GAP - 1)) + 1 + RESTART_GAP + u64::from(seq);
        self.base = number - 1;
        self.top = number;
        self.restart_at = None;
        self.restarts += 1;
        Step::Restart { stray: number - 1, number }
    }

    /// Packets that the sender sent, by its numbers.
    pub fn expected(&self) -> u64 {
        self.expected_before + self.top - self.base + 1
    }

    /// Has the source shown consecutive numbers, so that it is more than a lucky byte pattern?
    pub fn is_valid(&self) -> bool {
        self.sequential >= MIN_SEQUENTIAL
    }

    /// Times the numbering began anew.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ext(seq: u64) -> u64 {
        RESTART_GAP + seq
    }

    #[test]
    fn the_wrap_is_no_loss() {
        let mut sequence = Sequence::new(65_534);
        let steps: Vec<_> = [65_535, 0, 1].map(|seq| sequence.observe(seq)).into();
        assert_eq!(steps, [65_535, 65_536, 65_537].map(|n| Step::Number(ext(n))));
        assert_eq!(sequence.expected(), 4);
    }

    #[test]
    fn one_stray_is_not_believed_but_two_in_a_row_are_a_restart() {
        let mut sequence = Sequence::new(10);
        assert_eq!(sequence.observe(40_000), Step::Stray);
        assert_eq!(sequence.observe(11), Step::Number(ext(11)));
        assert_eq!(sequence.observe(40_000), Step::Stray);
        let Step::Restart { stray, number } = sequence.observe(40_001) else { panic!("no restart") };
        assert_eq!(number, stray + 1);
        assert_eq!((sequence.expected(), sequence.restarts()), (4, 1));
    }

    #[test]
    fn a_packet_from_before_the_first_extends_the_stream_backwards() {
        let mut sequence = Sequence::new(100);
        assert_eq!(sequence.observe(99), Step::Number(ext(99)));
        assert_eq!(sequence.expected(), 2);
    }

    proptest! {
        /// Extended numbers are the true ones under any reordering below the misorder bound.
        #[test]
        fn extension_survives_reordering(start in 0_u64..70_000, jitter in prop::collection::vec(0_u64..90, 2..500)) {
            let mut order: Vec<(u64, u64)> = (0..).zip(jitter).collect();
            order.sort_by_key(|(i, late)| i + late);
            let order: Vec<u64> = order.into_iter().map(|(i, _)| i).collect();
            let first = start + order[0];
            let mut sequence = Sequence::new((first & 0xffff) as u16);
            let shift = sequence.first() - first;
            for i in &order[1..] {
                let true_number = start + i;
                if true_number + 90 < first { continue; }
                prop_assert_eq!(sequence.observe((true_number & 0xffff) as u16), Step::Number(true_number + shift));
            }
        }
    }
}
