//! Goal: nothing that a peer writes makes its reader or its producer crash, read outside of the ring, or look for ever.
//! Method: random words against real ends on heap segments; a watch ends the process when a look does not return.

use super::*;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

/// Random numbers that a seed repeats (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn bytes(&mut self, len_max: u64) -> Vec<u8> {
        let len = self.next() % (len_max + 1);
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Ends the process when `run` does not count on for half a minute, and says at what.
fn watched<T>(name: &str, run: impl FnOnce(&AtomicU64) -> T) -> T {
    let (at, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
    let (watched_at, watched_over, name) = (at.clone(), over.clone(), name.to_owned());
    let watch = std::thread::spawn(move || {
        let (mut last, mut since) = (0, Instant::now());
        while watched_over.load(Ordering::Relaxed) == 0 {
            let now = watched_at.load(Ordering::Relaxed);
            if now != last {
                (last, since) = (now, Instant::now());
            }
            if since.elapsed() > Duration::from_secs(30) {
                eprintln!("{name}: hangs at round {now}");
                std::process::abort();
            }
            std::thread::park_timeout(Duration::from_millis(200));
        }
    });
    // A broken rule ends the watch, too: else it would outlive the test and call that a hang.
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&at)));
    over.store(1, Ordering::Relaxed);
    watch.thread().unpark();
    watch.join().expect("the watch saw nothing");
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

const HEADERS: u64 = 1_000_000;

#[test]
fn a_million_random_headers_are_refused_or_read_inside_the_ring() {
    watched("headers", |round| {
        for when_full in [WhenFull::Block, WhenFull::DropOldest] {
            let mut random = Random(0x5eed);
            let mut scene = Scene::new(when_full, (0, 1), 0);
            for n in 0..HEADERS / 2 {
                round.store(n, Ordering::Relaxed);
                // All bits random; random but of a believable number; and a believable length, too; or padding.
                let (word, sequence) = (random.next(), scene.at().sequence << 32);
                let room = CAPACITY - scene.at().position % CAPACITY;
                let facts = match n % 5 {
                    0 => word,
                    1 => word & 0xffff_ffff | sequence,
                    2 => word & 0x5000_0fff | sequence,
                    3 => (room - 16) | 1 << 28 | sequence,
                    _ => word & 0x4000_01ff | sequence,
                };
                if n % 16 == 0 {
                    let sequence = scene.at().sequence + 1;
                    let ahead = random.next() % (2 * CAPACITY);
                    scene.tail(Place { position: scene.at().position + ahead, sequence });
                }
                scene.header(facts);
                let before = scene.seen;
                scene.read();
                if scene.seen.lane_faults > before.lane_faults {
                    scene.reopen();
                    scene.tail(scene.at());
                }
            }
            assert!(scene.seen.frames > 10_000 && scene.seen.lane_faults > 10_000, "{:?}", scene.seen);
        }
    });
}

#[test]
fn random_tails_records_floors_and_verdicts_are_refused_or_waited_for() {
    watched("words", |round| {
        let mut total = Seen::default();
        for seed in 0..6_000 {
            round.store(seed, Ordering::Relaxed);
            let bytes = Random(seed).bytes(3_000);
            let seen = std::panic::catch_unwind(|| play(&bytes));
            let seen = seen.unwrap_or_else(|_| panic!("seed {seed} broke a rule: {bytes:?}"));
            total.frames += seen.frames;
            total.lane_faults += seen.lane_faults;
            total.cursor_faults += seen.cursor_faults;
            total.missed = total.missed.wrapping_add(seen.missed);
        }
        assert!(
            total.frames > 3_000 && total.lane_faults > 10_000 && total.cursor_faults > 3_000,
            "{total:?}"
        );
    });
}

#[test]
fn a_segment_of_random_bytes_is_a_fault_or_silence() {
    watched("segments", |round| {
        for seed in 0..2_000 {
            round.store(seed, Ordering::Relaxed);
            let mut random = Random(seed);
            let when_full = if seed % 2 == 0 { WhenFull::Block } else { WhenFull::DropOldest };
            let mut scene = Scene::new(when_full, (0, 1), 0);
            (0..scene.liar.len_bytes()).step_by(8).for_each(|offset| scene.store(offset, random.next()));
            scene.read();
            scene.send(100);
            assert_eq!(scene.seen.frames, 0);
            if seed % 4 < 2 {
                scene.verdict(random.next(), VerdictKind::Corrupt);
                scene.read();
            }
        }
    });
}

#[test]
fn padding_is_never_longer_than_the_frame_that_it_makes_room_for() {
    let mut scene = Scene::new(WhenFull::Block, (0, 1), 0);
    let whole = Facts {
        len: CAPACITY - 16,
        kind: Kind::Padding,
        extended: false,
        sequence: scene.at().sequence as u32,
    };
    scene.header(whole.pack());
    scene.read();
    assert_eq!(scene.seen.lane_faults, 1, "a lap of nothing but padding");
}

#[test]
fn a_floor_that_moves_under_every_look_does_not_keep_the_reader() {
    let scene = Scene::new(WhenFull::DropOldest, (0, 1), 0);
    let (liar, floor) = (scene.liar.clone(), scene.lane_offset() + lane::FLOOR);
    let first = scene.at().position;
    let mut scene = scene;
    let stop = Arc::new(AtomicUsize::new(0));
    let stopped = stop.clone();
    let mover = std::thread::spawn(move || {
        let mut position = first;
        while stopped.load(Ordering::Relaxed) == 0 {
            position += 16;
            liar.word(floor).store(position, Ordering::Relaxed);
        }
    });
    watched("floor", |round| {
        for n in 0..2_000 {
            round.store(n, Ordering::Relaxed);
            let _ = scene.consumer.poll();
        }
    });
    stop.store(1, Ordering::Relaxed);
    mover.join().expect("it only stores");
}

/// Rows of bytes that broke a rule once, or that go deep.
const CORPUS: [&[u8]; 6] = [
    // A floor next to the end of all positions.
    &[1, 9, 255, 255, 255, 255, 255, 255, 255, 240, 15, 255, 15, 255],
    // A tail mark there, with a number next to the end of all numbers, and a floor that agrees.
    &[
        1, 6, 255, 255, 255, 255, 255, 255, 255, 240, 255, 255, 255, 255, 255, 255, 255, 255, 9, 255, 255,
        255, 255, 255, 255, 255, 240, 15, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 15, 255,
    ],
    // A tail a whole ring ahead of an empty ring.
    &[0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 15, 255],
    // A frame, a verdict behind it, and a look.
    &[0, 2, 0, 3, 0, 15, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 15, 255],
    // Nothing.
    &[],
    // A cursor ahead of the tail.
    &[0, 10, 9, 0, 13, 3, 0, 13, 3, 0],
];

#[test]
fn the_corpus_of_the_fuzz_target_breaks_no_rule() {
    watched("corpus", |round| {
        for (n, bytes) in CORPUS.iter().enumerate() {
            round.store(n as u64, Ordering::Relaxed);
            play(bytes);
        }
    });
}
