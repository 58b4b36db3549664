//! Opening a path that may be longer than the kernel takes in one call (`PATH_MAX`, 4096 bytes).
//! Nothing else lives here.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io;

/// The longest piece given to one `openat`, in bytes.
const PIECE_MAX: usize = 4000;

/// Opens `path` with `flags` and close-on-exec; a long path is walked piece by piece.
///
/// # Errors
/// Those of `openat`. A single name of more than 255 bytes stays `ENAMETOOLONG`.
pub(super) fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let mut rest = path.as_os_str().as_bytes();
    let mut folder: Option<OwnedFd> = None;
    while rest.len() > PIECE_MAX {
        let Some(slash) = rest[..PIECE_MAX].iter().rposition(|&byte| byte == b'/').filter(|&at| at > 0)
        else {
            return Err(io::Errno::NAMETOOLONG);
        };
        let (head, tail) = rest.split_at(slash);
        let way = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        folder = Some(openat_from(folder.as_ref(), head, way)?);
        // A slash at the front would make the rest absolute.
        rest = &tail[tail.iter().position(|&byte| byte != b'/').unwrap_or(tail.len())..];
    }
    openat_from(folder.as_ref(), rest, flags)
}

fn openat_from(folder: Option<&OwnedFd>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let path = OsStr::from_bytes(path);
    match folder {
        Some(folder) => openat(folder, path, flags, Mode::empty()),
        None => openat(CWD, path, flags, Mode::empty()),
    }
}
