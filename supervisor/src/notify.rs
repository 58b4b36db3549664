//! A service manager that wants to be told (sd_notify): a datagram socket named by the environment, lines of `KEY=value`.
//!
//! Source: sd_notify(3), sd_watchdog_enabled(3).

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// What a service manager sets for its service, and no agent inherits.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// A service manager that listens.
#[derive(Debug)]
pub struct Service {
    socket: UnixDatagram,
    watchdog: Option<Duration>,
}

impl Service {
    /// The one that the environment names, if it can be reached.
    pub fn of_environment() -> Option<Service> {
        let usec = std::env::var("WATCHDOG_USEC").ok();
        let pid = std::env::var("WATCHDOG_PID").ok();
        Service::at(&std::env::var_os("NOTIFY_SOCKET")?, watchdog(usec.as_deref(), pid.as_deref(), is_ours))
    }

    fn at(path: &OsStr, watchdog: Option<Duration>) -> Option<Service> {
        let bytes = path.as_bytes();
        let address = match bytes.first()? {
            b'@' => SocketAddr::from_abstract_name(&bytes[1..]),
            b'/' => SocketAddr::from_pathname(path),
            // A virtual machine's, or what is not known yet.
            _ => return None,
        };
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect_addr(&address.ok()?).ok()?;
        // A manager that does not listen must not stop the swarm.
        socket.set_nonblocking(true).ok()?;
        Some(Service { socket, watchdog })
    }

    /// Tells it something. That it does not listen is its own affair.
    pub fn tell(&self, text: &str) {
        let _ = self.socket.send(text.as_bytes());
    }

    /// How often it is to be told that we live: twice in the time after which it gives us up.
    pub fn ping_every(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }
}

/// After what time without a word the manager gives us up, if we are meant.
fn watchdog(usec: Option<&str>, pid: Option<&str>, is_ours: impl Fn(u32) -> bool) -> Option<Duration> {
    let meant = pid.is_none_or(|pid| pid.parse().is_ok_and(is_ours));
    let usec: u64 = usec.filter(|_| meant)?.parse().ok()?;
    (usec > 0).then(|| Duration::from_micros(usec))
}

/// Whether a process is this one or one of its next ancestors: a supervisor may run below the process that was started.
fn is_ours(wanted: u32) -> bool {
    let mut pid = std::process::id();
    for _ in 0..4 {
        if pid == wanted {
            return true;
        }
        let Some(parent) = parent(pid) else { return false };
        pid = parent;
    }
    false
}

/// The parent of a process.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchdog_is_ours_if_it_names_us_an_ancestor_or_nobody() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(Some("1000000"), None, |_| false), second);
        assert_eq!(watchdog(Some("1000000"), Some("7"), |pid| pid == 7), second);
        assert_eq!(watchdog(Some("1000000"), Some("8"), |pid| pid == 7), None);
        for usec in [None, Some("0"), Some("soon")] {
            assert_eq!(watchdog(usec, None, |_| true), None);
        }
        assert!(is_ours(std::process::id()) && is_ours(std::os::unix::process::parent_id()));
        assert!(!is_ours(u32::MAX));
    }

    #[test]
    fn service_is_told_through_a_path_or_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let at_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("shoal-notify-{}", std::process::id());
        let abstracted =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
        for (address, socket) in
            [(path.as_os_str().to_owned(), at_path), (format!("@{name}").into(), abstracted)]
        {
            Service::at(&address, None).unwrap().tell("READY=1");
            let mut bytes = [0; 64];
            let got = socket.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..got], b"READY=1");
        }
        assert!(Service::at(OsStr::new("vsock:2:1234"), None).is_none());
        assert!(Service::at(OsStr::new("/absent"), None).is_none());
    }
}
