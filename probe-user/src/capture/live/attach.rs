//! Putting the programs on the interfaces, one rung after the other.
//!
//! Native XDP first; generic where the driver refuses and the user left the choice to us. Links only, no netlink:
//! a link is gone with its descriptor, an attachment by netlink would survive us.

use std::io;

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{self, ProgramError, SchedClassifier, TcAttachType, Xdp};
use probe_ebpf::config::MAX_INTERFACES;
use rustix::io::Errno;

use super::interfaces::interfaces;
use super::load::{EGRESS, program, refused};
use super::{LiveError, LiveOptions, Rung, XdpMode, chain, diagnose};

/// An interface that is to be watched.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) mtu: u32,
}

/// Finds the interfaces, all of them before anything is loaded.
pub(crate) fn taps(names: &[String]) -> Result<Vec<Tap>, LiveError> {
    let existing = interfaces().map_err(LiveError::Interfaces)?;
    if names.is_empty() {
        let first = existing.iter().find(|interface| interface.name != "lo").or(existing.first());
        let example = first.map_or_else(|| "eth0".to_owned(), |interface| interface.name.clone());
        return Err(LiveError::NoInterface { example });
    }
    if names.len() > MAX_INTERFACES {
        return Err(LiveError::TooManyInterfaces { given: names.len(), most: MAX_INTERFACES });
    }
    let mut taps: Vec<Tap> = Vec::new();
    for name in names {
        if taps.iter().any(|tap| tap.name == *name) {
            return Err(LiveError::InterfaceTwice { name: name.clone() });
        }
        let Some(found) = existing.iter().find(|interface| interface.name == *name) else {
            let existing: Vec<_> = existing.into_iter().map(|interface| interface.name).collect();
            return Err(LiveError::NoSuchInterface { name: name.clone(), existing: existing.join(", ") });
        };
        taps.push(Tap { name: name.clone(), index: found.index, mtu: found.mtu });
    }
    Ok(taps)
}

/// Attaches to every tap. If one fails, those before it are detached by the drop of their links.
pub(crate) fn attach(
    ebpf: &mut Ebpf,
    options: &LiveOptions,
    taps: &[Tap],
    ladder: &mut Vec<Rung>,
) -> Result<Vec<FdLink>, LiveError> {
    let mut links = Vec::new();
    for tap in taps {
        let xdp: &mut Xdp = program(ebpf, options.mode.ingress())?;
        links.push(attach_xdp(xdp, tap, options.xdp, ladder)?);
        if options.egress {
            let classifier: &mut SchedClassifier = program(ebpf, EGRESS)?;
            links.push(attach_egress(classifier, tap, ladder)?);
        }
    }
    Ok(links)
}

fn attach_xdp(xdp: &mut Xdp, tap: &Tap, mode: XdpMode, ladder: &mut Vec<Rung>) -> Result<FdLink, LiveError> {
    let (first, second) = match mode {
        XdpMode::Auto => (programs::XdpMode::Driver, Some(programs::XdpMode::Skb)),
        XdpMode::Native => (programs::XdpMode::Driver, None),
        XdpMode::Generic => (programs::XdpMode::Skb, None),
    };
    let error = match link_xdp(xdp, tap, first, ladder) {
        Ok(link) => return Ok(link),
        Err(error) => error,
    };
    // A taken interface or a missing right would only fail again.
    let hopeless = is(&error, Errno::BUSY) || is(&error, Errno::EXIST) || is(&error, Errno::PERM);
    let error = match second {
        Some(second) if !hopeless => match link_xdp(xdp, tap, second, ladder) {
            Ok(link) => return Ok(link),
            Err(error) => error,
        },
        _ => error,
    };
    if is(&error, Errno::BUSY) || is(&error, Errno::EXIST) {
        return Err(LiveError::Busy { interface: tap.name.clone(), holder: diagnose::holder(tap.index) });
    }
    Err(refused(&format!("cannot attach XDP to {}", tap.name), error.into()))
}

fn link_xdp(
    xdp: &mut Xdp,
    tap: &Tap,
    mode: programs::XdpMode,
    ladder: &mut Vec<Rung>,
) -> Result<FdLink, ProgramError> {
    let name = if mode == programs::XdpMode::Skb { "generic" } else { "native" };
    let link = xdp.attach_to_if_index(tap.index, mode).and_then(|id| {
        // Not a descriptor if the library fell back to netlink: then dropping it detaches.
        FdLink::try_from(xdp.take_link(id)?).map_err(|error| ProgramError::IOError(io::Error::other(error)))
    });
    ladder.push(rung(format!("{}: {name} XDP", tap.name), &link));
    link
}

/// As the first program of the chain: it never decides, and a later one that does must not hide frames from it.
fn attach_egress(
    classifier: &mut SchedClassifier,
    tap: &Tap,
    ladder: &mut Vec<Rung>,
) -> Result<FdLink, LiveError> {
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link = classifier.attach_with_options(&tap.name, TcAttachType::Egress, order).and_then(|id| {
        FdLink::try_from(classifier.take_link(id)?)
            .map_err(|error| ProgramError::IOError(io::Error::other(error)))
    });
    ladder.push(rung(format!("{}: tcx egress", tap.name), &link));
    link.map_err(|error| refused(&format!("cannot attach tcx egress to {}", tap.name), error.into()))
}

fn rung(what: String, link: &Result<FdLink, ProgramError>) -> Rung {
    match link {
        Ok(_) => Rung { what, outcome: "attached".into(), ok: true },
        Err(error) => Rung { what, outcome: chain(error), ok: false },
    }
}

/// Is `errno` at the bottom of this error?
fn is(error: &ProgramError, errno: Errno) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if code == Some(errno.raw_os_error()) {
            return true;
        }
        cause = error.source();
    }
    false
}
