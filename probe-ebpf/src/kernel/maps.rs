//! Maps and constants: everything that the programs share with userspace by name.

use core::cell::UnsafeCell;

use aya_ebpf::Global;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray, RingBuf, XskMap};
use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::btf_map;
use probe_ebpf::announced::{Answer, BUCKETS, Ipv4, Ipv6, Words};
use probe_ebpf::config::{
    MAX_CPUS, MAX_ENDPOINTS, PORT_WORDS, Role, SOCKET_ENTRIES, port_place, socket_slot,
};
use probe_ebpf::record::{COUNTER_ENTRIES, Counters, MAX_PACKET, PacketHead, point};
use probe_ebpf::slots::{Positions, SLOT_BYTES, Slot};
use probe_ebpf::{Config, EndpointKey, Endpoints};

use super::frame::COPIED_HEAD;
use super::opaque::{forget, opaque_pointer};

/// The run's configuration, written by the loader before the verifier sees the program.
#[unsafe(no_mangle)]
static CONFIG: Global<Config> = Global::new(Config::DEFAULT);

/// Announced media endpoints, and learned carriers. Filled by userspace, only read here.
#[btf_map]
static ENDPOINTS: HashMap<EndpointKey, u32, MAX_ENDPOINTS> = HashMap::new();

/// Those of [`ENDPOINTS`] that are IPv4, and all others, to be found without a call. Filled by userspace, after the entry there.
#[btf_map]
static NEAR: Array<<Ipv4 as Words>::Bucket, BUCKETS> = Array::new();
#[btf_map]
static NEAR6: Array<<Ipv6 as Words>::Bucket, BUCKETS> = Array::new();

/// The [`Role`] of each port: does the configuration name it, does an entry of [`ENDPOINTS`] have it? Nearly every frame that is
/// not ours has two ports that are neither, and is told so here by two loads. A variable, and no map to be looked up in: its
/// address is in the program. Filled by userspace, after the entry and emptied after it, so that a bit missing for a moment
/// costs what a late announcement does.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.ports")]
static PORTS: Written<[u64; PORT_WORDS]> = Written(UnsafeCell::new([0; PORT_WORDS]));

/// What became of every frame, by tap; each CPU has its own, so a plain addition is exact.
#[btf_map]
static COUNTERS: PerCpuArray<Counters, COUNTER_ENTRIES> = PerCpuArray::new();

/// The rings of slots of all CPUs, one after the other, and how far each is. Userspace sets the number of entries of
/// both, and maps them. Plain arrays: the verifier puts their look-ups in line.
#[btf_map]
pub(super) static SLOTS: Array<Slot, { 4_096 / SLOT_BYTES as usize }, BPF_F_MMAPABLE> = Array::new();
#[btf_map]
pub(super) static POSITIONS: Array<Positions, MAX_CPUS, BPF_F_MMAPABLE> = Array::new();

/// Slots of each CPU, a power of two. Written by the loader before the verifier sees the program.
#[unsafe(no_mangle)]
pub(super) static SLOTS_PER_CPU: Global<u32> = Global::new(4_096 / SLOT_BYTES);

/// Of include/uapi/linux/bpf.h.
const BPF_F_MMAPABLE: usize = 1 << 10;

/// One BPF ring per CPU for whole packets, made by userspace: two CPUs never wait for each other's
/// reservation. The size here is only the template's.
#[btf_map]
static RINGS: ArrayOfMaps<Ring, MAX_CPUS> = ArrayOfMaps::new();

/// Media sessions of buckets below this are left out. Written by userspace, a few times in a bad hour; read for every RTP
/// frame, so it is one word, and a variable as [`PORTS`] is.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.shed")]
static SHED: Written<u32> = Written(UnsafeCell::new(0));

/// A variable that userspace writes while the programs run: the only entry of a map that is named as its section.
#[repr(transparent)]
struct Written<T>(UnsafeCell<T>);

// SAFETY: the programs only read it, word by word and volatile.
unsafe impl<T> Sync for Written<T> {}

/// Where a whole frame is put together before it goes into the ring.
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// Where the head of a frame in pieces is put together.
#[btf_map]
static HEAD: PerCpuArray<[u8; COPIED_HEAD], 1> = PerCpuArray::new();

/// Mirror mode: the socket of each queue, by [`socket_slot`]. Filled by userspace.
#[btf_map]
pub(super) static SOCKETS: XskMap<SOCKET_ENTRIES> = XskMap::new();

/// A CPU's BPF ring.
pub(crate) type Ring = RingBuf<PacketHead, 4096>;

/// A packet record before it is output. 16,408 bytes; a value of a per-CPU array may have 32 KiB.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) head: PacketHead,
    pub(crate) bytes: [u8; MAX_PACKET],
}

/// The configuration, in place. A copy of it would go to the stack and hide its values from the verifier,
/// which otherwise removes the branches that they rule out.
#[inline(always)]
pub(crate) fn config() -> &'static Config {
    // The compiler must not fold the default into the code, so it must not see where the pointer is from.
    let config = opaque_pointer((&raw const CONFIG).cast::<Config>());
    // SAFETY: a Global is its value and nothing else, and the map behind it is frozen before the load.
    unsafe { &*config }
}

