//! What the values of a type look like to serde: names of structs, fields and variants, and the types of fields, but never
//! the Rust name of a type. Its [fingerprint](Shape::fingerprint) is stored with every state, so that a snapshot is not
//! read by a program whose type has changed, and the command line prints values by it without the program.
//!
//! `trace` finds a shape through `Deserialize`, `sample` from a value through `Serialize`, `compare` names the first
//! difference and joins two partial shapes, `bytes` is the stored form, `display` the printed one, `value` prints stored
//! bytes, `key` reads a key that somebody wrote down, `names` leaves the names of types out.

mod around;
mod bytes;
mod compare;
mod display;
mod key;
mod names;
mod path;
mod sample;
mod trace;
mod value;

#[cfg(test)]
mod tests;

pub use bytes::ShapeReader;
pub use key::{KeyPart, from_hex};
pub use value::{ShapedFields, ShapedValue};

use self::path::Path;
use crate::{Error, Result};

/// What a type looks like to serde.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names of the scalars are serde's")]
pub enum Shape {
    Unit,
    Bool,
    I8,
    I16,
    I32,
    I64,
    I128,
    U8,
    U16,
    U32,
    U64,
    U128,
    F32,
    F64,
    Char,
    Str,
    Bytes,
    /// A value or none.
    Option(Box<Shape>),
    /// A list, or a set.
    Seq(Box<Shape>),
    /// Keys with a value each.
    Map(Box<Shape>, Box<Shape>),
    /// A tuple or an array.
    Tuple(Vec<Shape>),
    /// A struct of any form. Names are those that serde uses; one that was not found out is empty.
    Struct {
        name: String,
        fields: Fields,
    },
    /// One of several variants; `open` if there may be more than are known, because only values were seen.
    Enum {
        name: String,
        variants: Vec<Variant>,
        open: bool,
    },
    /// The shape so many options, lists, maps, tuples, structs and enums further out; 0 is the nearest around.
    Recursive(u32),
    /// The type asks the bytes what they hold (`untagged`, `flatten`, dynamic values); ours do not say.
    Any,
    /// Not found out.
    Unknown,
}

/// What stands in a struct or in a variant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the four forms of Rust")]
pub enum Fields {
    Unit,
    Newtype(Box<Shape>),
    Tuple(Vec<Shape>),
    Named(Vec<(String, Shape)>),
    /// Not found out.
    Unknown,
}

/// A variant of an enum.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Its place in the enum, from 0 on: what stands in the bytes.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it holds.
    pub fields: Fields,
}

impl Shape {
    /// 128 bits that differ where two shapes differ: xxh3-128 of [`to_bytes`](Self::to_bytes).
    ///
    /// Worth comparing only for shapes that are [complete](Self::is_complete).
    #[must_use]
    pub fn fingerprint(&self) -> u128 {
        xxhash_rust::xxh3::xxh3_128(&self.to_bytes())
    }

    /// Whether all of the type was found out.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.check(&mut |_, shape| if shape.is_known_here() { Ok(()) } else { Err(()) }).is_ok()
    }

    fn is_known_here(&self) -> bool {
        match self {
            Self::Unknown => false,
            Self::Struct { fields, .. } => fields.are_known(),
            Self::Enum { variants, open, .. } => {
                !open && variants.iter().all(|variant| !variant.name.is_empty() && variant.fields.are_known())
            }
            _ => true,
        }
    }

    /// Whether every value of it is no bytes at all.
    fn takes_no_bytes(&self) -> bool {
        match self {
            Self::Unit => true,
            Self::Tuple(parts) => parts.iter().all(Self::takes_no_bytes),
            Self::Struct { fields, .. } => match fields {
                Fields::Unit => true,
                Fields::Newtype(inner) => inner.takes_no_bytes(),
                Fields::Tuple(parts) => parts.iter().all(Self::takes_no_bytes),
                Fields::Named(fields) => fields.iter().all(|(_, shape)| shape.takes_no_bytes()),
                Fields::Unknown => false,
            },
            _ => false,
        }
    }

    /// Whether values of the type can be written and read again at all.
    ///
    /// # Errors
    /// `InvalidJob` naming the field that cannot.
    pub fn storable(&self) -> Result<()> {
        self.check(&mut |path, shape| match shape {
            Self::Any => Err(Error::invalid_job(format!(
                "{}asks the bytes what they hold, but stored bytes do not say: it cannot be `untagged`, internally \
                 `tag`ged, `flatten`ed or a dynamic value",
                path.subject()
            ))),
            _ => Ok(()),
        })
    }

    /// Whether the type may be a key. What is unknown is let through: encoding checks it again.
    ///
    /// # Errors
    /// `InvalidJob` naming the field that cannot be ordered.
    pub fn orderable(&self) -> Result<()> {
        self.storable()?;
        self.check(&mut |path, shape| match shape {
            Self::Map(..) => Err(Error::invalid_job(format!(
                "{}is a map, which cannot be ordered: use a list of pairs, a tuple or a struct in a key",
                path.subject()
            ))),
            _ => Ok(()),
        })
    }

    /// Runs `check` on this shape and all in it, outermost and first field first, up to the first error.
    fn check<E>(&self, check: &mut dyn FnMut(&Path, &Self) -> Result<(), E>) -> Result<(), E> {
        self.check_at(&mut Path::default(), check)
    }

    fn check_at<E>(
        &self,
        path: &mut Path,
        check: &mut dyn FnMut(&Path, &Self) -> Result<(), E>,
    ) -> Result<(), E> {
        check(path, self)?;
        match self {
            Self::Option(inner) => path.within("?", |path| inner.check_at(path, check)),
            Self::Seq(inner) => path.within("[]", |path| inner.check_at(path, check)),
            Self::Map(key, value) => {
                path.within("{key}", |path| key.check_at(path, check))?;
                path.within("{value}", |path| value.check_at(path, check))
            }
            Self::Tuple(parts) => check_parts(parts, path, check),
            Self::Struct { fields, .. } => fields.check_at(path, check),
            Self::Enum { variants, .. } => variants.iter().try_for_each(|variant| {
                path.variant(&variant.name, |path| variant.fields.check_at(path, check))
            }),
            _ => Ok(()),
        }
    }
}

impl Fields {
    fn are_known(&self) -> bool {
        match self {
            Self::Unknown => false,
            Self::Named(fields) => fields.iter().all(|(name, _)| !name.is_empty()),
            _ => true,
        }
    }

    fn check_at<E>(
        &self,
        path: &mut Path,
        check: &mut dyn FnMut(&Path, &Shape) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Unit | Self::Unknown => Ok(()),
            Self::Newtype(inner) => path.field("0", |path| inner.check_at(path, check)),
            Self::Tuple(parts) => check_parts(parts, path, check),
            Self::Named(fields) => fields
                .iter()
                .try_for_each(|(name, shape)| path.field(name, |path| shape.check_at(path, check))),
        }
    }
}

fn check_parts<E>(
    parts: &[Shape],
    path: &mut Path,
    check: &mut dyn FnMut(&Path, &Shape) -> Result<(), E>,
) -> Result<(), E> {
    parts
        .iter()
        .enumerate()
        .try_for_each(|(index, part)| path.field(&index.to_string(), |path| part.check_at(path, check)))
}
