//! Frames out of a receive ring, and their chunks back into the fill ring: nothing is copied, nothing is lost.
//!
//! A frame is lent for one call. Its chunk comes home when the call ends, however it ends, and goes to the kernel with the
//! next [`Exchange::refill`]. So at any moment each chunk of a queue is in exactly one of: the fill ring, the kernel, the
//! receive ring, the hands of the call, `spare`.

use std::sync::Arc;

use libc::xdp_desc;
use probe_ebpf::Meta;
use probe_ebpf::record::MAX_PACKET;

use super::ring::{Consumer, Producer, Storage};
use super::umem::{Chunk, Umem};

/// Frames after which the kernel gets its chunks back even inside a round: what it takes from the ring in one softirq.
const REFILL_EVERY: u32 = 64;

/// How many frames ahead of its turn a frame's memory is asked for: what a frame takes, so often, is longer than a line takes
/// to come.
const AHEAD: u32 = 8;

/// Both rings of a queue, and the chunks between them.
pub(crate) struct Exchange<R, F> {
    umem: Arc<Umem>,
    rx: Consumer<R>,
    fill: Producer<F>,
    /// Chunks that are with nobody. Holds as many as the queue has, so it never grows.
    spare: Vec<Chunk>,
    /// A frame of several chunks, as far as it has come.
    pieces: Pieces,
    since_refill: u32,
    strays: u64,
}

/// A frame of several chunks that is put together: the one case in which a frame is copied.
#[derive(Default)]
struct Pieces {
    meta: Option<Meta>,
    bytes: Vec<u8>,
    wire_len: usize,
}

/// What was received.
pub(crate) struct Received<'a> {
    /// What the program said of it.
    pub(crate) meta: Meta,
    /// The frame, up to [`MAX_PACKET`] bytes.
    pub(crate) frame: &'a [u8],
    /// How long it was.
    pub(crate) wire_len: usize,
}

/// A chunk in the hands of a call.
struct Held<'a> {
    chunk: Option<Chunk>,
    home: &'a mut Vec<Chunk>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.home.extend(self.chunk.take());
    }
}

impl<R: Storage<Entry = xdp_desc>, F: Storage<Entry = u64>> Exchange<R, F> {
    /// With all chunks of the queue, which go to the kernel with the first refill.
    pub(crate) fn new(umem: Arc<Umem>, rx: R, fill: F, chunks: Vec<Chunk>) -> Self {
        Self {
            umem,
            rx: Consumer::new(rx),
            fill: Producer::new(fill),
            spare: chunks,
            pieces: Pieces { bytes: Vec::with_capacity(MAX_PACKET), ..Pieces::default() },
            since_refill: 0,
            strays: 0,
        }
    }

    /// Gives the kernel every chunk that is here, and the receive ring's slots.
    pub(crate) fn refill(&mut self) {
        self.rx.release();
        while self.fill.room() > 0
            && let Some(chunk) = self.spare.pop()
        {
            if !self.fill.push(chunk.address()) {
                self.spare.push(chunk);
                break;
            }
        }
        self.fill.publish();
        self.since_refill = 0;
    }

    /// Learns what has come. Later takes see no more. Returns the descriptors that wait.
    pub(crate) fn refresh(&mut self) -> u32 {
        self.rx.refresh();
        self.rx.waiting()
    }

    /// When the program saw the next frame; zero for one whose metadata cannot be read. `None` if there is none.
    pub(crate) fn next_time_ns(&self) -> Option<u64> {
        if let Some(meta) = self.pieces.meta {
            return self.rx.peek().map(|_| meta.time_ns);
        }
        let desc = self.rx.peek()?;
        // For this look only: the kernel is done with it, and it is claimed for good when it is taken.
        let Some(chunk) = self.umem.claim(desc.addr) else { return Some(0) };
        Some(meta_of(&self.umem, &chunk, &desc).map_or(0, |meta| meta.time_ns))
    }

