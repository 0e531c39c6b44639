//! RTCP: what the ends of a stream say of it, beside what was measured here.
//!
//! ```text
//!   datagram ─▶ copy? ─yes─▶ counted, no more
//!                 │no
//!                 ▼
//!           wire: SR RR SDES BYE XR, every length checked ─refused─▶ counted by reason
//!                 ▼
//!         tracker: per sender (flow, SSRC) its clock, its name, its blocks about others
//!                 ▼  at the end
//!           report: joined to streams by SSRC and addresses
//! ```
//!
//! RTCP is rare (5 s apart and participant), so it is read on the receive thread. It is also the easiest of all
//! to forge or to misread, so nothing in it is believed that contradicts itself: see [`wire`] and
//! [`tracker`].
//!
//! # What a passive point can measure
//!
//! ```text
//!      A ───── SR, time t ─────▶ (probe at p1) ─────────▶ B     B holds it for DLSR
//!      A ◀────────────────────── (probe at p2) ◀── RR ─── B     and names t as LSR
//! ```
//!
//! `p2 - p1 - DLSR` is the round trip from the probe to B and back: of RFC 3550, 6.4.1, the part beyond the probe. It
//! needs neither A's clock nor B's, only that B measures its DLSR. B's own reports, answered by A, give the part before the
//! probe. Only both together are the round trip of the path, wherever the probe stands on it. XR's reference times
//! (RFC 3611, 4.4 and 4.5) give the same for a receiver that sends no media.

mod clock;
mod copies;
pub mod report;
pub mod tracker;
pub mod wire;
pub mod xr;

pub use report::StreamRtcp;
pub use tracker::{News, RtcpTotals, Tracker};
