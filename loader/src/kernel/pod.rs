//! The bridge between zerocopy's and aya's idea of plain data.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Anything that zerocopy has proved to be plain bytes.
pub(super) trait Plain:
    FromBytes + IntoBytes + Immutable + KnownLayout + Copy + 'static
{
}
impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Copy + 'static> Plain for T {}

/// A plain value in a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct P<T>(pub(super) T);

// SAFETY: `T` has no padding and every bit pattern is valid, which zerocopy's derives have checked.
unsafe impl<T: Plain> aya::Pod for P<T> {}
