//! tshark as a process: the rows of `rtp,streams`, the sum of `sip,stat`, and who announced which stream.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

use super::figures::{Figure, Key, endpoint};
use super::sharkd::Sharkd;
use crate::captures::Scratch;

/// Tells the configuration folders of one process apart.
static FOUND: AtomicU32 = AtomicU32::new(0);

/// Fields of one frame, in this order.
const FIELDS: [&str; 13] = [
    "frame.number",
    "frame.protocols",
    "ip.src",
    "ipv6.src",
    "udp.srcport",
    "ip.dst",
    "ipv6.dst",
    "udp.dstport",
    "rtp.ssrc",
    "rtp.setup-method",
    "rtp.setup-frame",
    "t38.setup-method",
    "t38.setup-frame",
];

/// A captured session of a remote capture counts as copies in voxprobe, and not in the raw ledger. tshark leaves it closed
/// unless it sees the session open: then it counts what is inside, and where a segment holds several frames, wrongly.
const PREFERENCES: &[u8] = b"rpcap.decode_content: FALSE\n";

/// An installed tshark, with a configuration folder of its own: the user's preferences change what it prints.
#[derive(Debug)]
pub struct Tshark {
    version: String,
    config: Scratch,
    sharkd: Option<PathBuf>,
}

/// SIP as `sip,stat` counts it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SipStat {
    /// All messages.
    pub messages: u64,
    /// By method, or by status code.
    pub kinds: BTreeMap<String, u64>,
}

impl SipStat {
    /// What `tshark -q -z sip,stat` printed; `None` if this is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut stat = Self::default();
        let mut is_there = false;
        for line in text.lines() {
            if let Some(count) = line.strip_prefix("Number of SIP messages:") {
                stat.messages = count.trim().parse().ok()?;
                is_there = true;
            } else if let Some((kind, count)) =
                line.strip_suffix("Packets").and_then(|row| row.rsplit_once(':'))
            {
                // `SIP 200 OK`, or `INVITE`.
                let mut words = kind.split_whitespace();
                let first = words.next()?;
                let kind = if first == "SIP" { words.next()? } else { first };
                *stat.kinds.entry(kind.to_owned()).or_default() += count.trim().parse::<u64>().ok()?;
            }
        }
        is_there.then_some(stat)
    }
}

/// What tshark and sharkd say of one file.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Rows: figure and printed text.
    pub(super) rows: BTreeMap<Key, Vec<(Figure, String)>>,
    /// Why voxprobe cannot know of a stream: by key.
    pub(super) other_signalling: BTreeMap<Key, String>,
    /// Flows of which tshark reads some as something else, because other signalling, or the port, said so.
    pub(super) other_dissector: BTreeMap<(String, String), String>,
    /// Messages of `sip,stat`.
    pub(super) sip_messages: Option<u64>,
}

impl Tshark {
    /// The one on PATH, and sharkd beside it, which knows more and may be missing.
    pub fn find() -> Result<Self> {
        let output = Command::new("tshark")
            .arg("--version")
            .output()
            .context("tshark is not installed: `cargo xtask setup --with-peers`")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text
            .lines()
            .next()
            .and_then(|line| line.split_whitespace().find(|word| word.contains('.')))
            .unwrap_or("of an unknown version")
            .to_owned();
        let config = Scratch::new(&format!("tshark-{}", FOUND.fetch_add(1, Ordering::Relaxed)))?;
        config.file("heuristic_protos", b"rtp_udp,1\n")?;
        config.file("preferences", PREFERENCES)?;
        std::fs::create_dir(config.path().join("none")).context("cannot make a folder for tshark")?;
        config.file("none/preferences", PREFERENCES)?;
        let sharkd = Command::new("sharkd").arg("--version").output().is_ok().then(|| "sharkd".into());
        Ok(Self { version, config, sharkd })
    }

    /// Is it of the version whose figures the raw ledger equals?
    pub fn is_the_reference(&self) -> bool {
        self.version.starts_with("4.0.")
    }

