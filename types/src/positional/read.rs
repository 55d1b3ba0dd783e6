//! The serde `Deserializer` of a positional format.

use std::{borrow::Cow, marker::PhantomData};

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::{Allowance, Failure, Format, MAX_DEPTH, MAX_EMPTY_ELEMENTS, Scalar, allowance::Room, take_flag};
use crate::{Error, Result};

/// Takes one value from the front of `input`.
#[inline]
pub(crate) fn decode<'de, F: Format, S: DeserializeSeed<'de>>(
    seed: S,
    input: &mut &'de [u8],
) -> Result<S::Value> {
    decode_with::<F, S>(seed, input, Allowance::of_value(input.len()))
}

#[inline]
fn decode_with<'de, F: Format, S: DeserializeSeed<'de>>(
    seed: S,
    bytes: &mut &'de [u8],
    allowance: Allowance,
) -> Result<S::Value> {
    let len = bytes.len();
    let mut input = Input { bytes, allowance };
    let value = seed.deserialize(Reader::<F>::new(&mut input));
    *bytes = input.bytes;
    value.map_err(|failure| placed::<F>(failure, len, bytes.len()))
}

/// Decodes one value that fills `bytes` to the end.
#[inline]
pub(crate) fn decode_all<'de, F: Format, S: DeserializeSeed<'de>>(
    seed: S,
    bytes: &'de [u8],
) -> Result<S::Value> {
    decode_all_with::<F, S>(seed, bytes, Allowance::of_value(bytes.len()))
}

/// Decodes one value that fills `bytes` to the end and takes no more memory than `allowance`.
#[inline]
pub(crate) fn decode_all_with<'de, F: Format, S: DeserializeSeed<'de>>(
    seed: S,
    bytes: &'de [u8],
    allowance: Allowance,
) -> Result<S::Value> {
    let mut rest = bytes;
    let value = decode_with::<F, S>(seed, &mut rest, allowance)?;
    if rest.is_empty() {
        return Ok(value);
    }
    Err(placed::<F>(Failure::corrupt("bytes are left after the value"), bytes.len(), rest.len()))
}

#[cold]
fn placed<F: Format>(failure: Failure, len: usize, left: usize) -> Error {
    let offset = len - left;
    failure.into_error().context(format!("{}, at offset {offset} of {len} bytes", F::NAME))
}

/// The bytes that are left, and the memory that may still be taken for them.
struct Input<'de> {
    bytes: &'de [u8],
    allowance: Allowance,
}

/// Reads one value.
struct Reader<'a, 'de, F> {
    input: &'a mut Input<'de>,
    depth: u8,
    format: PhantomData<F>,
}

impl<'a, 'de, F: Format> Reader<'a, 'de, F> {
    #[inline]
    fn new(input: &'a mut Input<'de>) -> Self {
        Self { input, depth: 0, format: PhantomData }
    }

    #[inline]
    fn deeper(self) -> Result<Self, Failure> {
        if self.depth == MAX_DEPTH {
            return Err(Failure::nested());
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    #[inline]
    fn child(&mut self) -> Reader<'_, 'de, F> {
        Reader { input: self.input, depth: self.depth, format: PhantomData }
    }

    #[inline]
    fn elements(self) -> Result<Elements<'a, 'de, F>, Failure> {
        let left = F::take_start(&mut self.input.bytes)?;
        let bytes = self.input.bytes.len();
        if F::left(left).is_some_and(|count| count > bytes as u64 && count > MAX_EMPTY_ELEMENTS) {
            return Err(Failure::corrupt(format!("{left} elements cannot stand in {bytes} bytes")));
        }
        // Never room for more elements than there are bytes: they cannot come.
        let room = F::left(left).map(|count| usize::try_from(count).unwrap_or(usize::MAX).min(bytes));
        let reader = self.deeper()?;
        let room = room.map(|room| reader.input.allowance.make_room(room));
        Ok(Elements { reader, left, room, seen: 0 })
    }

    #[inline]
    fn parts(self, left: usize) -> Parts<'a, 'de, F> {
        Parts { reader: self, left }
    }

    #[cold]
    fn self_describing<T>() -> Result<T, Failure> {
        Err(Failure::refused(
            "the type asks the bytes what they hold, but they do not say: it cannot be `untagged`, internally \
             `tag`ged, `flatten`ed or a dynamic value",
        ))
    }
}

macro_rules! scalars {
    ($($method:ident $visit:ident: $type:ty),*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            visitor.$visit(<F as Scalar<$type>>::take(&mut self.input.bytes)?)
        }
    )*};
}

impl<'de, F: Format> de::Deserializer<'de> for Reader<'_, 'de, F> {
    type Error = Failure;

