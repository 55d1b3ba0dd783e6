//! Key bytes whose order is the order of the values: for keys, namespaces, map keys and timer times, wherever stores and
//! runs compare bytes and nothing else. Called by keyed streams (once per record) and by the typed table.
//!
//! Parts are self-delimiting, so that the bytes of a tuple are those of its parts, one after the other, and a prefix of
//! parts is a prefix of bytes. The bytes are part of the snapshot format; golden tests pin them:
//!
//! | value | bytes |
//! |---|---|
//! | unsigned integer | big-endian, full width |
//! | signed integer | big-endian, full width, sign bit flipped |
//! | `bool` | 0 or 1 |
//! | `char` | its number as a `u32` |
//! | `f32`, `f64` | bits big-endian; sign bit flipped if positive, all bits if negative; -0.0 is 0.0; one NaN, after infinity |
//! | text, bytes | the bytes, 0 written as `01 01` and 1 as `01 02`, then `00` |
//! | unit | nothing |
//! | option | 0, or 1 and the value |
//! | tuple, array, struct | its parts |
//! | enum | the index of the variant as one byte below 255, else 255 and a `u32`; then its parts |
//! | list | 1 before each element, then 0 |
//!
//! Enums are ordered by variant, lists element by element. Maps and types that ask the bytes what they hold are
//! refused. A set is a list to serde and is ordered as one: a `BTreeSet` may be a key, a `HashSet` must not.
//!
//! Why not a crate: `storekey` 0.11 has much the same bytes but left serde for a derive of its own, which every key type
//! of a user would have to carry, keeps -0.0 and every NaN apart, and writes text byte by byte. `memcomparable` 0.2 pads
//! text to groups of nine bytes, so that a word of nine letters takes nineteen and fewer keys fit in place, writes byte
//! by byte too, and panics on an enum of more than 256 variants. This runs once for every record: a `u64` must be one
//! store, and a short word a copy.

use std::borrow::Cow;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Result,
    positional::{self, Failure, Format, Integers, Scalar, take_array, take_slice},
};

#[cfg(test)]
mod tests;

/// Appends the ordered bytes of `value` to `out`, which is left as it was if that fails.
///
/// # Errors
/// `InvalidJob` if the type cannot be ordered (a map, a field that is sometimes left out, nesting beyond 128), `User` if
/// its `Serialize` fails.
#[inline]
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
    positional::encode::<Ordered, T>(value, out)
}

/// Decodes the value that fills `bytes` to the end.
///
/// # Errors
/// `Corrupt` if these are not exactly the bytes that [`encode_into`] makes of a `T`.
#[inline]
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    positional::decode_all::<Ordered, _>(std::marker::PhantomData, bytes)
}

/// Decodes the value at the front of `bytes` and moves `bytes` behind it.
///
/// # Errors
/// `Corrupt` if `bytes` does not begin with what [`encode_into`] makes of a `T`; `bytes` is then anywhere.
#[inline]
pub fn decode_prefix<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T> {
    positional::decode::<Ordered, _>(std::marker::PhantomData::<T>, bytes)
}

/// The format of this module.
pub(crate) enum Ordered {}

/// Ends text and bytes: below all that may stand in their place, so that a prefix comes first.
const END: u8 = 0;
/// Goes before an escaped byte, which is written plus one.
const ESCAPE: u8 = 1;
/// The first variant index that is written as this byte and a `u32`.
const WIDE_VARIANT: u8 = 255;

impl Integers for Ordered {}

impl Format for Ordered {
    const NAME: &'static str = "ordered key";
    const MAPS_REFUSED: Option<&'static str> =
        Some("a map cannot be ordered: use a list of pairs, a tuple or a struct as key");

    #[inline]
    fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
        out.reserve(bytes.len() + size_of::<u64>());
        let mut rest = bytes;
        while let Some((word, behind)) = rest.split_first_chunk() {
            if !is_plain(u64::from_le_bytes(*word)) {
                return put_escaped(rest, out);
            }
            out.extend_from_slice(word);
            rest = behind;
        }
        let word = short_word(rest);
        let behind = u64::MAX << (8 * rest.len());
        if !is_plain(word | behind) {
            return put_escaped(rest, out);
        }
        // Copied at full width, which is one store; the zero behind the last byte is the end.
        let end = out.len() + rest.len() + 1;
        out.extend_from_slice(&word.to_le_bytes());
        out.truncate(end);
    }

    #[inline]
    fn take_bytes<'de>(input: &mut &'de [u8]) -> Result<Cow<'de, [u8]>, Failure> {
        let plain = take_slice(plain_len(input), input)?;
        if take_array(input)? == [END] {
            return Ok(Cow::Borrowed(plain));
        }
        let mut bytes = plain.to_vec();
        loop {
            match take_array(input)? {
                [escaped @ (1 | 2)] => bytes.push(escaped - 1),
                [other] => return Err(Failure::corrupt(format!("byte {other} behind an escape"))),
            }
            bytes.extend_from_slice(take_slice(plain_len(input), input)?);
            if take_array(input)? == [END] {
                return Ok(Cow::Owned(bytes));
            }
        }
    }

    #[inline]
    fn put_variant(index: u32, out: &mut Vec<u8>) {
        match u8::try_from(index) {
            Ok(byte) if byte < WIDE_VARIANT => out.push(byte),
            _ => {
                out.push(WIDE_VARIANT);
                out.extend_from_slice(&index.to_be_bytes());
            }
        }
    }

    #[inline]
    fn take_variant(input: &mut &[u8]) -> Result<u32, Failure> {
        let [byte] = take_array(input)?;
        if byte < WIDE_VARIANT {
            return Ok(u32::from(byte));
        }
        let index = u32::from_be_bytes(take_array(input)?);
        if index < u32::from(WIDE_VARIANT) {
            return Err(Failure::corrupt(format!("variant {index} in the long form")));
        }
        Ok(index)
    }

    #[inline]
    fn put_start(_len: Option<usize>, _out: &mut Vec<u8>) -> Result<(), Failure> {
        Ok(())
    }

    #[inline]
    fn put_more(out: &mut Vec<u8>) {
        out.push(1);
    }

    #[inline]
    fn put_end(out: &mut Vec<u8>) {
        out.push(0);
    }

    /// 1 while the list goes on, 0 behind its end.
    #[inline]
    fn take_start(_input: &mut &[u8]) -> Result<u64, Failure> {
        Ok(1)
    }

    #[inline]
    fn take_more(open: &mut u64, input: &mut &[u8]) -> Result<bool, Failure> {
        if *open == 1 && !positional::take_flag(input)? {
            *open = 0;
        }
        Ok(*open == 1)
    }

    #[inline]
    fn left(_open: u64) -> Option<u64> {
        None
    }
}