    /// In a line.
    pub fn describe(&self) -> String {
        let sharkd = match &self.sharkd {
            Some(_) => "with sharkd: skew, sequence errors and expected packets are compared, too",
            None => "without sharkd (package wireshark-common): skew and sequence errors are not compared",
        };
        let doubt =
            if self.is_the_reference() { "" } else { "; the raw ledger follows 4.0, others count otherwise" };
        format!("{}, {sharkd}{doubt}", self.version)
    }

    /// The statistics of SIP in a file.
    pub fn sip_stat(&self, file: &Path) -> Result<SipStat> {
        let mut command = Command::new("tshark");
        command.env("WIRESHARK_CONFIG_DIR", self.config.path().join("none"));
        // Off by default: tshark would lose what it has to put in order.
        command.args(["-o", "tcp.reassemble_out_of_order:TRUE"]);
        command.args(["-n", "-q", "-z", "sip,stat", "-r"]).arg(file);
        let output = command.output().context("cannot start tshark")?;
        let text = String::from_utf8_lossy(&output.stdout);
        SipStat::parse(&text).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Reads a file. The inner error is tshark's refusal of it.
    pub(super) fn read(&self, file: &Path, heuristic: bool) -> Result<Result<Reading, String>> {
        let mut command = Command::new("tshark");
        command.env("WIRESHARK_CONFIG_DIR", self.config.path().join("none"));
        command.args(["-n", "-z", "rtp,streams", "-z", "sip,stat"]);
        command.args(["-Y", if heuristic { "udp" } else { "rtp or sdp or t38" }]);
        // Of several addresses, in tunnels, the innermost.
        command.args(["-T", "fields", "-E", "occurrence=l"]);
        command.args(FIELDS.iter().flat_map(|field| ["-e", field]));
        if heuristic {
            command.args(["--enable-heuristic", "rtp_udp"]);
        }
        let output = command.arg("-r").arg(file).output().context("cannot start tshark")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut reading = Reading::default();
        let mut setup = Setup::default();
        for line in text.lines() {
            if line.contains('\t') {
                setup.add(line);
            } else if let Some(count) = line.strip_prefix("Number of SIP messages:") {
                reading.sip_messages = count.trim().parse().ok();
            } else if let Some((key, row)) = row(line) {
                reading.rows.insert(key, row);
            }
        }
        if reading.sip_messages.is_none() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Ok(Err(said.lines().last().unwrap_or("no output").to_owned()));
        }
        setup.explain(&mut reading);
        if let Some(sharkd) = &self.sharkd
            && !reading.rows.is_empty()
        {
            let config = self.config.path();
            let config = if heuristic { config.to_owned() } else { config.join("none") };
            Sharkd { program: sharkd, config: &config }.add_to(&mut reading, file)?;
        }
        Ok(Ok(reading))
    }
}

/// A row, read from the end, as payload names have blanks in them.
fn row(line: &str) -> Option<(Key, Vec<(Figure, String)>)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let (marked, words) = match words.split_last()? {
        (&"X", rest) => (true, rest),
        _ => (false, &words[..]),
    };
    let &[start, end, src, src_port, dst, dst_port, ssrc, ref rest @ ..] = words else { return None };
    let ssrc = u32::from_str_radix(ssrc.strip_prefix("0x")?, 16).ok()?;
    let (_, columns) = rest.split_last_chunk::<9>()?;
    let mut figures = vec![(Figure::Start, start.to_owned()), (Figure::End, end.to_owned())];
    let printed = columns.iter().map(|word| word.trim_matches(['(', ')', '%']).to_owned());
    figures.extend(Figure::COLUMNS.into_iter().zip(printed));
    figures.push((Figure::Problem, marked.to_string()));
    Some(((endpoint(src, src_port), endpoint(dst, dst_port), ssrc), figures))
}

/// Which frames set up which streams.
#[derive(Default)]
struct Setup {
    /// Frames with SDP, and the protocol that carried it.
    carriers: BTreeMap<String, String>,
    streams: BTreeMap<Key, BTreeSet<(String, String)>>,
    others: BTreeMap<(String, String), BTreeSet<(String, String)>>,
    /// What has a dissector of its own by its port, where the heuristic is asked.
    by_port: BTreeMap<(String, String), String>,
}

