//! Reads a key from a format that describes itself, and writes its ordered bytes on the way.

use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected,
    Visitor,
};

use super::{KeyPart, from_hex};
use crate::{
    ordered::Ordered,
    positional::{Format, Scalar},
    shape::{
        Fields, Shape, Variant,
        around::{Around, MAX_DEPTH},
    },
};

/// Reads one value of a shape and appends its bytes.
pub(super) struct Seed<'a, 'out> {
    shape: &'a Shape,
    around: Option<&'a Around<'a>>,
    depth: u32,
    part: KeyPart,
    out: &'out mut Vec<u8>,
}

impl<'a, 'out> Seed<'a, 'out> {
    pub(super) fn new(shape: &'a Shape, part: KeyPart, out: &'out mut Vec<u8>) -> Self {
        Self { shape, around: None, depth: 0, part, out }
    }
}

/// Reads the scalars whose own `Deserialize` says what is wrong with a number.
macro_rules! scalar {
    ($type:ty, $deserializer:expr, $out:expr) => {{
        let value = <$type>::deserialize($deserializer)?;
        <Ordered as Scalar<$type>>::put(value, $out);
        Ok(())
    }};
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.depth > MAX_DEPTH {
            return Err(Error::custom(format_args!("more than {MAX_DEPTH} shapes inside each other")));
        }
        if self.part == KeyPart::Beginning && !has_beginning(self.shape) {
            let what = self.shape.brief();
            return Err(Error::custom(format_args!("{what} has no beginning that others share")));
        }
        match self.shape {
            Shape::Unit => Deserialize::deserialize(deserializer),
            Shape::Bool => {
                self.out.push(bool::deserialize(deserializer)?.into());
                Ok(())
            }
            Shape::I8 => scalar!(i8, deserializer, self.out),
            Shape::I16 => scalar!(i16, deserializer, self.out),
            Shape::I32 => scalar!(i32, deserializer, self.out),
            Shape::I64 => scalar!(i64, deserializer, self.out),
            Shape::I128 => scalar!(i128, deserializer, self.out),
            Shape::U8 => scalar!(u8, deserializer, self.out),
            Shape::U16 => scalar!(u16, deserializer, self.out),
            Shape::U32 => scalar!(u32, deserializer, self.out),
            Shape::U64 => scalar!(u64, deserializer, self.out),
            Shape::U128 => scalar!(u128, deserializer, self.out),
            Shape::Char => scalar!(char, deserializer, self.out),
            Shape::Recursive(levels) => match Around::out(self.around, *levels) {
                Some(target) => {
                    let (shape, around) = (target.shape, target.outer);
                    Seed { shape, around, depth: self.depth + 1, ..self }.deserialize(deserializer)
                }
                None => unknown(),
            },
            Shape::Any | Shape::Unknown => unknown(),
            _ => self.enter(deserializer),
        }
    }
}

impl Seed<'_, '_> {
    /// Reads what is not a plain scalar.
    fn enter<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let around = Around { shape: self.shape, outer: self.around };
        let inside = Inside { around: &around, depth: self.depth + 1, part: self.part, out: self.out };
        match self.shape {
            Shape::Str | Shape::Bytes => deserializer.deserialize_str(inside),
            Shape::Option(_) => deserializer.deserialize_option(inside),
            Shape::Seq(_) | Shape::Tuple(_) => deserializer.deserialize_seq(inside),
            Shape::Map(..) => Err(Error::custom("a map cannot be a key")),
            Shape::Struct { fields, .. } => Content { inside, fields }.deserialize(deserializer),
            // Floats come as numbers or as texts, variants as texts or as objects.
            _ => deserializer.deserialize_any(inside),
        }
    }
}

/// Whether the bytes of several values begin alike where the values do.
fn has_beginning(shape: &Shape) -> bool {
    matches!(
        shape,
        Shape::Str
            | Shape::Bytes
            | Shape::Seq(_)
            | Shape::Tuple(_)
            | Shape::Struct { .. }
            | Shape::Enum { .. }
            | Shape::Recursive(_)
    )
}

