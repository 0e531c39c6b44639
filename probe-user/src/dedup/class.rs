//! What each frame of a capture is among the others: new, a copy, sent again, or nothing of ours.
//!
//! ```text
//!   Stream, Signalling ─▶ FrameClass ─▶ Classes: twelve bytes a frame ─▶ `voxprobe dedup`, tests
//! ```
//!
//! A frame may hold several datagrams: it is a copy only if all that was recognised in it are copies. Live, nobody
//! asks, and nothing is kept.

use super::cause::{Cause, Differs, Explanation};
use super::stats::Copy;
use crate::sip::Timer;

/// What a frame is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrameClass {
    /// No SIP, RTP or RTCP was recognised in it.
    #[default]
    Other,
    /// Seen for the first time.
    Unique,
    /// Seen before.
    Copy {
        /// The most similar earlier sighting of the same packet, by frame number; itself perhaps a copy.
        of: u64,
        /// Why there are two.
        cause: Cause,
        /// In what they differ.
        differs: Differs,
        /// How much later it came, in nanoseconds; saturates at 2.1 s.
        delay_ns: i32,
    },
    /// Known to be a copy, by its number alone: its original is no longer remembered.
    OldCopy,
    /// An endpoint sent it again because a timer ran out.
    Retransmission {
        /// The transmission that it repeats.
        of: u64,
        /// Whose timer.
        timer: Timer,
    },
    /// The answer to something that was sent again, hence sent again, too.
    Echo {
        /// The transmission that it repeats.
        of: u64,
    },
    /// Sent again, and no timer says why.
    Unscheduled {
        /// The transmission that it repeats.
        of: u64,
    },
    /// A request that comes again with credentials, after a 401 or 407: ordinary.
    AuthRetry,
    /// TCP sent again what the capture has already.
    TcpRetransmission,
    /// RTP with a number that is taken, and another content.
    Conflict,
    /// RTP too old to be told from a copy.
    Unplaced,
    /// A part of what a later frame completes (a fragment, a segment). [`Classes::part`] says which.
    Part,
}

impl FrameClass {
    /// Of a copy and what it resembles most.
    pub fn copy(copy: &Copy) -> Self {
        let bounded = copy.delay_ns().clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        let Explanation { cause, differs, .. } = copy.explanation;
        Self::Copy { of: copy.original, cause, differs, delay_ns: i32::try_from(bounded).unwrap_or(0) }
    }

    /// Was what it holds captured before?
    pub fn is_copy(self) -> bool {
        matches!(self, Self::Copy { .. } | Self::OldCopy)
    }

    /// The word of reports and of annotations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Unique => "unique",
            Self::Copy { .. } | Self::OldCopy => "copy",
            Self::Retransmission { .. } => "retransmission",
            Self::Echo { .. } => "echo",
            Self::Unscheduled { .. } => "unscheduled",
            Self::AuthRetry => "auth-retry",
            Self::TcpRetransmission => "tcp-retransmission",
            Self::Conflict => "conflict",
            Self::Unplaced => "unplaced",
            Self::Part => "part",
        }
    }
}

/// The class of every frame, by number.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    frames: Vec<Packed>,
}

/// A class in twelve bytes: a hundred million frames are 1.2 GB.
#[derive(Clone, Copy, Debug, Default)]
struct Packed {
    /// Frames back to the one that it repeats; of a part, ahead to the one that completes it.
    back: u32,
    delay_ns: i32,
    differs: u16,
    kind: Kind,
    /// Index of the cause or timer.
    why: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Other,
    Unique,
    Copy,
    OldCopy,
    Retransmission,
    Echo,
    Unscheduled,
    AuthRetry,
    TcpRetransmission,
    Conflict,
    Unplaced,
    Part,
}

impl Classes {
    /// Notes what was recognised in a frame. Of several datagrams in one, what is no copy decides.
    pub fn note(&mut self, number: u64, class: FrameClass) {
        let is_copy = self.of(number).is_copy();
        let is_silent = matches!(class, FrameClass::Other);
        if is_silent || class.is_copy() && !is_copy && self.of(number) != FrameClass::Other {
            return;
        }
        self.set(number, class);
    }

    /// Says anew what a frame is, after what came later explained it.
    pub fn set(&mut self, number: u64, class: FrameClass) {
        let Some(at) = number.checked_sub(1).and_then(|at| usize::try_from(at).ok()) else { return };
        if self.frames.len() <= at {
            self.frames.resize(at + 1, Packed::default());
        }
        if let Some(frame) = self.frames.get_mut(at) {
            *frame = Packed::new(number, class);
        }
    }

    /// A frame holds a part of what `whole` completes, and shares its fate. What is a copy otherwise is none if it holds
    /// the beginning of something new.
    pub fn note_part(&mut self, number: u64, whole: u64) {
        if self.of(number).is_copy() && self.of(whole) == FrameClass::Unique {
            self.set(number, FrameClass::Unique);
        }
        if number == whole || self.of(number) != FrameClass::Other {
            return;
        }
        self.set(number, FrameClass::Part);
        let ahead = u32::try_from(whole.saturating_sub(number)).unwrap_or(0);
        if let Some(frame) = place(number).and_then(|at| self.frames.get_mut(at)) {
            frame.back = ahead;
        }
    }

    /// What a frame is.
    pub fn of(&self, number: u64) -> FrameClass {
        let packed = place(number).and_then(|at| self.frames.get(at)).copied();
        packed.unwrap_or_default().class(number)
    }

