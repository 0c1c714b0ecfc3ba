//! A frame in memory, read behind bounds checks in the form that the kernel's verifier follows.

use core::marker::PhantomData;

use crate::verifier::opaque;

/// A frame in memory: where it begins, where its readable part ends, and how long all of it is.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    start: usize,
    end: usize,
    bytes: u32,
    memory: PhantomData<&'a [u8]>,
}

impl<'a> Frame<'a> {
    /// The frame in this slice.
    pub fn new(bytes: &'a [u8]) -> Self {
        let start = bytes.as_ptr() as usize;
        Self { start, end: start + bytes.len(), bytes: bytes.len() as u32, memory: PhantomData }
    }

    /// The frame of which only the first part was kept.
    pub fn cut(head: &'a [u8], bytes: u32) -> Self {
        Self { bytes, ..Self::new(head) }
    }

    /// The frame between two addresses, `bytes` long with what lies beyond its readable part.
    ///
    /// # Safety
    /// `start..end` is readable for `'a`.
    #[inline(always)]
    pub unsafe fn from_raw(start: usize, end: usize, bytes: u32) -> Self {
        Self { start, end, bytes, memory: PhantomData }
    }

    /// Its beginning.
    #[inline(always)]
    pub(crate) const fn cursor(&self) -> Cursor<'a> {
        Cursor { at: self.start, end: self.end, memory: PhantomData }
    }

    /// Bytes of the whole frame from here on, with what is not readable here.
    #[inline(always)]
    pub(crate) fn bytes_from(&self, cursor: &Cursor<'_>) -> u32 {
        // Hidden, so that the compiler subtracts one pointer from the other and not each from the length.
        self.bytes.wrapping_sub(opaque((cursor.at - self.start) as u64) as u32)
    }

    /// How far a place is from its beginning.
    #[inline(always)]
    pub(crate) const fn distance(&self, cursor: &Cursor<'_>) -> usize {
        cursor.at - self.start
    }

    /// Length of the whole frame.
    #[inline(always)]
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }
}

/// A place in a frame that moves forward. It stays a pointer, not an offset: that is what the kernel's verifier follows.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    at: usize,
    end: usize,
    memory: PhantomData<&'a [u8]>,
}

impl<'a> Cursor<'a> {
    /// The place so many bytes behind this one, whether or not they are there.
    #[inline(always)]
    pub(crate) const fn behind(&self, length: usize) -> Self {
        Self { at: self.at + length, ..*self }
    }

    /// The next `N` bytes, without moving.
    #[inline(always)]
    pub(crate) fn peek<const N: usize>(&self) -> Option<&'a [u8; N]> {
        if self.at + N > self.end {
            return None;
        }
        // SAFETY: `at..at + N` lies before `end`, inside the frame; a byte array has no alignment.
        Some(unsafe { &*(self.at as *const [u8; N]) })
    }

    /// The next `N` bytes, moving behind them.
    #[inline(always)]
    pub(crate) fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let bytes = self.peek::<N>()?;
        self.at += N;
        Some(bytes)
    }

    /// Moves over `length` bytes, if they are there.
    #[inline(always)]
    pub(crate) fn skip(&mut self, length: usize) -> Option<()> {
        let at = self.at + length;
        if at > self.end {
            return None;
        }
        self.at = at;
        Some(())
    }
}

/// Reads a big-endian integer at a constant place of a header.
macro_rules! be {
    ($type:ty, $header:expr, $offset:literal) => {
        <$type>::from_be_bytes(*$crate::frame::field::<{ size_of::<$type>() }, $offset, _>($header))
    };
}

/// Reads an integer in network order at a constant place of a header.
macro_rules! raw {
    ($type:ty, $header:expr, $offset:literal) => {
        <$type>::from_ne_bytes(*$crate::frame::field::<{ size_of::<$type>() }, $offset, _>($header))
    };
}

/// `N` bytes of a header at `OFFSET`, checked when compiled.
#[inline(always)]
pub(crate) fn field<const N: usize, const OFFSET: usize, const LENGTH: usize>(header: &[u8; LENGTH]) -> &[u8; N] {
    const { assert!(OFFSET + N <= LENGTH) };
    // SAFETY: in bounds by the assertion; a byte array has no alignment.
    unsafe { &*header.as_ptr().add(OFFSET).cast::<[u8; N]>() }
}

pub(crate) use {be, raw};
