//! What an agent notes in a file before it acknowledges, so that the test, and its own next life, know what it met.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// Numbers in the order in which they were met, eight bytes each. A life that dies between noting and acknowledging meets
/// its last number again: only that one, and only once.
pub struct Book {
    file: File,
    /// For each way, the number that is due; empty when they may come in any order.
    due: Vec<u64>,
    /// What was met, when it may come in any order.
    met: HashSet<u64>,
    /// The last number of the life before.
    last: Option<u64>,
}

/// What a number is to a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The one that was due; it is noted now.
    New,
    /// The one that the life before noted and did not acknowledge.
    Again,
    /// Neither: this one was due on its way, or in any order: it was met before.
    Wrong(u64),
}

impl Book {
    /// Opens a book, and what a life before noted in it. Number n comes by way n modulo `ways`, each way in order; 0: in any
    /// order, each once.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn open(path: &Path, ways: u64) -> io::Result<Book> {
        let noted = Book::read(path)?;
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let mut due: Vec<u64> = (0..ways).collect();
        for number in noted.iter().filter(|_| ways > 0) {
            due[(number % ways) as usize] = number + ways;
        }
        let met = noted.iter().copied().filter(|_| ways == 0).collect();
        Ok(Book { file, due, met, last: noted.last().copied() })
    }

    /// Notes a number.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn enter(&mut self, number: u64) -> io::Result<Entry> {
        let ways = self.due.len() as u64;
        if self.last == Some(number) {
            self.last = None;
            return Ok(Entry::Again);
        }
        if ways == 0 {
            if !self.met.insert(number) {
                return Ok(Entry::Wrong(number));
            }
        } else {
            let due = &mut self.due[(number % ways) as usize];
            if *due != number {
                return Ok(Entry::Wrong(*due));
            }
            *due += ways;
        }
        self.file.write_all(&number.to_le_bytes())?;
        Ok(Entry::New)
    }

    /// Everything noted so far; nothing if there is no book.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn read(path: &Path) -> io::Result<Vec<u64>> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(mut file) => _ = file.read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (whole, _) = bytes.as_chunks::<8>();
        Ok(whole.iter().map(|number| u64::from_le_bytes(*number)).collect())
    }

    /// How many numbers are noted so far.
    pub fn count(path: &Path) -> u64 {
        std::fs::metadata(path).map_or(0, |seen| seen.len() / 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn book_tells_a_number_met_again_from_a_lost_and_from_a_doubled_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book");
        let mut book = Book::open(&path, 2).unwrap();
        let entries = [0, 2, 1, 2].map(|n| book.enter(n).unwrap());
        assert_eq!(entries, [Entry::New, Entry::New, Entry::New, Entry::Wrong(4)]);
        let mut book = Book::open(&path, 2).unwrap();
        let entries = [1, 1, 5, 4, 2].map(|n| book.enter(n).unwrap());
        assert_eq!(entries, [Entry::Again, Entry::Wrong(3), Entry::Wrong(3), Entry::New, Entry::Wrong(6)]);
        assert_eq!(Book::read(&path).unwrap(), [0, 2, 1, 4]);
    }

    #[test]
    fn book_in_any_order_takes_each_number_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book");
        let mut book = Book::open(&path, 0).unwrap();
        assert_eq!([7, 3, 7].map(|n| book.enter(n).unwrap()), [Entry::New, Entry::New, Entry::Wrong(7)]);
        let mut book = Book::open(&path, 0).unwrap();
        let entries = [3, 3, 7, 8].map(|n| book.enter(n).unwrap());
        assert_eq!(entries, [Entry::Again, Entry::Wrong(3), Entry::Wrong(7), Entry::New]);
    }
}
