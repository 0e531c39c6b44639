//! Why live capture does not start, in words that name the act, the object and the remedy.

use std::io;

use thiserror::Error;

/// Why live capture did not start, or stopped working.
#[derive(Debug, Error)]
pub enum LiveError {
    /// No object was embedded.
    #[error("this binary was built without its BPF programs: build it with `cargo xtask build`")]
    NotBuilt,
    /// Nothing to capture on.
    #[error("no interface was named: pass --iface, for example --iface {example}")]
    NoInterface {
        /// One that exists.
        example: String,
    },
    /// More than the configuration holds.
    #[error("{given} interfaces were named, {most} is the most: start a second probe for the rest")]
    TooManyInterfaces {
        /// How many there were.
        given: usize,
        /// How many there may be.
        most: usize,
    },
    /// One is named more than once.
    #[error("interface {name} was named twice: each can be watched once")]
    InterfaceTwice {
        /// Which.
        name: String,
    },
    /// One does not exist.
    #[error("there is no interface {name}; there are: {existing}")]
    NoSuchInterface {
        /// What was asked for.
        name: String,
        /// What there is.
        existing: String,
    },
    /// Mirror mode on an interface that the host uses.
    #[error(
        "{interface} is no mirror port: this host uses it ({uses}), and --mode mirror would take its SIP, RTP and RTCP \
         away. Watch it with --mode tap, which takes nothing; or name a port that carries only copies; or, if it is \
         meant, add --steal"
    )]
    InUse {
        /// Which.
        interface: String,
        /// For what.
        uses: String,
    },
    /// Mirror mode takes what arrives.
    #[error("--egress: a mirror port sends nothing; leave it out, or use --mode tap")]
    EgressOfMirror,
    /// Addresses and routes cannot be listed.
    #[error("cannot list the addresses and routes, to see whether the host uses the interface")]
    Addresses(#[source] io::Error),
    /// Bad number of chunks.
    #[error("--frames {chunks}: a power of two is needed")]
    Chunks {
        /// What was asked for.
        chunks: u32,
    },
    /// More queues than the socket map holds.
    #[error(
        "{interface} has {queues} receive queues, {most} is the most: `ethtool -L {interface} combined {most}` makes fewer"
    )]
    TooManyQueues {
        /// Of which interface.
        interface: String,
        /// How many there are.
        queues: usize,
        /// How many there may be.
        most: usize,
    },
    /// Another AF_XDP socket has the queue.
    #[error(
        "cannot bind an AF_XDP socket to {interface} queue {queue}: another socket holds it; `ss --xdp -p` lists the owners"
    )]
    QueueBusy {
        /// Which interface.
        interface: String,
        /// Which of its queues.
        queue: u32,
    },
    /// No way of binding works.
    #[error("{interface}: no AF_XDP socket can be bound, neither zero-copy nor copying: use --mode tap")]
    NoRung {
        /// Which.
        interface: String,
    },
    /// The interfaces cannot be listed.
    #[error("cannot list the network interfaces")]
    Interfaces(#[source] io::Error),
    /// Bad ring size.
    #[error("a ring of {bytes} bytes is impossible: a power of two from {page} is needed")]
    RingSize {
        /// What was asked for.
        bytes: u32,
        /// The smallest possible.
        page: usize,
    },
    /// More slots than an array has entries.
    #[error(
        "rings of {bytes} bytes on {cpus} CPUs are more than one BPF array holds: use a smaller --ring-size"
    )]
    RingsTooLarge {
        /// Of each.
        bytes: u32,
        /// So many.
        cpus: u32,
    },
    /// The kernel lacks a feature.
    #[error("{feature} needs Linux {needed}, this is {running}: {remedy}")]
    KernelTooOld {
        /// What is missing.
        feature: &'static str,
        /// Since when it is there.
        needed: &'static str,
        /// What runs.
        running: String,
        /// What else works.
        remedy: &'static str,
    },
    /// A system call was refused.
    #[error("{act}: {error}. {diagnosis}")]
    Refused {
        /// What was tried, on what.
        act: String,
        /// The errno.
        error: io::Error,
        /// What stands in the way, and what would help.
        diagnosis: String,
    },
    /// An interface is taken.
    #[error(
        "cannot attach to {interface}: {holder} holds it. Detach that first (`ip link set dev {interface} xdp off`, or stop its process)"
    )]
    Busy {
        /// Which.
        interface: String,
        /// By what.
        holder: String,
    },
    /// The object or a map of it is not as expected.
    #[error("{act}: {reason}")]
    Object {
        /// What was tried.
        act: String,
        /// The library's words.
        reason: String,
    },
}
