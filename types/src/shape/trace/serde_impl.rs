//! The serde `Deserializer` that a type under trace reads itself from.

use std::cell::Cell;

use serde::de::{Deserializer, Visitor};

use super::{
    access::{Choice, Elements},
    place::{Content, Kind, Stop},
    samples,
    tracer::Tracer,
};
use crate::shape::Shape;

macro_rules! leaves {
    ($($method:ident $visit:ident $shape:ident $samples:ident $map:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            self.leaf(Shape::$shape, &samples::$samples, |sample| visitor.$visit($map(sample)))
        }
    )*};
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Stop;

    leaves! {
        deserialize_bool visit_bool Bool BOOLS |sample| sample;
        deserialize_u8 visit_u8 U8 INTEGERS u8::from;
        deserialize_u16 visit_u16 U16 INTEGERS u16::from;
        deserialize_u32 visit_u32 U32 INTEGERS u32::from;
        deserialize_u64 visit_u64 U64 INTEGERS u64::from;
        deserialize_u128 visit_u128 U128 INTEGERS u128::from;
        deserialize_i8 visit_i8 I8 INTEGERS |sample: u8| sample as i8;
        deserialize_i16 visit_i16 I16 INTEGERS i16::from;
        deserialize_i32 visit_i32 I32 INTEGERS i32::from;
        deserialize_i64 visit_i64 I64 INTEGERS i64::from;
        deserialize_i128 visit_i128 I128 INTEGERS i128::from;
        deserialize_f32 visit_f32 F32 FLOATS |sample: f64| sample as f32;
        deserialize_f64 visit_f64 F64 FLOATS |sample| sample;
        deserialize_char visit_char Char CHARS |sample| sample;
        deserialize_str visit_str Str STRINGS |sample| sample;
        deserialize_string visit_string Str STRINGS str::to_owned;
        deserialize_bytes visit_bytes Bytes BYTE_STRINGS |sample| sample;
        deserialize_byte_buf visit_byte_buf Bytes BYTE_STRINGS <[u8]>::to_vec;
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.leaf(Shape::Unit, &[()], |()| visitor.visit_unit())
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.place.become_kind(Kind::Struct(name, Content::Unit), self.progress)?;
        self.place.finish(self.progress);
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.enter::<V, _>(Kind::Option, |mut tracer| {
            let value = match tracer.elements(1) {
                0 => visitor.visit_none(),
                _ => tracer.explore(0, |inner| visitor.visit_some(inner)),
            };
            tracer.place.settle_elements(value.is_ok(), tracer.progress);
            value
        })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.enter::<V, _>(Kind::Seq, |mut tracer| {
            let left = tracer.elements(2);
            let value = visitor.visit_seq(Elements::new(tracer.again(), left));
            tracer.place.settle_elements(value.is_ok(), tracer.progress);
            value
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.enter::<V, _>(Kind::Map, |mut tracer| {
            let left = tracer.elements(1);
            let value = visitor.visit_map(Elements::new(tracer.again(), left));
            tracer.place.settle_elements(value.is_ok(), tracer.progress);
            value
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.enter::<V, _>(Kind::Tuple(len), |tracer| tracer.parts(visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.enter::<V, _>(Kind::Struct(name, Content::Tuple(len)), |tracer| tracer.parts(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.enter::<V, _>(Kind::Struct(name, Content::Newtype), |mut tracer| {
            let value = tracer.explore(0, |inner| visitor.visit_newtype_struct(inner));
            tracer.place.settle_parts(value.is_ok(), tracer.progress);
            value
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let kind = Kind::Struct(name, Content::Named(fields));
        self.enter::<V, _>(kind, |tracer| tracer.named(fields, visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.enter::<V, _>(Kind::Enum(name, variants), |mut tracer| {
            let chosen = Cell::new(None);
            let value = visitor.visit_enum(Choice::new(tracer.again(), &chosen));
            tracer.place.settle_variants(chosen.get(), &value, tracer.progress);
            value
        })
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Stop> {
        self.barren(Shape::Any)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Stop> {
        self.barren(Shape::Any)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Stop> {
        self.barren(Shape::Any)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}