/// Appends `bytes`, some of which need an escape, and the end.
fn put_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        match byte {
            0 | 1 => out.extend_from_slice(&[ESCAPE, byte + 1]),
            _ => out.push(*byte),
        }
    }
    out.push(END);
}

/// Whether none of eight bytes needs an escape, which 0 and 1 do.
#[inline]
fn is_plain(word: u64) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    word.wrapping_sub(LOW * 2) & !word & HIGH == 0
}

/// Fewer than eight bytes, the first one lowest, zeros behind: two reads that may overlap, without a loop.
#[inline]
fn short_word(bytes: &[u8]) -> u64 {
    let place = |index: usize, value: u64| value << (8 * index);
    match (bytes.first_chunk(), bytes.last_chunk(), bytes) {
        (Some(first), Some(last), _) => {
            u64::from(u32::from_le_bytes(*first))
                | place(bytes.len() - 4, u64::from(u32::from_le_bytes(*last)))
        }
        (_, _, [first, .., last]) => {
            let middle = bytes.get(1).copied().unwrap_or_default();
            u64::from(*first) | place(1, middle.into()) | place(bytes.len() - 1, u64::from(*last))
        }
        (_, _, [only]) => u64::from(*only),
        _ => 0,
    }
}

/// How many bytes at the front need no escape.
#[inline]
fn plain_len(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((word, behind)) = rest.split_first_chunk() {
        if !is_plain(u64::from_le_bytes(*word)) {
            break;
        }
        rest = behind;
    }
    let tail = rest.iter().position(|byte| *byte <= ESCAPE).unwrap_or(rest.len());
    bytes.len() - rest.len() + tail
}

macro_rules! unsigned {
    ($($type:ty),*) => {$(
        impl Scalar<$type> for Ordered {
            #[inline]
            fn put(value: $type, out: &mut Vec<u8>) {
                out.extend_from_slice(&value.to_be_bytes());
            }

            #[inline]
            fn take(input: &mut &[u8]) -> Result<$type, Failure> {
                Ok(<$type>::from_be_bytes(take_array(input)?))
            }
        }
    )*};
}

unsigned!(u8, u16, u32, u64, u128);

macro_rules! signed {
    ($($type:ty as $bits:ty),*) => {$(
        impl Scalar<$type> for Ordered {
            #[inline]
            fn put(value: $type, out: &mut Vec<u8>) {
                Self::put((value ^ <$type>::MIN) as $bits, out);
            }

            #[inline]
            fn take(input: &mut &[u8]) -> Result<$type, Failure> {
                let bits: $bits = Self::take(input)?;
                Ok(bits as $type ^ <$type>::MIN)
            }
        }
    )*};
}

signed!(i8 as u8, i16 as u16, i32 as u32, i64 as u64, i128 as u128);

macro_rules! floats {
    ($($type:ty as $bits:ty),*) => {$(
        impl Scalar<$type> for Ordered {
            #[inline]
            fn put(value: $type, out: &mut Vec<u8>) {
                const SIGN: $bits = 1 << (<$bits>::BITS - 1);
                // The addition turns -0.0 into 0.0 and nothing else.
                let value = if value.is_nan() { <$type>::NAN.abs() } else { value + 0.0 };
                let bits = value.to_bits();
                Self::put(if bits & SIGN == 0 { bits | SIGN } else { !bits }, out);
            }

            #[inline]
            fn take(input: &mut &[u8]) -> Result<$type, Failure> {
                const SIGN: $bits = 1 << (<$bits>::BITS - 1);
                let ordered: $bits = Self::take(input)?;
                let value = <$type>::from_bits(if ordered & SIGN != 0 { ordered ^ SIGN } else { !ordered });
                let foreign_nan = value.is_nan() && value.to_bits() != <$type>::NAN.abs().to_bits();
                if foreign_nan || (value == 0.0 && value.is_sign_negative()) {
                    return Err(Failure::corrupt(format!("{ordered:#x} is no ordered float")));
                }
                Ok(value)
            }
        }
    )*};
}

floats!(f32 as u32, f64 as u64);

impl Scalar<char> for Ordered {
    #[inline]
    fn put(value: char, out: &mut Vec<u8>) {
        Self::put(u32::from(value), out);
    }

    #[inline]
    fn take(input: &mut &[u8]) -> Result<char, Failure> {
        let number: u32 = Self::take(input)?;
        char::from_u32(number).ok_or_else(|| Failure::corrupt(format!("{number:#x} is no character")))
    }
}
