//! Goal: receiving, handling, sending and committing a message touches no heap, and the message is read where its
//! producer wrote it. Method: an allocator that counts this thread's allocations; addresses compared with positions.
#![allow(unsafe_code, clippy::unwrap_used, missing_docs)]

use shoal_agent::harness::Harness;
use shoal_agent::{Bytes, Next};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged; the counter has no destructor and is initialized
// by a constant, so touching it allocates nothing.
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

#[shoal_agent::message]
pub struct Task {
    n: u64,
    text: String,
}

#[shoal_agent::message]
pub struct Count {
    n: u64,
    text: [u8; 40],
}

fn harness(capacity: u64, count: u64) -> Harness {
    let harness = Harness::new("worker").subscribes::<Task>("tasks").capacity(capacity).producers(2);
    let mut harness = harness.publishes::<Count>("counts").capacity(1 << 20);
    (0..count).for_each(|n| harness.feed("tasks", Task { n, text: "x".repeat(50) }));
    harness
}

/// Counts the allocations between the hundredth and the four hundredth call.
#[derive(Default)]
struct Window {
    calls: u64,
    before: u64,
    between: Option<u64>,
}

impl Window {
    fn call(&mut self) {
        self.calls += 1;
        match self.calls {
            100 => self.before = ALLOCATIONS.get(),
            400 => self.between = Some(ALLOCATIONS.get() - self.before),
            _ => {}
        }
    }
}

#[test]
fn a_handlers_step_allocates_nothing() {
    let mut harness = harness(1 << 20, 500);
    let window = Rc::new(RefCell::new(Window::default()));
    let noted = window.clone();
    harness
        .run(move |agent| {
            let counts = agent.publish::<Count>("counts")?;
            agent.on::<Task>("tasks", move |step, task| {
                noted.borrow_mut().call();
                step.send(&counts, &Count { n: task.n.to_native(), text: [1; 40] })?;
                step.send(&counts, &Count { n: task.text.len() as u64, text: [1; 40] })
            })?;
            agent.serve()
        })
        .unwrap();
    assert_eq!(window.borrow().between, Some(0));
}

#[test]
fn the_loop_form_allocates_nothing() {
    let mut harness = harness(1 << 20, 500);
    let mut window = Window::default();
    harness
        .run(|agent| {
            let counts = agent.publish::<Count>("counts")?;
            let tasks = agent.subscribe::<Task>("tasks")?;
            while let Next::Message(task) = agent.receive(&tasks, None)? {
                window.call();
                task.send(&counts, &Count { n: task.message().n.to_native(), text: [1; 40] })?;
                task.commit()?;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(window.between, Some(0));
}

#[test]
fn a_message_is_read_where_its_producer_wrote_it() {
    const CAPACITY: u64 = 4096;
    let mut harness = harness(CAPACITY, 500);
    let bases = Rc::new(RefCell::new(std::collections::BTreeSet::new()));
    let noted = bases.clone();
    harness
        .run(move |agent| {
            agent.on::<Task>("tasks", move |step, task| {
                let id = step.message_id().unwrap();
                let base = task.text.as_ptr().addr() as u64 - id.position % CAPACITY;
                noted.borrow_mut().insert((id.agent.to_owned(), base));
                Ok(())
            })?;
            agent.serve()
        })
        .unwrap();
    assert_eq!(bases.borrow().len(), 2, "one ring for each of the two producers: {bases:?}");
}

#[test]
fn bytes_written_by_hand_are_written_in_the_ring_and_allocate_nothing() {
    const CAPACITY: u64 = 1 << 20;
    let mut harness =
        Harness::new("camera").publishes::<Bytes>("frames").capacity(CAPACITY).without_readers();
    let mut window = Window::default();
    let mut addresses = Vec::with_capacity(1000);
    harness
        .run(|agent| {
            let frames = agent.publish::<Bytes>("frames")?;
            for _ in 0..500 {
                window.call();
                agent.send_with(&frames, 1000, |slot| {
                    addresses.push(slot.as_ptr().addr() as u64);
                    Ok(slot.len())
                })?;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(window.between, Some(0));
    assert!(addresses.windows(2).all(|w| w[0] < w[1] && w[1] - w[0] <= 1088), "frame after frame");
    assert!(addresses[499] - addresses[0] < CAPACITY);
}
