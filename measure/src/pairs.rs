//! The arithmetic of samples, and of pairs: two things measured in turns, so that what the machine does to one it does to the other.

use std::io;

/// Pairs of each result.
pub const PAIRS: usize = 21;

/// Runs a thing and its floors in turns: A B A B …, every other pair the other way round. `run` is told which floor, or none for the
/// thing itself; returns what came of the thing, and of each floor.
///
/// # Errors
/// Those of a run.
pub fn in_turns<T>(
    floors: usize,
    mut run: impl FnMut(Option<usize>) -> io::Result<T>,
) -> io::Result<(Vec<T>, Vec<Vec<T>>)> {
    let (mut ours, mut rows) = (Vec::new(), Vec::new());
    rows.resize_with(floors, Vec::new);
    for pair in 0..PAIRS {
        if pair % 2 == 0 {
            ours.push(run(None)?);
        }
        for (floor, row) in rows.iter_mut().enumerate() {
            row.push(run(Some(floor))?);
        }
        if pair % 2 == 1 {
            ours.push(run(None)?);
        }
    }
    Ok((ours, rows))
}

/// The median, and the quartiles around it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread {
    /// A quarter lies below.
    pub low: f64,
    /// The middle.
    pub median: f64,
    /// A quarter lies above.
    pub high: f64,
}

/// Sorts and takes the quartiles.
pub fn spread(values: impl IntoIterator<Item = f64>) -> Spread {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let at = |part: f64| values.get(((values.len().max(1) - 1) as f64 * part).round() as usize).copied();
    let [low, median, high] = [0.25, 0.5, 0.75].map(|part| at(part).unwrap_or_default());
    Spread { low, median, high }
}

/// Returns the value that `percent` of the samples do not exceed (nearest rank), or `None` without samples.
/// Sorts the samples.
pub fn percentile(samples: &mut [u64], percent: u32) -> Option<u64> {
    samples.sort_unstable();
    let rank = (samples.len() * percent as usize).div_ceil(100).max(1);
    samples.get(rank - 1).copied()
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2} to {:.2})", self.median, self.low, self.high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_there_and_back() {
        let mut said = String::new();
        let (ours, floors) = in_turns(2, |floor| {
            said.push(floor.map_or('a', |floor| ['b', 'c'][floor]));
            Ok(said.len())
        })
        .expect("no run fails");
        assert!(said.starts_with("abcbcaabc") && said.len() == 3 * PAIRS, "{said}");
        assert_eq!((&ours[..3], &floors[1][..2]), (&[1, 6, 7][..], &[3, 5][..]));
        assert!(in_turns(1, |_| Err::<(), _>(io::Error::other("it failed"))).is_err());
    }

    #[test]
    fn quartiles_of_five_values_are_the_second_third_and_fourth() {
        let Spread { low, median, high } = spread([5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!((low, median, high), (2.0, 3.0, 4.0));
    }

    #[test]
    fn percentile_is_the_nearest_rank() {
        assert_eq!(percentile(&mut [], 50), None);
        assert_eq!(percentile(&mut [7], 99), Some(7));
        assert_eq!(percentile(&mut [3, 1, 2, 4], 50), Some(2));
        let mut hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(percentile(&mut hundred, 99), Some(99));
        assert_eq!(percentile(&mut hundred, 100), Some(100));
    }
}
