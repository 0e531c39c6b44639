//! voxprobe: media streams, duplicates and calls out of SIP and RTP, live or from a capture file.
//!
//! ```text
//!   capture/   where frames come from: BPF rings, files           (does the I/O)
//!   decode/    frame -> one inner datagram with its evidence
//!   sip/       signalling: messages, SDP, calls, announced media  ┐
//!   rtp/       streams: sequence, jitter, both ledgers            │ the domain: no I/O, no clocks
//!   rtcp/      what the ends of a stream say of it                │
//!   dedup/     which frame is a copy of which, and why            ┘
//!   pipeline/  threads, batches, shards, and the account of every loss
//!   report/    health log, JSON, findings, text                   (says it)
//! ```

pub mod capture;
pub mod decode;
pub mod dedup;
pub mod histogram;
mod memo;
pub mod packet;
pub mod pipeline;
pub mod report;
pub mod rtcp;
pub mod rtp;
mod sequence;
pub mod sip;
