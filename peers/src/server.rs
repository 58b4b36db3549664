//! Brokers and drivers that a peer needs: local ones, started for the run on a private socket or port, and ended with it.

use crate::registry::{PATH_OF_SERVERS, Peer};
use rustix::process::Signal;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long one may take to come up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Makes this process a server's, which ends with the one that started it: the program on its command line, or Aeron's
/// driver in the folder that this says.
const SERVER_ENV: &str = "SHOAL_PEERS_SERVER";

/// A server that runs.
pub struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts the one that a peer needs, if it needs one, and waits until it can be reached.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(peer: Peer, folder: &Path) -> io::Result<Option<Server>> {
        let folder = folder.join(peer.name());
        let said = folder.display().to_string();
        let mut command = Command::new(std::env::current_exe()?);
        command.env(SERVER_ENV, folder.join("driver"));
        match peer {
            Peer::Redis => {
                let redis = command.arg(program("redis-server"));
                redis.args([
                    "--port",
                    "0",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                    "--daemonize",
                    "no",
                    "--dir",
                    &said,
                ]);
                redis.args(["--unixsocket", &format!("{said}/socket")]);
                // A subscriber that is slow for a moment is not cut off.
                redis.args(["--client-output-buffer-limit", "pubsub 0 0 0"]);
            }
            Peer::Nats => {
                command.arg(program("nats-server"));
                command.args(["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", &said]);
            }
            Peer::Aeron => {}
            _ => return Ok(None),
        }
        std::fs::create_dir_all(&folder)?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(address) = address(peer, &folder) {
                return Ok(Some(Server { child, address }));
            }
            if let Some(status) = child.try_wait()? {
                return Err(io::Error::other(format!("its server ended with {status}")));
            }
            if Instant::now() > until {
                let _ = child.kill();
                let _ = child.wait();
                return Err(io::Error::other(format!(
                    "its server did not come up within {} s",
                    PATIENCE.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where it is reached.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(name: &str) -> PathBuf {
    let beside = PathBuf::from(PATH_OF_SERVERS).join(name);
    if beside.is_file() { beside } else { name.into() }
}

/// Where a server is reached, once it can be.
fn address(peer: Peer, folder: &Path) -> Option<String> {
    match peer {
        Peer::Redis => {
            let socket = folder.join("socket");
            std::os::unix::net::UnixStream::connect(&socket).ok()?;
            Some(socket.display().to_string())
        }
        Peer::Nats => {
            // A file of its name and number: {"nats":["nats://127.0.0.1:PORT"], …}
            let files = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
            let ports =
                files.map(|file| file.path()).find(|path| path.extension().is_some_and(|e| e == "ports"))?;
            let said: serde_json::Value = serde_json::from_slice(&std::fs::read(ports).ok()?).ok()?;
            said["nats"][0].as_str()?.rsplit_once(':').map(|(_, port)| port.to_owned())
        }
        // The driver's file has been written once its clients can read it.
        _ => folder.join("driver/cnc.dat").is_file().then(|| folder.join("driver").display().to_string()),
    }
}

/// Makes this process a server if it was started as one, and never returns then.
pub fn run_if_server() {
    let Ok(folder) = std::env::var(SERVER_ENV) else { return };
    let failed = match rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        Err(error) => error.into(),
        Ok(()) => match std::env::args_os().nth(1) {
            // Returns only if it cannot.
            Some(program) => Command::new(program).args(std::env::args_os().skip(2)).exec(),
            None => drive(&folder),
        },
    };
    eprintln!("a server: {failed}");
    std::process::exit(1);
}

#[cfg(feature = "aeron")]
fn drive(folder: &str) -> io::Error {
    crate::wires::aeron::drive(folder)
}

#[cfg(not(feature = "aeron"))]
fn drive(folder: &str) -> io::Error {
    io::Error::other(format!("there is no driver in this build for {folder}"))
}
