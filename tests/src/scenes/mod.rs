//! Scenes of SIP: calls as RFCs describe them, with the truth about each call.
//!
//! ```text
//!   library: a name, and what happens ──▶ Stage: what is sent, when ──▶ taps (story) ──▶ frames
//!            parties, calls, SDP, speech          └▶ SceneTruth, in the words of the report
//! ```
//!
//! Written from RFC 3261 and its extensions, and from no code of the analysis. The same name and seed give the same
//! bytes. `voxlab scenes` lists and writes them; the form of the truth is described in [`truth`].

pub mod call;
pub mod command;
pub mod crowd;
mod library;
pub mod party;
pub mod sdp;
pub mod speech;
pub mod stage;
pub mod truth;
mod websocket;

use self::stage::Stage;
use self::truth::SceneTruth;
use crate::story::{Recording, Story};

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// Its name.
    pub name: &'static str,
    /// What it shows, in a line.
    pub about: &'static str,
    play: fn(&mut Stage),
}

/// A scene as some taps captured it.
#[derive(Clone, Debug)]
pub struct Played {
    /// The frames, and the truth about each.
    pub story: Story,
    /// The truth about its calls.
    pub truth: SceneTruth,
}

impl Scene {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        library::all().into_iter()
    }

    /// One of them.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|scene| scene.name == name)
    }

    /// Plays it before these taps.
    pub fn play(&self, seed: u64, recording: &Recording) -> Played {
        let mut stage = Stage::new(seed);
        (self.play)(&mut stage);
        Played { story: Story::of(&stage.scene, seed, recording), truth: stage.truth }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::story::taps::Step;

    #[test]
    fn names_are_unique_and_a_seed_gives_its_bytes_again() {
        let names: HashSet<_> = Scene::all().map(|scene| scene.name).collect();
        assert_eq!(names.len(), Scene::all().count());
        for scene in Scene::all() {
            let [one, two, other] =
                [1, 1, 2].map(|seed| scene.play(seed, &Recording::default()).story.pcapng());
            assert!(one == two, "{}: the same seed gives the same bytes", scene.name);
            assert!(one != other, "{}: another seed gives others", scene.name);
        }
    }

    #[test]
    fn what_was_counted_while_it_was_said_is_what_the_taps_saw() {
        for scene in Scene::all() {
            let played = scene.play(1, &Recording::by(&[Step::ReEmitted]));
            let (totals, truth) = (&played.story.truth.totals, &played.truth);
            if !truth.is_segmented {
                assert_eq!(totals.sip_messages, truth.messages, "{}", scene.name);
                assert_eq!(totals.sip_copies, truth.messages, "{}", scene.name);
            }
            assert_eq!(truth.kinds.values().sum::<u64>(), truth.messages, "{}", scene.name);
            for call in &truth.calls {
                assert!(!call.state.is_empty(), "{}: a call without an end", scene.name);
            }
            let packets: u64 = played.story.truth.streams.iter().map(|stream| stream.packets).sum();
            assert_eq!(packets, truth.streams.iter().map(|stream| stream.packets).sum::<u64>());
        }
    }
}
