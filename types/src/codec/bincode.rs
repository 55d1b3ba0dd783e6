//! The default [`Codec`]: the bytes of bincode 2 with its standard configuration (little-endian, integers of variable
//! length), byte for byte; the crate itself is the oracle of the tests.
//!
//! The crate does not stand in the program, for three reasons. It makes room for the length that a damaged string
//! announces before it looks whether the bytes are there, and its limit is a constant. It writes a struct with a
//! field left out by `skip_serializing_if`, which nobody can read again. And it is no longer maintained.

use std::{borrow::Cow, marker::PhantomData};

use serde::{Serialize, de::DeserializeOwned};

use super::Codec;
use crate::{
    Result,
    positional::{self, Allowance, Failure, Format, Integers, Scalar, take_array, take_slice},
};

#[cfg(test)]
mod tests;

/// The codec `bincode2`.
pub enum Bincode {}

impl Codec for Bincode {
    const ID: &'static str = "bincode2";

    #[inline]
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
        positional::encode::<Self, T>(value, out)
    }

    #[inline]
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
        positional::decode_all::<Self, _>(PhantomData, bytes)
    }
}

impl Bincode {
    /// Decodes the body of a file of ours, as [`Codec::decode`] does, and refuses what would take more memory than three
    /// and a half times its length and 768 KiB. Of values no such bound can be asked: how much an element takes is for its
    /// type to say.
    ///
    /// # Errors
    /// `Corrupt` if these are not the bytes of a `T`, or would take more memory.
    pub fn decode_file<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
        positional::decode_all_with::<Self, _>(PhantomData, bytes, Allowance::of_file(bytes.len()))
    }

    /// Decodes the value at the front of `input`, which is moved on behind it: a part of what was encoded as a whole.
    ///
    /// # Errors
    /// `Corrupt` if no `T` stands there; `InvalidJob` if none can be read.
    pub fn decode_first<T: DeserializeOwned>(input: &mut &[u8]) -> Result<T> {
        positional::decode::<Self, _>(PhantomData, input)
    }
}

/// The greatest integer that is its own byte.
const MAX_BYTE: u8 = 250;
const U16: u8 = 251;
const U32: u8 = 252;
const U64: u8 = 253;
const U128: u8 = 254;

impl Integers for Bincode {}

impl Format for Bincode {
    const NAME: &'static str = "value";
    const MAPS_REFUSED: Option<&'static str> = None;

    #[inline]
    fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
        put_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }

    #[inline]
    fn take_bytes<'de>(input: &mut &'de [u8]) -> Result<Cow<'de, [u8]>, Failure> {
        let len = take_varint(input)?;
        // A length beyond `usize` is beyond the bytes at hand too.
        take_slice(usize::try_from(len).unwrap_or(usize::MAX), input).map(Cow::Borrowed)
    }

    #[inline]
    fn put_variant(index: u32, out: &mut Vec<u8>) {
        put_varint(index.into(), out);
    }

    #[inline]
    fn take_variant(input: &mut &[u8]) -> Result<u32, Failure> {
        Self::take(input)
    }

    #[inline]
    fn put_start(len: Option<usize>, out: &mut Vec<u8>) -> Result<(), Failure> {
        let Some(len) = len else {
            return Err(Failure::refused(
                "a list or map does not know its length before it is written: it cannot be `flatten`ed, and an \
                 iterator must be collected first",
            ));
        };
        put_varint(len as u64, out);
        Ok(())
    }

    #[inline]
    fn put_more(_out: &mut Vec<u8>) {}

    #[inline]
    fn put_end(_out: &mut Vec<u8>) {}

    #[inline]
    fn take_start(input: &mut &[u8]) -> Result<u64, Failure> {
        take_varint(input)
    }

    #[inline]
    fn take_more(left: &mut u64, _input: &mut &[u8]) -> Result<bool, Failure> {
        let more = *left > 0;
        *left = left.saturating_sub(1);
        Ok(more)
    }

    #[inline]
    fn left(left: u64) -> Option<u64> {
        Some(left)
    }
}

