//! What the two byte formats of this crate share: serde values written one part after the other, without names or type
//! tags. [`ordered`](crate::ordered) and [`Bincode`](crate::Bincode) are both a [`Format`]; nobody else uses this.
//!
//! Invariant: reading accepts exactly the bytes that writing makes for that type (one spelling for each value), never
//! panics, never allocates more than it has seen bytes for ([`Allowance`]), and never nests deeper than [`MAX_DEPTH`], which
//! writing refuses too: what can be written can be read.

mod allowance;
mod failure;
mod read;
mod write;

use std::borrow::Cow;

pub(crate) use allowance::Allowance;
pub(crate) use failure::Failure;
pub(crate) use read::{decode, decode_all, decode_all_with};
pub(crate) use write::encode;

/// How many options, lists, maps and enums may stand inside each other. A recursive type passes through one of these
/// at every turn, so this bounds the stack that hostile bytes can use; real values stay far below.
pub(crate) const MAX_DEPTH: u8 = 128;

/// More elements than this are believed only if there are as many bytes: elements of no bytes could go on for ever.
pub(crate) const MAX_EMPTY_ELEMENTS: u64 = 1 << 24;

/// How a format writes and reads one kind of scalar.
pub(crate) trait Scalar<T> {
    /// Appends `value` to `out`.
    fn put(value: T, out: &mut Vec<u8>);
    /// Takes a value from the front of `input`.
    fn take(input: &mut &[u8]) -> Result<T, Failure>;
}

/// All integers that serde knows.
pub(crate) trait Integers:
    Scalar<u8>
    + Scalar<u16>
    + Scalar<u32>
    + Scalar<u64>
    + Scalar<u128>
    + Scalar<i8>
    + Scalar<i16>
    + Scalar<i32>
    + Scalar<i64>
    + Scalar<i128>
{
}

/// What tells one positional format from another.
pub(crate) trait Format: Integers + Scalar<f32> + Scalar<f64> + Scalar<char> {
    /// The name in error messages.
    const NAME: &'static str;
    /// Why maps cannot be written, or `None` if they can.
    const MAPS_REFUSED: Option<&'static str>;

    /// Appends text or bytes so that their end can be found.
    fn put_bytes(bytes: &[u8], out: &mut Vec<u8>);
    /// Takes text or bytes.
    fn take_bytes<'de>(input: &mut &'de [u8]) -> Result<Cow<'de, [u8]>, Failure>;

    /// Appends the index of an enum variant.
    fn put_variant(index: u32, out: &mut Vec<u8>);
    /// Takes the index of an enum variant.
    fn take_variant(input: &mut &[u8]) -> Result<u32, Failure>;

    /// Starts a list or map of `len` elements, if that is known.
    fn put_start(len: Option<usize>, out: &mut Vec<u8>) -> Result<(), Failure>;
    /// Goes before each element.
    fn put_more(out: &mut Vec<u8>);
    /// Goes after the last element.
    fn put_end(out: &mut Vec<u8>);

    /// Starts a list: how many elements are left, or what stands for it in this format.
    fn take_start(input: &mut &[u8]) -> Result<u64, Failure>;
    /// Whether another element follows.
    fn take_more(left: &mut u64, input: &mut &[u8]) -> Result<bool, Failure>;
    /// How many elements are left, if that is known.
    fn left(left: u64) -> Option<u64>;
}

/// Takes `N` bytes.
#[inline]
pub(crate) fn take_array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Failure> {
    let (taken, rest) = input.split_first_chunk::<N>().ok_or_else(Failure::short)?;
    *input = rest;
    Ok(*taken)
}

/// Takes `len` bytes.
#[inline]
pub(crate) fn take_slice<'de>(len: usize, input: &mut &'de [u8]) -> Result<&'de [u8], Failure> {
    let (taken, rest) = input.split_at_checked(len).ok_or_else(Failure::short)?;
    *input = rest;
    Ok(taken)
}

/// Takes a byte that is 0 or 1.
#[inline]
pub(crate) fn take_flag(input: &mut &[u8]) -> Result<bool, Failure> {
    match take_array::<1>(input)? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(Failure::corrupt(format!("expected 0 or 1, found {other}"))),
    }
}
