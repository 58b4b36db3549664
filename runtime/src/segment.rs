//! Segments and boards as sealed memfds: create, attach, seal, reopen read-only, prove dead.
//!
//! Order of a start: the supervisor creates and sizes the memfd and writes its image → the incarnation maps it for writing →
//! the supervisor seals `SHRINK | GROW | FUTURE_WRITE` and verifies → peers get a *reopened* read-only descriptor. From the
//! seal on nobody can map or write it again, not even the same uid through /proc. Proof of death: `F_SEAL_WRITE` succeeds,
//! the kernel's word that no writable mapping is left in any process.

use crate::again::insist;
use crate::board::{Board, BoardWriter};
use crate::bug::{Bug, placed};
use crate::image::image;
pub use crate::image::{Origin, heap};
use crate::incarnation::Incarnation;
use crate::layout::{BoardShape, SEGMENT_MAGIC, SegmentShape, VERSION, header};
use crate::lease;
use crate::region::Region;
use crate::sync::Ordering;
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The seals of a segment whose incarnation has mapped it.
const LIVE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE);

fn context(what: &str, error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// How a memfd is sealed.
fn seals_of(fd: impl AsFd) -> io::Result<SealFlags> {
    insist(|| rustix::fs::fcntl_get_seals(fd.as_fd()))
}

/// Makes an empty memfd.
fn empty_memfd(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let noexec = MemfdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    // Kernels before 6.3 do not know MFD_NOEXEC_SEAL and refuse it with EINVAL.
    rustix::fs::memfd_create(name, flags | noexec)
        .or_else(|error| match error {
            rustix::io::Errno::INVAL => rustix::fs::memfd_create(name, flags),
            other => Err(other),
        })
        .map_err(|e| context("memfd_create of a segment", e))
}

/// Makes a memfd of zeroed, allocated bytes: a lack of memory is an error now, not a SIGBUS later.
fn memfd(name: &str, bytes: usize) -> io::Result<OwnedFd> {
    let fd = empty_memfd(name)?;
    rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, bytes as u64)
        .map_err(|e| context(&format!("allocating {bytes} bytes of shared memory"), e))?;
    Ok(fd)
}

/// Creates an incarnation's segment with its header, lanes and marks in place.
///
/// # Errors
/// No descriptors or no memory left.
pub fn create(shape: &SegmentShape, origin: &Origin) -> io::Result<OwnedFd> {
    let fd = memfd("shoal-segment", shape.used_bytes())?;
    rustix::fs::ftruncate(&fd, shape.total_bytes() as u64)
        .map_err(|e| context("giving a segment its length", e))?;
    for (offset, words) in image(shape, origin).into_iter().filter(|(_, words)| !words.is_empty()) {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        rustix::io::pwrite(&fd, &bytes, offset as u64)
            .map_err(|e| context("writing a segment's header", e))?;
    }
    Ok(fd)
}

/// Maps the own segment for writing, after checking its size and header.
///
/// # Errors
/// When it is not of this build or not the expected incarnation's, with both sides named; or the kernel's refusal. `BrokenPipe` when it
/// is sealed for good: the supervisor holds this incarnation dead, as it may a process that was adopted and lives on.
pub fn attach(fd: impl AsFd, shape: &SegmentShape, expected: Incarnation) -> io::Result<Region> {
    check_size(&fd, shape.total_bytes())?;
    let region = Region::map_writable(&fd, shape.used_bytes()).map_err(|e| match is_write_sealed(&fd) {
        true => io::ErrorKind::BrokenPipe.into(),
        false => context("mapping the own segment", e),
    })?;
    check_header(&region, shape, expected)?;
    Ok(region)
}

/// Maps a peer's segment read-only, after checking its seals and size. Its header is not read: the peer could have changed it. The supervisor,
/// which made it, says whose it is, and that it fits its build each writer checks of its own ([`attach`]). All of it is allocated, but a page is
/// mapped when it is first read, 16 at once: who dies with few of them is proved dead sooner, and who attaches is there sooner.
///
/// # Errors
/// When the descriptor could still be written or resized, or is of another size; or the kernel's refusal.
pub fn view(fd: impl AsFd, shape: &SegmentShape, of: Incarnation) -> io::Result<Region> {
    check_live(&fd, shape, of)?;
    Region::map_read_only_sparsely(&fd, shape.used_bytes())
        .map_err(|e| context("mapping a peer's segment", e))
}

