//! Reads a value from a positional `Deserializer` by its shape.

use std::{cell::Cell, fmt};

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::{ShapedFields, ShapedValue};
use crate::shape::{
    Fields, Shape,
    around::{Around, MAX_DEPTH},
};

/// More elements than this that take no bytes are not made: their number alone would say how much memory they take.
const MAX_EMPTY_ELEMENTS: usize = 1024;

/// Reads one value of a shape.
#[derive(Clone, Copy)]
pub(super) struct Seed<'a> {
    shape: &'a Shape,
    around: Option<&'a Around<'a>>,
    depth: u32,
    /// Set when the value comes to a part of the shape that is not known.
    lost: &'a Cell<bool>,
    /// Whether nothing that is read is kept: there is no value then, only the answer whether it could be read.
    checks: bool,
}

impl<'a> Seed<'a> {
    pub(super) fn new(shape: &'a Shape, lost: &'a Cell<bool>) -> Self {
        Self { shape, around: None, depth: 0, lost, checks: false }
    }

    /// Reads, and keeps nothing.
    pub(super) fn checking(shape: &'a Shape, lost: &'a Cell<bool>) -> Self {
        Self { checks: true, ..Self::new(shape, lost) }
    }

    /// The shape that stands `levels` further out, in its own place.
    fn recurse<E: de::Error>(self, levels: u32) -> Result<Self, E> {
        match Around::out(self.around, levels) {
            Some(target) => Ok(Self { shape: target.shape, around: target.outer, ..self }),
            None => self.unknown(),
        }
    }

    fn unknown<T, E: de::Error>(self) -> Result<T, E> {
        self.lost.set(true);
        Err(E::custom("the shape is not known here"))
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ShapedValue;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ShapedValue, D::Error> {
        use ShapedValue::{Signed, Unsigned};
        if self.depth > MAX_DEPTH {
            return Err(de::Error::custom(format_args!("more than {MAX_DEPTH} shapes inside each other")));
        }
        match self.shape {
            Shape::Unit => Deserialize::deserialize(deserializer).map(|()| ShapedValue::Unit),
            Shape::Bool => bool::deserialize(deserializer).map(ShapedValue::Bool),
            Shape::I8 => i8::deserialize(deserializer).map(|value| Signed(value.into())),
            Shape::I16 => i16::deserialize(deserializer).map(|value| Signed(value.into())),
            Shape::I32 => i32::deserialize(deserializer).map(|value| Signed(value.into())),
            Shape::I64 => i64::deserialize(deserializer).map(|value| Signed(value.into())),
            Shape::I128 => i128::deserialize(deserializer).map(Signed),
            Shape::U8 => u8::deserialize(deserializer).map(|value| Unsigned(value.into())),
            Shape::U16 => u16::deserialize(deserializer).map(|value| Unsigned(value.into())),
            Shape::U32 => u32::deserialize(deserializer).map(|value| Unsigned(value.into())),
            Shape::U64 => u64::deserialize(deserializer).map(|value| Unsigned(value.into())),
            Shape::U128 => u128::deserialize(deserializer).map(Unsigned),
            Shape::F32 => f32::deserialize(deserializer).map(ShapedValue::F32),
            Shape::F64 => f64::deserialize(deserializer).map(ShapedValue::F64),
            Shape::Char => char::deserialize(deserializer).map(ShapedValue::Char),
            Shape::Str => deserializer.deserialize_str(Text { checks: self.checks }),
            Shape::Recursive(levels) => {
                let target: Self = self.recurse(*levels)?;
                Seed { depth: self.depth + 1, ..target }.deserialize(deserializer)
            }
            Shape::Any | Shape::Unknown => self.unknown(),
            _ => self.enter(deserializer),
        }
    }
}

impl Seed<'_> {
    /// Reads a shape with others inside.
    fn enter<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<ShapedValue, D::Error> {
        let around = Around { shape: self.shape, outer: self.around };
        let inside = Inside { around: &around, depth: self.depth + 1, lost: self.lost, checks: self.checks };
        match self.shape {
            Shape::Bytes => deserializer.deserialize_byte_buf(inside),
            Shape::Option(_) => deserializer.deserialize_option(inside),
            Shape::Seq(_) => deserializer.deserialize_seq(inside),
            Shape::Map(..) => deserializer.deserialize_map(inside),
            Shape::Tuple(parts) => inside.parts(parts.iter(), deserializer).map(ShapedValue::Tuple),
            Shape::Struct { name, fields } => {
                let fields = Content { inside, fields }.deserialize(deserializer)?;
                Ok(inside.keep(|| ShapedValue::Struct { name: name.clone(), fields }))
            }
            Shape::Enum { .. } => deserializer.deserialize_enum("", &[], inside),
            _ => self.unknown(),
        }
    }
}

/// Reads a text, which is looked at where it is if nothing is kept.
struct Text {
    checks: bool,
}

impl Visitor<'_> for Text {
    type Value = ShapedValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ShapedValue, E> {
        Ok(if self.checks { ShapedValue::Unit } else { ShapedValue::Str(text.to_owned()) })
    }
}

/// Reads what stands inside a shape.
#[derive(Clone, Copy)]
struct Inside<'a> {
    around: &'a Around<'a>,
    depth: u32,
    lost: &'a Cell<bool>,
    checks: bool,
}

