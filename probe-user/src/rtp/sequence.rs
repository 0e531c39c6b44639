//! Sequence numbers made monotone (RFC 3550, A.1): cycles, dropouts, misorder, restarts.

/// Consecutive packets that make a source valid.
pub const MIN_SEQUENTIAL: u8 = 2;
/// Believed numbers in a row that make a source valid which never shows two consecutive ones: one leg of a
/// bonded link carries every second packet. By chance that happens once in 10^10.
const MIN_BELIEVED: u8 = 8;
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
    /// A jump too wide to believe.
    Stray {
        /// If the next number follows it, it was the first of a restart. False for what lags behind such a packet
        /// (a copy, say), or behind the last restart.
        candidate: bool,
    },
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
    past: Past,
    standing: Standing,
}

/// What was before the last restart: nothing in most streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// Numbers expected in runs before the last restart.
    expected: u64,
    restarts: u32,
    /// Highest number of the run before the last restart: its copies may still be coming in.
    top: Option<u16>,
}

/// How sure the source is, which is what of it is left beside an orderly run but for its first and highest numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// Longest run of consecutive numbers, up to [`MIN_SEQUENTIAL`].
    sequential: u8,
    /// Run of numbers that went up and were believed, up to [`MIN_BELIEVED`].
    believed: u8,
}

impl Sequence {
    /// A stream whose first packet has the number `seq`. Its extended number is one cycle up, so that a packet
    /// that should have come before has one, too.
    pub fn new(seq: u16) -> Self {
        let first = RESTART_GAP + u64::from(seq);
        Self {
            top: first,
            base: first,
            restart_at: None,
            past: Past::default(),
            standing: Standing { sequential: 1, believed: 1 },
        }
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
                self.standing.sequential = MIN_SEQUENTIAL.min(self.standing.sequential + 1);
            }
            self.top += u64::from(ahead);
            // A copy of the newest says nothing about whether the sender has restarted meanwhile.
            if ahead > 0 {
                self.restart_at = None;
                self.standing.believed = MIN_BELIEVED.min(self.standing.believed + 1);
            }
            return Step::Number(self.top);
        }
        let behind = ahead.wrapping_neg();
        if behind <= MAX_MISORDER {
            let number = self.top - u64::from(behind);
            // Reordering at the very start of a run: it began before its first packet was seen. Runs are far
            // enough apart that this does not reach the one before.
            self.base = self.base.min(number);
            return Step::Number(number);
        }
        if self.restart_at == Some(seq) {
            return self.restart(seq);
        }
        let lags = |behind: Option<u16>| behind.is_some_and(|top| top.wrapping_sub(seq) <= MAX_MISORDER);
        if lags(self.restart_at) || lags(self.past.top) {
            return Step::Stray { candidate: false };
        }
        self.standing.believed = 0;
        self.restart_at = Some(seq.wrapping_add(1));
        Step::Stray { candidate: true }
    }

    fn restart(&mut self, seq: u16) -> Step {
        self.past.expected += self.top - self.base + 1;
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the number on the wire")]
        let before = self.top as u16;
        self.past.top = Some(before);
        self.standing.sequential = MIN_SEQUENTIAL;
        let number = (self.top | (RESTART_GAP - 1)) + 1 + RESTART_GAP + u64::from(seq);
        self.base = number - 1;
        self.top = number;
        self.restart_at = None;
        self.past.restarts += 1;
        Step::Restart { stray: number - 1, number }
    }

    /// The number that a run begins behind: the highest, if nothing is in doubt.
    pub(super) fn lend(&self) -> Option<u64> {
        self.restart_at.is_none().then_some(self.top)
    }

    /// The highest number.
    pub(super) fn top(&self) -> u64 {
        self.top
    }

    /// So many numbers came, each as the next.
    pub(super) fn take_back(&mut self, packets: u64) {
        self.top += packets;
        let packets = u8::try_from(packets).unwrap_or(u8::MAX);
        self.standing.sequential = MIN_SEQUENTIAL.min(self.standing.sequential.saturating_add(packets));
        self.standing.believed = MIN_BELIEVED.min(self.standing.believed.saturating_add(packets));
    }

    /// So many numbers are missing, and the one after them came. Returns it.
    pub(super) fn skip(&mut self, missing: u64) -> u64 {
        self.top += missing + 1;
        self.standing.believed = MIN_BELIEVED.min(self.standing.believed + 1);
        self.top
    }

    /// What is left of it beside the run that it was lent to: the highest number and the first, and what was before.
    pub(super) fn into_rest(self) -> ([u64; 2], Standing, Past) {
        let Self { top, base, restart_at: _, past, standing } = self;
        ([top, base], standing, past)
    }

    /// The same, whole again.
    pub(super) fn of_rest([top, base]: [u64; 2], standing: Standing, past: Past) -> Self {
        Self { top, base, restart_at: None, past, standing }
    }

    /// Packets that the sender sent, by its numbers.
    pub fn expected(&self) -> u64 {
        self.past.expected + self.top - self.base + 1
    }

    /// Has the source shown consecutive numbers, so that it is more than a lucky byte pattern?
    pub fn is_valid(&self) -> bool {
        self.standing.is_valid()
    }

    /// Times the numbering began anew.
    pub fn restarts(&self) -> u32 {
        self.past.restarts
    }
}

impl Standing {
    /// As [`Sequence::is_valid`].
    pub(super) fn is_valid(self) -> bool {
        self.sequential >= MIN_SEQUENTIAL || self.believed >= MIN_BELIEVED
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
        assert_eq!(sequence.observe(40_000), Step::Stray { candidate: true });
        assert_eq!(sequence.observe(11), Step::Number(ext(11)));
        assert_eq!(sequence.observe(40_000), Step::Stray { candidate: true });
        let Step::Restart { stray, number } = sequence.observe(40_001) else { panic!("no restart") };
        assert_eq!(number, stray + 1);
        assert_eq!((sequence.expected(), sequence.restarts()), (4, 1));
    }

    #[test]
    fn a_restart_is_seen_through_copies_that_lag_behind_it() {
        let mut sequence = Sequence::new(10);
        let steps: Vec<_> = [11, 40_000, 11, 10, 40_001].map(|seq| sequence.observe(seq)).into();
        assert!(matches!(steps.last(), Some(Step::Restart { .. })), "{steps:?}");
        // The old run's copies do not take the stream back, however many come in a row.
        for late in [9, 10, 11, 40_000] {
            assert!(!matches!(sequence.observe(late), Step::Restart { .. }), "{late}");
        }
        assert_eq!((sequence.observe(40_002), sequence.restarts()), (Step::Number(sequence.top), 1));
    }

    #[test]
    fn a_late_packet_just_after_a_restart_is_expected_too() {
        let mut sequence = Sequence::new(10);
        for seq in [11, 30_001, 30_002, 30_000, 30_003, 30_005] {
            sequence.observe(seq);
        }
        assert_eq!(sequence.expected(), 2 + 6);
    }

    #[test]
    fn every_second_packet_of_a_bonded_link_is_a_source_but_noise_is_not() {
        let mut leg = Sequence::new(10);
        for n in 6..13 {
            leg.observe(n * 2);
        }
        assert!(leg.is_valid());
        let mut noise = Sequence::new(10);
        for seq in [5_000, 40_000, 20_000, 61_000, 9_000, 33_000, 14_000, 52_000, 26_000] {
            noise.observe(seq);
        }
        assert!(!noise.is_valid());
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
