//! Signalling: SIP messages, their SDP, the calls they make, and the media they announce.
//!
//! ```text
//!   message   bytes -> one message, whatever state it is in
//!   reassembly   TCP segments -> their bytes in order
//!   websocket    frames of WebSocket -> messages
//!   encrypted    TLS: counted
//!   copies    copy, retransmission, or neither
//!   sdp       body -> media lines, with ICE candidates (ice) and lines that share a port (bundle)
//!   calls     messages -> calls
//!   call      one of them: states; dialog, hops, hold, reason, transfer: parts of it
//!   related   which calls name each other
//!   sight     which calls have fallen silent
//!   report    what is said of a call
//!   negotiation   offers and answers of a call -> media lines
//!   announced     what a call said of its media, for the report
//!   media     media lines -> who may be asked for every RTP packet (line, endpoints)
//!   transaction   requests and their answers, in calls and outside: registrations, sources, and who is silent
//!   signalling   all of them in the order of the capture; what callers use
//! ```

mod announced;
mod body;
mod bundle;
mod call;
pub mod calls;
mod challenge;
pub mod copies;
mod cut;
mod defects;
pub mod dialog;
mod encrypted;
mod endpoints;
mod generations;
pub mod hold;
mod hops;
mod ice;
mod line;
pub mod media;
pub mod message;
mod negotiation;
mod reason;
pub mod reassembly;
pub mod registrations;
pub mod related;
pub mod report;
pub mod sdp;
mod sdp_lines;
mod sight;
pub mod signalling;
pub mod silent;
pub mod sources;
mod text;
pub mod totals;
pub mod transaction;
pub mod transcript;
mod transfer;
pub mod websocket;

pub use announced::{Agreement, CallLine, CallMedia, Side};
pub use challenge::{AuthRefused, REFUSED_OFTEN};
pub use copies::{Repeat, Timer, Transport};
pub use cut::CapturedReport;
pub use encrypted::EncryptedReport;
pub use generations::Groups;
pub use media::{EndpointChange, MediaInfo, MediaTable};
pub use related::LegHeaders;
pub use report::{CallEvent, CallReport, CallState};
pub use signalling::{Limits, Observed, Signalling, SignallingReport};
pub use totals::SipReport;
pub use transcript::Transcript;
