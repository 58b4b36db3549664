//! Bytes into lines, of bounded length. Pure.

use super::LINE_BYTES_MAX;

/// A line, or a piece of one that is too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Without its end of line.
    pub bytes: Vec<u8>,
    /// The line goes on in the next piece.
    pub goes_on: bool,
}

/// One stream's unfinished line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Adds bytes; returns what they complete.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.begun.len();
            // One byte more than the room: a line of exactly the bound is whole.
            match bytes.iter().take(room + 1).position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.begun.extend_from_slice(&bytes[..end]);
                    pieces.push(Piece { bytes: std::mem::take(&mut self.begun), goes_on: false });
                    bytes = &bytes[end + 1..];
                }
                None if bytes.len() <= room => {
                    self.begun.extend_from_slice(bytes);
                    break;
                }
                None => {
                    self.begun.extend_from_slice(&bytes[..room]);
                    bytes = &bytes[room..];
                    pieces.push(self.cut());
                }
            }
        }
        pieces
    }

    /// What is left of a line that never ended.
    pub(super) fn finish(&mut self) -> Option<Piece> {
        let bytes = std::mem::take(&mut self.begun);
        (!bytes.is_empty()).then_some(Piece { bytes, goes_on: false })
    }

    /// A full piece, cut before a character that would be torn.
    fn cut(&mut self) -> Piece {
        let len = self.begun.len();
        let torn =
            (1..=3).find(|back| self.begun.get(len.wrapping_sub(*back)).is_some_and(|b| b & 0xC0 == 0xC0));
        let wanted = torn.map(|back| (back, self.begun[len - back].leading_ones() as usize));
        let keep = match wanted {
            Some((back, whole)) if whole > back && whole <= 4 => len - back,
            _ => len,
        };
        let rest = self.begun.split_off(keep);
        Piece { bytes: std::mem::replace(&mut self.begun, rest), goes_on: true }
    }
}
