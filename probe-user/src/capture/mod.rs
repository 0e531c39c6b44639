//! Where frames come from.

pub mod clock;
pub mod file;
pub mod live;
mod pace;
pub mod xsk;
