//! Finds the shape of a value through its `Serialize`: what options, lists and enums hold is seen only as far as the value
//! shows it. Called where tracing could not find out all, with a value of the user or with the first ones stored.

use serde::ser::{self, Serialize};

use super::{Fields, Shape, Variant, bytes::MAX_DEPTH};
use crate::{Result, positional::Failure};

impl Shape {
    /// The shape of `value`, as far as this value shows it.
    ///
    /// # Errors
    /// `InvalidJob` if a field is left out for some values, `User` if `Serialize` fails.
    pub fn trace_sample<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        value.serialize(Recorder { depth: 0 }).map_err(Failure::into_error)
    }

    /// What both show of the same elements; elements that contradict each other are left unknown.
    fn join(self, other: &Self) -> Self {
        self.merge(other).unwrap_or(Self::Unknown)
    }
}

type Recorded<T = Shape> = Result<T, Failure>;

/// Records one value. `depth` counts the shapes around it.
#[derive(Clone, Copy)]
struct Recorder {
    depth: u32,
}

impl Recorder {
    /// The shape of what stands inside.
    fn inner<T: Serialize + ?Sized>(self, value: &T) -> Recorded {
        if self.depth + 1 >= MAX_DEPTH {
            return Ok(Shape::Unknown);
        }
        value.serialize(Self { depth: self.depth + 1 })
    }
}

macro_rules! scalars {
    ($($method:ident($type:ty) $shape:ident;)*) => {$(
        fn $method(self, _value: $type) -> Recorded {
            Ok(Shape::$shape)
        }
    )*};
}

impl ser::Serializer for Recorder {
    type Ok = Shape;
    type Error = Failure;
    type SerializeSeq = Elements;
    type SerializeMap = Elements;
    type SerializeTuple = Parts;
    type SerializeTupleStruct = Parts;
    type SerializeTupleVariant = Parts;
    type SerializeStruct = Parts;
    type SerializeStructVariant = Parts;

    scalars! {
        serialize_bool(bool) Bool;
        serialize_u8(u8) U8;
        serialize_u16(u16) U16;
        serialize_u32(u32) U32;
        serialize_u64(u64) U64;
        serialize_u128(u128) U128;
        serialize_i8(i8) I8;
        serialize_i16(i16) I16;
        serialize_i32(i32) I32;
        serialize_i64(i64) I64;
        serialize_i128(i128) I128;
        serialize_f32(f32) F32;
        serialize_f64(f64) F64;
        serialize_char(char) Char;
        serialize_str(&str) Str;
        serialize_bytes(&[u8]) Bytes;
    }

    fn serialize_unit(self) -> Recorded {
        Ok(Shape::Unit)
    }