/// Maps what a supervisor looks at of a segment, read-only and sparsely: all but its rings. Otherwise as [`view`].
///
/// # Errors
/// As [`view`].
pub fn look(fd: impl AsFd, shape: &SegmentShape, of: Incarnation) -> io::Result<Region> {
    check_live(&fd, shape, of)?;
    look_again(&fd, shape.ring_offset(0))
}

/// As [`look`], of a segment that was looked at before, whose head has so many bytes: its seals hold, so it is still of that size.
///
/// # Errors
/// The kernel's refusal.
pub fn look_again(fd: impl AsFd, head_bytes: usize) -> io::Result<Region> {
    Region::map_read_only_sparsely(&fd, head_bytes).map_err(|e| context("mapping the head of a segment", e))
}

fn check_live(fd: impl AsFd, shape: &SegmentShape, expected: Incarnation) -> io::Result<()> {
    let seals = seals_of(&fd).map_err(|e| context("reading the seals of a peer's segment", e))?;
    if !seals.contains(LIVE_SEALS) {
        return Err(io::Error::other(format!("the segment of {expected} is not sealed: {seals:?}")));
    }
    check_size(&fd, shape.total_bytes())
}

fn check_size(fd: impl AsFd, expected: usize) -> io::Result<()> {
    let size = rustix::fs::fstat(&fd).map_err(|e| context("reading the size of a segment", e))?.st_size;
    if size as usize != expected {
        return Err(io::Error::other(format!(
            "a segment is of {size} bytes, not of the expected {expected}"
        )));
    }
    Ok(())
}

fn check_header(region: &Region, shape: &SegmentShape, expected: Incarnation) -> io::Result<()> {
    // Relaxed: written before the descriptor was handed over.
    let word = |offset: usize| region.word(offset).load(Ordering::Relaxed);
    let rows = [
        ("magic", header::MAGIC, SEGMENT_MAGIC),
        ("layout version", header::VERSION, VERSION),
        ("size", header::TOTAL_BYTES, shape.total_bytes() as u64),
        ("agent", header::AGENT, u64::from(expected.agent)),
        ("generation", header::GENERATION, u64::from(expected.generation)),
        ("layout fingerprint", header::FINGERPRINT, shape.fingerprint()),
    ];
    for (name, offset, here) in rows {
        let there = word(offset);
        if there != here {
            return Err(io::Error::other(format!(
                "the segment of {expected} does not fit this build: its {name} is {there:#x}, here it is {here:#x}"
            )));
        }
    }
    Ok(())
}

/// Seals a segment that its incarnation has mapped, and verifies the seals.
///
/// # Errors
/// The kernel's refusal.
pub fn seal_live(fd: impl AsFd) -> io::Result<()> {
    rustix::fs::fcntl_add_seals(&fd, LIVE_SEALS).map_err(|e| context("sealing a segment", e))?;
    let seals = seals_of(&fd).map_err(|e| context("reading the seals of a segment", e))?;
    if !seals.contains(LIVE_SEALS) {
        return Err(io::Error::other(format!("a segment's seals did not hold: {seals:?}")));
    }
    Ok(())
}

/// Opens a memfd again, read-only: a map made from it can never be turned writable.
///
/// # Errors
/// No descriptors left, or no /proc.
pub fn reopen_read_only(fd: impl AsFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| context("opening a segment again read-only through /proc (is /proc mounted?)", e))
}

/// Opens a memfd again for its one writer. Of a descriptor that was opened so the kernel knows, as long as it or a map made from
/// it lives anywhere, that somebody could write; of the one that the memfd was made with it does not.
///
/// # Errors
/// No descriptors left, or no /proc.
pub fn reopen_for_writer(fd: impl AsFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| context("opening a segment again for its writer through /proc (is /proc mounted?)", e))
}

