//! A remote capture in the lab: rpcap over a real TCP connection that crosses the gateway.
//!
//! ```text
//!   mirror ─▶ daemon at 10.60.2.10:2002 ═══ gw-pbx [gateway] gw-phones ═══ client at 10.60.1.11
//!                 one PACKET message a frame        the probe sees it here
//! ```
//!
//! Segments, acknowledgements and losses are the kernel's. The session opens before a probe attaches, so that a probe
//! finds it mid-stream, as it mostly would.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::topology::{Topology, pbx_address};
use crate::tunnels::{RpcapKind, rpcap_message, rpcap_packet};

const PORT: u16 = 2002;

/// Between two questions for statistics.
const STATISTICS: Duration = Duration::from_secs(1);

/// A frame for the daemon.
#[derive(Clone, Debug)]
pub struct Captured {
    /// When it was captured, since 1970.
    pub time_ns: u64,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// A session; it ends when dropped, after what its input got.
#[derive(Debug)]
pub struct RemoteCapture {
    input: Option<Sender<Captured>>,
    client: TcpStream,
    threads: Vec<JoinHandle<()>>,
}

impl RemoteCapture {
    /// Opens it from the phones' side to the PBX's.
    pub fn start(topology: &Topology) -> Result<Self> {
        let address = SocketAddr::new(pbx_address(false), PORT);
        let listener = topology.pbx.within(|| TcpListener::bind(address))?;
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(5));
        let mut client =
            topology.phones.within(connect)?.with_context(|| format!("cannot reach {address}"))?;
        let (mut daemon, _) = listener.accept().context("cannot accept the remote capture")?;
        daemon.set_nodelay(true).context("cannot switch Nagle's algorithm off")?;
        client.set_read_timeout(Some(STATISTICS)).context("cannot bound the client's wait")?;
        open(&mut client, &mut daemon).context("the remote capture does not open")?;

        let (input, frames) = mpsc::channel();
        let reader = client.try_clone().context("cannot share the connection")?;
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.to_owned()).spawn(run).context("cannot start a thread")
        };
        let threads = vec![
            spawn("rpcapd", Box::new(move || serve(&mut daemon, &frames)))?,
            spawn("rpcap-client", Box::new(move || listen(reader)))?,
        ];
        Ok(Self { input: Some(input), client, threads })
    }

    /// Where frames are handed to the daemon.
    pub fn input(&self) -> Sender<Captured> {
        // Only a drop takes it.
        self.input.clone().unwrap_or_else(|| mpsc::channel().0)
    }
}

impl Drop for RemoteCapture {
    fn drop(&mut self) {
        // The daemon ends with the last sender, the client with the connection.
        self.input.take();
        let mut threads = self.threads.drain(..);
        let _ = threads.next().map(JoinHandle::join);
        let _ = self.client.shutdown(Shutdown::Both);
        threads.for_each(|thread| drop(thread.join()));
    }
}

/// The handshake, both sides of it.
fn open(client: &mut TcpStream, daemon: &mut TcpStream) -> std::io::Result<()> {
    let ethernet = [1_u32.to_be_bytes(), [0; 4]].concat();
    // A filter of one instruction that takes all.
    let filter = [0, 1, 0, 0, 0, 0, 0, 1, 0, 6, 0, 0, 0xff, 0xff, 0xff, 0xff];
    let start = [&[0, 4, 0, 0, 0, 0, 0, 100, 0, 1, 0, 0][..], &filter].concat();
    let exchange = [
        (RpcapKind::Auth, vec![0; 8], Vec::new()),
        (RpcapKind::Open, b"rpcap://eth0".to_vec(), ethernet),
        (RpcapKind::StartCapture, start, vec![0, 16, 0, 0, 0, 0, 0, 0]),
    ];
    for (kind, request, reply) in exchange {
        client.write_all(&rpcap_message(kind, false, &request))?;
        daemon.read_exact(&mut vec![0; 8 + request.len()])?;
        daemon.write_all(&rpcap_message(kind, true, &reply))?;
        client.read_exact(&mut vec![0; 8 + reply.len()])?;
    }
    Ok(())
}

/// Sends frames until there are none to come, and answers what the client asks.
fn serve(daemon: &mut TcpStream, frames: &Receiver<Captured>) {
    let mut number = 0_u32;
    let mut question = [0; 8];
    if daemon.set_nonblocking(false).is_err() {
        return;
    }
    loop {
        match frames.recv_timeout(Duration::from_millis(200)) {
            Ok(Captured { time_ns, bytes }) => {
                number = number.wrapping_add(1);
                if daemon.write_all(&rpcap_packet(&bytes, time_ns, number)).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        // Questions are short, and whole as soon as they are there.
        if daemon.set_nonblocking(true).is_err() {
            return;
        }
        let asked = daemon.read(&mut question).is_ok_and(|read| read == question.len());
        if daemon.set_nonblocking(false).is_err() {
            return;
        }
        if asked {
            let counts = [number, 0, 0, number].map(u32::to_be_bytes).concat();
            if daemon.write_all(&rpcap_message(RpcapKind::Statistics, true, &counts)).is_err() {
                return;
            }
        }
    }
    let _ = daemon.shutdown(Shutdown::Write);
}

/// Reads and forgets, and asks for statistics now and then.
fn listen(mut client: TcpStream) {
    let mut buffer = vec![0; 65_536];
    let mut asked = std::time::Instant::now();
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
        if asked.elapsed() >= STATISTICS {
            asked = std::time::Instant::now();
            if client.write_all(&rpcap_message(RpcapKind::Statistics, false, &[])).is_err() {
                return;
            }
        }
    }
}
