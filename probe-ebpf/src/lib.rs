//! What the kernel half and the user half of voxprobe agree on.
//!
//! ```text
//!   frame bytes ── parse ──▶ Layers ── classify ──▶ Verdict ──▶ counter, and for some a record
//!        ▲                                             ▲                     │
//!   any `Bytes`: packet memory in the kernel,       Config, endpoints        ▼
//!   a slice in userspace                            (BPF maps | tables)   MediaHead, PacketHead
//! ```
//!
//! Everything here is compiled twice, for the BPF target and for the host, so that the code the verifier
//! accepts is the code that userspace runs, tests and fuzzes. Hence: no `std`, no dependencies, no
//! allocation, no panic, no loop without a small constant bound.
#![no_std]
#![forbid(unsafe_code)]
#![expect(clippy::inline_always, reason = "a BPF call costs a frame and hides values from the verifier")]
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod announced;
pub mod classify;
pub mod config;
pub mod fingerprint;
pub mod flow;
pub mod generator;
pub mod meta;
pub mod parse;
pub mod record;
#[cfg(test)]
mod sample;
pub mod slots;
pub mod tunnel;
pub mod usual;

pub use classify::{Endpoints, Verdict, classify};
pub use config::{Config, EndpointKey, MediaRule};
pub use fingerprint::Fingerprint;
pub use meta::Meta;
pub use parse::{Bytes, Fragment, Layers, Refusal};
