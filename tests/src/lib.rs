//! The lab: a gateway between phones and a PBX, in network namespaces of this machine, with real calls through it.
//!
//! ```text
//!   topology/netns/link   where: namespaces, veth pairs, addresses
//!   calls, sip            who calls whom, and what becomes of it
//!   media, g711           what is said: RTP with known faults, from a seed
//!   mirror, remote        the same once more, as other taps and a remote capture would see it
//!   traffic               RTP of many streams at millions of packets a second
//!   frames, segments, tunnels   bytes of frames from named fields
//!   story                 whole captures from a seed, with the truth about every frame
//!   bench, cost, dedup_cost, throughput, effort   what it costs, beside peers in the same run
//!   scenes                calls as RFCs describe them, with the truth about each call
//!   lab, probe            all of it together, and the probe that watches
//! ```
//!
//! Tests hold what the probe reports against what the lab knows to be true ([`calls::CallTruth`]).

pub mod bench;
pub mod calls;
pub mod captures;
pub mod command;
pub mod conformance;
pub mod core_cost;
pub mod cost;
pub mod dedup_cost;
pub mod dissect;
pub mod effort;
pub mod frames;
pub mod g711;
pub mod lab;
pub mod link;
pub mod media;
pub mod mirror;
pub mod netns;
pub mod privileges;
pub mod probe;
pub mod random;
pub mod remote;
pub mod scenes;
pub mod segments;
pub mod sip;
pub mod story;
pub mod throughput;
pub mod topology;
pub mod traffic;
pub mod tunnels;

pub use captures::shared_captures;
