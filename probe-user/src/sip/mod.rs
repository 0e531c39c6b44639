//! Signalling: SIP messages, their SDP, the calls they make, and the media they announce.
//!
//! ```text
//!   message   bytes -> one message, whatever state it is in
//!   reassembly   TCP segments -> their bytes in order
//!   websocket    frames of WebSocket -> messages
//!   encrypted    TLS: counted
//!   copies    copy, retransmission, or neither
//!   sdp       body -> media lines
//!   calls     messages -> calls
//!   report    what is said of a call
//!   negotiation   offers and answers of a call -> media lines
//!   media     media lines -> who may be asked for every RTP packet
//!   signalling   all of them in the order of the capture; what callers use
//! ```

mod call;
pub mod calls;
mod challenge;
pub mod copies;
mod cut;
mod defects;
mod encrypted;
pub mod media;
pub mod message;
mod negotiation;
pub mod reassembly;
pub mod report;
pub mod sdp;
pub mod signalling;
mod text;
pub mod totals;
pub mod transcript;
pub mod websocket;

pub use copies::{Repeat, Timer, Transport};
pub use encrypted::EncryptedReport;
pub use media::{EndpointChange, MediaInfo, MediaTable};
pub use report::{CallEvent, CallReport, CallState};
pub use signalling::{Limits, Observed, Signalling, SignallingReport};
pub use totals::SipReport;
pub use transcript::Transcript;
