//! The two ways to print a value: in the manner of Rust for people, through `Serialize` for JSON.

use std::fmt::{self, Display, Formatter};

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{ShapedFields, ShapedValue};

impl Display for ShapedValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit => f.write_str("()"),
            Self::Bool(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Unsigned(value) => value.fmt(f),
            Self::F32(value) => write!(f, "{value:?}"),
            Self::F64(value) => write!(f, "{value:?}"),
            Self::Char(value) => write!(f, "{value:?}"),
            Self::Str(value) => write!(f, "{value:?}"),
            Self::Bytes(bytes) | Self::Opaque(bytes) => f.write_str(&hex(bytes)),
            Self::None => f.write_str("none"),
            Self::Some(value) => write!(f, "some({value})"),
            Self::Seq(elements) => listed(f, "[", elements, "]"),
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| format!("{key}: {value}"));
                listed(f, "{", entries, "}")
            }
            Self::Tuple(parts) => listed(f, "(", parts, ")"),
            Self::Struct { name, fields } | Self::Variant { name, fields } => write!(f, "{name}{fields}"),
        }
    }
}

impl Display for ShapedFields {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit => Ok(()),
            Self::Newtype(value) => write!(f, "({value})"),
            Self::Tuple(parts) => listed(f, "(", parts, ")"),
            Self::Named(fields) => {
                listed(f, " { ", fields.iter().map(|(name, value)| format!("{name}: {value}")), " }")
            }
        }
    }
}

fn listed<T: Display>(
    f: &mut Formatter<'_>,
    open: &str,
    items: impl IntoIterator<Item = T>,
    close: &str,
) -> fmt::Result {
    f.write_str(open)?;
    for (index, item) in items.into_iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(f, "{comma}{item}")?;
    }
    f.write_str(close)
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).expect("half a byte is one digit");
    ['0', 'x'].into_iter().chain(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])).collect()
}

impl Serialize for ShapedValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unit | Self::None => serializer.serialize_none(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            // The wide ones only where they must be: not everything that writes JSON takes them.
            Self::Signed(value) => match i64::try_from(*value) {
                Ok(value) => serializer.serialize_i64(value),
                Err(_) => serializer.serialize_i128(*value),
            },
            Self::Unsigned(value) => match u64::try_from(*value) {
                Ok(value) => serializer.serialize_u64(value),
                Err(_) => serializer.serialize_u128(*value),
            },
            Self::F32(value) => serializer.serialize_f32(*value),
            Self::F64(value) => serializer.serialize_f64(*value),
            Self::Char(value) => serializer.serialize_char(*value),
            Self::Str(value) => serializer.serialize_str(value),
            Self::Bytes(bytes) | Self::Opaque(bytes) => serializer.serialize_str(&hex(bytes)),
            Self::Some(value) => value.serialize(serializer),
            Self::Seq(elements) | Self::Tuple(elements) => serializer.collect_seq(elements),
            Self::Map(entries) => {
                serializer.collect_map(entries.iter().map(|(key, value)| (key.object_key(), value)))
            }
            Self::Struct { fields, .. } => fields.serialize(serializer),
            Self::Variant { name, fields: ShapedFields::Unit } => serializer.serialize_str(name),
            Self::Variant { name, fields } => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(name, fields)?;
                map.end()
            }
        }
    }
}

impl ShapedValue {
    /// The keys of a JSON object are text.
    fn object_key(&self) -> String {
        match self {
            Self::Str(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

impl Serialize for ShapedFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unit => serializer.serialize_none(),
            Self::Newtype(value) => value.serialize(serializer),
            Self::Tuple(parts) => serializer.collect_seq(parts),
            Self::Named(fields) => serializer.collect_map(fields.iter().map(|(name, value)| (name, value))),
        }
    }
}