/// A key in the alignment of a double word.
#[repr(align(8))]
struct Aligned(EndpointKey);

/// The endpoint map as the classifier asks for it.
pub(crate) struct Announced;

impl Endpoints for Announced {
    #[inline(always)]
    fn is_announced(&self, key: &EndpointKey) -> bool {
        // The compiler writes two words at once, which on the stack have to be where a double word may be.
        let Aligned(key) = &Aligned(*key);
        // SAFETY: only the presence of the value is looked at, so an element recycled meanwhile does no harm.
        unsafe { ENDPOINTS.get(key) }.is_some()
    }

    #[inline(always)]
    fn is_carrier(&self, key: &EndpointKey) -> bool {
        self.is_announced(&key.of_carrier())
    }

    #[inline(always)]
    fn role(&self, protocol: u8, port: u16) -> Role {
        let (word, shift) = port_place(protocol, port);
        let word = word as usize & (PORT_WORDS - 1);
        // SAFETY: below PORT_WORDS by the mask. Userspace may be writing it: any of the two values will do.
        let word = unsafe { PORTS.0.get().cast::<u64>().add(word).read_volatile() };
        Role::of_bits(word >> shift)
    }
}

/// The same for the usual frame, which looks in [`NEAR`] and [`NEAR6`] first. Only there, for what follows a look-up is walked
/// by the verifier for each of its answers.
pub(crate) struct AnnouncedNear;

impl Endpoints for AnnouncedNear {
    #[inline(always)]
    fn is_announced(&self, key: &EndpointKey) -> bool {
        let answer = match (Ipv4::of(key), Ipv6::of(key)) {
            (Some(words), _) => near(&NEAR, words),
            (None, Some(words)) => near(&NEAR6, words),
            (None, None) => Answer::Ask,
        };
        match answer {
            Answer::Yes => true,
            Answer::No => false,
            Answer::Ask => Announced.is_announced(key),
        }
    }

    #[inline(always)]
    fn role(&self, protocol: u8, port: u16) -> Role {
        Announced.role(protocol, port)
    }
}

/// What the bucket of an endpoint says of it.
#[inline(always)]
fn near<W: Words<Bucket = [u64; N]>, const N: usize>(buckets: &Array<[u64; N], BUCKETS>, words: W) -> Answer {
    let Some(bucket) = buckets.get_ptr(words.bucket()) else { return Answer::Ask };
    // SAFETY: a map value. Userspace may be writing it: any of the two values of a word will do.
    words.ask(core::array::from_fn(|at| unsafe { bucket.cast::<u64>().add(at).read_volatile() }))
}

/// Which tap a frame came through.
#[derive(Clone, Copy)]
pub(crate) struct Tap {
    /// Index in [`Config::ifindex`], or [`point::UNKNOWN`] if the interface is not there.
    interface: u8,
    /// Leaving the host?
    egress: bool,
}

impl Tap {
    /// Finds the tap of an interface. The list ends at its first zero.
    #[inline(always)]
    pub(crate) fn find(ifindex: u32, egress: bool, any: u64) -> Self {
        let mut found = point::UNKNOWN;
        let mut index = 0;
        for &configured in &config().ifindex {
            if configured == 0 {
                break;
            }
            if configured == ifindex {
                found = index;
                break;
            }
            index += 1;
        }
        // All that follows is the same for every interface.
        let interface = forget(u64::from(found), any) as u8 & (point::INTERFACE | point::UNKNOWN);
        Self { interface, egress }
    }

    /// Is it none of the configured ones?
    #[inline(always)]
    pub(crate) fn is_unknown(self) -> bool {
        self.interface & point::UNKNOWN != 0
    }

    /// The [`point`] byte of this tap's records, without the bits about tags.
    #[inline(always)]
    pub(crate) fn point(self) -> u8 {
        self.interface | if self.egress { point::EGRESS } else { 0 }
    }

    /// Where [`SOCKETS`] has the socket for frames of this tap that come by `queue`.
    #[inline(always)]
    pub(crate) fn socket(self, queue: u32) -> Option<u32> {
        socket_slot(self.interface, queue)
    }

    /// This CPU's counters of this tap.
    #[inline(always)]
    pub(crate) fn counters(self) -> Option<*mut Counters> {
        let entry = u32::from(self.interface) * 2 + u32::from(self.egress);
        COUNTERS.get_ptr_mut(entry.min(COUNTER_ENTRIES as u32 - 1))
    }
}

/// The first bucket of media sessions that is taken; zero takes all.
#[inline(always)]
pub(crate) fn first_taken() -> u32 {
    // SAFETY: one word, of which any value will do.
    unsafe { SHED.0.get().read_volatile() }
}

/// This CPU's ring, if it has one.
#[inline(always)]
pub(crate) fn ring() -> Option<&'static Ring> {
    // SAFETY: the helper has no precondition.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    RINGS.get(cpu)
}

/// This CPU's memory for a whole frame. Programs run with bottom halves off, so nobody else uses it.
#[inline(always)]
pub(crate) fn scratch() -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(0)
}

/// This CPU's memory for a frame's head.
#[inline(always)]
pub(crate) fn head() -> Option<*mut [u8; COPIED_HEAD]> {
    HEAD.get_ptr_mut(0)
}
