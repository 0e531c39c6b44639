//! Threads, batches and shards, and the account of every frame.
//!
//! ```text
//!   source ─▶ Receiver: decode, signalling, endpoint table            (one thread)
//!                │ by hash of the flow
//!                ├─▶ one shard: the same thread runs it to completion
//!                └─▶ several: batches over single-producer rings ─▶ shard threads
//!                                                                       │ StreamTable: owns its streams
//!                events (intervals, ended streams) ◀────────────────────┘ over one crossbeam channel
//! ```
//!
//! Over a file, workers do the receiver's work and the shards' by turns: [`workers`].
//!
//! Nothing is shared: a stream belongs to one shard, a batch to whoever holds it. No locks, but for one around who does
//! what next over a file. Whatever is dropped has a name in [`Loss`], and `matched = analysed + sum(losses)` is checked at
//! the end of every run.

pub mod account;
pub mod cpus;
pub mod dedup;
mod flows;
mod index;
pub mod live;
pub(crate) mod memory;
pub mod offline;
pub mod outlet;
pub mod receiver;
mod rounds;
mod schedule;
pub mod shard;
pub mod shed;
mod stretch;
pub mod table;
pub mod times;
pub mod wheel;
pub mod workers;

pub use account::{Account, Loss};

pub use receiver::Receiver;
pub use shard::{Event, Shards};
