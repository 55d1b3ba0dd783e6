//! The error inside the positional formats: one pointer wide, so that results of scalars stay in registers.

use std::fmt;

use crate::{Error, ErrorKind};

/// An [`Error`] on its way out of serde.
pub(crate) struct Failure(Box<Error>);

impl Failure {
    #[cold]
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Error::new(kind, message)))
    }

    /// The bytes are not what was written.
    #[cold]
    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// The bytes end too early.
    #[cold]
    pub(crate) fn short() -> Self {
        Self::corrupt("the bytes end inside a value")
    }

    /// The type cannot be written in this format.
    #[cold]
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidJob, message)
    }

    /// Without names in the bytes, a field that is left out would shift all that follow.
    #[cold]
    pub(crate) fn left_out(field: &str) -> Self {
        Self::refused(format!(
            "field `{field}` is left out for some values and could not be read back: remove `skip_serializing_if`"
        ))
    }

    /// Values are nested too deeply.
    #[cold]
    pub(crate) fn deep() -> Self {
        let limit = super::MAX_DEPTH;
        Self::refused(format!("more than {limit} options, lists, maps and enums inside each other"))
    }

    /// Bytes that nothing has written, since writing refuses values that are nested so deeply.
    #[cold]
    pub(crate) fn nested() -> Self {
        let limit = super::MAX_DEPTH;
        Self::corrupt(format!("more than {limit} options, lists, maps and enums inside each other"))
    }

    #[cold]
    pub(crate) fn into_error(self) -> Error {
        *self.0
    }
}

impl serde::ser::Error for Failure {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(ErrorKind::User, message.to_string())
    }
}

impl serde::de::Error for Failure {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::corrupt(message.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for Failure {}
