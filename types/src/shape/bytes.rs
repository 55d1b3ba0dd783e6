//! The stored form of a shape: a version byte, then one tag byte for each shape and what belongs to it, outermost first.
//! Lengths are `u32`, little-endian. One shape has one spelling, since the fingerprint is taken of it; a golden test
//! pins it.

use super::{Fields, Shape, Variant};
use crate::{
    Error, Result,
    positional::{Allowance, Failure, take_array, take_flag, take_slice},
};

/// Changes with the meaning of the bytes behind it.
const VERSION: u8 = 1;

/// How deeply shapes may be nested: no deeper than tracing goes, so that hostile bytes cannot use up the stack.
pub(super) const MAX_DEPTH: u32 = 64;

/// Shapes with nothing inside; the tag is the place in the list.
static SCALARS: [Shape; 19] = [
    Shape::Unit,
    Shape::Bool,
    Shape::I8,
    Shape::I16,
    Shape::I32,
    Shape::I64,
    Shape::I128,
    Shape::U8,
    Shape::U16,
    Shape::U32,
    Shape::U64,
    Shape::U128,
    Shape::F32,
    Shape::F64,
    Shape::Char,
    Shape::Str,
    Shape::Bytes,
    Shape::Any,
    Shape::Unknown,
];
const OPTION: u8 = 32;
const SEQ: u8 = 33;
const MAP: u8 = 34;
const TUPLE: u8 = 35;
const STRUCT: u8 = 36;
const ENUM: u8 = 37;
const RECURSIVE: u8 = 38;

const FIELDS_UNIT: u8 = 0;
const FIELDS_NEWTYPE: u8 = 1;
const FIELDS_TUPLE: u8 = 2;
const FIELDS_NAMED: u8 = 3;
const FIELDS_UNKNOWN: u8 = 4;

