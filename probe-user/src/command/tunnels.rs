//! Which tunnels are opened: the same for files and interfaces.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;
use clap::{Args, ValueEnum};
use probe_ebpf::Config;
use probe_ebpf::config::{MAX_CARRIER_PORTS, MAX_TUNNEL_PORTS, tunnels};

use super::ports;

/// What is looked into for packets of ours.
#[derive(Debug, Args)]
pub(crate) struct Tunnels {
    /// Whether packets are looked for inside of tunnels and of captured capture sessions
    #[arg(long, value_enum, default_value_t = Follow::Auto)]
    tunnels: Follow,
    /// Ports that may carry tunnels: VXLAN, Geneve, GTP-U, TZSP, L2TP, Teredo, HEP, rpcap (with --tunnels auto)
    #[arg(
        long,
        value_name = "udp/PORT|tcp/PORT,…",
        value_delimiter = ',',
        default_values_t = TunnelPort::defaults()
    )]
    tunnel_ports: Vec<TunnelPort>,
}

/// Values of --tunnels.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Follow {
    /// GRE, IP in IP, MPLS, PPPoE, and what runs on --tunnel-ports
    Auto,
    /// Nothing but plain frames, under at most two VLAN tags
    Off,
}

impl Tunnels {
    /// `config` with these tunnels.
    pub(super) fn apply(&self, config: Config) -> anyhow::Result<Config> {
        if matches!(self.tunnels, Follow::Off) {
            return Ok(config.without_tunnels());
        }
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for port in &self.tunnel_ports {
            match *port {
                TunnelPort::Udp(port) => udp.push(port),
                TunnelPort::Tcp(port) => tcp.push(port),
            }
        }
        if let Some(port) = tcp.iter().find(|port| config.tls_ports.contains(port)) {
            bail!("--tunnel-ports: tcp/{port} is also one of --tls-ports, whose TCP is not read");
        }
        Ok(Config {
            tunnel_ports: ports::<MAX_TUNNEL_PORTS>("--tunnel-ports udp/…", &udp)?,
            carrier_ports: ports::<MAX_CARRIER_PORTS>("--tunnel-ports tcp/…", &tcp)?,
            tunnels: tunnels::ALL,
            ..config
        })
    }
}

/// What the start says of it.
pub(super) fn summary(config: &Config) -> String {
    if config.tunnels == 0 {
        return "tunnels are not opened".to_owned();
    }
    let named = |ports: &[u16]| {
        let ports: Vec<_> = ports.iter().filter(|port| **port != 0).map(u16::to_string).collect();
        if ports.is_empty() { "none".to_owned() } else { ports.join(", ") }
    };
    format!(
        "opening GRE, IP in IP, MPLS, PPPoE, and tunnels on UDP ports {}; captured capture sessions on TCP ports {}",
        named(&config.tunnel_ports),
        named(&config.carrier_ports)
    )
}

/// A port of --tunnel-ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TunnelPort {
    Udp(u16),
    Tcp(u16),
}

impl TunnelPort {
    /// Those of [`Config::DEFAULT`].
    fn defaults() -> Vec<Self> {
        let Config { tunnel_ports, carrier_ports, .. } = Config::DEFAULT;
        let udp = tunnel_ports.into_iter().filter(|port| *port != 0).map(Self::Udp);
        let tcp = carrier_ports.into_iter().filter(|port| *port != 0).map(Self::Tcp);
        udp.chain(tcp).collect()
    }
}

impl FromStr for TunnelPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = |port: &str| port.parse().map_err(|_| format!("{port:?} is no port"));
        match text.trim().split_once('/') {
            Some(("udp", port)) => read(port).map(Self::Udp),
            Some(("tcp", port)) => read(port).map(Self::Tcp),
            _ => Err("say udp/4789 or tcp/2002".to_owned()),
        }
    }
}

impl fmt::Display for TunnelPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(port) => write!(f, "udp/{port}"),
            Self::Tcp(port) => write!(f, "tcp/{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnels(follow: Follow, ports: &[&str]) -> Tunnels {
        let tunnel_ports = ports.iter().map(|port| port.parse().unwrap()).collect();
        Tunnels { tunnels: follow, tunnel_ports }
    }

    #[test]
    fn the_defaults_are_those_of_the_configuration_and_survive_being_printed() {
        let printed: Vec<_> = TunnelPort::defaults().iter().map(ToString::to_string).collect();
        let printed: Vec<_> = printed.iter().map(String::as_str).collect();
        assert_eq!(tunnels(Follow::Auto, &printed).apply(Config::DEFAULT).unwrap(), Config::DEFAULT);
    }

    #[test]
    fn given_ports_replace_the_defaults() {
        let config = tunnels(Follow::Auto, &["tcp/50000", "udp/4790"]).apply(Config::DEFAULT).unwrap();
        let (udp, tcp) = ([4790, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [50_000, 0, 0, 0]);
        assert_eq!(config, Config { tunnel_ports: udp, carrier_ports: tcp, ..Config::DEFAULT });
    }

    #[test]
    fn off_is_off_whatever_the_ports() {
        let config = tunnels(Follow::Off, &["tcp/50000"]).apply(Config::DEFAULT).unwrap();
        assert_eq!(config, Config::DEFAULT.without_tunnels());
        assert_eq!(summary(&config), "tunnels are not opened");
    }

    #[test]
    fn what_is_no_port_and_what_is_too_much_is_refused() {
        for text in ["4789", "udp/", "udp/x", "udp/65536", "sctp/9", ""] {
            assert!(text.parse::<TunnelPort>().is_err(), "{text:?}");
        }
        for ports in [&["udp/0"][..], &["tcp/1", "tcp/2", "tcp/3", "tcp/4", "tcp/5"], &["tcp/5061"]] {
            assert!(tunnels(Follow::Auto, ports).apply(Config::DEFAULT).is_err(), "{ports:?}");
        }
    }
}
