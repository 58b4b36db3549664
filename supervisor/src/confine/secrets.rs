//! Secrets: files whose content an agent is handed in sealed memory, at a number that its environment names.
//!
//! So they stand in no command line, in no environment, and in no file that anybody but the supervisor needs to read; they are
//! read again at each start.

use crate::config::SECRET_BYTES_MAX;
use shoal_runtime::{segment, wire::CONTROL_FD};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub use shoal_runtime::bootstrap::SECRET_ENV;

/// Descriptors to hand over, and the variables that tell their numbers.
type Handed = (Vec<OwnedFd>, Vec<(String, String)>);

/// The descriptors to hand over, in order, and the variables that tell their numbers.
///
/// # Errors
/// A file that cannot be read, named; never what is in it.
pub(crate) fn handed(secrets: &BTreeMap<String, PathBuf>) -> io::Result<Handed> {
    let (mut fds, mut names) = (Vec::new(), Vec::new());
    for (number, (name, path)) in (CONTROL_FD + 1..).zip(secrets) {
        let named =
            |e: io::Error| io::Error::new(e.kind(), format!("secret {name} ({}): {e}", path.display()));
        fds.push(sealed(path).map_err(named)?);
        names.push((format!("{SECRET_ENV}{name}"), number.to_string()));
    }
    Ok((fds, names))
}

fn sealed(path: &Path) -> io::Result<OwnedFd> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {SECRET_BYTES_MAX} bytes")));
    }
    if bytes.is_empty() {
        return Err(io::Error::other("empty"));
    }
    let sealed = segment::freeze("shoal-secret", &bytes);
    // What is freed is not wiped.
    bytes.fill(0);
    std::hint::black_box(&bytes);
    sealed
}