    /// Takes the next descriptor. `consume` gets the frame if that completes one. False if there was none.
    pub(crate) fn take(&mut self, consume: impl FnOnce(Received<'_>)) -> bool {
        if let Some(desc) = self.rx.peek_ahead(AHEAD) {
            self.umem.prefetch(desc.addr);
        }
        let Some(desc) = self.rx.pop() else { return false };
        self.receive(&desc, consume);
        self.since_refill += 1;
        if self.since_refill == REFILL_EVERY {
            self.refill();
        }
        true
    }

    fn receive(&mut self, desc: &xdp_desc, consume: impl FnOnce(Received<'_>)) {
        let held = Held { chunk: self.umem.claim(desc.addr), home: &mut self.spare };
        let len = desc.len as usize;
        let Some((chunk, frame)) =
            held.chunk.as_ref().and_then(|chunk| Some((chunk, self.umem.read(chunk, desc.addr, len)?)))
        else {
            self.strays += 1;
            return;
        };
        let goes_on = desc.options & libc::XDP_PKT_CONTD != 0;
        if self.pieces.meta.is_none() {
            let Some(meta) = meta_of(&self.umem, chunk, desc) else {
                self.strays += 1;
                return;
            };
            if !goes_on {
                consume(Received { meta, frame, wire_len: len });
                return;
            }
            self.pieces.meta = Some(meta);
        }
        self.pieces.add(frame);
        if !goes_on && let Some(meta) = self.pieces.meta.take() {
            consume(Received { meta, frame: &self.pieces.bytes, wire_len: self.pieces.wire_len });
            self.pieces.bytes.clear();
            self.pieces.wire_len = 0;
        }
    }

    /// Descriptors that pointed nowhere or had no metadata. Anything but zero is a bug, here or in the kernel.
    pub(crate) fn strays(&self) -> u64 {
        self.strays
    }

    /// The fill ring's memory.
    pub(crate) fn fill_storage(&self) -> &F {
        self.fill.storage()
    }
}

impl Pieces {
    /// Adds a piece, as far as a record may be long.
    fn add(&mut self, piece: &[u8]) {
        self.wire_len += piece.len();
        let room = MAX_PACKET.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(piece.get(..room).unwrap_or(piece));
    }
}

/// What the program wrote before the frame.
fn meta_of(umem: &Umem, chunk: &Chunk, desc: &xdp_desc) -> Option<Meta> {
    let at = desc.addr.checked_sub(Meta::BYTES as u64)?;
    let bytes = umem.read(chunk, at, Meta::BYTES)?.first_chunk()?;
    Some(Meta::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::super::ring::tests::Memory;
    use super::*;

    const CHUNKS: usize = 16;
    const CHUNK: usize = 2048;

    #[derive(Clone, Copy)]
    struct Desc(xdp_desc);

    impl Default for Desc {
        fn default() -> Self {
            Self(xdp_desc { addr: 0, len: 0, options: 0 })
        }
    }

    /// A receive ring's memory: `xdp_desc` has no default.
    struct Descs(Arc<Memory<Desc>>);

    impl Storage for Descs {
        type Entry = xdp_desc;
        type Counter = std::sync::atomic::AtomicU32;
        fn size(&self) -> u32 {
            self.0.size()
        }
        fn producer(&self) -> &Self::Counter {
            self.0.producer()
        }
        fn consumer(&self) -> &Self::Counter {
            self.0.consumer()
        }
        fn read(&self, index: u32) -> xdp_desc {
            self.0.read(index).0
        }
        fn write(&self, index: u32, entry: xdp_desc) {
            self.0.write(index, Desc(entry));
        }
    }

    /// The kernel's side: takes chunks, fills them with frames, hands them over.
    struct Kernel {
        umem: Arc<Umem>,
        rx: Producer<Arc<Memory<Desc>>>,
        fill: Consumer<Arc<Memory<u64>>>,
        taken: Vec<u64>,
        dropped: u64,
    }

    impl Kernel {
        fn deliver(&mut self, meta: Meta, frame: &[u8], options: u32) {
            self.fill.refresh();
            let Some(address) = self.fill.pop().or_else(|| self.taken.pop()) else {
                self.dropped += 1;
                return;
            };
            self.fill.release();
            self.umem.write(address + 256 - Meta::BYTES as u64, &meta.to_ne_bytes());
            self.umem.write(address + 256, frame);
            let len = u32::try_from(frame.len()).unwrap();
            assert!(self.rx.push(Desc(xdp_desc { addr: address + 256, len, options })));
            self.rx.publish();
        }
    }

    fn pair() -> (Kernel, Exchange<Descs, Arc<Memory<u64>>>) {
        let umem = Arc::new(Umem::new(CHUNKS, CHUNK).unwrap());
        let size = u32::try_from(CHUNKS).unwrap();
        let (rx_in, rx_out) = Memory::storages(size, u32::MAX - 3);
        let (fill_in, fill_out) = Memory::storages(size, u32::MAX - 7);
        let chunks = umem.chunks(0, CHUNKS).collect();
        let mut exchange = Exchange::new(Arc::clone(&umem), Descs(rx_out), fill_in, chunks);
        exchange.refill();
        let (rx, fill) = (Producer::new(rx_in), Consumer::new(fill_out));
        (Kernel { umem, rx, fill, taken: Vec::new(), dropped: 0 }, exchange)
    }

    fn meta(time_ns: u64) -> Meta {
        Meta { time_ns, flow: 7, verdict: 12, point: 0, ip: 14, v6: 0, transport: 34, transport_len: 180 }
    }

    /// Where every chunk is: nowhere twice, none missing.
    fn assert_all_there(kernel: &mut Kernel, exchange: &mut Exchange<Descs, Arc<Memory<u64>>>) {
        let mut found: Vec<u64> = exchange.spare.iter().map(Chunk::address).collect();
        found.extend(&kernel.taken);
        kernel.fill.refresh();
        while let Some(address) = kernel.fill.pop() {
            kernel.taken.push(address);
            found.push(address);
        }
        kernel.fill.release();
        exchange.refresh();
        let waiting = exchange.rx.waiting() as usize;
        assert_eq!(found.len() + waiting, CHUNKS);
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len(), "a chunk in two places");
    }

    #[test]
    fn ten_thousand_frames_and_every_chunk_is_somewhere_exactly_once() {
        let (mut kernel, mut exchange) = pair();
        let (mut sent, mut received) = (0_u64, Vec::new());
        for round in 0..2_000_u64 {
            for _ in 0..(round * 7) % 23 {
                kernel.deliver(meta(sent), &sent.to_ne_bytes(), 0);
                sent += 1;
            }
            exchange.refresh();
            for _ in 0..(round * 5) % 13 {
                exchange.take(|frame| {
                    assert_eq!(frame.frame, frame.meta.time_ns.to_ne_bytes());
                    received.push(frame.meta.time_ns);
                });
            }
            exchange.refill();
            assert_all_there(&mut kernel, &mut exchange);
        }
        while exchange.take(|frame| received.push(frame.meta.time_ns)) {}
        assert!(received.is_sorted());
        assert_eq!(sent, received.len() as u64 + kernel.dropped);
        assert!(received.len() > 5_000 && kernel.dropped > 0);
        assert_eq!(exchange.strays(), 0);
    }

    #[test]
    fn a_consumer_that_panics_leaves_the_chunk_behind() {
        let (mut kernel, mut exchange) = pair();
        kernel.deliver(meta(1), b"frame", 0);
        exchange.refresh();
        let died = catch_unwind(AssertUnwindSafe(|| exchange.take(|_| panic!("as a test may"))));
        assert!(died.is_err());
        exchange.refill();
        assert_all_there(&mut kernel, &mut exchange);
    }

    #[test]
    fn a_frame_in_pieces_is_put_together_and_long_ones_are_cut() {
        let (mut kernel, mut exchange) = pair();
        let piece = [7; 1_700];
        for index in 0..11 {
            kernel.deliver(meta(5), &piece, if index < 10 { libc::XDP_PKT_CONTD } else { 0 });
        }
        kernel.deliver(meta(6), b"next", 0);
        exchange.refresh();
        let mut seen = Vec::new();
        for taken in 0..11 {
            assert_eq!(exchange.next_time_ns(), Some(5), "descriptor {taken}");
            exchange.take(|frame| seen.push((frame.meta.time_ns, frame.frame.len(), frame.wire_len)));
        }
        assert_eq!(seen, [(5, MAX_PACKET, 11 * 1_700)]);
        exchange.take(|frame| assert_eq!((frame.frame, frame.wire_len), (&b"next"[..], 4)));
        exchange.refill();
        assert_all_there(&mut kernel, &mut exchange);
    }

    #[test]
    fn a_descriptor_that_points_nowhere_is_counted_and_not_believed() {
        let (mut kernel, mut exchange) = pair();
        let descs = [
            xdp_desc { addr: u64::MAX - 4_096, len: 10, options: 0 },
            // No room for metadata before it.
            xdp_desc { addr: 2_048 + 8, len: 10, options: 0 },
            xdp_desc { addr: 256, len: 4_096, options: 0 },
        ];
        for desc in descs {
            assert!(kernel.rx.push(Desc(desc)));
        }
        kernel.rx.publish();
        exchange.refresh();
        assert_eq!(exchange.next_time_ns(), Some(0));
        while exchange.take(|_| panic!("none of them is a frame")) {}
        assert_eq!(exchange.strays(), 3);
    }
}
