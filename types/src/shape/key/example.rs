//! What a value of a shape looks like in JSON.

use crate::shape::{Fields, Shape, Variant};

pub(super) fn push(shape: &Shape, out: &mut String) {
    match shape {
        Shape::Bool => out.push_str("true"),
        Shape::I8 | Shape::I16 | Shape::I32 | Shape::I64 | Shape::I128 => out.push_str("-42"),
        Shape::U8 | Shape::U16 | Shape::U32 | Shape::U64 | Shape::U128 => out.push_str("42"),
        Shape::F32 | Shape::F64 => out.push_str("1.5"),
        Shape::Char => out.push_str(r#""x""#),
        Shape::Str => out.push_str(r#""text""#),
        Shape::Bytes => out.push_str(r#""0x00ff""#),
        // A type cannot hold itself but through an option, a list or an enum.
        Shape::Unit | Shape::Recursive(_) | Shape::Any | Shape::Unknown => out.push_str("null"),
        Shape::Option(inner) => push(inner, out),
        Shape::Seq(inner) if matches!(**inner, Shape::Recursive(_)) => out.push_str("[]"),
        Shape::Seq(inner) => list(std::slice::from_ref(&**inner), out),
        Shape::Map(_, value) => object([("key", &**value)], out),
        Shape::Tuple(parts) => list(parts, out),
        Shape::Struct { fields, .. } => content(fields, out),
        Shape::Enum { variants, .. } => match variants.first() {
            Some(Variant { name, fields: Fields::Unit, .. }) => text(name, out),
            Some(Variant { name, fields, .. }) => {
                out.push('{');
                text(name, out);
                out.push(':');
                content(fields, out);
                out.push('}');
            }
            None => out.push_str("null"),
        },
    }
}

fn content(fields: &Fields, out: &mut String) {
    match fields {
        Fields::Unit | Fields::Unknown => out.push_str("null"),
        Fields::Newtype(inner) => push(inner, out),
        Fields::Tuple(parts) => list(parts, out),
        Fields::Named(fields) => object(fields.iter().map(|(name, shape)| (name.as_str(), shape)), out),
    }
}

fn list(parts: &[Shape], out: &mut String) {
    out.push('[');
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push(part, out);
    }
    out.push(']');
}

fn object<'a>(fields: impl IntoIterator<Item = (&'a str, &'a Shape)>, out: &mut String) {
    out.push('{');
    for (index, (name, shape)) in fields.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        text(name, out);
        out.push(':');
        push(shape, out);
    }
    out.push('}');
}

/// Names are identifiers, or what serde was told: what JSON escapes is rare and shown as Rust does.
fn text(name: &str, out: &mut String) {
    out.push_str(&format!("{name:?}"));
}
