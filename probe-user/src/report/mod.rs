//! What voxprobe says: the health log, the JSON contract, findings, and the text for people.

pub mod calls;
pub mod contract;
pub mod findings;
pub mod health;
pub mod ladder;
pub mod log;
pub mod monitor;
pub mod text;
pub mod words;
