//! Calls and their media side by side: why one is without the other, and what does not fit together.

use serde::Serialize;

/// Something about a call's media that its signalling does not lead to expect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CallFinding {
    /// Stable identifier: "one-way-audio", "no-media", "media-after-bye", …
    pub id: &'static str,
    /// What was seen, in a sentence.
    pub text: String,
}
