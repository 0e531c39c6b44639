//! From the embedded object to loaded programs, maps and rings.

use std::io;
use std::os::fd::AsFd as _;

use aya::maps::{ArrayOfMaps, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::util::online_cpus;
use aya::{Ebpf, EbpfError, EbpfLoader};
use probe_ebpf::config::{Config, MAX_CPUS, MAX_INTERFACES};
use probe_ebpf::slots::SLOT_BYTES;

use super::attach::Tap;
use super::near::Near;
use super::ring::Ring;
use super::slots::{Mapped, MappedPositions, Slots};
use super::{
    CounterWords, KernelEndpoints, KernelLog, KernelShed, LiveError, LiveOptions, Mode, RingReader, Rung,
    chain, diagnose,
};

/// Name of the program for frames that arrive.
const INGRESS: &str = "voxprobe_xdp";
/// Name of the program for frames of a mirror port.
const MIRROR: &str = "voxprobe_mirror";
/// Name of the program for frames that leave.
pub(crate) const EGRESS: &str = "voxprobe_egress";

/// BPF_MAP_TYPE_RINGBUF of linux/bpf.h.
const MAP_TYPE_RINGBUF: u32 = 27;

/// The object, if the build had one. See build.rs.
#[cfg(voxprobe_bpf_object)]
static OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(env!("VOXPROBE_BPF_OBJECT")));
#[cfg(not(voxprobe_bpf_object))]
static OBJECT: Option<&[u8]> = None;

impl Mode {
    /// The program that sees what arrives.
    pub(crate) fn ingress(self) -> &'static str {
        match self {
            Self::Tap => INGRESS,
            Self::Mirror(_) => MIRROR,
        }
    }
}

/// What loading yields.
pub(crate) struct Loaded {
    pub(crate) ebpf: Ebpf,
    /// Of a tap.
    pub(crate) rings: Option<RingReader>,
    /// Where the program of a mirror port looks for sockets.
    pub(crate) sockets: XskMap<MapData>,
    pub(crate) endpoints: KernelEndpoints,
    pub(crate) shed: KernelShed,
    pub(crate) counters: PerCpuArray<MapData, CounterWords>,
    pub(crate) log: Option<KernelLog>,
}

/// Loads everything, attaches nothing.
pub(crate) fn load(options: &LiveOptions, taps: &[Tap], ladder: &mut Vec<Rung>) -> Result<Loaded, LiveError> {
    let object = OBJECT.ok_or(LiveError::NotBuilt)?;
    check_kernel(options.egress)?;
    let page = rustix::param::page_size();
    if !options.ring_bytes.is_power_of_two() || (options.ring_bytes as usize) < page {
        return Err(LiveError::RingSize { bytes: options.ring_bytes, page });
    }
    // A ring for each CPU up to the highest that is online, as their slots are one array.
    let cpus = cpus()?;
    let slots_per_cpu = options.ring_bytes / SLOT_BYTES;
    let too_large = LiveError::RingsTooLarge { bytes: options.ring_bytes, cpus };
    let entries = slots_per_cpu.checked_mul(cpus).ok_or(too_large)?;
    let mut ifindex = [0; MAX_INTERFACES];
    for (slot, tap) in ifindex.iter_mut().zip(taps) {
        *slot = tap.index;
    }
    let config = Config { ifindex, ..options.config }.looking_inside().to_ne_bytes();
    let level = options.log_level as u8;
    let mut loader = EbpfLoader::new();
    match options.mode {
        // What the other mode has is not used.
        Mode::Tap => {
            loader.map_max_entries("SOCKETS", 1);
            loader.map_max_entries("SLOTS", entries);
            loader.map_max_entries("POSITIONS", cpus);
        }
        Mode::Mirror(_) => {
            loader.map_max_entries("POSITIONS", 1);
        }
    }
    let mut ebpf = loader
        // The programs have no CO-RE relocation; reading the kernel's types would take 50 ms for nothing.
        .btf(None)
        .override_global("CONFIG", &config[..], true)
        .override_global("SLOTS_PER_CPU", &slots_per_cpu, true)
        .override_global(aya_log::LEVEL, &level, false)
        .load(object)
        .map_err(|error| refused("cannot create the BPF maps", error))?;

    let ingress = options.mode.ingress();
    let xdp: &mut Xdp = program(&mut ebpf, ingress)?;
    verify(ingress, xdp.load(), || xdp.info(), ladder)?;
    if options.egress {
        let classifier: &mut SchedClassifier = program(&mut ebpf, EGRESS)?;
        verify(EGRESS, classifier.load(), || classifier.info(), ladder)?;
    }
    let rings = match options.mode {
        Mode::Tap => Some(rings(&mut ebpf, cpus, options.ring_bytes, ladder)?),
        Mode::Mirror(_) => None,
    };
    let sockets = take(&mut ebpf, "SOCKETS")?;
    let endpoints = take(&mut ebpf, "ENDPOINTS")?;
    let near = (Near::new(take(&mut ebpf, "NEAR")?), Near::new(take(&mut ebpf, "NEAR6")?));
    let ports = take(&mut ebpf, ".data.ports")?;
    let shed = KernelShed::new(take(&mut ebpf, ".data.shed")?, options.config.sampled_below);
    let counters = take(&mut ebpf, "COUNTERS")?;
    let log = KernelLog::take_from(&mut ebpf);
    let endpoints = KernelEndpoints::new(endpoints, near, ports, &options.config)
        .map_err(|error| refused("cannot fill the table of ports", error.into()))?;
    Ok(Loaded { ebpf, rings, sockets, endpoints, shed, counters, log })
}

