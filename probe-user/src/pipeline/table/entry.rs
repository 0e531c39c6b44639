//! What a table holds of one stream: its key and run, which nearly every packet touches, and the rest.

use std::sync::Arc;

use crate::packet::{Nanos, RtpPacket};
use crate::rtp::KeyWords;
use crate::rtp::codec::Announcement;
use crate::rtp::quality::Settings;
use crate::rtp::run::Run;
use crate::rtp::stream::{Rest, Stream};

use super::CALM;

/// A stream's key, and its run if it has one: eight lines of memory.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Hot {
    pub(super) key: KeyWords,
    pub(super) state: State,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a run lies beside its key, or it would be one line of memory more"
)]
pub(super) enum State {
    /// Frames in a row that were no copies, up to [`CALM`].
    Calm(u8),
    /// Orderly packets.
    Run(Run),
}

/// What else there is of a stream.
#[derive(Debug)]
pub(super) enum Cold {
    /// One packet came, which may be all that ever comes.
    First(RtpPacket, Arc<Announcement>),
    /// It has no run, or has had none for long.
    Whole(Box<Stream>),
    /// It has one.
    Beside(Rest),
    /// Whoever took it puts it back.
    Away,
}

impl Cold {
    /// Does what a run asks for before it takes `packet`. A stream whose run is long goes to rest.
    #[cold]
    pub(super) fn serve(&mut self, run: &mut Run, packet: &RtpPacket) {
        match self {
            Self::Beside(rest) => rest.serve(run, packet),
            Self::Whole(stream) => {
                stream.serve(run, packet);
                if stream.is_at_rest(run) {
                    self.go_to_rest(run);
                }
            }
            Self::First(..) | Self::Away => {}
        }
    }

    /// Keeps of a stream what it must beside its run.
    pub(super) fn go_to_rest(&mut self, run: &Run) {
        if let Self::Whole(stream) = std::mem::replace(self, Self::Away)
            && let Some(rest) = stream.into_rest(run)
        {
            *self = Self::Beside(rest);
        }
    }
}

impl Hot {
    /// Of a stream that begins: nothing has disturbed it yet.
    pub(super) fn new(key: KeyWords) -> Self {
        Self { key, state: State::Calm(CALM) }
    }

    #[inline]
    pub(super) fn run(&self) -> Option<&Run> {
        match &self.state {
            State::Calm(_) => None,
            State::Run(run) => Some(run),
        }
    }
}

/// A stream in one piece, whatever became of its parts. `None` if there is none.
pub(super) fn whole(
    state: State,
    cold: Cold,
    key: KeyWords,
    epoch: Nanos,
    settings: &Arc<Settings>,
) -> Option<Box<Stream>> {
    let settings = Arc::clone(settings);
    match (state, cold) {
        (_, Cold::First(packet, announcement)) => {
            Some(Box::new(Stream::judged(&packet, packet.number, epoch, announcement, settings)))
        }
        (State::Calm(_), Cold::Whole(stream)) => Some(stream),
        (State::Run(run), Cold::Whole(mut stream)) => {
            stream.take_back(run);
            Some(stream)
        }
        (State::Run(run), Cold::Beside(rest)) => Some(rest.join(run, key.into(), settings)),
        (State::Calm(_), Cold::Beside(_)) | (_, Cold::Away) => None,
    }
}