impl<'a> Inside<'a> {
    fn seed(self, shape: &'a Shape) -> Seed<'a> {
        let Self { around, depth, lost, checks } = self;
        Seed { shape, around: Some(around), depth, lost, checks }
    }

    /// The value, unless nothing is kept.
    fn keep(self, value: impl FnOnce() -> ShapedValue) -> ShapedValue {
        if self.checks { ShapedValue::Unit } else { value() }
    }

    fn parts<'de, D: Deserializer<'de>>(
        self,
        parts: impl ExactSizeIterator<Item = &'a Shape>,
        deserializer: D,
    ) -> Result<Vec<ShapedValue>, D::Error> {
        deserializer.deserialize_tuple(parts.len(), Parts { inside: self, parts })
    }

    /// Gives up on a list that goes on and on without taking bytes.
    fn bounded<E: de::Error>(self, elements: usize, parts: &[&Shape]) -> Result<(), E> {
        if elements >= MAX_EMPTY_ELEMENTS && parts.iter().all(|part| part.takes_no_bytes()) {
            return self.seed(self.around.shape).unknown();
        }
        Ok(())
    }

    fn unexpected<T, E: de::Error>(self) -> Result<T, E> {
        Err(E::custom(format_args!("expected {}", self.around.shape.brief())))
    }
}

impl<'de> Visitor<'de> for Inside<'_> {
    type Value = ShapedValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.around.shape.brief())
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<ShapedValue, E> {
        Ok(self.keep(|| ShapedValue::Bytes(bytes.into())))
    }

    fn visit_none<E: de::Error>(self) -> Result<ShapedValue, E> {
        Ok(ShapedValue::None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<ShapedValue, D::Error> {
        let Shape::Option(inner) = self.around.shape else { return self.unexpected() };
        let value = self.seed(inner).deserialize(deserializer)?;
        Ok(self.keep(|| ShapedValue::Some(value.into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<ShapedValue, A::Error> {
        let Shape::Seq(inner) = self.around.shape else { return self.unexpected() };
        let (mut elements, mut read) = (Vec::new(), 0);
        while let Some(element) = access.next_element_seed(self.seed(inner))? {
            self.bounded(read, &[inner])?;
            read += 1;
            if !self.checks {
                elements.push(element);
            }
        }
        Ok(ShapedValue::Seq(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<ShapedValue, A::Error> {
        let Shape::Map(key, value) = self.around.shape else { return self.unexpected() };
        let (mut entries, mut read) = (Vec::new(), 0);
        while let Some(entry) = access.next_entry_seed(self.seed(key), self.seed(value))? {
            self.bounded(read, &[key, value])?;
            read += 1;
            if !self.checks {
                entries.push(entry);
            }
        }
        Ok(ShapedValue::Map(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<ShapedValue, A::Error> {
        let Shape::Enum { name, variants, open } = self.around.shape else { return self.unexpected() };
        let (index, content) = access.variant::<u32>()?;
        let Some(variant) = variants.iter().find(|variant| variant.index == index) else {
            if *open {
                return self.seed(self.around.shape).unknown();
            }
            return Err(de::Error::custom(format_args!("enum {name} has no variant {index}")));
        };
        // The formats of this crate write all that a variant holds as they write one value.
        let fields = content.newtype_variant_seed(Content { inside: self, fields: &variant.fields })?;
        Ok(self.keep(|| ShapedValue::Variant { name: variant.name.clone(), fields }))
    }
}

/// Reads the fields of a struct or variant.
struct Content<'a> {
    inside: Inside<'a>,
    fields: &'a Fields,
}

impl<'de> DeserializeSeed<'de> for Content<'_> {
    type Value = ShapedFields;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ShapedFields, D::Error> {
        let Self { inside, fields } = self;
        match fields {
            Fields::Unit => Ok(ShapedFields::Unit),
            Fields::Newtype(inner) => {
                let value = inside.seed(inner).deserialize(deserializer)?;
                if inside.checks {
                    return Ok(ShapedFields::Unit);
                }
                Ok(ShapedFields::Newtype(value.into()))
            }
            Fields::Tuple(parts) => inside.parts(parts.iter(), deserializer).map(ShapedFields::Tuple),
            Fields::Named(fields) => {
                let values = inside.parts(fields.iter().map(|(_, shape)| shape), deserializer)?;
                if inside.checks {
                    return Ok(ShapedFields::Unit);
                }
                let names = fields.iter().map(|(name, _)| name.clone());
                Ok(ShapedFields::Named(names.zip(values).collect()))
            }
            Fields::Unknown => inside.seed(inside.around.shape).unknown(),
        }
    }
}

/// Reads the parts of a tuple, struct or variant.
struct Parts<'a, I> {
    inside: Inside<'a>,
    parts: I,
}

impl<'de, 'a, I: Iterator<Item = &'a Shape>> Visitor<'de> for Parts<'a, I> {
    type Value = Vec<ShapedValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inside.expecting(f)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Vec<ShapedValue>, A::Error> {
        let mut values = Vec::new();
        for part in self.parts {
            let value = access.next_element_seed(self.inside.seed(part))?;
            let value = value.ok_or_else(|| de::Error::custom("a part is missing"))?;
            if !self.inside.checks {
                values.push(value);
            }
        }
        Ok(values)
    }
}