    fn serialize_none(self) -> Recorded {
        Ok(Shape::Option(Shape::Unknown.into()))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Recorded {
        Ok(Shape::Option(self.inner(value)?.into()))
    }

    fn serialize_unit_struct(self, name: &'static str) -> Recorded {
        Ok(Shape::Struct { name: name.into(), fields: Fields::Unit })
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Recorded {
        Ok(Shape::Struct { name: name.into(), fields: Fields::Newtype(self.inner(value)?.into()) })
    }

    fn serialize_unit_variant(self, name: &'static str, index: u32, variant: &'static str) -> Recorded {
        Ok(Owner::Variant(name, index, variant).shape(Fields::Unit))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Recorded {
        let fields = Fields::Newtype(self.inner(value)?.into());
        Ok(Owner::Variant(name, index, variant).shape(fields))
    }

    fn serialize_seq(self, _len: Option<usize>) -> Recorded<Elements> {
        Ok(Elements { recorder: self, key: Shape::Unknown, value: Shape::Unknown })
    }

    fn serialize_map(self, len: Option<usize>) -> Recorded<Elements> {
        self.serialize_seq(len)
    }

    fn serialize_tuple(self, _len: usize) -> Recorded<Parts> {
        Ok(Parts::new(self, Owner::Tuple))
    }

    fn serialize_tuple_struct(self, name: &'static str, _len: usize) -> Recorded<Parts> {
        Ok(Parts::new(self, Owner::Struct(name)))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Recorded<Parts> {
        Ok(Parts::new(self, Owner::Variant(name, index, variant)))
    }

    fn serialize_struct(self, name: &'static str, _len: usize) -> Recorded<Parts> {
        Ok(Parts::new(self, Owner::Struct(name)))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Recorded<Parts> {
        Ok(Parts::new(self, Owner::Variant(name, index, variant)))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Whose parts are recorded.
enum Owner {
    Tuple,
    Struct(&'static str),
    /// The enum, the index of the variant, the variant.
    Variant(&'static str, u32, &'static str),
}

impl Owner {
    fn shape(self, fields: Fields) -> Shape {
        match (self, fields) {
            (Self::Tuple, Fields::Tuple(parts)) => Shape::Tuple(parts),
            (Self::Tuple, _) => Shape::Unknown,
            (Self::Struct(name), fields) => Shape::Struct { name: name.into(), fields },
            (Self::Variant(name, index, variant), fields) => {
                let variants = vec![Variant { index, name: variant.into(), fields }];
                Shape::Enum { name: name.into(), variants, open: true }
            }
        }
    }
}

/// Records the parts of a tuple, struct or variant; those of a struct with their names.
struct Parts {
    recorder: Recorder,
    owner: Owner,
    parts: Vec<(&'static str, Shape)>,
}

impl Parts {
    fn new(recorder: Recorder, owner: Owner) -> Self {
        Self { recorder, owner, parts: Vec::new() }
    }

    fn record<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Recorded<()> {
        self.parts.push((name, self.recorder.inner(value)?));
        Ok(())
    }

    fn unnamed(self) -> Shape {
        self.owner.shape(Fields::Tuple(self.parts.into_iter().map(|(_, shape)| shape).collect()))
    }

    fn named(self) -> Shape {
        let fields = self.parts.into_iter().map(|(name, shape)| (name.into(), shape)).collect();
        self.owner.shape(Fields::Named(fields))
    }
}

macro_rules! parts {
    ($($trait:ident $method:ident $end:ident;)*) => {$(
        impl ser::$trait for Parts {
            type Ok = Shape;
            type Error = Failure;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Recorded<()> {
                self.record("", value)
            }

            fn end(self) -> Recorded {
                Ok(self.$end())
            }
        }
    )*};
}

parts! {
    SerializeTuple serialize_element unnamed;
    SerializeTupleStruct serialize_field unnamed;
    SerializeTupleVariant serialize_field unnamed;
}

macro_rules! fields {
    ($($trait:ident)*) => {$(
        impl ser::$trait for Parts {
            type Ok = Shape;
            type Error = Failure;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Recorded<()> {
                self.record(name, value)
            }

            fn skip_field(&mut self, name: &'static str) -> Recorded<()> {
                Err(Failure::left_out(name))
            }

            fn end(self) -> Recorded {
                Ok(self.named())
            }
        }
    )*};
}

fields! { SerializeStruct SerializeStructVariant }

/// Records the elements of a list, or the keys and values of a map, all as one.
struct Elements {
    recorder: Recorder,
    key: Shape,
    value: Shape,
}

impl ser::SerializeSeq for Elements {
    type Ok = Shape;
    type Error = Failure;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Recorded<()> {
        let seen = self.recorder.inner(value)?;
        self.value = std::mem::replace(&mut self.value, Shape::Unknown).join(&seen);
        Ok(())
    }

    fn end(self) -> Recorded {
        Ok(Shape::Seq(self.value.into()))
    }
}

impl ser::SerializeMap for Elements {
    type Ok = Shape;
    type Error = Failure;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Recorded<()> {
        let seen = self.recorder.inner(key)?;
        self.key = std::mem::replace(&mut self.key, Shape::Unknown).join(&seen);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Recorded<()> {
        ser::SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Recorded {
        Ok(Shape::Map(self.key.into(), self.value.into()))
    }
}
