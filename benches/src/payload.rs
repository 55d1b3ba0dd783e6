//! A value of 100 bytes that does not compress, written as bytes.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::mix;

/// The length of a value.
pub const LEN: usize = 100;

/// A sum, and noise that follows from it, as many bytes as a row of a real table may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Padded([u8; LEN]);

impl Padded {
    /// The value that holds `sum`.
    #[must_use]
    pub fn new(sum: u64) -> Self {
        let mut bytes = [0; LEN];
        for (number, part) in bytes.chunks_mut(8).enumerate() {
            let word = if number == 0 { sum } else { mix(sum.wrapping_mul(16).wrapping_add(number as u64)) };
            part.copy_from_slice(&word.to_le_bytes()[..part.len()]);
        }
        Self(bytes)
    }

    /// As [`new`](Self::new), with noise of hexadecimal digits, which can be compressed to half their length.
    #[must_use]
    pub fn digits(sum: u64) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut value = Self::new(sum);
        for (number, byte) in value.0.iter_mut().enumerate().skip(8) {
            let word = mix(sum.wrapping_mul(16).wrapping_add(number as u64 / 16));
            *byte = DIGITS[(word >> (number % 16 * 4)) as usize & 15];
        }
        value
    }

    /// The value as it is stored.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The sum.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
    }
}

impl Serialize for Padded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Padded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl de::Visitor<'_> for Bytes {
            type Value = Padded;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{LEN} bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Padded, E> {
                bytes.try_into().map(Padded).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