impl Setup {
    fn add(&mut self, line: &str) {
        let columns: Vec<_> = line.split('\t').collect();
        let &[
            number,
            protocols,
            src4,
            src6,
            src_port,
            dst4,
            dst6,
            dst_port,
            ssrc,
            method,
            frame,
            t38,
            t38_frame,
        ] = columns.as_slice()
        else {
            return;
        };
        let names: Vec<_> = protocols.split(':').collect();
        if let Some(at) = names.iter().position(|name| *name == "sdp") {
            let carrier = at.checked_sub(1).and_then(|at| names.get(at)).unwrap_or(&"sdp");
            self.carriers.insert(number.to_owned(), (*carrier).to_owned());
        }
        let is_v6 = names.iter().rev().find(|name| **name == "ip" || **name == "ipv6") == Some(&"ipv6");
        let (src, dst) = if is_v6 { (src6, dst6) } else { (src4, dst4) };
        let flow = (endpoint(src, src_port), endpoint(dst, dst_port));
        if let Some(ssrc) = ssrc.strip_prefix("0x").and_then(|ssrc| u32::from_str_radix(ssrc, 16).ok()) {
            let key = (flow.0.clone(), flow.1.clone(), ssrc);
            self.streams.entry(key).or_default().insert((method.to_owned(), frame.to_owned()));
        }
        let above_udp = names.iter().rposition(|name| *name == "udp").and_then(|at| names.get(at + 1));
        if let Some(name) = above_udp.filter(|name| !["rtp", "rtcp", "sip", "data"].contains(name)) {
            self.by_port.insert(flow.clone(), (*name).to_owned());
        }
        if !t38.is_empty() {
            self.others.entry(flow).or_default().insert((t38.to_owned(), t38_frame.to_owned()));
        }
    }

    /// Who announced it, if not a SIP message that is read, and not Wireshark's heuristic.
    fn foreign(&self, (method, frame): &(String, String)) -> Option<String> {
        match (method.as_str(), self.carriers.get(frame).map(String::as_str)) {
            ("" | "HEUR RTP", _) | (_, Some("sip")) => None,
            ("SDP", Some(carrier)) => Some(format!("announced by {}, frame {frame}", carrier.to_uppercase())),
            (method, _) => Some(format!("announced by {method}, frame {frame}")),
        }
    }

    fn explain(&self, reading: &mut Reading) {
        for (key, setups) in &self.streams {
            if let Some(reason) = setups.iter().find_map(|setup| self.foreign(setup)) {
                reading.other_signalling.insert(key.clone(), reason);
            }
        }
        for (flow, name) in &self.by_port {
            reading
                .other_dissector
                .insert(flow.clone(), format!("tshark reads some of it as {name}, of its own accord"));
        }
        for (flow, setups) in &self.others {
            if let Some(reason) = setups.iter().find_map(|setup| self.foreign(setup)) {
                reading
                    .other_dissector
                    .insert(flow.clone(), format!("tshark reads some of it as T.38, {reason}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_with_blanks_in_its_payload_names_is_read_whole() {
        let line = "     3.847241      4.167215  192.168.195.50 17718  192.168.195.58 32144 0x7C1071E2     DVI4 8k, \
                    RTPType-96    33   -16 (-94.1%)           0.004           9.999          20.055           0.004           \
                    0.011           0.020 X";
        let (key, figures) = row(line).expect("it is a row");
        assert_eq!(key, ("192.168.195.50:17718".into(), "192.168.195.58:32144".into(), 0x7c10_71e2));
        let texts: Vec<_> = figures.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "3.847241", "4.167215", "33", "-16", "-94.1", "0.004", "9.999", "20.055", "0.004", "0.011",
                "0.020", "true"
            ]
        );
        assert!(row("========================= RTP Streams ========================").is_none());
    }
}
