//! UNSAFE. Where an archive is written: the bytes of a claim, from the first on.
//!
//! rkyv makes the root of an archive, the last part of it, on the stack and copies it. [`Slot::root`] makes it where it belongs.
#![allow(unsafe_code)]

use crate::message::{MESSAGE_ALIGN, slot_is_full};
use core::mem::{MaybeUninit, align_of, size_of};
use rkyv::rancor::Source;
use rkyv::ser::{Positional, Writer};
use rkyv::{Archive, Place};

/// Writes an archive into a slot, and remembers whether it was the slot that ended it. Named only in the bounds of
/// [`crate::message::Message`].
#[derive(Debug)]
pub struct Slot<'a> {
    bytes: &'a mut [MaybeUninit<u8>],
    len: usize,
    is_full: bool,
}

impl<'a> Slot<'a> {
    /// Begins at the first byte.
    ///
    /// # Panics
    /// When it is not aligned to [`MESSAGE_ALIGN`]: that is our own bug.
    #[inline]
    pub(crate) fn new(bytes: &'a mut [MaybeUninit<u8>]) -> Self {
        assert!(bytes.as_ptr().addr().is_multiple_of(MESSAGE_ALIGN), "the slot is not aligned");
        Slot { bytes, len: 0, is_full: false }
    }

    /// Bytes that were written.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether something did not fit.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// The next bytes; `None`, noted, when there are not so many.
    #[inline(always)]
    fn next(&mut self, count: usize) -> Option<&mut [MaybeUninit<u8>]> {
        // No overflow: a slice is no longer than half the address space.
        let next = self.bytes.get_mut(self.len..self.len + count);
        match next.is_some() {
            true => self.len += count,
            false => self.is_full = true,
        }
        next
    }

    /// Makes the root of an archive, aligned, out of what serializing the message gave.
    ///
    /// # Errors
    /// It does not fit.
    #[inline(always)]
    pub(crate) fn root<T: Archive, E: Source>(&mut self, value: &T, resolver: T::Resolver) -> Result<(), E> {
        const { assert!(align_of::<T::Archived>() <= MESSAGE_ALIGN) };
        let padding = self.len.wrapping_neg() & (align_of::<T::Archived>() - 1);
        self.next(padding).ok_or_else(slot_is_full::<E>)?.fill(MaybeUninit::new(0));
        let position = self.len;
        let bytes = self.next(size_of::<T::Archived>()).ok_or_else(slot_is_full::<E>)?;
        // What the message does not fill is padding, and reads as zero.
        bytes.fill(MaybeUninit::new(0));
        // SAFETY: the slot begins at a multiple of MESSAGE_ALIGN (checked by `new`), so at this position, a multiple of the
        // alignment, is an aligned place; it holds as many bytes as the type has, all initialised by the line above, and
        // borrowed exclusively.
        let place = unsafe { Place::new_unchecked(position, bytes.as_mut_ptr().cast::<T::Archived>()) };
        value.resolve(resolver, place);
        Ok(())
    }
}

impl Positional for Slot<'_> {
    #[inline]
    fn pos(&self) -> usize {
        self.len
    }
}

impl<E: Source> Writer<E> for Slot<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        let next = self.next(bytes.len()).ok_or_else(slot_is_full::<E>)?;
        // SAFETY: both are as long, and a slot that is borrowed exclusively does not overlap with what is shared.
        unsafe { next.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }
}
