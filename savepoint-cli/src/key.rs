//! The key that a user asks for (`--key`), as the ordered bytes under which it is stored.

use serde::de::{IntoDeserializer, value::Error as TextError};
use types::{Error, KeyPart, Result, Shape, shape::from_hex};

/// Reads what stands behind `--key`: a text, a number, or JSON, as the shape of the keys says; hex of the stored bytes where
/// that is not known.
///
/// # Errors
/// `InvalidJob`: what is wrong, the shape of the keys, and an example.
pub(crate) fn parse(shape: Option<&Shape>, part: KeyPart, text: &str) -> Result<Vec<u8>> {
    let Some(shape) = shape.filter(|shape| shape.is_complete()) else {
        return from_hex(text).ok_or_else(|| {
            Error::invalid_job(format!(
                "--key {text}: the shape of these keys is not in the snapshot: give the stored bytes as hex, as in --key \
                 0x00ff"
            ))
        });
    };
    let read = if is_bare(shape, text) {
        let read: Result<_, TextError> = shape.key_bytes(part, text.into_deserializer());
        read.map_err(|error| error.to_string())
    } else {
        json(shape, part, text)
    };
    read.map_err(|why| {
        let example = match shape.unwrapped() {
            Shape::Str => "text".to_owned(),
            _ if is_bare(shape, "") => shape.example().trim_matches('"').to_owned(),
            _ => shape.example(),
        };
        let example = if example.contains(['"', '{', '[']) { format!("'{example}'") } else { example };
        Error::invalid_job(format!("--key {text}: {why}; keys are {shape}, as in --key {example}"))
    })
}

/// Whether a key of this shape is written without the quotes of JSON.
fn is_bare(shape: &Shape, text: &str) -> bool {
    match shape.unwrapped() {
        Shape::Str | Shape::Bytes | Shape::Char | Shape::F32 | Shape::F64 => true,
        Shape::Enum { .. } => !text.starts_with(['{', '"']),
        _ => false,
    }
}

fn json(shape: &Shape, part: KeyPart, text: &str) -> Result<Vec<u8>, String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let read = shape.key_bytes(part, &mut json).and_then(|bytes| json.end().map(|()| bytes));
    read.map_err(|error| match error.classify() {
        serde_json::error::Category::Syntax | serde_json::error::Category::Eof => "it is not JSON".to_owned(),
        _ => error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
    })
}
