//! Goal: sending and reading a message touches no heap once the producer has warmed up. Method: an allocator that
//! counts the allocations of this thread.
#![cfg(not(loom))]
#![allow(unsafe_code, missing_docs, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::mem::MaybeUninit;

use rkyv::{Archive, Deserialize, Serialize};
use shoal_runtime::fingerprint::{Fingerprint, FingerprintBuilder, Typed};
use shoal_runtime::message::{EncodeError, Message, Scratch, access, encode, encoded_len};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged; the counter has no destructor and is
// initialized by a constant, so touching it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, that is from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[derive(Archive, Serialize, Deserialize)]
struct Task {
    number: u64,
    path: String,
    tags: Vec<String>,
    body: Vec<u8>,
}

impl Typed for Task {
    const FINGERPRINT: Fingerprint = FingerprintBuilder::of::<Self>("Task").finish();
}
impl Message for Task {
    const NAME: &'static str = "Task";
}

#[repr(align(16))]
struct Memory([MaybeUninit<u8>; 256 << 10]);

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn task(tags: usize) -> Task {
    let tag = |n| format!("a tag too long to be kept inline, {n}");
    Task {
        number: 1,
        path: "/usr/include/stdio.h".to_owned(),
        tags: (0..tags).map(tag).collect(),
        body: vec![7; 64],
    }
}

fn send_and_read(task: &Task, memory: &mut Memory, scratch: &mut Scratch) {
    let length_bytes = encode(task, &mut memory.0, scratch).unwrap();
    // SAFETY: `encode` has initialized the first `length_bytes`.
    let bytes = unsafe { std::slice::from_raw_parts(memory.0.as_ptr().cast::<u8>(), length_bytes) };
    let archived = access::<Task>(bytes).unwrap();
    assert_eq!(archived.path.as_str(), task.path);
    assert_eq!(archived.tags.len(), task.tags.len());
    black_box(archived);
}

#[test]
fn sending_and_reading_allocates_nothing() {
    let (task, mut memory) = (task(20), Box::new(Memory([MaybeUninit::uninit(); 256 << 10])));
    let mut scratch = Scratch::new();
    assert_eq!(allocations(|| send_and_read(&task, &mut memory, &mut scratch)), 0);
}

#[test]
fn a_long_list_allocates_once_and_then_nothing() {
    let (task, mut memory) = (task(2_000), Box::new(Memory([MaybeUninit::uninit(); 256 << 10])));
    let mut scratch = Scratch::new();
    let warming = allocations(|| send_and_read(&task, &mut memory, &mut scratch));
    assert!((1..=2).contains(&warming), "{warming} allocations while the scratch grew");
    assert_eq!(allocations(|| send_and_read(&task, &mut memory, &mut scratch)), 0);
}

#[test]
fn a_slot_too_small_and_the_counting_of_the_length_allocate_nothing() {
    let (task, mut memory) = (task(5), Box::new(Memory([MaybeUninit::uninit(); 256 << 10])));
    let mut scratch = Scratch::new();
    let count = allocations(|| {
        assert_eq!(encode(&task, &mut memory.0[..64], &mut scratch), Err(EncodeError::SlotTooSmall));
        assert!(encoded_len(&task, &mut scratch).is_ok());
    });
    assert_eq!(count, 0);
}

#[test]
fn the_allocator_of_this_test_does_count() {
    assert_eq!(allocations(|| drop(black_box(Box::new(1)))), 1);
}