/// What the kernel says of a dead incarnation's segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// No process can write it any more, ever.
    Dead,
    /// Somebody still maps it for writing, or writes it right now.
    StillWritable,
}

/// Asks the kernel to forbid all writing for ever; it refuses while any writable mapping lives.
///
/// # Errors
/// Anything but that refusal.
pub fn prove_dead(fd: impl AsFd) -> io::Result<Proof> {
    match rustix::fs::fcntl_add_seals(&fd, SealFlags::WRITE | SealFlags::SEAL) {
        Ok(()) => Ok(Proof::Dead),
        Err(rustix::io::Errno::BUSY) if placed(Bug::DeathAssumed) => Ok(Proof::Dead),
        Err(rustix::io::Errno::BUSY) => Ok(Proof::StillWritable),
        // Proved before: by a supervisor that died before it wrote the verdict.
        Err(rustix::io::Errno::PERM) if is_write_sealed(&fd) => Ok(Proof::Dead),
        // Somebody added the seal that forbids all further ones.
        Err(rustix::io::Errno::PERM) => prove_by_lease(&fd),
        Err(error) => Err(context("sealing a dead incarnation's segment", error)),
    }
}

/// Whether a segment has the seals of a living incarnation: somebody may be acting on them already.
pub fn is_live_sealed(fd: impl AsFd) -> bool {
    seals_of(fd).is_ok_and(|seals| seals.contains(LIVE_SEALS))
}

/// The other proof: the kernel grants a lease for reading only while no descriptor that was opened for writing lives, in any
/// process, any map, or on its way. The writer's was ([`reopen_for_writer`]); the supervisor's own, which never writes, was not
/// opened, and no new map for writing can be made from it since the segment was sealed.
fn prove_by_lease(fd: impl AsFd) -> io::Result<Proof> {
    let nobody = reopen_read_only(&fd).and_then(lease::nobody_writes);
    match nobody.map_err(|e| context("asking for a lease on a dead incarnation's segment", e))? {
        true => Ok(Proof::Dead),
        false => Ok(Proof::StillWritable),
    }
}

fn is_write_sealed(fd: impl AsFd) -> bool {
    seals_of(fd).is_ok_and(|seals| seals.contains(SealFlags::WRITE))
}

/// Creates the board, maps it for its one writer, and seals it against everybody else.
///
/// # Errors
/// No descriptors or no memory left.
pub fn create_board(shape: BoardShape, swarm: u64) -> io::Result<(BoardWriter, OwnedFd)> {
    let fd = memfd("shoal-board", shape.total_bytes())?;
    let region = Region::map_writable_sparsely(&fd, shape.total_bytes())
        .map_err(|e| context("mapping the board", e))?;
    // A map that is made later would be refused: a successor of this supervisor has this one.
    region.bequeath().map_err(|e| context("leaving the board to successors", e))?;
    let writer = BoardWriter::create(region, shape, swarm);
    seal_live(&fd)?;
    let read_only = reopen_read_only(&fd)?;
    Ok((writer, read_only))
}

/// Maps the board read-only.
///
/// # Errors
/// As [`view`].
pub fn open_board(fd: impl AsFd, shape: BoardShape) -> io::Result<Board> {
    check_size(&fd, shape.total_bytes())?;
    let region = Region::map_read_only_sparsely(&fd, shape.total_bytes())
        .map_err(|e| context("mapping the board", e))?;
    Board::open(region, shape).map_err(io::Error::other)
}

/// Makes the memory of a group's claim tables, zeroed: its members and the supervisor write it, so it is sealed against
/// resizing only.
///
/// # Errors
/// No descriptors or no memory left.
pub fn create_table(bytes: usize) -> io::Result<OwnedFd> {
    let fd = memfd("shoal-claims", bytes)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals).map_err(|e| context("sealing a claim table", e))?;
    Ok(fd)
}

/// Makes the memory of a journal, zeroed: whoever holds the descriptor writes it, and nobody resizes it. Its pages are taken when they
/// are first written.
///
/// # Errors
/// No descriptors left.
pub(crate) fn create_journal(bytes: usize) -> io::Result<OwnedFd> {
    let fd = empty_memfd("shoal-journal")?;
    rustix::fs::ftruncate(&fd, bytes as u64).map_err(|e| context("giving a journal its length", e))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals).map_err(|e| context("sealing a journal", e))?;
    Ok(fd)
}