    /// What a frame is; of a part, what the whole is.
    pub fn resolved(&self, number: u64) -> FrameClass {
        match self.part(number) {
            Some(whole) => self.of(whole),
            None => self.of(number),
        }
    }

    /// The frame that completes what this one holds a part of.
    pub fn part(&self, number: u64) -> Option<u64> {
        let packed = place(number).and_then(|at| self.frames.get(at))?;
        (packed.kind == Kind::Part && packed.back > 0).then(|| number + u64::from(packed.back))
    }

    /// All of the first `frames` frames.
    pub fn into_list(self, frames: u64) -> Vec<FrameClass> {
        (1..=frames).map(|number| self.resolved(number)).collect()
    }
}

fn place(number: u64) -> Option<usize> {
    number.checked_sub(1).and_then(|at| usize::try_from(at).ok())
}

impl Packed {
    fn new(number: u64, class: FrameClass) -> Self {
        let back = |of: u64| u32::try_from(number.saturating_sub(of)).unwrap_or(0);
        let plain = |kind| Self { kind, ..Self::default() };
        match class {
            FrameClass::Other => Self::default(),
            FrameClass::Unique => plain(Kind::Unique),
            FrameClass::Copy { of, cause, differs, delay_ns } => {
                Self { back: back(of), delay_ns, differs: differs.bits(), kind: Kind::Copy, why: cause as u8 }
            }
            FrameClass::OldCopy => plain(Kind::OldCopy),
            FrameClass::Retransmission { of, timer } => {
                Self { back: back(of), why: timer as u8, ..plain(Kind::Retransmission) }
            }
            FrameClass::Echo { of } => Self { back: back(of), ..plain(Kind::Echo) },
            FrameClass::Unscheduled { of } => Self { back: back(of), ..plain(Kind::Unscheduled) },
            FrameClass::AuthRetry => plain(Kind::AuthRetry),
            FrameClass::TcpRetransmission => plain(Kind::TcpRetransmission),
            FrameClass::Conflict => plain(Kind::Conflict),
            FrameClass::Unplaced => plain(Kind::Unplaced),
            FrameClass::Part => plain(Kind::Part),
        }
    }

    fn class(self, number: u64) -> FrameClass {
        let of = number.saturating_sub(u64::from(self.back));
        let why = usize::from(self.why);
        match self.kind {
            Kind::Other => FrameClass::Other,
            Kind::Unique => FrameClass::Unique,
            Kind::Copy => Cause::ALL.get(why).map_or(FrameClass::OldCopy, |&cause| FrameClass::Copy {
                of,
                cause,
                differs: Differs::from_bits(self.differs),
                delay_ns: self.delay_ns,
            }),
            Kind::OldCopy => FrameClass::OldCopy,
            Kind::Retransmission => Timer::ALL
                .get(why)
                .map_or(FrameClass::Unscheduled { of }, |&timer| FrameClass::Retransmission { of, timer }),
            Kind::Echo => FrameClass::Echo { of },
            Kind::Unscheduled => FrameClass::Unscheduled { of },
            Kind::AuthRetry => FrameClass::AuthRetry,
            Kind::TcpRetransmission => FrameClass::TcpRetransmission,
            Kind::Conflict => FrameClass::Conflict,
            Kind::Unplaced => FrameClass::Unplaced,
            Kind::Part => FrameClass::Part,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_survives_its_twelve_bytes() {
        assert_eq!(size_of::<Packed>(), 12);
        let mut all = vec![
            FrameClass::Other,
            FrameClass::Unique,
            FrameClass::OldCopy,
            FrameClass::Echo { of: 3 },
            FrameClass::Unscheduled { of: 4 },
            FrameClass::AuthRetry,
            FrameClass::TcpRetransmission,
            FrameClass::Conflict,
            FrameClass::Unplaced,
            FrameClass::Part,
        ];
        let copy =
            |cause| FrameClass::Copy { of: 17, cause, differs: Differs::from_bits(5), delay_ns: -38_000 };
        all.extend(Cause::ALL.map(copy));
        all.extend(Timer::ALL.map(|timer| FrameClass::Retransmission { of: 2, timer }));
        let mut classes = Classes::default();
        for (number, class) in (100..).zip(&all) {
            classes.set(number, *class);
        }
        assert_eq!((100..).zip(&all).map(|(number, _)| classes.of(number)).collect::<Vec<_>>(), all);
    }

    #[test]
    fn a_frame_with_something_new_in_it_is_no_copy() {
        let copy =
            FrameClass::Copy { of: 1, cause: Cause::SamePoint, differs: Differs::from_bits(0), delay_ns: 5 };
        for order in [[copy, FrameClass::Unique], [FrameClass::Unique, copy]] {
            let mut classes = Classes::default();
            for class in order {
                classes.note(2, class);
            }
            assert_eq!(classes.of(2), FrameClass::Unique);
        }
    }

    #[test]
    fn a_copy_that_holds_the_beginning_of_something_new_stays() {
        let copy =
            FrameClass::Copy { of: 1, cause: Cause::SamePoint, differs: Differs::from_bits(0), delay_ns: 5 };
        let mut classes = Classes::default();
        classes.note(3, copy);
        classes.note(5, FrameClass::Unique);
        classes.note_part(3, 5);
        assert_eq!(classes.resolved(3), FrameClass::Unique);
    }

    #[test]
    fn a_part_shares_the_fate_of_the_whole() {
        let mut classes = Classes::default();
        classes.note_part(3, 5);
        classes.note(5, FrameClass::Unique);
        assert_eq!((classes.of(3), classes.resolved(3)), (FrameClass::Part, FrameClass::Unique));
    }
}
