//! Calls that are made again at once: what was interrupted, or met a lack that may have passed already. What lasts longer is for
//! whoever asked to bear, with a pause or with a message.

use std::io;

/// How often a call is made that meets a passing lack.
const TIMES: usize = 4;

/// Whether an error may be gone when the same is tried again.
pub fn is_passing(error: &io::Error) -> bool {
    let lacks =
        [libc::EINTR, libc::EAGAIN, libc::ENOMEM, libc::ENOBUFS, libc::EMFILE, libc::ENFILE, libc::ENOSPC];
    error.raw_os_error().is_some_and(|errno| lacks.contains(&errno))
        || matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Whether the kernel takes no descriptors along, because the user has more under way on sockets than a process may have open (`unix(7)`). That
/// passes when they are received, or whoever sent them ends: not at once.
pub fn is_congested(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ETOOMANYREFS)
}

/// Makes a call that must leave nothing behind when it fails: up to four times while its error is a passing one.
///
/// # Errors
/// What the last call met.
pub fn insist<T, E: Into<io::Error>>(mut call: impl FnMut() -> Result<T, E>) -> io::Result<T> {
    for _ in 1..TIMES {
        match call().map_err(E::into) {
            Err(error) if is_passing(&error) => {}
            result => return result,
        }
    }
    call().map_err(E::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_lack_is_borne_and_a_lasting_one_is_told() {
        let mut made = 0;
        let mut fails = |times: i32, errno: i32| {
            made = 0;
            let call = || {
                made += 1;
                if made > times { Ok(made) } else { Err(io::Error::from_raw_os_error(errno)) }
            };
            insist(call).map_err(|error| error.raw_os_error())
        };
        assert_eq!(fails(3, libc::ENOMEM), Ok(4));
        assert_eq!(fails(9, libc::ENOMEM), Err(Some(libc::ENOMEM)));
        assert_eq!(fails(1, libc::EPIPE), Err(Some(libc::EPIPE)), "who is gone is not asked again");
    }
}