    scalars! {
        deserialize_u8 visit_u8: u8, deserialize_u16 visit_u16: u16, deserialize_u32 visit_u32: u32,
        deserialize_u64 visit_u64: u64, deserialize_u128 visit_u128: u128,
        deserialize_i8 visit_i8: i8, deserialize_i16 visit_i16: i16, deserialize_i32 visit_i32: i32,
        deserialize_i64 visit_i64: i64, deserialize_i128 visit_i128: i128,
        deserialize_f32 visit_f32: f32, deserialize_f64 visit_f64: f64, deserialize_char visit_char: char
    }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_bool(take_flag(&mut self.input.bytes)?)
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match F::take_bytes(&mut self.input.bytes).and_then(|bytes| self.input.allowance.copy(bytes))? {
            Cow::Borrowed(bytes) => visitor.visit_borrowed_str(std::str::from_utf8(bytes).map_err(not_text)?),
            Cow::Owned(bytes) => {
                visitor.visit_string(String::from_utf8(bytes).map_err(|error| not_text(error.utf8_error()))?)
            }
        }
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    #[inline]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match F::take_bytes(&mut self.input.bytes).and_then(|bytes| self.input.allowance.gather(bytes))? {
            Cow::Borrowed(bytes) => visitor.visit_borrowed_bytes(bytes),
            Cow::Owned(bytes) => visitor.visit_byte_buf(bytes),
        }
    }

    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match F::take_bytes(&mut self.input.bytes).and_then(|bytes| self.input.allowance.copy(bytes))? {
            Cow::Borrowed(bytes) => visitor.visit_borrowed_bytes(bytes),
            Cow::Owned(bytes) => visitor.visit_byte_buf(bytes),
        }
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if take_flag(&mut self.input.bytes)? {
            visitor.visit_some(self.deeper()?)
        } else {
            visitor.visit_none()
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let mut elements = self.elements()?;
        let value = visitor.visit_seq(&mut elements)?;
        elements.finish()?;
        Ok(value)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if let Some(why) = F::MAPS_REFUSED {
            return Err(Failure::refused(why));
        }
        let mut elements = self.elements()?;
        let value = visitor.visit_map(&mut elements)?;
        elements.finish()?;
        Ok(value)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_seq(self.parts(len))
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_seq(self.parts(len))
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_seq(self.parts(fields.len()))
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_enum(self.deeper()?)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Failure> {
        Self::self_describing()
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Failure> {
        Self::self_describing()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Failure> {
        Self::self_describing()
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

#[cold]
fn not_text(error: std::str::Utf8Error) -> Failure {
    Failure::corrupt(format!("text is not UTF-8: {error}"))
}

impl<'de, F: Format> de::EnumAccess<'de> for Reader<'_, 'de, F> {
    type Error = Failure;
    type Variant = Self;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Failure> {
        let index = F::take_variant(&mut self.input.bytes)?;
        let variant = seed.deserialize(IntoDeserializer::<Failure>::into_deserializer(index))?;
        Ok((variant, self))
    }
}

impl<'de, F: Format> de::VariantAccess<'de> for Reader<'_, 'de, F> {
    type Error = Failure;

    #[inline]
    fn unit_variant(self) -> Result<(), Failure> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Failure> {
        seed.deserialize(self)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_seq(self.parts(len))
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_seq(self.parts(fields.len()))
    }
}

/// The parts of a tuple or struct: their number is the type's, not the bytes'.
struct Parts<'a, 'de, F> {
    reader: Reader<'a, 'de, F>,
    left: usize,
}

impl<'de, F: Format> de::SeqAccess<'de> for Parts<'_, 'de, F> {
    type Error = Failure;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Failure> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(self.reader.child()).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The elements of a list, or the keys and values of a map.
struct Elements<'a, 'de, F> {
    reader: Reader<'a, 'de, F>,
    left: u64,
    /// The room that is made ahead, where the number of elements is known.
    room: Option<Room>,
    /// Elements read so far.
    seen: usize,
}

impl<'de, F: Format> Elements<'_, 'de, F> {
    /// Whether another element follows, which takes `size` bytes of memory once it is read.
    #[inline]
    fn more(&mut self, size: usize) -> Result<bool, Failure> {
        if !F::take_more(&mut self.left, &mut self.reader.input.bytes)? {
            return Ok(false);
        }
        self.reader.input.allowance.element(&mut self.room, self.seen, size)?;
        self.seen += 1;
        Ok(true)
    }

    #[inline]
    fn hint(&self) -> Option<usize> {
        self.room.map(|room| room.elements)
    }

    /// What the type left unread would be taken for the value that follows.
    #[inline]
    fn finish(mut self) -> Result<(), Failure> {
        if F::take_more(&mut self.left, &mut self.reader.input.bytes)? {
            return Err(Failure::corrupt("a list or map holds more elements than its type reads"));
        }
        self.reader.input.allowance.give_back(self.room);
        Ok(())
    }
}

impl<'de, F: Format> de::SeqAccess<'de> for &mut Elements<'_, 'de, F> {
    type Error = Failure;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Failure> {
        if !self.more(size_of::<S::Value>())? {
            return Ok(None);
        }
        seed.deserialize(self.reader.child()).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'de, F: Format> de::MapAccess<'de> for &mut Elements<'_, 'de, F> {
    type Error = Failure;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Failure> {
        if !self.more(size_of::<S::Value>())? {
            return Ok(None);
        }
        seed.deserialize(self.reader.child()).map(Some)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Failure> {
        seed.deserialize(self.reader.child())
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}
