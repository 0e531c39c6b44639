//! `voxlab crowd`: very many calls at the same time, or a flood of INVITEs, written as they are made: for measurements.
//!
//! ```text
//!   INVITE of every call │ 180 of every call │ 200 … │ ACK … │ audio, if asked for │ BYE … │ 200 …
//!   └── one act: 10 s ──┘                          └── all calls are up at once ──┘
//! ```
//!
//! Nothing is held: each message is made from the number of its call. The same options give the same bytes.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use super::sdp::{EVENTS, PCMU, audio};
use crate::captures::Writer;
use crate::frames::{Rtp, rtp, udp};
use crate::sip::message::Message;

/// When it begins: 14 November 2023.
const START_NS: u64 = 1_700_000_000_000_000_000;
/// Of one act.
const ACT_NS: u64 = 10_000_000_000;
const PTIME_NS: u64 = 20_000_000;

/// Writes very many calls at the same time, or a flood of INVITEs: for measurements of memory.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Calls, all up at once.
    #[arg(long, default_value_t = 100_000)]
    calls: u32,
    /// RTP packets of each direction of each call.
    #[arg(long, default_value_t = 0)]
    packets: u32,
    /// INVITEs with new Call-IDs from eight addresses, and nothing else.
    #[arg(long)]
    flood: bool,
    /// The capture (pcapng).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs `voxlab crowd`.
pub fn run(options: &Options) -> Result<()> {
    let Options { calls, packets, flood, out } = options;
    let frames = if *flood { write_flood(out, *calls)? } else { write(out, *calls, *packets)? };
    println!("{}: {frames} frames", out.display());
    Ok(())
}

/// What is said in an act: whether by the caller, and the message.
type Said = fn(&Member) -> (bool, Message);

/// Calls that are all up at once; how many frames it took.
pub fn write(path: &Path, calls: u32, packets: u32) -> Result<u64> {
    let mut file = Output::create(path)?;
    let acts: [Said; 4] = [Member::invite, Member::ringing, Member::answer, Member::ack];
    let mut begins_ns = START_NS;
    let act = |file: &mut Output, begins_ns: &mut u64, message: Said| {
        for index in 0..calls {
            let member = Member::new(index);
            let (from_caller, message) = message(&member);
            file.say(*begins_ns + spread(index, calls), &member, from_caller, &message)?;
        }
        *begins_ns += ACT_NS;
        io::Result::Ok(())
    };
    let mut played = || {
        for message in acts {
            act(&mut file, &mut begins_ns, message)?;
        }
        for packet in 0..packets {
            for index in 0..calls {
                let time_ns = begins_ns + PTIME_NS * u64::from(packet) + spread(index, calls) / 1_000;
                file.talk(time_ns, &Member::new(index), packet)?;
            }
        }
        begins_ns += PTIME_NS * u64::from(packets);
        for message in [Member::bye, Member::agreed] {
            act(&mut file, &mut begins_ns, message)?;
        }
        file.finish()
    };
    played().with_context(|| format!("cannot write {}", path.display()))
}

/// INVITEs with new Call-IDs from eight addresses, ten thousand a second.
pub fn write_flood(path: &Path, invites: u32) -> Result<u64> {
    let mut file = Output::create(path)?;
    let mut played = || {
        for index in 0..invites {
            let mut member = Member::new(index);
            member.caller = SocketAddr::from(([203, 0, 113, index.to_be_bytes()[3] % 8], 5_060));
            let (from_caller, invite) = member.invite();
            file.say(START_NS + u64::from(index) * 100_000, &member, from_caller, &invite)?;
        }
        file.finish()
    };
    played().with_context(|| format!("cannot write {}", path.display()))
}

/// Evenly over an act.
fn spread(index: u32, calls: u32) -> u64 {
    ACT_NS * u64::from(index) / u64::from(calls.max(1))
}

/// One call of many.
struct Member {
    index: u32,
    caller: SocketAddr,
}

impl Member {
    fn new(index: u32) -> Self {
        let [_, b2, b3, b4] = index.to_be_bytes();
        Self { index, caller: SocketAddr::from((Ipv4Addr::new(10, 16 + b2, b3, b4), 5_060)) }
    }

    fn called() -> SocketAddr {
        SocketAddr::from(([10, 7, 0, 5], 5_060))
    }

    fn media(&self, of_caller: bool) -> SocketAddr {
        if of_caller {
            return SocketAddr::new(self.caller.ip(), 16_384);
        }
        let [_, b2, b3, b4] = (self.index / 20_000).to_be_bytes();
        let port = u16::try_from(20_000 + 2 * (self.index % 20_000)).unwrap_or(u16::MAX);
        SocketAddr::from((Ipv4Addr::new(10, 8 + b2, b3, b4), port))
    }

