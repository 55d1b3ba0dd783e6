//! Stored bytes as a value, read by their shape and without the program's types: what `inspect` and `query` print.

mod decode;
mod print;

use std::cell::Cell;

use super::Shape;
use crate::{
    Bincode, Codec, Result,
    ordered::Ordered,
    positional::{self, Allowance},
};

/// A value that was read by its shape. `Display` prints it in the manner of Rust, `Serialize` in that of JSON.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ShapedValue {
    Unit,
    Bool(bool),
    Signed(i128),
    Unsigned(u128),
    F32(f32),
    F64(f64),
    Char(char),
    Str(String),
    Bytes(Vec<u8>),
    None,
    Some(Box<ShapedValue>),
    Seq(Vec<ShapedValue>),
    Map(Vec<(ShapedValue, ShapedValue)>),
    Tuple(Vec<ShapedValue>),
    Struct {
        name: String,
        fields: ShapedFields,
    },
    Variant {
        name: String,
        fields: ShapedFields,
    },
    /// Bytes whose shape is not known to the end.
    Opaque(Vec<u8>),
}

/// What stands in a struct or variant.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the four forms of Rust")]
pub enum ShapedFields {
    Unit,
    Newtype(Box<ShapedValue>),
    Tuple(Vec<ShapedValue>),
    Named(Vec<(String, ShapedValue)>),
}

impl ShapedValue {
    /// Reads a value of state that the codec named `codec` has written. All of it is [`Opaque`](Self::Opaque) if its
    /// shape has unknown parts where the value goes, if no codec of that name is built in, or if it is a list of millions
    /// of elements without bytes.
    ///
    /// # Errors
    /// `Corrupt` if these are not the bytes of such a value.
    pub fn decode(shape: &Shape, codec: &str, bytes: &[u8]) -> Result<Self> {
        match codec {
            Bincode::ID => Self::read::<Bincode>(shape, bytes),
            _ => Ok(Self::Opaque(bytes.into())),
        }
    }

    /// Reads the [`ordered`](crate::ordered) bytes of a key, namespace or map key.
    ///
    /// # Errors
    /// `Corrupt` if these are not the bytes of such a key.
    pub fn decode_key(shape: &Shape, bytes: &[u8]) -> Result<Self> {
        Self::read::<Ordered>(shape, bytes)
    }

    /// Whether [`decode`](Self::decode) could read this; takes no memory for what is read.
    ///
    /// # Errors
    /// `Corrupt` if these are not the bytes of such a value.
    pub fn check(shape: &Shape, codec: &str, bytes: &[u8]) -> Result<()> {
        if codec != Bincode::ID {
            return Ok(());
        }
        Self::can_be_read::<Bincode>(shape, bytes)
    }

    fn can_be_read<F: positional::Format>(shape: &Shape, bytes: &[u8]) -> Result<()> {
        let lost = Cell::new(false);
        let read = positional::decode_all::<F, _>(decode::Seed::checking(shape, &lost), bytes);
        if lost.get() { Ok(()) } else { read.map(drop) }
    }

    fn read<F: positional::Format>(shape: &Shape, bytes: &[u8]) -> Result<Self> {
        let lost = Cell::new(false);
        let allowance = Allowance::of_parts(bytes.len());
        let value = positional::decode_all_with::<F, _>(decode::Seed::new(shape, &lost), bytes, allowance);
        match value {
            _ if lost.get() => Ok(Self::Opaque(bytes.into())),
            // Nothing is wrong with it: it is too much to be shown part by part.
            Err(_) if Self::can_be_read::<F>(shape, bytes).is_ok() => Ok(Self::Opaque(bytes.into())),
            value => value,
        }
    }
}
