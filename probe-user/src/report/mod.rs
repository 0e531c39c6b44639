//! What voxprobe says: the health log, the JSON contract, findings, and the text for people.

mod call_desk;
pub mod call_entry;
pub mod call_media;
pub mod call_select;
pub mod calls;
mod chart;
pub mod contract;
pub mod csv;
pub mod detail;
pub mod findings;
pub mod forensics;
pub mod health;
mod interval;
pub mod joins;
pub mod ladder;
mod left_out;
pub mod log;
mod media_findings;
pub mod monitor;
pub mod page;
mod problems;
mod related;
mod remote;
pub mod select;
pub mod text;
pub mod troubles;
pub mod words;
