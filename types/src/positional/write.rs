//! The serde `Serializer` of a positional format.

use std::marker::PhantomData;

use serde::ser::{self, Serialize};

use super::{Failure, Format, MAX_DEPTH, Scalar};
use crate::{Error, Result};

/// Appends `value` to `out`; on an error `out` is as it was before.
#[inline]
pub(crate) fn encode<F: Format, T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    value.serialize(Writer::<F> { out, depth: 0, format: PhantomData }).map_err(|failure| {
        out.truncate(start);
        named::<F>(failure)
    })
}

#[cold]
fn named<F: Format>(failure: Failure) -> Error {
    failure.into_error().context(F::NAME)
}

/// Writes one value.
struct Writer<'a, F> {
    out: &'a mut Vec<u8>,
    depth: u8,
    format: PhantomData<F>,
}

impl<F: Format> Writer<'_, F> {
    #[inline]
    fn deeper(self) -> Result<Self, Failure> {
        if self.depth == MAX_DEPTH {
            return Err(Failure::deep());
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    #[inline]
    fn variant(self, index: u32) -> Result<Self, Failure> {
        F::put_variant(index, self.out);
        self.deeper()
    }
}

impl<'a, F: Format> Writer<'a, F> {
    #[inline]
    fn elements(self, len: Option<usize>) -> Result<Elements<'a, F>, Failure> {
        F::put_start(len, self.out)?;
        Ok(Elements { writer: self.deeper()?, declared: len, written: 0 })
    }
}

macro_rules! scalars {
    ($($method:ident: $type:ty),*) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<(), Failure> {
            <F as Scalar<$type>>::put(value, self.out);
            Ok(())
        }
    )*};
}

impl<'a, F: Format> ser::Serializer for Writer<'a, F> {
    type Ok = ();
    type Error = Failure;
    type SerializeSeq = Elements<'a, F>;
    type SerializeMap = Elements<'a, F>;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    scalars! {
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_f32: f32, serialize_f64: f64, serialize_char: char
    }

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), Failure> {
        self.out.push(u8::from(value));
        Ok(())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Failure> {
        F::put_bytes(value.as_bytes(), self.out);
        Ok(())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), Failure> {
        F::put_bytes(value, self.out);
        Ok(())
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Failure> {
        self.out.push(0);
        Ok(())
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Failure> {
        self.out.push(1);
        value.serialize(self.deeper()?)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Failure> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Failure> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
    ) -> Result<(), Failure> {
        self.variant(index).map(drop)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Failure> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        value: &T,
    ) -> Result<(), Failure> {
        value.serialize(self.variant(index)?)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Elements<'a, F>, Failure> {
        self.elements(len)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Elements<'a, F>, Failure> {
        match F::MAPS_REFUSED {
            Some(why) => Err(Failure::refused(why)),
            None => self.elements(len),
        }
    }

    #[inline]
    fn serialize_tuple(self, _len: usize) -> Result<Self, Failure> {
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_struct(self, _name: &'static str, _len: usize) -> Result<Self, Failure> {
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Self, Failure> {
        self.variant(index)
    }

    #[inline]
    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Self, Failure> {
        Ok(self)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Self, Failure> {
        self.variant(index)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

macro_rules! parts {
    ($($trait:ident::$method:ident($($key:ty)?) $($skip:ident)?;)*) => {$(
        impl<F: Format> ser::$trait for Writer<'_, F> {
            type Ok = ();
            type Error = Failure;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, $(_name: $key,)? value: &T) -> Result<(), Failure> {
                value.serialize(Writer::<F> { out: self.out, depth: self.depth, format: PhantomData })
            }

            $(
                fn $skip(&mut self, name: &'static str) -> Result<(), Failure> {
                    Err(Failure::left_out(name))
                }
            )?

            #[inline]
            fn end(self) -> Result<(), Failure> {
                Ok(())
            }
        }
    )*};
}

parts! {
    SerializeTuple::serialize_element();
    SerializeTupleStruct::serialize_field();
    SerializeTupleVariant::serialize_field();
    SerializeStruct::serialize_field(&'static str) skip_field;
    SerializeStructVariant::serialize_field(&'static str) skip_field;
}

/// Writes the elements of a list, or the keys and values of a map.
struct Elements<'a, F> {
    writer: Writer<'a, F>,
    declared: Option<usize>,
    written: usize,
}

impl<F: Format> Elements<'_, F> {
    #[inline]
    fn put<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
        value.serialize(Writer::<F> { out: self.writer.out, depth: self.writer.depth, format: PhantomData })
    }

    #[inline]
    fn start_element(&mut self) {
        F::put_more(self.writer.out);
        self.written += 1;
    }

    #[inline]
    fn finish(self) -> Result<(), Failure> {
        if self.declared.is_some_and(|declared| declared != self.written) {
            return Err(Failure::refused("a list or map holds another number of elements than it announced"));
        }
        F::put_end(self.writer.out);
        Ok(())
    }
}

impl<F: Format> ser::SerializeSeq for Elements<'_, F> {
    type Ok = ();
    type Error = Failure;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
        self.start_element();
        self.put(value)
    }

    #[inline]
    fn end(self) -> Result<(), Failure> {
        self.finish()
    }
}

impl<F: Format> ser::SerializeMap for Elements<'_, F> {
    type Ok = ();
    type Error = Failure;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Failure> {
        self.start_element();
        self.put(key)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
        self.put(value)
    }

    #[inline]
    fn end(self) -> Result<(), Failure> {
        self.finish()
    }
}