/// Refuses what would fail later with EINVAL and no word why.
fn check_kernel(egress: bool) -> Result<(), LiveError> {
    let Some(version) = diagnose::kernel_version() else { return Ok(()) };
    let running = format!("{}.{}", version.0, version.1);
    if version < (5, 18) {
        return Err(LiveError::KernelTooOld {
            feature: "multi-buffer XDP",
            needed: "5.18",
            running,
            remedy: "analyse a capture file instead (`voxprobe analyze`)",
        });
    }
    if egress && version < (6, 6) {
        return Err(LiveError::KernelTooOld {
            feature: "capture of what leaves the host (tcx)",
            needed: "6.6",
            running,
            remedy: "leave --egress out, and watch the other interface of the gateway instead",
        });
    }
    Ok(())
}

/// CPUs that have rings: up to the highest that is online. One that comes later and is higher has none; its frames are
/// counted as lost under that name.
fn cpus() -> Result<u32, LiveError> {
    let online = online_cpus().map_err(|(file, error)| LiveError::Refused {
        act: format!("cannot read {file}"),
        error,
        diagnosis: "it tells which CPUs need a ring: /sys must be mounted".into(),
    })?;
    let highest = online.into_iter().filter(|&cpu| (cpu as usize) < MAX_CPUS).max().unwrap_or(0);
    Ok(highest + 1)
}

/// Makes and maps the rings of each CPU: of slots, and the BPF ring.
fn rings(ebpf: &mut Ebpf, cpus: u32, bytes: u32, ladder: &mut Vec<Rung>) -> Result<RingReader, LiveError> {
    let mut outer: ArrayOfMaps<MapData, MapData> = take(ebpf, "RINGS")?;
    let (slots, positions) = (array(ebpf, "SLOTS")?, array(ebpf, "POSITIONS")?);
    let act = || format!("cannot map {bytes} bytes of slots for each of {cpus} CPUs");
    let positions =
        MappedPositions::map(positions.fd().as_fd(), cpus).map_err(|error| unmapped(act(), error))?;
    let (mut heads, mut packets) = (Vec::new(), Vec::new());
    for cpu in 0..cpus {
        let mapped = Mapped::map(&positions, slots.fd().as_fd(), cpu, bytes);
        heads.push(Slots::new(mapped.map_err(|error| unmapped(act(), error))?));
        let act = || format!("cannot make a ring of {bytes} bytes for CPU {cpu}");
        let template = aya_obj::Map::new_from_params(MAP_TYPE_RINGBUF, 0, 0, bytes, 0);
        let map = MapData::create(template, "VOXPROBE_RING", None)
            .map_err(|error| refused(&act(), error.into()))?;
        outer.set(cpu, &map, 0).map_err(|error| refused(&act(), error.into()))?;
        packets.push(Ring::map(map.fd().as_fd(), bytes).map_err(|error| unmapped(act(), error))?);
    }
    ladder.push(Rung {
        what: "rings".into(),
        outcome: format!(
            "{cpus} CPUs x 2 of {bytes} bytes, {} RTP heads each, {} KiB in all",
            bytes / SLOT_BYTES,
            2 * u64::from(cpus) * u64::from(bytes) / 1024
        ),
        ok: true,
    });
    Ok(RingReader::new(heads, packets))
}