/// Maps the memory of a group's claim tables: for writing as a member, for reading as a producer of its lanes.
///
/// # Errors
/// When it could be resized or is not of the expected size, or the kernel's refusal.
pub fn open_table(fd: impl AsFd, bytes: usize, writable: bool) -> io::Result<Region> {
    let seals = seals_of(&fd).map_err(|e| context("reading the seals of a claim table", e))?;
    if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
        return Err(io::Error::other(format!("a claim table is not sealed against resizing: {seals:?}")));
    }
    check_size(&fd, bytes)?;
    let mapped = if writable { Region::map_writable(&fd, bytes) } else { Region::map_read_only(&fd, bytes) };
    mapped.map_err(|e| context("mapping a claim table", e))
}

/// Makes a memfd that holds `bytes` and can never be changed: how a manifest is handed over.
///
/// # Errors
/// No descriptors or no memory left.
pub fn freeze(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd(name, bytes.len().max(1))?;
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::pwrite(&fd, &bytes[written..], written as u64)
            .map_err(|e| context("writing a manifest", e))?;
    }
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals).map_err(|e| context("sealing a manifest", e))?;
    Ok(fd)
}

/// Reads a frozen memfd whole.
///
/// # Errors
/// When it is not frozen, or the kernel's refusal.
pub fn thaw(fd: impl AsFd) -> io::Result<rkyv::util::AlignedVec<16>> {
    let size = rustix::fs::fstat(&fd).map_err(|e| context("reading the size of a manifest", e))?.st_size;
    read_frozen(fd, size as usize)
}

/// Reads `len` bytes that somebody who is not trusted has frozen; never blocks.
///
/// # Errors
/// When it is not a frozen memfd of that many bytes, or the kernel's refusal.
pub fn thaw_bytes(fd: impl AsFd, len: usize) -> io::Result<Vec<u8>> {
    let size = rustix::fs::fstat(&fd).map_err(|e| context("reading the size of frozen bytes", e))?.st_size;
    if size != len.max(1) as i64 {
        return Err(io::Error::other(format!(
            "what came is of {size} bytes, not of the {len} that were said"
        )));
    }
    Ok(read_frozen(fd, len)?.into_vec())
}