fn unknown<T, E: Error>() -> Result<T, E> {
    Err(E::custom("the shape is not known here"))
}

/// Reads what stands inside a shape.
struct Inside<'a, 'out> {
    around: &'a Around<'a>,
    depth: u32,
    part: KeyPart,
    out: &'out mut Vec<u8>,
}

impl<'a> Inside<'a, '_> {
    /// A part of the value, of which all must be there.
    fn seed<'b>(&'b mut self, shape: &'a Shape) -> Seed<'a, 'b> {
        let (around, depth) = (Some(self.around), self.depth);
        Seed { shape, around, depth, part: KeyPart::Whole, out: self.out }
    }

    /// Reads the parts of a tuple, struct or variant.
    fn parts<'de, A: SeqAccess<'de>>(mut self, parts: &'a [Shape], mut access: A) -> Result<(), A::Error> {
        for (count, part) in parts.iter().enumerate() {
            if access.next_element_seed(self.seed(part))?.is_none() {
                return match self.part {
                    KeyPart::Beginning => Ok(()),
                    KeyPart::Whole => Err(Error::invalid_length(count, &Expected(parts.len()))),
                };
            }
        }
        match access.next_element::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(Error::custom(format_args!("expected {}, found more", Expected(parts.len())))),
        }
    }

    /// Reads named fields, which may stand in any order.
    fn named<'de, A: MapAccess<'de>>(
        mut self,
        fields: &'a [(String, Shape)],
        mut access: A,
    ) -> Result<(), A::Error> {
        let out = std::mem::take(self.out);
        let mut found: Vec<Option<Vec<u8>>> = vec![None; fields.len()];
        while let Some(name) = access.next_key::<String>()? {
            let Some(index) = fields.iter().position(|(field, _)| *field == name) else {
                let names: Vec<&str> = fields.iter().map(|(field, _)| field.as_str()).collect();
                let names = names.join(", ");
                return Err(Error::custom(format_args!(
                    "there is no field {name:?}: the fields are {names}"
                )));
            };
            access.next_value_seed(self.seed(&fields[index].1))?;
            if found[index].replace(std::mem::take(self.out)).is_some() {
                return Err(Error::custom(format_args!("field {name:?} stands there twice")));
            }
        }
        *self.out = out;
        let first_missing = found.iter().position(Option::is_none).unwrap_or(found.len());
        let misses_nothing = match self.part {
            KeyPart::Whole => first_missing == found.len(),
            KeyPart::Beginning => found[first_missing..].iter().all(Option::is_none),
        };
        if !misses_nothing {
            return Err(Error::custom(format_args!("field {:?} is missing", fields[first_missing].0)));
        }
        found.iter().flatten().for_each(|bytes| self.out.extend_from_slice(bytes));
        Ok(())
    }

    /// Appends text or bytes; a beginning of them has no end.
    fn bytes(self, bytes: &[u8]) {
        Ordered::put_bytes(bytes, self.out);
        if self.part == KeyPart::Beginning {
            self.out.pop();
        }
    }

    fn float<E: Error>(self, value: f64) -> Result<(), E> {
        match self.around.shape {
            Shape::F32 => Ordered::put(value as f32, self.out),
            Shape::F64 => Ordered::put(value, self.out),
            _ => return self.unexpected(Unexpected::Float(value)),
        }
        Ok(())
    }

    fn variant<E: Error>(&self, name: &str) -> Result<&'a Variant, E> {
        let Shape::Enum { variants, .. } = self.around.shape else {
            return self.unexpected(Unexpected::Str(name));
        };
        variants.iter().find(|variant| variant.name == name).ok_or_else(|| {
            let names: Vec<&str> = variants.iter().map(|variant| variant.name.as_str()).collect();
            let names = names.join(", ");
            E::custom(format_args!("there is no variant {name:?}: the variants are {names}"))
        })
    }

    fn unexpected<T, E: Error>(&self, found: Unexpected<'_>) -> Result<T, E> {
        Err(E::invalid_type(found, self))
    }
}

