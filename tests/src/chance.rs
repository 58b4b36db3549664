//! Random numbers that can be drawn again: SplitMix64.

use std::time::Duration;

/// A source of random numbers.
pub struct Chance {
    state: u64,
}

impl Chance {
    /// Numbers of this seed.
    pub fn of(seed: u64) -> Chance {
        Chance { state: seed }
    }

    /// Numbers of the seed in `SHOAL_TEST_SEED`, else of the clock's; prints it, so that a failed test can be run again.
    ///
    /// # Panics
    /// When the variable holds no number.
    pub fn seeded() -> Chance {
        let by_clock = || {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.map_or(1, |d| d.as_nanos() as u64)
        };
        let given = std::env::var("SHOAL_TEST_SEED").ok();
        let seed = given.map_or_else(by_clock, |text| text.parse().expect("SHOAL_TEST_SEED: a number"));
        println!("seed: SHOAL_TEST_SEED={seed}");
        Chance::of(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }

    /// A time below a bound.
    pub fn time(&mut self, bound: Duration) -> Duration {
        Duration::from_nanos(self.below(bound.as_nanos() as u64))
    }
}