fn read_frozen(fd: impl AsFd, len: usize) -> io::Result<rkyv::util::AlignedVec<16>> {
    let seals = seals_of(&fd).map_err(|e| context("reading the seals of frozen bytes", e))?;
    if !seals.contains(SealFlags::SHRINK | SealFlags::WRITE) {
        return Err(io::Error::other("what came is not frozen"));
    }
    let mut bytes = rkyv::util::AlignedVec::new();
    bytes.resize(len, 0);
    let mut read = 0;
    while read < bytes.len() {
        match rustix::io::pread(&fd, &mut bytes[read..], read as u64)
            .map_err(|e| context("reading frozen bytes", e))?
        {
            0 => return Err(io::Error::other("frozen bytes ended early")),
            n => read += n,
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk;
    use crate::layout::{LaneShape, WhenFull};
    use crate::mark::Place;

    fn shape() -> SegmentShape {
        let lane = LaneShape { capacity_bytes: 4096, when_full: WhenFull::Block, channel: 0 };
        SegmentShape { lanes: vec![lane], input_count: 1, state_bytes: 0 }
    }

    fn origin() -> Origin {
        let place = Place { position: 4096, sequence: 0 };
        let incarnation = Incarnation { agent: 1, generation: 2 };
        Origin { swarm: 9, incarnation, lanes: vec![place], inputs: vec![place], state: Vec::new() }
    }

    /// What the kernel was told of the map that holds a word.
    fn flags_of_map(word: *const crate::sync::AtomicU64) -> String {
        let mut maps = crate::smaps::maps().into_iter();
        maps.find(|map| map.range.contains(&word.addr())).expect("a map").flags
    }

    #[test]
    fn pages_of_who_writes_them_are_not_noted_as_used_when_he_dies() {
        // Goal: the proof of death waits for no processor. Method: the kernel names what it was told of the maps. Readers' maps are to be noted:
        // what nobody uses goes first when memory is short.
        let fd = create(&shape(), &origin()).expect("created");
        let own = attach(&fd, &shape(), origin().incarnation).expect("attached");
        seal_live(&fd).expect("sealed");
        let read_only = reopen_read_only(&fd).expect("reopened");
        let peer = view(&read_only, &shape(), origin().incarnation).expect("viewed");
        let [own, peer] = [&own, &peer].map(|region| flags_of_map(region.word(0)));
        assert!(own.contains(" sr") && !peer.contains(" sr"), "own {own}, peer's {peer}");
    }

    #[test]
    fn sealed_segment_refuses_every_way_to_write_it_and_proves_death_only_without_maps() {
        let fd = create(&shape(), &origin()).expect("created");
        let own = attach(&fd, &shape(), origin().incarnation).expect("attached");
        assert!(view(&fd, &shape(), origin().incarnation).is_err(), "a peer refuses an unsealed segment");
        seal_live(&fd).expect("sealed");
        assert!(Region::map_writable(&fd, shape().total_bytes()).is_err());
        assert!(rustix::io::pwrite(&fd, b"x", 0).is_err());
        assert!(rustix::fs::ftruncate(&fd, 0).is_err());
        assert!(
            rustix::fs::fallocate(&fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 4096)
                .is_err()
        );
        let read_only = reopen_read_only(&fd).expect("reopened");
        let peer = view(&read_only, &shape(), origin().incarnation).expect("viewed");
        own.word(4096).store(77, Ordering::Relaxed);
        assert_eq!(
            peer.word(4096).load(Ordering::Relaxed),
            77,
            "the owner still writes and the peer sees it"
        );
        assert_eq!(prove_dead(&fd).expect("asked"), Proof::StillWritable);
        drop(own);
        assert_eq!(
            prove_dead(&fd).expect("asked"),
            Proof::Dead,
            "a read-only map does not disturb the proof"
        );
        assert_eq!(prove_dead(&fd).expect("asked"), Proof::Dead, "whoever asks again hears the same");
    }

    #[test]
    fn header_is_read_by_its_writer_alone() {
        let fd = create(&shape(), &origin()).expect("created");
        let own = attach(&fd, &shape(), origin().incarnation).expect("attached");
        seal_live(&fd).expect("sealed");
        for word in [header::MAGIC, header::VERSION, header::TOTAL_BYTES, header::GENERATION] {
            own.word(word).store(u64::MAX, Ordering::Relaxed);
        }
        assert!(attach(&fd, &shape(), origin().incarnation).is_err());
        view(&fd, &shape(), origin().incarnation).expect("its peers read it all the same");
        look(&fd, &shape(), origin().incarnation).expect("so does its supervisor");
    }

    #[test]
    fn segment_has_memory_for_what_is_used_and_its_rings_are_no_part_of_a_look() {
        let shape = shape();
        let fd = create(&shape, &origin()).expect("created");
        let owned = attach(&fd, &shape, origin().incarnation).expect("attached");
        assert!(look(&fd, &shape, origin().incarnation).is_err(), "it is not sealed");
        seal_live(&fd).expect("sealed");
        let peer = view(&fd, &shape, origin().incarnation).expect("viewed");
        let head = look(&fd, &shape, origin().incarnation).expect("looked at");
        assert_eq!((peer.len_bytes(), head.len_bytes()), (shape.used_bytes(), shape.ring_offset(0)));
        let seen = rustix::fs::fstat(&fd).expect("its size");
        let (length, memory) = (seen.st_size as usize, seen.st_blocks as usize * 512);
        assert_eq!((length, memory), (shape.total_bytes(), shape.used_bytes()), "a hole behind what is used");
        assert!(memory < length);
        // What was left is there again.
        head.leave_pages();
        assert_eq!(head.word(header::MAGIC).load(Ordering::Relaxed), SEGMENT_MAGIC);
        let own = desk::Desk::new(owned);
        let awake = desk::peek(&fd).expect("read");
        assert!(awake.0 == desk::Rest::Awake && awake == desk::peek(&fd).expect("read"));
        own.parked().set();
        let asleep = desk::peek(&fd).expect("read");
        assert!(asleep.0 == desk::Rest::Light && asleep == desk::peek(&fd).expect("read"));
        own.awaits(desk::Awaits::Channel(3), true);
        assert_eq!(desk::peek(&fd).expect("read").0, desk::Rest::UntilRung);
        assert_eq!(desk::view(&head).awaits, desk::Awaits::Channel(3));
        own.awaits(desk::Awaits::All, false);
        assert_eq!(desk::peek(&fd).expect("read").0, desk::Rest::Light);
        let asleep = desk::peek(&fd).expect("read");
        own.count(desk::Counter::Sent, 1);
        assert_ne!(asleep, desk::peek(&fd).expect("read"), "it sent something without waking");
    }

    #[test]
    fn death_is_proved_though_somebody_added_the_seal_that_forbids_all_further_ones() {
        for sealed_before in [true, false] {
            let fd = create(&shape(), &origin()).expect("created");
            let writer = reopen_for_writer(&fd).expect("reopened");
            let own = attach(&writer, &shape(), origin().incarnation).expect("attached");
            if sealed_before {
                seal_live(&fd).expect("sealed");
            }
            rustix::fs::fcntl_add_seals(&writer, SealFlags::SEAL).expect("sealed by its writer");
            assert_eq!(prove_dead(&fd).expect("asked"), Proof::StillWritable, "a descriptor and a map");
            drop(writer);
            assert_eq!(prove_dead(&fd).expect("asked"), Proof::StillWritable, "a map");
            let read_only = reopen_read_only(&fd).expect("reopened");
            drop(own);
            assert_eq!(
                prove_dead(&fd).expect("asked"),
                Proof::Dead,
                "and nothing that only reads disturbs it"
            );
            drop(read_only);
        }
    }

    #[test]
    fn segment_of_another_generation_or_shape_is_refused_by_name() {
        let fd = create(&shape(), &origin()).expect("created");
        let other = Incarnation { agent: 1, generation: 3 };
        let error = attach(&fd, &shape(), other).err().expect("refused").to_string();
        assert!(error.contains("generation is 0x2, here it is 0x3"), "{error}");
        let bigger = SegmentShape { input_count: 5000, ..shape() };
        let error = attach(&fd, &bigger, origin().incarnation).err().expect("refused").to_string();
        assert!(error.contains("not of the expected"), "{error}");
    }

    #[test]
    fn frozen_bytes_come_back_whole_and_cannot_be_changed() {
        let bytes: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        let fd = freeze("test", &bytes).expect("frozen");
        assert!(rustix::io::pwrite(&fd, b"x", 0).is_err());
        assert_eq!(&thaw(&fd).expect("thawed")[..], &bytes[..]);
        assert_eq!(thaw_bytes(&fd, bytes.len()).expect("thawed"), bytes);
        assert_eq!(thaw_bytes(freeze("test", b"").expect("frozen"), 0).expect("thawed"), b"");
    }

    #[test]
    fn bytes_of_another_length_or_not_frozen_or_no_memory_file_at_all_are_refused() {
        let fd = freeze("test", b"four").expect("frozen");
        for len in [0, 3, 5, usize::MAX / 2] {
            assert!(thaw_bytes(&fd, len).is_err(), "{len}");
        }
        let open = memfd("test", 4).expect("made");
        assert!(thaw_bytes(&open, 4).is_err(), "it could still change");
        let (pipe, _writer) = rustix::pipe::pipe().expect("a pipe");
        assert!(thaw_bytes(&pipe, 1).is_err() && thaw_bytes(&pipe, 0).is_err());
        let file = tempfile();
        assert!(thaw_bytes(&file, 4).is_err());
    }

    /// A plain file of four bytes, already without a name.
    fn tempfile() -> OwnedFd {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let fd = rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR).expect("a file");
        rustix::io::pwrite(&fd, b"four", 0).expect("written");
        fd
    }
}
