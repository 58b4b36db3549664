//! A reader of one of the worker's lanes, which knows for which input each message was sent.

use super::super::sink::Sink;
use super::story::{Consumed, GroupStory};
use shoal_runtime::mark::Place;

/// A message of a lane: its number, the input for which it was sent, and which of that input's outputs it is.
pub type Seen = (u64, u64, u64);

/// A sink and what it saw in all the run.
pub struct Reader {
    /// The sink.
    pub sink: Sink,
    /// What it saw, in order.
    pub seen: Vec<Seen>,
}

impl Reader {
    /// A reader that has seen something already.
    pub fn new(sink: Sink, seen: Vec<Seen>) -> Self {
        Reader { sink, seen }
    }

    /// Takes everything that there is; when `confirming`, also what only marks and records tell.
    ///
    /// # Errors
    /// What was wrong, in words.
    pub fn take(&mut self, story: &GroupStory, lane: usize, confirming: bool) -> Result<(), String> {
        let seen = &mut self.seen;
        self.sink.take_with(confirming, |number, bytes| {
            let (sequence, nth) = story.read_output(lane, bytes)?;
            seen.push((number, sequence, nth));
            Ok(())
        })
    }

    /// What it has acknowledged.
    pub fn acknowledged(&self) -> Vec<Seen> {
        let end = self.sink.acked().sequence;
        self.seen.iter().copied().filter(|(number, ..)| *number < end).collect()
    }
}

/// Where readers stand.
pub fn places(readers: &[Reader]) -> Vec<Place> {
    readers.iter().map(|reader| reader.sink.at()).collect()
}

/// Checks that what readers saw are whole outputs of exactly the inputs that the worker's state names.
///
/// # Errors
/// What was wrong, in words.
pub fn check(story: &GroupStory, readers: &[Reader], consumed: Consumed) -> Result<(), String> {
    if !consumed.each_once() {
        return Err(format!("the worker's state counts an input twice: {consumed:x?}"));
    }
    for (lane, reader) in readers.iter().enumerate() {
        let mut left = reader.seen.as_slice();
        while let Some(&(_, sequence, _)) = left.first() {
            let outputs = story.outputs(lane, sequence).len() as u64;
            let whole =
                (0..outputs).all(|nth| left.get(nth as usize).is_some_and(|s| (s.1, s.2) == (sequence, nth)));
            if !whole || !consumed.has(sequence) {
                return Err(format!(
                    "lane {lane} shows outputs for input {sequence} that are torn, or that the state does not know of"
                ));
            }
            left = &left[outputs as usize..];
        }
        for sequence in story.input.base.sequence..story.end() {
            let expected = if consumed.has(sequence) { story.outputs(lane, sequence).len() } else { 0 };
            let shown = reader.seen.iter().filter(|s| s.1 == sequence).count();
            if shown != expected {
                return Err(format!(
                    "lane {lane} shows {shown} outputs for input {sequence}, not {expected}"
                ));
            }
        }
    }
    Ok(())
}
