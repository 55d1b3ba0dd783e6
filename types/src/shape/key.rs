//! A key that somebody wrote down (JSON, or the bare text of a text), as the ordered bytes under which it is stored: read by
//! the key's shape and without the program's type. Called by the command line, which looks the key up.
//!
//! What [`ShapedValue`](super::ShapedValue) writes as JSON is read back, but for options inside options and numbers that
//! JSON does not have: those may be written as texts (`"NaN"`).

mod example;
mod write;

use serde::de::{DeserializeSeed, Deserializer};

use super::{Fields, Shape};

/// How much of a key was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// All of it.
    Whole,
    /// What it begins with: the first letters of a text, the first elements of a list, the first parts of a tuple or fields
    /// of a struct, or the variant of an enum. The bytes of every such key begin with the bytes of this.
    Beginning,
}

impl Shape {
    /// The ordered bytes of the key, or of the beginning of keys, that `written` holds. Fields may stand in any order, bytes
    /// stand as hex behind `0x`.
    ///
    /// # Errors
    /// Those of the deserializer: what was expected and what stands there.
    pub fn key_bytes<'de, D: Deserializer<'de>>(
        &self,
        part: KeyPart,
        written: D,
    ) -> Result<Vec<u8>, D::Error> {
        let mut out = Vec::new();
        write::Seed::new(self, part, &mut out).deserialize(written)?;
        Ok(out)
    }

    /// A value of this shape as JSON, to show how one is written.
    #[must_use]
    pub fn example(&self) -> String {
        let mut out = String::new();
        example::push(self, &mut out);
        out
    }

    /// The shape without the structs of one unnamed field around it, which leave no trace in the bytes.
    #[must_use]
    pub fn unwrapped(&self) -> &Self {
        match self {
            Self::Struct { fields: Fields::Newtype(inner), .. } => inner.unwrapped(),
            other => other,
        }
    }
}

/// The bytes that hex digits behind `0x` stand for, as bytes and values without a shape are printed.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some((digit(*high)? << 4 | digit(*low)?) as u8),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}