#[inline]
fn put_varint(value: u64, out: &mut Vec<u8>) {
    if value <= u64::from(MAX_BYTE) {
        out.push(value as u8);
    } else if let Ok(short) = u16::try_from(value) {
        let [a, b] = short.to_le_bytes();
        out.extend_from_slice(&[U16, a, b]);
    } else if let Ok(word) = u32::try_from(value) {
        let [a, b, c, d] = word.to_le_bytes();
        out.extend_from_slice(&[U32, a, b, c, d]);
    } else {
        out.push(U64);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

#[inline]
fn take_varint(input: &mut &[u8]) -> Result<u64, Failure> {
    let [first] = take_array(input)?;
    let (value, least) = match first {
        0..=MAX_BYTE => return Ok(first.into()),
        U16 => (u16::from_le_bytes(take_array(input)?).into(), u64::from(MAX_BYTE) + 1),
        U32 => (u32::from_le_bytes(take_array(input)?).into(), 1 << 16),
        U64 => (u64::from_le_bytes(take_array(input)?), 1 << 32),
        U128 => return Err(Failure::corrupt("an integer is longer than its type")),
        _ => return Err(Failure::corrupt(format!("byte {first} begins no integer"))),
    };
    if value < least {
        return Err(Failure::corrupt(format!("integer {value} in a longer form than it needs")));
    }
    Ok(value)
}

#[cold]
fn too_great(value: impl std::fmt::Display) -> Failure {
    Failure::corrupt(format!("integer {value} is too great for its type"))
}

macro_rules! varints {
    ($($unsigned:ty, $signed:ty);*) => {$(
        impl Scalar<$unsigned> for Bincode {
            #[inline]
            fn put(value: $unsigned, out: &mut Vec<u8>) {
                put_varint(value.into(), out);
            }

            #[inline]
            fn take(input: &mut &[u8]) -> Result<$unsigned, Failure> {
                let value = take_varint(input)?;
                <$unsigned>::try_from(value).map_err(|_| too_great(value))
            }
        }

        zigzag!($unsigned, $signed);
    )*};
}

/// Signed integers alternate: 0, -1, 1, -2, ...
macro_rules! zigzag {
    ($unsigned:ty, $signed:ty) => {
        impl Scalar<$signed> for Bincode {
            #[inline]
            fn put(value: $signed, out: &mut Vec<u8>) {
                let sign = value >> (<$signed>::BITS - 1);
                Self::put(((value << 1) ^ sign) as $unsigned, out);
            }

            #[inline]
            fn take(input: &mut &[u8]) -> Result<$signed, Failure> {
                let folded: $unsigned = Self::take(input)?;
                Ok((folded >> 1) as $signed ^ -((folded & 1) as $signed))
            }
        }
    };
}

varints!(u16, i16; u32, i32; u64, i64);
zigzag!(u128, i128);

impl Scalar<u128> for Bincode {
    #[inline]
    fn put(value: u128, out: &mut Vec<u8>) {
        if let Ok(short) = u64::try_from(value) {
            put_varint(short, out);
        } else {
            out.push(U128);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }

    #[inline]
    fn take(input: &mut &[u8]) -> Result<u128, Failure> {
        if input.first() != Some(&U128) {
            return take_varint(input).map(u128::from);
        }
        let [_, bytes @ ..]: [u8; 17] = take_array(input)?;
        let value = u128::from_le_bytes(bytes);
        if value <= u64::MAX.into() {
            return Err(Failure::corrupt(format!("integer {value} in a longer form than it needs")));
        }
        Ok(value)
    }
}

macro_rules! fixed {
    ($($type:ty),*) => {$(
        impl Scalar<$type> for Bincode {
            #[inline]
            fn put(value: $type, out: &mut Vec<u8>) {
                out.extend_from_slice(&value.to_le_bytes());
            }

            #[inline]
            fn take(input: &mut &[u8]) -> Result<$type, Failure> {
                Ok(<$type>::from_le_bytes(take_array(input)?))
            }
        }
    )*};
}

fixed!(u8, i8, f32, f64);

impl Scalar<char> for Bincode {
    #[inline]
    fn put(value: char, out: &mut Vec<u8>) {
        out.extend_from_slice(value.encode_utf8(&mut [0; 4]).as_bytes());
    }

    #[inline]
    fn take(input: &mut &[u8]) -> Result<char, Failure> {
        let len = match input.first() {
            Some(0..0x80) => 1,
            Some(0xC0..0xE0) => 2,
            Some(0xE0..0xF0) => 3,
            _ => 4,
        };
        let text = std::str::from_utf8(take_slice(len, input)?).ok();
        text.and_then(|text| text.chars().next()).ok_or_else(|| Failure::corrupt("no character of UTF-8"))
    }
}