impl Shape {
    /// The stored form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_shape(self, &mut out);
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Corrupt` if these are not the bytes of a shape, or would take more memory than three and a half times their length
    /// and 768 KiB.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        ShapeReader::for_file(bytes.len()).read(bytes)
    }
}

/// Reads the shapes that stand in one file, which share an allowance of memory.
pub struct ShapeReader(Allowance);

impl ShapeReader {
    /// For a file, or a section of one, of so many bytes.
    #[must_use]
    pub fn for_file(len: usize) -> Self {
        Self(Allowance::of_file(len))
    }

    /// Reads the stored form of a shape.
    ///
    /// # Errors
    /// `Corrupt` if these are not the bytes of a shape, or nothing is left for it.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Shape> {
        let mut input = Input { bytes, allowance: &mut self.0 };
        let shape = read(&mut input);
        let (len, left) = (bytes.len(), input.bytes.len());
        shape.map_err(|failure| {
            let offset = len - left;
            Error::context(failure.into_error(), format!("shape, at offset {offset} of {len} bytes"))
        })
    }

    /// Takes `bytes` of memory for what stands beside the shapes.
    ///
    /// # Errors
    /// `Corrupt` if there is not as much left.
    pub fn take(&mut self, bytes: usize) -> Result<()> {
        self.0.take(bytes).map_err(Failure::into_error)
    }
}

/// The bytes that are left, and the memory that may be taken for them.
struct Input<'a, 'b> {
    bytes: &'a [u8],
    allowance: &'b mut Allowance,
}

fn put_shape(shape: &Shape, out: &mut Vec<u8>) {
    match shape {
        Shape::Option(inner) => put_tagged(OPTION, &[inner], out),
        Shape::Seq(inner) => put_tagged(SEQ, &[inner], out),
        Shape::Map(key, value) => put_tagged(MAP, &[key, value], out),
        Shape::Tuple(parts) => {
            out.push(TUPLE);
            put_all(parts, out, put_shape);
        }
        Shape::Struct { name, fields } => {
            out.push(STRUCT);
            put_text(name, out);
            put_fields(fields, out);
        }
        Shape::Enum { name, variants, open } => {
            out.push(ENUM);
            put_text(name, out);
            out.push(u8::from(*open));
            put_all(variants, out, put_variant);
        }
        Shape::Recursive(levels) => {
            out.push(RECURSIVE);
            out.extend_from_slice(&levels.to_le_bytes());
        }
        scalar => {
            let tag = SCALARS.iter().position(|other| other == scalar);
            out.push(tag.expect("every shape that holds nothing is in the list") as u8);
        }
    }
}

fn put_tagged(tag: u8, parts: &[&Shape], out: &mut Vec<u8>) {
    out.push(tag);
    parts.iter().for_each(|part| put_shape(part, out));
}

fn put_fields(fields: &Fields, out: &mut Vec<u8>) {
    match fields {
        Fields::Unit => out.push(FIELDS_UNIT),
        Fields::Newtype(inner) => put_tagged(FIELDS_NEWTYPE, &[inner], out),
        Fields::Tuple(parts) => {
            out.push(FIELDS_TUPLE);
            put_all(parts, out, put_shape);
        }
        Fields::Named(fields) => {
            out.push(FIELDS_NAMED);
            put_all(fields, out, |(name, shape), out| {
                put_text(name, out);
                put_shape(shape, out);
            });
        }
        Fields::Unknown => out.push(FIELDS_UNKNOWN),
    }
}

fn put_variant(variant: &Variant, out: &mut Vec<u8>) {
    out.extend_from_slice(&variant.index.to_le_bytes());
    put_text(&variant.name, out);
    put_fields(&variant.fields, out);
}

fn put_all<T>(items: &[T], out: &mut Vec<u8>, put: impl Fn(&T, &mut Vec<u8>)) {
    put_len(items.len(), out);
    items.iter().for_each(|item| put(item, out));
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_len(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

fn put_len(len: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(
        &u32::try_from(len).expect("names and fields of a type fit in 4 GiB").to_le_bytes(),
    );
}

type Taken<T> = Result<T, Failure>;

fn read(input: &mut Input<'_, '_>) -> Taken<Shape> {
    match take_array(&mut input.bytes)? {
        [VERSION] => {}
        [other] => {
            return Err(Failure::corrupt(format!("version {other}, but this program knows up to {VERSION}")));
        }
    }
    let shape = take_shape(0, input)?;
    if !input.bytes.is_empty() {
        return Err(Failure::corrupt("bytes are left after the shape"));
    }
    Ok(shape)
}

/// `depth` is the number of shapes around this one.
fn take_shape(depth: u32, input: &mut Input<'_, '_>) -> Taken<Shape> {
    if depth > MAX_DEPTH {
        return Err(Failure::corrupt(format!("more than {MAX_DEPTH} shapes inside each other")));
    }
    let inner = |input: &mut Input<'_, '_>| take_shape(depth + 1, input);
    let [tag] = take_array(&mut input.bytes)?;
    Ok(match tag {
        OPTION => Shape::Option(boxed(inner(input)?, input)?),
        SEQ => Shape::Seq(boxed(inner(input)?, input)?),
        MAP => {
            let key = boxed(inner(input)?, input)?;
            Shape::Map(key, boxed(inner(input)?, input)?)
        }
        TUPLE => Shape::Tuple(take_all(input, inner)?),
        STRUCT => Shape::Struct { name: take_text(input)?, fields: take_fields(depth, input)? },
        ENUM => {
            let name = take_text(input)?;
            let open = take_flag(&mut input.bytes)?;
            let variants = take_all(input, |input| take_variant(depth, input))?;
            if !variants.is_sorted_by(|left, right| left.index < right.index) {
                return Err(Failure::corrupt("the variants of an enum are not in order"));
            }
            Shape::Enum { name, variants, open }
        }
        RECURSIVE => match u32::from_le_bytes(take_array(&mut input.bytes)?) {
            levels if levels < depth => Shape::Recursive(levels),
            levels => {
                return Err(Failure::corrupt(format!("refers {levels} levels out of a depth of {depth}")));
            }
        },
        scalar => SCALARS
            .get(usize::from(scalar))
            .cloned()
            .ok_or_else(|| Failure::corrupt(format!("no shape has the tag {scalar}")))?,
    })
}

fn take_fields(depth: u32, input: &mut Input<'_, '_>) -> Taken<Fields> {
    let inner = |input: &mut Input<'_, '_>| take_shape(depth + 1, input);
    Ok(match take_array(&mut input.bytes)? {
        [FIELDS_UNIT] => Fields::Unit,
        [FIELDS_NEWTYPE] => Fields::Newtype(boxed(inner(input)?, input)?),
        [FIELDS_TUPLE] => Fields::Tuple(take_all(input, inner)?),
        [FIELDS_NAMED] => Fields::Named(take_all(input, |input| Ok((take_text(input)?, inner(input)?)))?),
        [FIELDS_UNKNOWN] => Fields::Unknown,
        [other] => return Err(Failure::corrupt(format!("no fields have the tag {other}"))),
    })
}

fn take_variant(depth: u32, input: &mut Input<'_, '_>) -> Taken<Variant> {
    Ok(Variant {
        index: u32::from_le_bytes(take_array(&mut input.bytes)?),
        name: take_text(input)?,
        fields: take_fields(depth, input)?,
    })
}

fn boxed(shape: Shape, input: &mut Input<'_, '_>) -> Taken<Box<Shape>> {
    input.allowance.take(size_of::<Shape>())?;
    Ok(shape.into())
}

/// Room is made for all items at once, as far as it is allowed: each takes a byte at least.
fn take_all<T>(input: &mut Input<'_, '_>, take: impl Fn(&mut Input<'_, '_>) -> Taken<T>) -> Taken<Vec<T>> {
    let count = u32::from_le_bytes(take_array(&mut input.bytes)?) as usize;
    if count > input.bytes.len() {
        return Err(Failure::short());
    }
    input.allowance.take(count.saturating_mul(size_of::<T>()))?;
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        items.push(take(input)?);
    }
    Ok(items)
}

fn take_text(input: &mut Input<'_, '_>) -> Taken<String> {
    let len = u32::from_le_bytes(take_array(&mut input.bytes)?);
    let bytes = take_slice(len as usize, &mut input.bytes)?;
    input.allowance.take(bytes.len())?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Failure::corrupt("a name is not UTF-8"))
}
