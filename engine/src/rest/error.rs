//! Errors as answers: a status, and one line of JSON that says what is wrong.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use types::{Error, ErrorKind, rest::ErrorAnswer};

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: Error,
}

impl Refusal {
    pub(super) fn not_found(message: String) -> Self {
        Self { status: StatusCode::NOT_FOUND, error: Error::invalid_job(message) }
    }

    pub(super) fn wrong_method(message: String) -> Self {
        Self { status: StatusCode::METHOD_NOT_ALLOWED, error: Error::invalid_job(message) }
    }

    /// A request that cannot be read.
    pub(super) fn garbage(status: StatusCode, message: String) -> Self {
        Self { status, error: Error::invalid_job(message) }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidJob | ErrorKind::BadInput => StatusCode::BAD_REQUEST,
            ErrorKind::Conflict | ErrorKind::Cancelled | ErrorKind::Fenced => StatusCode::CONFLICT,
            ErrorKind::Retryable | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, error }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorAnswer::from(&self.error))).into_response()
    }
}
