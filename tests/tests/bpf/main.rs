//! The BPF programs on this kernel, one frame at a time, against what the shared classifier says on the host.
//!
//! Frames are run through the loaded programs by BPF_PROG_TEST_RUN. Of each, four things must hold: the program
//! passes it, its bytes are what they were, exactly one counter moved and it is the one that the host's
//! classifier names, and a record came if and only if the verdict is a match, with every field right.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod endpoints;
mod frames;
mod judged;
mod records;
mod verifier;
