//! Many calls by sipp, caller and called: a load whose outcome is known, from a SIP stack that is not ours.
//!
//! ```text
//!   sipp (calls)  10.60.1.11…15:5060 ── gateway ── 10.60.2.10:5060…5064  sipp (is called)     one pair for each outcome
//! ```
//!
//! Each pair plays one [`Outcome`] at a rate of its own. The audio of the answered ones comes from [`super::talkers`].

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::captures::Scratch;
use crate::netns::Namespace;
use crate::sip::talkers::{Spoken, speak_during};
use crate::topology::{Topology, pbx_address, phone_address};

/// Packets of 20 ms that each end of an answered call sends.
pub const PACKETS: u32 = 100;
/// How long its audio lasts, and a little more.
const TALK: Duration = Duration::from_millis(2_300);
/// For calls to end after the last one was placed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, and the caller hangs up.
    EndedByCaller,
    /// Answered, and the called hangs up.
    EndedByCalled,
    /// 486.
    Busy,
    /// 404.
    NotFound,
    /// The caller gives up while it rings: 487.
    Cancelled,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::EndedByCaller, Self::EndedByCalled, Self::Busy, Self::NotFound, Self::Cancelled];

    /// As a part of Call-IDs.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndedByCaller => "caller",
            Self::EndedByCalled => "called",
            Self::Busy => "busy",
            Self::NotFound => "unknown",
            Self::Cancelled => "cancelled",
        }
    }

    /// Do both ends talk?
    pub fn is_answered(self) -> bool {
        matches!(self, Self::EndedByCaller | Self::EndedByCalled)
    }

    fn refusal(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Busy => Some((486, "Busy Here")),
            Self::NotFound => Some((404, "Not Found")),
            Self::Cancelled => Some((487, "Request Terminated")),
            Self::EndedByCaller | Self::EndedByCalled => None,
        }
    }
}

/// Places `calls` calls of each outcome, `rate` of each in a second, and waits for all of them to end; what they
/// spoke.
pub fn place(topology: &Topology, calls: u32, rate: u32) -> Result<Spoken> {
    let scratch = Scratch::new("load").context("cannot make a folder for sipp")?;
    let mut called = Vec::new();
    for (index, outcome) in (0_u8..).zip(Outcome::ALL) {
        called.push(Sipp::called(&topology.pbx, scratch.path(), outcome, index, calls)?);
    }
    // Until they listen: a call that nobody hears would begin with a retransmission.
    thread::sleep(Duration::from_millis(700));
    let mut callers = Vec::new();
    speak_during(topology, PACKETS, || {
        for (index, outcome) in (0_u8..).zip(Outcome::ALL) {
            callers.push(Sipp::caller(&topology.phones, scratch.path(), outcome, index, calls, rate)?);
        }
        let deadline = Instant::now() + Duration::from_secs(u64::from(calls / rate.max(1))) + PATIENCE;
        // Who is called first: if one of them did not start, its callers would only wait.
        for sipp in called.iter_mut().chain(&mut callers) {
            sipp.wait(deadline)?;
        }
        Ok(())
    })
}

/// A sipp process; killed when dropped.
struct Sipp {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Sipp {
    fn called(host: &Namespace, folder: &Path, outcome: Outcome, index: u8, calls: u32) -> Result<Self> {
        let at = SocketAddr::new(pbx_address(false), 5_060 + u16::from(index));
        let mut command = host.command("sipp");
        // Streams of processes on one address begin apart.
        command.args(["-mp", &(20_000 + 4_000 * u32::from(index)).to_string()]);
        let name = format!("{}-called", outcome.name());
        Self::start(command, folder, &name, at, &called(outcome), calls)
    }

    fn caller(
        host: &Namespace,
        folder: &Path,
        outcome: Outcome,
        index: u8,
        calls: u32,
        rate: u32,
    ) -> Result<Self> {
        let at = SocketAddr::new(phone_address(index, false), 5_060);
        let far = SocketAddr::new(pbx_address(false), 5_060 + u16::from(index));
        let mut command = host.command("sipp");
        command.arg(far.to_string()).args(["-r", &rate.to_string()]);
        command.args(["-cid_str", &format!("{}-%u-%p@%s", outcome.name())]);
        let name = format!("{}-caller", outcome.name());
        Self::start(command, folder, &name, at, &caller(outcome), calls)
    }

