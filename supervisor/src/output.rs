//! Capture of agents' output.
use std::os::fd::BorrowedFd;
/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}
/// Whether more can come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Yes.
    Open,
    /// No.
    Closed,
}
/// Placeholder until the real one lands.
pub struct Capture {
    name: String,
}
impl Capture {
    /// New.
    pub fn new(name: &str) -> Self {
        Capture { name: name.into() }
    }
    /// Reads what is there.
    pub fn on_readable(&mut self, fd: BorrowedFd<'_>, _stream: Stream) -> std::io::Result<Drained> {
        let mut bytes = [0; 4096];
        match rustix::io::read(fd, &mut bytes) {
            Ok(0) => Ok(Drained::Closed),
            Ok(n) => {
                eprint!("{} | {}", self.name, String::from_utf8_lossy(&bytes[..n]));
                Ok(Drained::Open)
            }
            Err(rustix::io::Errno::AGAIN) => Ok(Drained::Open),
            Err(e) => Err(e.into()),
        }
    }
}
