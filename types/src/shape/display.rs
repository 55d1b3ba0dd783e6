//! Shapes as one reads them: `struct Total { count: u64, name: str }`.

use std::fmt::{self, Display, Formatter};

use super::{Fields, Shape, Variant};

impl Display for Shape {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(inner) => write!(f, "option<{inner}>"),
            Self::Seq(inner) => write!(f, "[{inner}]"),
            Self::Map(key, value) => write!(f, "map<{key}, {value}>"),
            Self::Tuple(parts) => match parts.as_slice() {
                [first, rest @ ..] if !rest.is_empty() && rest.iter().all(|part| part == first) => {
                    write!(f, "[{first}; {}]", parts.len())
                }
                _ => parenthesised(f, parts),
            },
            Self::Struct { name, fields } => write!(f, "struct {name}{fields}"),
            Self::Enum { name, variants, open } => {
                let more = if *open { &["..".to_owned()][..] } else { &[] };
                let variants: Vec<String> = variants.iter().map(Variant::to_string).collect();
                write!(f, "enum {name} {{ {} }}", [variants.as_slice(), more].concat().join(" | "))
            }
            Self::Recursive(levels) => write!(f, "^{levels}"),
            scalar => f.write_str(scalar.scalar_name()),
        }
    }
}

impl Display for Variant {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, self.fields)
    }
}

impl Display for Fields {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit => Ok(()),
            Self::Newtype(inner) => write!(f, "({inner})"),
            Self::Tuple(parts) => parenthesised(f, parts),
            Self::Named(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, shape)| format!("{name}: {shape}")).collect();
                write!(f, " {{ {} }}", fields.join(", "))
            }
            Self::Unknown => f.write_str("(unknown)"),
        }
    }
}

fn parenthesised(f: &mut Formatter<'_>, parts: &[Shape]) -> fmt::Result {
    let parts: Vec<String> = parts.iter().map(Shape::to_string).collect();
    write!(f, "({})", parts.join(", "))
}

impl Shape {
    /// What an error message calls this shape: short, without what is inside.
    pub(super) fn brief(&self) -> String {
        match self {
            Self::Option(_) => "an option".into(),
            Self::Seq(_) => "a list".into(),
            Self::Map(..) => "a map".into(),
            Self::Tuple(parts) => format!("a tuple of {}", parts.len()),
            Self::Struct { name, .. } => format!("struct {name}"),
            Self::Enum { name, .. } => format!("enum {name}"),
            Self::Recursive(levels) => format!("the type {levels} levels further out"),
            scalar => scalar.scalar_name().into(),
        }
    }

    fn scalar_name(&self) -> &'static str {
        match self {
            Self::Unit => "()",
            Self::Bool => "bool",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::I128 => "i128",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::U128 => "u128",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Char => "char",
            Self::Str => "str",
            Self::Bytes => "bytes",
            Self::Any => "any",
            _ => "unknown",
        }
    }
}

impl Fields {
    /// What an error message calls these fields.
    pub(super) fn brief(&self) -> String {
        match self {
            Self::Unit => "no fields".into(),
            Self::Newtype(_) => "one unnamed field".into(),
            Self::Tuple(parts) => format!("{} unnamed fields", parts.len()),
            Self::Named(fields) => format!("{} named fields", fields.len()),
            Self::Unknown => "unknown fields".into(),
        }
    }
}
