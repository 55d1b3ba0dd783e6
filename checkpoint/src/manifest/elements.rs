//! The elements of a list state, encoded: one after the other in one buffer, since there may be a million short ones.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeSeed, SeqAccess, Visitor},
    ser::SerializeSeq,
};

/// Encoded elements, in order. In a file they are a list of byte strings.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct ListElements {
    /// Each element behind its length, which is seven bits in each byte, the lowest first, the eighth set if more follow.
    bytes: Vec<u8>,
    count: usize,
}

impl ListElements {
    /// No elements.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), count: 0 }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends an element.
    pub fn push(&mut self, element: &[u8]) {
        let mut len = element.len();
        while len >= 0x80 {
            self.bytes.push(len as u8 | 0x80);
            len >>= 7;
        }
        self.bytes.push(len as u8);
        self.bytes.extend_from_slice(element);
        self.count += 1;
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (mut len, mut shift) = (0, 0);
            loop {
                let (&byte, behind) = rest.split_first()?;
                rest = behind;
                len |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    let (element, behind) = rest.split_at(len);
                    rest = behind;
                    return Some(element);
                }
            }
        })
    }
}

impl<B: AsRef<[u8]>> Extend<B> for ListElements {
    fn extend<I: IntoIterator<Item = B>>(&mut self, elements: I) {
        elements.into_iter().for_each(|element| self.push(element.as_ref()));
    }
}

impl<B: AsRef<[u8]>> FromIterator<B> for ListElements {
    fn from_iter<I: IntoIterator<Item = B>>(elements: I) -> Self {
        let mut gathered = Self::new();
        gathered.extend(elements);
        gathered
    }
}

impl fmt::Debug for ListElements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for ListElements {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.count))?;
        for element in self.iter() {
            list.serialize_element(&Element(element))?;
        }
        list.end()
    }
}

struct Element<'a>(&'a [u8]);

impl Serialize for Element<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for ListElements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Gather(Self::new()))
    }
}

/// Gathers a list of byte strings.
struct Gather(ListElements);

impl<'de> Visitor<'de> for Gather {
    type Value = ListElements;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of byte strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<ListElements, A::Error> {
        while list.next_element_seed(Next(&mut self.0))?.is_some() {}
        Ok(self.0)
    }
}

/// Appends one byte string.
struct Next<'a>(&'a mut ListElements);

impl<'de> DeserializeSeed<'de> for Next<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Next<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<(), E> {
        self.0.push(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use types::{Bincode, Codec};

    use super::*;

    #[test]
    fn elements_of_all_lengths_come_back_and_look_like_byte_strings() {
        let elements: Vec<Vec<u8>> =
            [0, 1, 127, 128, 129, 250, 251, 16_384, 70_000].map(|len| vec![len as u8; len]).into();
        let gathered: ListElements = elements.iter().collect();
        assert_eq!(gathered.len(), elements.len());
        assert!(gathered.iter().eq(elements.iter().map(Vec::as_slice)));
        let (mut plain, mut bytes) = (Vec::new(), Vec::new());
        Bincode::encode(&elements, &mut plain).unwrap();
        Bincode::encode(&gathered, &mut bytes).unwrap();
        assert_eq!(bytes, plain);
        assert_eq!(Bincode::decode_file::<ListElements>(&bytes).unwrap(), gathered);
        assert!(ListElements::new().is_empty() && ListElements::new().iter().next().is_none());
    }
}
