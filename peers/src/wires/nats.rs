//! NATS over loopback (its server has no Unix socket), in its own protocol; a batch is one `write`.

use super::flow::Flow;
use crate::wire::{Mode, Wire};
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;

const PING: &[u8] = b"PING\r\n";

/// One end.
pub struct Nats {
    flow: Flow,
    put_head: Vec<u8>,
    got_head: Vec<u8>,
    bytes: usize,
}

impl Nats {
    /// Connects, and subscribes to what the other end publishes.
    ///
    /// # Errors
    /// The server refuses.
    pub fn connect(port: &str, subjects: [&str; 2], bytes: usize) -> io::Result<Self> {
        let [own, other] = subjects;
        let socket = TcpStream::connect(format!("127.0.0.1:{port}"))?;
        socket.set_nodelay(true)?;
        let fd = OwnedFd::from(socket);
        let mut flow = Flow::new(fd.try_clone()?, fd, Mode::Parked)?;
        flow.line()?;
        flow.put(
            format!("CONNECT {{\"verbose\":false,\"echo\":false}}\r\nSUB {other} 1\r\nPING\r\n").as_bytes(),
        );
        flow.flush()?;
        loop {
            match flow.line()?.as_str() {
                "PONG" => break,
                "PING" => {
                    flow.put(b"PONG\r\n");
                    flow.flush()?;
                }
                other => return Err(io::Error::other(format!("NATS answered {other:?} to SUB"))),
            }
        }
        let put_head = format!("PUB {own} {bytes}\r\n").into_bytes();
        let got_head = format!("MSG {other} 1 {bytes}\r\n").into_bytes();
        Ok(Nats { flow, put_head, got_head, bytes })
    }
}

impl Wire for Nats {
    const BATCHES: bool = true;

    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<()> {
        self.flow.put(&self.put_head);
        fill(self.flow.place(bytes));
        self.flow.put(b"\r\n");
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flow.flush()
    }

    fn receive(&mut self, limit: u64, mut look: impl FnMut(&[u8])) -> io::Result<u64> {
        let head = self.got_head.len();
        let whole = head + self.bytes + 2;
        let mut count = 0;
        while count == 0 || (count < limit && self.flow.held() >= whole) {
            // Now and then the server asks whether this end lives.
            while self.flow.need(PING.len())? == PING {
                self.flow.pass(PING.len());
                self.flow.put(b"PONG\r\n");
                self.flow.flush()?;
            }
            let got = self.flow.need(whole)?;
            if got[..head] != self.got_head[..] {
                return Err(io::Error::other(format!(
                    "NATS sent {:?} instead of a message's head",
                    String::from_utf8_lossy(&got[..head])
                )));
            }
            look(&got[head..head + self.bytes]);
            self.flow.pass(whole);
            count += 1;
        }
        Ok(count)
    }
}