fn unmapped(act: String, error: io::Error) -> LiveError {
    let diagnosis = diagnose::refusal(&error);
    LiveError::Refused { act, error, diagnosis }
}

/// Reports what the verifier said of a program.
fn verify(
    name: &str,
    loaded: Result<(), ProgramError>,
    info: impl FnOnce() -> Result<aya::programs::ProgramInfo, ProgramError>,
    ladder: &mut Vec<Rung>,
) -> Result<(), LiveError> {
    loaded.map_err(|error| refused(&format!("cannot load the program {name}"), error.into()))?;
    let outcome = info().map_or_else(
        |error| format!("loaded; no details: {}", chain(&error)),
        |info| {
            format!(
                "program {}, {} instructions verified, {} bytes of machine code",
                info.id(),
                info.verified_instruction_count().unwrap_or(0),
                info.size_jitted()
            )
        },
    );
    ladder.push(Rung { what: name.into(), outcome, ok: true });
    Ok(())
}

/// A program of the object by its name.
pub(crate) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, LiveError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name).ok_or_else(|| missing("program", name))?.try_into().map_err(
        |error: ProgramError| LiveError::Object {
            act: format!("the BPF object's program {name}"),
            reason: chain(&error),
        },
    )
}

/// A map of the object by its name.
fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<M, LiveError> {
    let map = ebpf.take_map(name).ok_or_else(|| missing("map", name))?;
    M::try_from(map).map_err(|error| LiveError::Object {
        act: format!("the BPF object's map {name}"),
        reason: chain(&error),
    })
}

/// An array of the object by its name, to be mapped.
fn array(ebpf: &mut Ebpf, name: &str) -> Result<MapData, LiveError> {
    match ebpf.take_map(name) {
        Some(Map::Array(array)) => Ok(array),
        _ => Err(missing("array", name)),
    }
}

fn missing(kind: &str, name: &str) -> LiveError {
    LiveError::Object {
        act: format!("the BPF object has no {kind} {name}"),
        reason: "it was built from other sources: run `cargo xtask build`".into(),
    }
}

/// Turns the library's error into the act, the errno and a diagnosis.
#[expect(clippy::needless_pass_by_value, reason = "what map_err hands over, usually converted on the way")]
pub(crate) fn refused(act: &str, error: EbpfError) -> LiveError {
    match errno(&error) {
        Some(io_error) => {
            // Without CAP_PERFMON the verifier refuses what it otherwise admits; its words would mislead.
            let diagnosis = diagnose::missing_capability(&io_error)
                .or_else(|| verdict_of_verifier(&error))
                .unwrap_or_else(|| diagnose::refusal(&io_error));
            LiveError::Refused { act: act.to_owned(), error: io_error, diagnosis }
        }
        None => LiveError::Object { act: act.to_owned(), reason: chain(&error) },
    }
}

/// If the verifier refused a program, which it also does with EACCES: the end of what it said.
fn verdict_of_verifier(error: &EbpfError) -> Option<String> {
    let EbpfError::ProgramError(ProgramError::LoadError { verifier_log, .. }) = error else { return None };
    let log = verifier_log.to_string();
    let mut lines = log.lines().rev().filter(|line| !line.is_empty() && !line.starts_with("processed "));
    let verdict = lines.next()?;
    Some(format!("The kernel's verifier: {verdict}. Please report this with `uname -r`"))
}

/// The errno at the bottom of an error, if there is one.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(io::Error::from_raw_os_error(code));
        }
        cause = error.source();
    }
    None
}
