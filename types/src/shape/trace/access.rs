//! What a type under trace is handed where it reads several values: elements, parts, a field, a variant.

use std::cell::Cell;

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::{
    place::{Content, Kind, Stop},
    tracer::Tracer,
};

/// The elements of a list, or the keys and values of a map.
pub(super) struct Elements<'a> {
    tracer: Tracer<'a>,
    left: usize,
}

impl<'a> Elements<'a> {
    pub(super) fn new(tracer: Tracer<'a>, left: usize) -> Self {
        Self { tracer, left }
    }
}

impl<'de> de::SeqAccess<'de> for Elements<'_> {
    type Error = Stop;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.tracer.explore(0, |inner| seed.deserialize(inner)).map(Some)
    }
}

impl<'de> de::MapAccess<'de> for Elements<'_> {
    type Error = Stop;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.tracer.explore(0, |key| seed.deserialize(key)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        self.tracer.explore(1, |value| seed.deserialize(value))
    }
}

/// The parts of a tuple or struct, in order.
pub(super) struct Parts<'a> {
    tracer: Tracer<'a>,
    next: usize,
}

impl<'a> Parts<'a> {
    pub(super) fn new(tracer: Tracer<'a>) -> Self {
        Self { tracer, next: 0 }
    }
}

impl<'de> de::SeqAccess<'de> for Parts<'_> {
    type Error = Stop;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        let Some(part) = self.tracer.place.inner.get(self.next) else { return Ok(None) };
        if part.is_barren() {
            return Err(Stop::Noted);
        }
        self.next += 1;
        self.tracer.explore(self.next - 1, |part| seed.deserialize(part)).map(Some)
    }
}

/// A struct of which only one field is shown.
pub(super) struct OneField<'a> {
    tracer: Tracer<'a>,
    name: Option<&'static str>,
    index: usize,
}

impl<'a> OneField<'a> {
    pub(super) fn new(tracer: Tracer<'a>, name: &'static str, index: usize) -> Self {
        Self { tracer, name: Some(name), index }
    }
}

impl<'de> de::MapAccess<'de> for OneField<'_> {
    type Error = Stop;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        let name = self.name.take().ok_or(Stop::Noted)?;
        seed.deserialize(IntoDeserializer::<Stop>::into_deserializer(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        self.tracer.explore(self.index, |field| seed.deserialize(field))
    }
}

/// An enum about to be told its variant.
pub(super) struct Choice<'a> {
    tracer: Tracer<'a>,
    chosen: &'a Cell<Option<usize>>,
}

impl<'a> Choice<'a> {
    /// `chosen` is told which variant it was.
    pub(super) fn new(tracer: Tracer<'a>, chosen: &'a Cell<Option<usize>>) -> Self {
        Self { tracer, chosen }
    }
}

impl<'a, 'de> de::EnumAccess<'de> for Choice<'a> {
    type Error = Stop;
    type Variant = Tracer<'a>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Tracer<'a>), Stop> {
        let index = self.tracer.choose_variant()?;
        let variant = self.tracer.into_variant(index)?;
        let Ok(name) = seed.deserialize(IntoDeserializer::<Stop>::into_deserializer(index as u32)) else {
            variant.place.become_kind(Kind::NoVariant, variant.progress)?;
            variant.place.give_up(variant.progress);
            return Err(Stop::Noted);
        };
        self.chosen.set(Some(index));
        Ok((name, variant))
    }
}

/// The tracer stands at the variant.
impl<'de> de::VariantAccess<'de> for Tracer<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        self.place.become_kind(Kind::Variant(Content::Unit), self.progress)?;
        self.place.finish(self.progress);
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<S::Value, Stop> {
        self.place.become_kind(Kind::Variant(Content::Newtype), self.progress)?;
        let value = self.explore(0, |inner| seed.deserialize(inner));
        self.place.settle_parts(value.is_ok(), self.progress);
        value
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.place.become_kind(Kind::Variant(Content::Tuple(len)), self.progress)?;
        self.parts(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.place.become_kind(Kind::Variant(Content::Named(fields)), self.progress)?;
        self.named(fields, visitor)
    }
}
