//! A service manager's side of sd_notify(3): a socket in a test's folder, and all that was said to it.

use crate::Stage;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

/// What was told, a word a line.
pub struct Told {
    socket: UnixDatagram,
    words: String,
}

impl Told {
    /// Binds the socket, and names it in the environment of the command, with a watchdog that wants to be fed each 40 ms.
    pub fn by(command: &mut Command, stage: &Stage) -> Told {
        let socket = UnixDatagram::bind(stage.path("notify")).expect("bound");
        socket.set_nonblocking(true).expect("set");
        command.env("NOTIFY_SOCKET", stage.path("notify")).env("WATCHDOG_USEC", "40000");
        Told { socket, words: String::new() }
    }

    /// All that was told until now.
    pub fn hear(&mut self) -> String {
        let mut bytes = [0; 4096];
        while let Ok(got) = self.socket.recv(&mut bytes) {
            self.words += &String::from_utf8_lossy(&bytes[..got]);
            self.words.push('\n');
        }
        self.words.clone()
    }
}