/// So many parts.
struct Expected(usize);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", self.0)
    }
}

impl de::Expected for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Visitor<'de> for Inside<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.around.shape.brief())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.around.shape {
            Shape::Str => self.bytes(text.as_bytes()),
            Shape::Bytes => match from_hex(text) {
                Some(bytes) => self.bytes(&bytes),
                None => return Err(E::custom("bytes are written as 0x and two hex digits for each")),
            },
            Shape::F32 => match text.parse::<f32>() {
                Ok(value) => Ordered::put(value, self.out),
                Err(_) => return self.unexpected(Unexpected::Str(text)),
            },
            Shape::F64 => match text.parse::<f64>() {
                Ok(value) => Ordered::put(value, self.out),
                Err(_) => return self.unexpected(Unexpected::Str(text)),
            },
            _ => {
                let variant = self.variant::<E>(text)?;
                if variant.fields != Fields::Unit && self.part == KeyPart::Whole {
                    let what = variant.fields.brief();
                    return Err(E::custom(format_args!(
                        "variant {text} has {what}: write {}",
                        self.around.shape.example()
                    )));
                }
                Ordered::put_variant(variant.index, self.out);
            }
        }
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.float(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.float(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.float(value)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.out.push(0);
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        match self.around.shape {
            Shape::Option(_) => self.visit_none(),
            _ => self.unexpected(Unexpected::Unit),
        }
    }

    fn visit_some<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        let Shape::Option(inner) = self.around.shape else {
            return self.unexpected(Unexpected::Option);
        };
        self.out.push(1);
        self.seed(inner).deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<(), A::Error> {
        let inner = match self.around.shape {
            Shape::Seq(inner) => inner,
            Shape::Tuple(parts) => return self.parts(parts, access),
            _ => return self.unexpected(Unexpected::Seq),
        };
        loop {
            let end = self.out.len();
            Ordered::put_more(self.out);
            if access.next_element_seed(self.seed(inner))?.is_none() {
                self.out.truncate(end);
                break;
            }
        }
        if self.part == KeyPart::Whole {
            Ordered::put_end(self.out);
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Shape::Enum { .. } = self.around.shape else {
            return self.unexpected(Unexpected::Map);
        };
        let one = "an enum is written as an object of one variant";
        let name = access.next_key::<String>()?.ok_or_else(|| Error::custom(one))?;
        let Variant { index, fields, .. } = self.variant(&name)?;
        Ordered::put_variant(*index, self.out);
        access.next_value_seed(Content { inside: self, fields })?;
        match access.next_key::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(Error::custom(one)),
        }
    }
}

/// Reads the fields of a struct or variant.
struct Content<'a, 'out> {
    inside: Inside<'a, 'out>,
    fields: &'a Fields,
}

impl<'de> DeserializeSeed<'de> for Content<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.fields {
            Fields::Unit => Deserialize::deserialize(deserializer),
            Fields::Newtype(inner) => {
                let part = self.inside.part;
                let mut inside = self.inside;
                Seed { part, ..inside.seed(inner) }.deserialize(deserializer)
            }
            Fields::Tuple(_) => deserializer.deserialize_seq(self),
            Fields::Named(_) => deserializer.deserialize_map(self),
            Fields::Unknown => unknown(),
        }
    }
}

impl<'de> Visitor<'de> for Content<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.fields.brief(), self.inside.around.shape.brief())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<(), A::Error> {
        let Fields::Tuple(parts) = self.fields else { return self.inside.unexpected(Unexpected::Seq) };
        self.inside.parts(parts, access)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<(), A::Error> {
        let Fields::Named(fields) = self.fields else { return self.inside.unexpected(Unexpected::Map) };
        self.inside.named(fields, access)
    }
}
