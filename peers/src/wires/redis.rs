//! Redis by publish and subscribe over its Unix socket, in its own protocol: a connection each to publish and to receive,
//! answers read in batches. `LPUSH` and `BRPOP` cost a command more at the receiver.

use super::flow::Flow;
use crate::wire::{Mode, Wire};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Answers that may be outstanding.
const OUTSTANDING_MAX: usize = 512;
/// The answer to a message that one subscriber got.
const ANSWER: &[u8] = b":1\r\n";

/// One end.
pub struct Redis {
    publish: Flow,
    subscribed: Flow,
    put_head: Vec<u8>,
    got_head: Vec<u8>,
    bytes: usize,
    outstanding: usize,
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

impl Redis {
    /// Connects, and subscribes to what the other end publishes.
    ///
    /// # Errors
    /// The server refuses.
    pub fn connect(socket: &str, channels: [&str; 2], bytes: usize) -> io::Result<Self> {
        let [own, other] = channels;
        let flow = || -> io::Result<Flow> {
            let fd = OwnedFd::from(UnixStream::connect(socket)?);
            Flow::new(fd.try_clone()?, fd, Mode::Parked)
        };
        let (publish, mut subscribed) = (flow()?, flow()?);
        subscribed.put(format!("*2\r\n{}{}", bulk("SUBSCRIBE"), bulk(other)).as_bytes());
        subscribed.flush()?;
        // An array of three: `subscribe`, the channel, how many.
        let lines = (0..6).map(|_| subscribed.line()).collect::<io::Result<Vec<_>>>()?;
        if lines.first().map(String::as_str) != Some("*3") {
            return Err(io::Error::other(format!("Redis answered {lines:?} to SUBSCRIBE")));
        }
        let put_head = format!("*3\r\n{}{}${bytes}\r\n", bulk("PUBLISH"), bulk(own)).into_bytes();
        let got_head = format!("*3\r\n{}{}${bytes}\r\n", bulk("message"), bulk(other)).into_bytes();
        Ok(Redis { publish, subscribed, put_head, got_head, bytes, outstanding: 0 })
    }

    fn hear_answers(&mut self) -> io::Result<()> {
        let answers = self.publish.need(self.outstanding * ANSWER.len())?;
        if !answers.chunks(ANSWER.len()).all(|answer| answer == ANSWER) {
            return Err(io::Error::other("Redis says that a message went to nobody, or refused it"));
        }
        self.publish.pass(self.outstanding * ANSWER.len());
        self.outstanding = 0;
        Ok(())
    }
}

impl Wire for Redis {
    const BATCHES: bool = true;

    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<()> {
        self.publish.put(&self.put_head);
        fill(self.publish.place(bytes));
        self.publish.put(b"\r\n");
        self.outstanding += 1;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.publish.flush()?;
        if self.outstanding >= OUTSTANDING_MAX { self.hear_answers() } else { Ok(()) }
    }

    fn receive(&mut self, limit: u64, mut look: impl FnMut(&[u8])) -> io::Result<u64> {
        let head = self.got_head.len();
        let whole = head + self.bytes + 2;
        let mut count = 0;
        while count == 0 || (count < limit && self.subscribed.held() >= whole) {
            let got = self.subscribed.need(whole)?;
            if got[..head] != self.got_head[..] {
                return Err(io::Error::other(format!(
                    "Redis sent {:?} instead of a message's head",
                    String::from_utf8_lossy(&got[..head])
                )));
            }
            look(&got[head..head + self.bytes]);
            self.subscribed.pass(whole);
            count += 1;
        }
        Ok(count)
    }
}
