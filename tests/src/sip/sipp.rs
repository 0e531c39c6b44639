//! sipp as the caller, where it is installed: a SIP stack that is not ours, and does not share our mistakes.
//!
//! One sipp process places one call to the lab's PBX, from a scenario that is written for that call. It signals;
//! the lab's own engine speaks and listens on the port that the scenario's SDP announces.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::calls::{CallPlan, CallRecord, CallState, TRANSFER_PAUSE};
use crate::g711::Law;
use crate::media::{PTIME, Talk, TalkId};
use crate::sip::message::{parse_sdp, sdp};
use crate::sip::phone::{Phone, bind_pair, password};
use crate::topology::{pbx_address, phone_address};

/// Beyond the talk: for ringing, and for a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether sipp is on PATH.
pub fn is_installed() -> bool {
    Command::new("sipp").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// What came of the call, as the phone knows it.
pub(super) struct Outcome {
    pub(super) state: CallState,
    pub(super) talk: Option<(TalkId, SocketAddr)>,
}

/// Places the call of `record` with sipp.
pub(super) fn call(phone: &Phone<'_>, record: &CallRecord) -> Result<Outcome> {
    let plan = &record.plan;
    let media = SocketAddr::new(phone_address(plan.phone, plan.v6), plan.phone_port());
    let (rtp, rtcp) = bind_pair(phone.namespace, media)?;
    let mut running = Sipp::start(phone, plan, media)?;
    // The phone's messages, which the PBX cannot count: INVITE, ACK and BYE, and what else the scenario sends.
    let sent = 3 + 2 * u32::from(plan.authenticated) + 3 * u32::from(plan.transferred);
    (0..sent).for_each(|_| record.sent(false));

    let deadline = Instant::now() + PATIENCE + talk_time(plan);
    let mut sockets = Some((rtp, rtcp));
    let mut talk = None;
    loop {
        // The PBX talks as soon as it has the ACK; then so do we.
        let answered = *record.pbx_talk.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some((_, to)), Some((rtp, rtcp))) = (answered, sockets.take_if(|_| answered.is_some())) {
            let ours = Talk { plan: plan.stream(true), rtp, rtcp, to, moments: record.moments.clone() };
            talk = Some((phone.engine.open(ours)?, media));
        }
        if let Some(status) = running.child.try_wait().context("cannot wait for sipp")? {
            if !status.success() {
                bail!("sipp ended with {status}");
            }
            return Ok(Outcome { state: CallState::Completed, talk });
        }
        if phone.is_stopped() {
            return Ok(Outcome { state: CallState::CutShort, talk });
        }
        if Instant::now() > deadline {
            bail!("sipp did not come to the end of its scenario");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// A little more than both directions need.
fn talk_time(plan: &CallPlan) -> Duration {
    let pause = if plan.transferred { TRANSFER_PAUSE } else { Duration::ZERO };
    PTIME * plan.packets + pause + Duration::from_millis(300)
}

/// A sipp process and its scenario; both gone when dropped.
struct Sipp {
    child: Child,
    scenario: PathBuf,
}

impl Sipp {
    fn start(phone: &Phone<'_>, plan: &CallPlan, media: SocketAddr) -> Result<Self> {
        let name = format!("voxlab-{}-{}.xml", std::process::id(), plan.index);
        let scenario = std::env::temp_dir().join(name);
        fs::write(&scenario, scenario_of(plan, media)).context("cannot write sipp's scenario")?;
        let far = SocketAddr::new(pbx_address(plan.v6), 5060);
        let mut command = phone.namespace.command("sipp");
        command
            .arg(far.to_string())
            .arg("-sf")
            .arg(&scenario)
            .args(["-i", &media.ip().to_string(), "-p", "5060", "-m", "1", "-l", "1", "-nostdin"])
            .args([
                "-cid_str",
                &plan.call_id(),
                "-timeout",
                &(PATIENCE + talk_time(plan)).as_secs().to_string(),
            ])
            .env("TERM", "dumb")
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match command.spawn() {
            Ok(child) => Ok(Self { child, scenario }),
            Err(error) => {
                let _ = fs::remove_file(&scenario);
                Err(error).context("cannot start sipp")
            }
        }
    }
}

impl Drop for Sipp {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = fs::remove_file(&self.scenario);
    }
}

/// The call as sipp's XML.
fn scenario_of(plan: &CallPlan, media: SocketAddr) -> String {
    let user = plan.user();
    let laws = if plan.law == Law::Mu { [Law::Mu, Law::A] } else { [Law::A, Law::Mu] };
    let body = sdp(media, &laws, plan.seed >> 32);
    debug_assert!(parse_sdp(&body).is_some(), "the offer that the PBX will read");
    let offer =
        format!("Content-Type: application/sdp\nContent-Length: [len]\n\n{}", body.replace("\r\n", "\n"));
    let mut cseq = 1;
    let mut text =
        String::from("<?xml version=\"1.0\" encoding=\"ISO-8859-1\" ?>\n<scenario name=\"voxlab\">\n");

    text += &send(&user, "INVITE", cseq, "", &offer, true);
    if plan.authenticated {
        text += "<recv response=\"407\" auth=\"true\"></recv>\n";
        text += &send(&user, "ACK", cseq, "", "Content-Length: 0\n\n", false);
        cseq += 1;
        let credentials = format!("[authentication username={user} password={}]\n", password(&user));
        text += &send(&user, "INVITE", cseq, &credentials, &offer, true);
    }
    text += "<recv response=\"100\" optional=\"true\"></recv>\n<recv response=\"180\" optional=\"true\"></recv>\n";
    text += "<recv response=\"200\"></recv>\n";
    text += &send(&user, "ACK", cseq, "", "Content-Length: 0\n\n", false);

    let talk = talk_time(plan);
    if plan.transferred {
        // As a person's hand would: just before the audio pauses.
        let before = (PTIME * (plan.packets / 2)).saturating_sub(PTIME);
        cseq += 1;
        text += &pause(before);
        text +=
            &send(&user, "REFER", cseq, "Refer-To: <sip:300@[remote_ip]>\n", "Content-Length: 0\n\n", true);
        text += "<recv response=\"202\"></recv>\n";
        for _ in ["trying", "done"] {
            text += "<recv request=\"NOTIFY\"></recv>\n<send><![CDATA[\nSIP/2.0 200 OK\n[last_Via:]\n[last_From:]\n\
                     [last_To:]\n[last_Call-ID:]\n[last_CSeq:]\nContent-Length: 0\n\n]]></send>\n";
        }
        text += &pause(talk.saturating_sub(before + TRANSFER_PAUSE));
    } else {
        text += &pause(talk);
    }
    text += &send(&user, "BYE", cseq + 1, "", "Content-Length: 0\n\n", true);
    text + "<recv response=\"200\"></recv>\n</scenario>\n"
}

fn pause(length: Duration) -> String {
    format!("<pause milliseconds=\"{}\"/>\n", length.as_millis())
}

fn send(user: &str, method: &str, cseq: u32, more: &str, rest: &str, repeated: bool) -> String {
    let timer = if repeated { " retrans=\"500\"" } else { "" };
    format!(
        "<send{timer}><![CDATA[\n\
         {method} sip:200@[remote_ip]:[remote_port] SIP/2.0\n\
         Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n\
         From: <sip:{user}@[local_ip]>;tag=[pid]voxlab[call_number]\n\
         To: <sip:200@[remote_ip]>[peer_tag_param]\n\
         Call-ID: [call_id]\n\
         CSeq: {cseq} {method}\n\
         Contact: <sip:{user}@[local_ip]:[local_port]>\n\
         Max-Forwards: 70\n\
         User-Agent: sipp\n\
         {more}{rest}]]></send>\n"
    )
}