    fn request(&self, method: &str, cseq: u32, branch: &str, to_tag: &str) -> Message {
        let (index, caller) = (self.index, self.caller);
        Message::request(method, &format!("sip:{}@pbx.example", 2_000 + index % 500))
            .with("Via", format!("SIP/2.0/UDP {caller};branch=z9hG4bK{index:08x}{branch};rport"))
            .with("From", format!("<sip:{}@phone.example>;tag=c{index:x}", 10_000 + index))
            .with("To", format!("<sip:{}@pbx.example>{to_tag}", 2_000 + index % 500))
            .with("Call-ID", format!("{index:08x}-{:08x}@phone.example", index.wrapping_mul(0x9e37_79b1)))
            .with("CSeq", format!("{cseq} {method}"))
            .with("Contact", format!("<sip:{}@{caller}>", 10_000 + index))
            .with("User-Agent", "Snom D785/10.1.169.13")
            .with(
                "Allow",
                "INVITE, ACK, CANCEL, BYE, REFER, OPTIONS, NOTIFY, SUBSCRIBE, PRACK, MESSAGE, INFO",
            )
    }

    fn sdp(&self, of_caller: bool, message: Message) -> Message {
        message.with_body("application/sdp", audio(self.media(of_caller), &[PCMU, EVENTS]).text())
    }

    fn invite(&self) -> (bool, Message) {
        (true, self.sdp(true, self.request("INVITE", 1, "i", "")))
    }

    fn response(&self, code: u16, reason: &str, request: &Message) -> Message {
        Message::response(code, reason, request, &format!("p{:x}", self.index))
    }

    fn ringing(&self) -> (bool, Message) {
        (false, self.response(180, "Ringing", &self.invite().1))
    }

    fn answer(&self) -> (bool, Message) {
        (false, self.sdp(false, self.response(200, "OK", &self.invite().1)))
    }

    fn ack(&self) -> (bool, Message) {
        (true, self.request("ACK", 1, "a", &self.to_tag()))
    }

    fn bye(&self) -> (bool, Message) {
        (true, self.request("BYE", 2, "b", &self.to_tag()))
    }

    fn agreed(&self) -> (bool, Message) {
        (false, self.response(200, "OK", &self.bye().1))
    }

    fn to_tag(&self) -> String {
        format!(";tag=p{:x}", self.index)
    }
}

/// A capture file that grows.
struct Output {
    file: BufWriter<File>,
    frames: u64,
}

impl Output {
    fn create(path: &Path) -> Result<Self> {
        let create = || format!("cannot write {}", path.display());
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path).with_context(create)?);
        let writer = Writer::PCAP_NG;
        file.write_all(&writer.section()).with_context(create)?;
        file.write_all(&writer.interface("tap0", Some(9), None, 0)).with_context(create)?;
        Ok(Self { file, frames: 0 })
    }

    fn say(&mut self, time_ns: u64, member: &Member, from_caller: bool, message: &Message) -> io::Result<()> {
        let ends = (member.caller, Member::called());
        self.put(time_ns, ends, from_caller, message.to_string().as_bytes())
    }

    /// One packet of each direction.
    fn talk(&mut self, time_ns: u64, member: &Member, packet: u32) -> io::Result<()> {
        let ends = (member.media(true), member.media(false));
        for from_caller in [true, false] {
            let [low, high, ..] = packet.to_le_bytes();
            let audio = Rtp {
                timestamp: packet.wrapping_mul(160),
                ssrc: 2 * member.index + u32::from(from_caller),
                payload_type: 0,
                marker: packet == 0,
                ..rtp().seq(u16::from_le_bytes([low, high])).varied(160)
            };
            self.put(time_ns, ends, from_caller, &audio.bytes())?;
        }
        Ok(())
    }

    fn put(
        &mut self,
        time_ns: u64,
        (caller, called): (SocketAddr, SocketAddr),
        from_caller: bool,
        bytes: &[u8],
    ) -> io::Result<()> {
        let datagram = udp().between(caller, called);
        let datagram = if from_caller { datagram } else { datagram.reversed() };
        let [low, high, ..] = self.frames.to_le_bytes();
        let frame = datagram.ip_id(u16::from_le_bytes([low, high]).max(1)).payload(bytes).ethernet();
        self.frames += 1;
        self.file.write_all(&Writer::PCAP_NG.enhanced(0, time_ns, &frame))
    }

    fn finish(&mut self) -> io::Result<u64> {
        self.file.flush()?;
        Ok(self.frames)
    }
}
