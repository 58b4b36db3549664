//! UNSAFE. The table of descriptors that a supervisor shares with its keeper: what a successor finds open in it, and takes or closes.

use shoal_runtime::again::insist;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A descriptor as a journal names it: its number, and what it was of, so that a number that was used again is not taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Held {
    /// Its number in the table.
    pub number: RawFd,
    /// Device and inode: memory, sockets and pipes have their own, and so have processes on newer kernels; the others of a kind share one.
    of: (u64, u64),
}

impl Held {
    /// None.
    pub const NONE: Held = Held { number: -1, of: (0, 0) };

    /// Of an open descriptor.
    pub fn new(fd: impl AsFd) -> Held {
        let fd = fd.as_fd();
        Held { number: fd.as_raw_fd(), of: identity(fd) }
    }

    /// Whether it is this descriptor that it names, and that is still of the same.
    pub fn is(&self, fd: impl AsFd) -> bool {
        let fd = fd.as_fd();
        fd.as_raw_fd() == self.number && identity(fd) == self.of
    }
}

/// What is behind a descriptor; nothing known of it is nothing, too.
fn identity(fd: BorrowedFd<'_>) -> (u64, u64) {
    insist(|| rustix::fs::fstat(fd)).map_or((0, 0), |seen| (seen.st_dev, seen.st_ino))
}

/// What is open in this process. All of it, or an error: a successor closes what is not known.
///
/// # Errors
/// No /proc, or no descriptor to read it with.
pub fn open_now() -> io::Result<BTreeSet<RawFd>> {
    insist(list_open)
}

fn list_open() -> io::Result<BTreeSet<RawFd>> {
    use rustix::fs::{Mode, OFlags, RawDir};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open("/proc/self/fd", flags, Mode::empty())?;
    let mut open = BTreeSet::new();
    let mut buffer = Vec::with_capacity(8192);
    let mut entries = RawDir::new(&folder, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        // A point and two are no numbers.
        open.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<RawFd>().ok()));
    }
    open.remove(&folder.as_raw_fd());
    Ok(open)
}

/// Closes what a dead supervisor had opened and nobody knows: all but these. Before anything else is opened. Nobody is asked what is
/// open: of thousands that would take longer than all the rest of a take-over.
///
/// # Errors
/// The kernel's refusal.
pub fn close_others(known: Vec<RawFd>) -> io::Result<()> {
    for (first, last) in gaps(known) {
        // SAFETY: the process that owned what is open there is dead, and no value of this one does: it is in no record.
        insist(|| match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
            ..0 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        })?;
    }
    Ok(())
}

/// The ranges of numbers, first and last, that are not among these.
fn gaps(known: impl IntoIterator<Item = RawFd>) -> Vec<(u32, u32)> {
    let mut open = Vec::new();
    for number in known.into_iter().filter_map(|number| u32::try_from(number).ok()) {
        let word = number as usize / 64;
        if word >= open.len() {
            open.resize(word + 1, 0u64);
        }
        open[word] |= 1 << (number % 64);
    }
    let (mut gaps, mut next) = (Vec::new(), 0);
    for (word, mut left) in (0..).zip(open) {
        while left != 0 {
            let number = word * 64 + left.trailing_zeros();
            if number > next {
                gaps.push((next, number - 1));
            }
            next = number + 1;
            left &= left - 1;
        }
    }
    gaps.push((next, u32::MAX));
    gaps
}

/// Takes a descriptor over that a dead supervisor's journal names; `None` when it is not open, or is of something else.
///
/// Each is to be claimed once.
pub fn claim(held: Held) -> Option<OwnedFd> {
    if held.number < 0 {
        return None;
    }
    // SAFETY: it is asked about, and nobody of this process opens or closes it meanwhile; one that is not open is of nothing.
    let is_it = held.of != Held::NONE.of && held.is(unsafe { BorrowedFd::borrow_raw(held.number) });
    // SAFETY: it is open and what the journal names, its owner is dead, and the journal names each once.
    is_it.then(|| unsafe { OwnedFd::from_raw_fd(held.number) })
}

/// As [`claim`], of one that is checked later ([`Held::is`]): a journal that could always be written names only what is open. `None` for
/// [`Held::NONE`].
pub fn take(held: Held) -> Option<OwnedFd> {
    // SAFETY: what a record names is closed only when it names it no longer, its owner is dead, and the journal names each once.
    (held.number >= 0).then(|| unsafe { OwnedFd::from_raw_fd(held.number) })
}

/// As [`claim`], of a number that whoever opens it knows otherwise.
pub fn claim_number(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: it is open (asked here), its owner is dead, and what it is shows when it is opened.
    is_open(number).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: asks about a number.
    let asked = insist(|| match unsafe { libc::fcntl(number, libc::F_GETFD) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    });
    number >= 0 && asked.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    /// Makes something, has its number used again by something else, and claims it.
    fn claimed_after<A: Into<OwnedFd>, B: Into<OwnedFd>>(
        make: impl Fn() -> A,
        other: impl Fn() -> B,
    ) -> bool {
        let first: OwnedFd = make().into();
        let held = Held::new(&first);
        let number = first.into_raw_fd();
        // Still what was named.
        let again = claim(held).expect("it is open and the same");
        let other: OwnedFd = other().into();
        rustix::io::dup2(&other, &mut std::mem::ManuallyDrop::new(again)).expect("used again");
        let taken = claim(held);
        if taken.is_none() {
            // SAFETY: `dup2` made it, and nobody else has it.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
        taken.is_some()
    }

    #[test]
    fn number_that_was_used_again_for_something_else_is_not_taken() {
        let memory = || shoal_runtime::segment::freeze("held", b"x").expect("memory");
        let pipe = || std::io::pipe().expect("a pipe").0;
        let socket = || std::os::unix::net::UnixStream::pair().expect("a pair").0;
        assert!(!claimed_after(memory, memory), "other memory");
        assert!(!claimed_after(pipe, pipe), "another pipe");
        assert!(!claimed_after(socket, socket), "another socket");
        assert!(!claimed_after(memory, socket) && !claimed_after(socket, memory));
    }

    proptest::proptest! {
        #[test]
        fn every_number_is_known_or_in_a_gap_and_in_one_only(known in proptest::collection::vec(-1..40i32, 0..30)) {
            let gaps = gaps(known.clone());
            proptest::prop_assert_eq!(gaps.last().map(|gap| gap.1), Some(u32::MAX));
            for number in 0..50u32 {
                let within = gaps.iter().filter(|gap| (gap.0..=gap.1).contains(&number)).count();
                proptest::prop_assert_eq!(within, usize::from(!known.contains(&(number as i32))), "{}", number);
            }
        }
    }

    #[test]
    fn what_is_not_open_is_not_taken() {
        let held = Held::new(shoal_runtime::segment::freeze("gone", b"x").expect("memory"));
        // Nobody else here opens something that is the same.
        assert!(claim(held).is_none() && claim(Held::NONE).is_none());
    }
}
