//! Signalling: SIP messages, their SDP, the calls they make, and the media they announce.
//!
//! ```text
//!   message   bytes -> one message, whatever state it is in
//!   stream    TCP segments -> messages
//!   copies    copy, retransmission, or neither
//!   sdp       body -> media lines, with ICE candidates (ice) and lines that share a port (bundle)
//!   calls     messages -> calls
//!   report    what is said of a call
//!   negotiation   offers and answers of a call -> media lines
//!   announced     what a call said of its media, for the report
//!   media     media lines -> who may be asked for every RTP packet (line, endpoints)
//!   signalling   all of them in the order of the capture; what callers use
//! ```

mod announced;
mod bundle;
mod call;
pub mod calls;
mod challenge;
pub mod copies;
mod cut;
mod defects;
mod endpoints;
mod ice;
mod line;
pub mod media;
pub mod message;
mod negotiation;
pub mod report;
pub mod sdp;
pub mod signalling;
mod stream;
mod text;
pub mod totals;
pub mod transcript;

pub use announced::{Agreement, CallLine, CallMedia, Side};
pub use copies::{Repeat, Timer, Transport};
pub use media::{EndpointChange, MediaInfo, MediaTable};
pub use report::{CallEvent, CallReport, CallState};
pub use signalling::{Limits, Observed, Signalling, SignallingReport};
pub use totals::SipReport;
pub use transcript::Transcript;