    fn start(
        mut command: Command,
        folder: &Path,
        name: &str,
        at: SocketAddr,
        scenario: &str,
        calls: u32,
    ) -> Result<Self> {
        let (path, log) = (folder.join(format!("{name}.xml")), folder.join(format!("{name}.log")));
        fs::write(&path, scenario).context("cannot write sipp's scenario")?;
        command
            .arg("-sf")
            .arg(&path)
            .args(["-i", &at.ip().to_string(), "-p", &at.port().to_string(), "-m", &calls.to_string()])
            .args(["-mi", &at.ip().to_string(), "-l", &calls.to_string(), "-nostdin", "-trace_err"])
            .arg("-error_file")
            .arg(&log)
            .env("TERM", "dumb")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().context("cannot start sipp")?;
        Ok(Self { child, name: name.to_owned(), log })
    }

    fn wait(&mut self, deadline: Instant) -> Result<()> {
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for sipp")? {
                if status.success() {
                    return Ok(());
                }
                bail!("sipp ({}) ended with {status}: {}", self.name, self.last_words());
            }
            if Instant::now() > deadline {
                bail!("sipp ({}) did not come to its end: {}", self.name, self.last_words());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().take(12).collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Sipp {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A scenario in sipp's XML, line by line.
struct Scenario(String);

impl Scenario {
    fn new() -> Self {
        Self("<?xml version=\"1.0\" encoding=\"ISO-8859-1\" ?>\n<scenario name=\"load\">\n".to_owned())
    }

    fn end(self) -> String {
        self.0 + "</scenario>\n"
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.0, "{text}");
    }

    fn expect(&mut self, what: &str) {
        self.line(&format!("<recv {what}></recv>"));
    }

    fn pause(&mut self, length: Duration) {
        self.line(&format!("<pause milliseconds=\"{}\"/>", length.as_millis()));
    }

    /// A request of the end that has this tag; `branch` names its transaction.
    fn request(&mut self, method: &str, cseq: &str, branch: &str, body: &str) {
        let from = "<sip:load@[local_ip]>;tag=[pid]c[call_number]";
        // RFC 3261, 9.1: as in the request that it cancels.
        let tag = if method == "CANCEL" { "" } else { "[peer_tag_param]" };
        self.message(
            &format!("{method} sip:200@[remote_ip]:[remote_port] SIP/2.0"),
            &format!(
                "Via: SIP/2.0/UDP [local_ip]:[local_port];branch=z9hG4bK[pid]x[call_number]x{branch}\n\
                 From: {from}\nTo: <sip:200@[remote_ip]>{tag}\nCall-ID: [call_id]\nCSeq: {cseq}\n\
                 Contact: <sip:load@[local_ip]:[local_port]>\nMax-Forwards: 70"
            ),
            body,
            method != "ACK",
        );
    }

    /// A response to what came last; `cseq` if that was another request.
    fn response(&mut self, status: &str, cseq: Option<&str>, body: &str) {
        let cseq = cseq.map_or_else(|| "[last_CSeq:]".to_owned(), |cseq| format!("CSeq: {cseq}"));
        let contact = "Contact: <sip:200@[local_ip]:[local_port]>";
        let head = format!(
            "[last_Via:]\n[last_From:]\n[last_To:];tag=[pid]s[call_number]\n[last_Call-ID:]\n{cseq}\n{contact}"
        );
        // Of final ones to INVITE alone: the others are not acknowledged.
        let is_repeated = !status.starts_with('1') && cseq.ends_with("INVITE");
        self.message(&format!("SIP/2.0 {status}"), &head, body, is_repeated);
    }

    fn message(&mut self, start: &str, head: &str, body: &str, is_repeated: bool) {
        let timer = if is_repeated { " retrans=\"500\"" } else { "" };
        let body = if body.is_empty() {
            "Content-Length: 0\n\n".to_owned()
        } else {
            format!("Content-Type: application/sdp\nContent-Length: [len]\n\n{body}")
        };
        self.line(&format!("<send{timer}><![CDATA[\n\n{start}\n{head}\n{body}\n]]></send>"));
    }
}

/// A port for each call, beyond those that sipp itself holds.
const SDP: &str = "v=0\no=load 1 1 IN IP4 [local_ip]\ns=-\nc=IN IP4 [media_ip]\nt=0 0\n\
    m=audio [auto_media_port+10] RTP/AVP 0\na=rtpmap:0 PCMU/8000\na=ptime:20\na=sendrecv\n";
const INVITE: &str = "1 INVITE";

fn caller(outcome: Outcome) -> String {
    let mut scenario = Scenario::new();
    scenario.request("INVITE", INVITE, "invite", SDP);
    scenario.expect("response=\"180\"");
    if outcome == Outcome::Cancelled {
        scenario.pause(Duration::from_millis(800));
        scenario.request("CANCEL", "1 CANCEL", "invite", "");
        scenario.expect("response=\"200\"");
    }
    if let Some((code, _)) = outcome.refusal() {
        scenario.expect(&format!("response=\"{code}\""));
        scenario.request("ACK", "1 ACK", "invite", "");
        return scenario.end();
    }
    scenario.expect("response=\"200\"");
    scenario.request("ACK", "1 ACK", "ack", "");
    if outcome == Outcome::EndedByCaller {
        scenario.pause(TALK);
        scenario.request("BYE", "2 BYE", "bye", "");
        scenario.expect("response=\"200\"");
    } else {
        scenario.expect("request=\"BYE\"");
        scenario.message("SIP/2.0 200 OK", BYE_ANSWER, "", false);
    }
    scenario.end()
}

const BYE_ANSWER: &str = "[last_Via:]\n[last_From:]\n[last_To:]\n[last_Call-ID:]\n[last_CSeq:]";

fn called(outcome: Outcome) -> String {
    let mut scenario = Scenario::new();
    // For the BYE of the called, who has to turn both around.
    scenario.line(
        "<recv request=\"INVITE\"><action>\
         <ereg regexp=\"[^ ].*\" search_in=\"hdr\" header=\"From:\" assign_to=\"far\"/>\
         <ereg regexp=\"[^ ].*\" search_in=\"hdr\" header=\"To:\" assign_to=\"near\"/></action></recv>",
    );
    scenario.response("180 Ringing", None, "");
    if outcome == Outcome::Cancelled {
        scenario.expect("request=\"CANCEL\"");
        scenario.response("200 OK", Some("1 CANCEL"), "");
    } else {
        scenario.pause(Duration::from_millis(150));
    }
    if let Some((code, reason)) = outcome.refusal() {
        scenario.response(&format!("{code} {reason}"), Some(INVITE), "");
        scenario.expect("request=\"ACK\"");
        scenario.line("<Reference variables=\"far,near\"/>");
        return scenario.end();
    }
    scenario.response("200 OK", Some(INVITE), SDP);
    scenario.expect("request=\"ACK\"");
    if outcome == Outcome::EndedByCalled {
        scenario.pause(TALK);
        scenario.message(
            "BYE sip:load@[remote_ip]:[remote_port] SIP/2.0",
            "Via: SIP/2.0/UDP [local_ip]:[local_port];branch=z9hG4bK[pid]x[call_number]xbye\n\
             From: [$near];tag=[pid]s[call_number]\nTo: [$far]\nCall-ID: [call_id]\nCSeq: 1 BYE\nMax-Forwards: 70",
            "",
            true,
        );
        scenario.expect("response=\"200\"");
    } else {
        scenario.line("<Reference variables=\"far,near\"/>");
        scenario.expect("request=\"BYE\"");
        scenario.message("SIP/2.0 200 OK", BYE_ANSWER, "", false);
    }
    scenario.end()
}
