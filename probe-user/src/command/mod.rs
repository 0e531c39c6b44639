//! Subcommands: arguments in, library called, result shown.

pub(crate) mod analyze;
pub(crate) mod calls;
pub(crate) mod dedup;
pub(crate) mod flow;
mod overload;
mod progress;
mod quality;
pub(crate) mod run;
mod tunnels;

use anyhow::{anyhow, bail};
use clap::{Args, ValueEnum};
use probe_ebpf::Config;
use probe_ebpf::config::{MAX_SIP_PORTS, MAX_TLS_PORTS};
use voxprobe::pipeline::offline::RtpRule;
use voxprobe::report::contract::Report;
use voxprobe::report::words;
use voxprobe::sip::LegHeaders;

/// What is signalling and what is media: the same for files and interfaces.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Ports that carry SIP in clear, UDP and TCP
    #[arg(long, value_name = "PORT,…", value_delimiter = ',', default_value = "5060,5080")]
    sip_ports: Vec<u16>,
    /// TCP ports that carry SIP over TLS: counted, not read
    #[arg(long, value_name = "PORT,…", value_delimiter = ',', default_value = "5061")]
    tls_ports: Vec<u16>,
    /// Ports that unannounced media may use, both ends (with --rtp auto)
    #[arg(long, value_name = "A-B", default_value = "1024-65535")]
    rtp_ports: String,
    /// Which UDP is media
    #[arg(long, value_enum, default_value_t = Rtp::Auto)]
    rtp: Rtp,
    /// A header that carries the Call-ID of a B2BUA's other leg; X-Call-ID, X-CID, X-Orig-Call-ID and X-Original-Call-ID are
    /// known. Can be given several times
    #[arg(long = "leg-header", value_name = "NAME")]
    leg_headers: Vec<String>,
    #[command(flatten)]
    tunnels: tunnels::Tunnels,
}

/// Values of --rtp.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Rtp {
    /// What SDP announced, from then on
    Sdp,
    /// Announced, and what proves to be RTP by consecutive sequence numbers
    Auto,
    /// Whatever looks like RTP, on any port
    Any,
}

/// What else should be known of the input, on standard error: the answer itself does not have it.
fn print_notes(report: &Report) {
    for note in &report.capture.notes {
        eprintln!("note: {}", words::printable(note));
    }
}

impl Filter {
    fn rule(&self) -> RtpRule {
        match self.rtp {
            Rtp::Sdp => RtpRule::Sdp,
            Rtp::Auto => RtpRule::Auto,
            Rtp::Any => RtpRule::Any,
        }
    }

    fn leg_headers(&self) -> LegHeaders {
        LegHeaders::and(self.leg_headers.iter().map(String::as_str))
    }

    fn config(&self) -> anyhow::Result<Config> {
        let (low, high) = self.rtp_ports.split_once('-').unwrap_or((&self.rtp_ports, &self.rtp_ports));
        let port =
            |text: &str| text.trim().parse::<u16>().map_err(|_| anyhow!("--rtp-ports: {text:?} is no port"));
        let (rtp_low, rtp_high) = (port(low)?, port(high)?);
        if rtp_low == 0 {
            bail!("--rtp-ports: 0 is no port");
        }
        if rtp_low > rtp_high {
            bail!("--rtp-ports: {rtp_low} is above {rtp_high}");
        }
        self.tunnels.apply(Config {
            sip_ports: ports::<MAX_SIP_PORTS>("--sip-ports", &self.sip_ports)?,
            tls_ports: ports::<MAX_TLS_PORTS>("--tls-ports", &self.tls_ports)?,
            rtp_low,
            rtp_high,
            media_rule: self.rule().media_rule() as u8,
            ..Config::DEFAULT
        })
    }
}

/// A number of things of which none would be of no use.
fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("1 is the least".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("no number".to_owned()),
    }
}

fn ports<const N: usize>(option: &str, given: &[u16]) -> anyhow::Result<[u16; N]> {
    if given.len() > N {
        bail!("{option}: {} ports were given, {N} is the most", given.len());
    }
    let mut ports = [0; N];
    for (slot, port) in ports.iter_mut().zip(given) {
        if *port == 0 {
            bail!("{option}: 0 is no port");
        }
        *slot = *port;
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_not_a_number_of_streams() {
        assert_eq!(at_least_one("1"), Ok(1));
        assert!(at_least_one("0").is_err() && at_least_one("-1").is_err() && at_least_one("x").is_err());
    }
}
