//! What voxprobe says: the health log, the JSON contract, findings, and the text for people.

pub mod contract;
pub mod findings;
pub mod health;
pub mod joins;
pub mod log;
mod media_findings;
pub mod monitor;
mod remote;
pub mod text;
pub mod words;
