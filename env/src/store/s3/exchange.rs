//! One request and its answer: counted, and read for what it says. Below `object_store`, which would take a 409 ("another
//! request for this key is under way") for "exists" and keeps the status of other answers to itself.
//!
//! What is no success, and nothing that `object_store` has a word of its own for (304, 404, 412), becomes an [`Answer`],
//! which [`failed`] finds again in the error that comes out at the top. Whether a request is sent again is for its client
//! to say, and not for what `object_store` thinks of its method: it would not repeat a delete.

use std::{
    error::Error as StdError,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{
    ClientOptions, Error as S3Error,
    aws::{AwsCredential, AwsCredentialProvider},
    client::{
        CredentialProvider, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
        HttpResponseBody, HttpService, ReqwestConnector,
    },
};
use types::{Error, ErrorKind};

use super::requests::{Kind, Requests};

/// The status of an answer to a range that begins behind the object's end.
pub(super) const RANGE_NOT_SATISFIABLE: u16 = 416;
/// How much of an answer's body is read to learn what went wrong.
const LONGEST_REFUSAL: usize = 16 << 10;
/// How much of a server's own words goes into an error.
const LONGEST_MESSAGE: usize = 200;

/// Makes clients that count what they send in `requests`.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) requests: Arc<Requests>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Exchange { inner, requests: Arc::clone(&self.requests) }))
    }
}

#[derive(Debug)]
struct Exchange {
    inner: HttpClient,
    requests: Arc<Requests>,
}

#[async_trait::async_trait]
impl HttpService for Exchange {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let conditional = request.headers().contains_key("if-none-match");
        let kind =
            Kind::of(request.method().as_str(), request.uri().query().unwrap_or_default(), conditional);
        self.requests.sent(kind);
        let has_body = request.method().as_str() != "HEAD";
        let (unanswered, error) = match self.inner.execute(request).await {
            Ok(response) => match judged(response, has_body).await {
                Ok(response) => return Ok(response),
                // "Request" is what `object_store` sends again, "unknown" what it does not.
                Err(answer) if answer.is_passing() => (true, HttpError::new(HttpErrorKind::Request, answer)),
                Err(answer) => (false, HttpError::new(HttpErrorKind::Unknown, answer)),
            },
            Err(error) => (true, HttpError::new(HttpErrorKind::Request, error)),
        };
        if unanswered {
            self.requests.unanswered(kind);
        }
        Err(error)
    }
}

/// The response, if it is one that `object_store` understands as we do.
async fn judged(response: HttpResponse, has_body: bool) -> Result<HttpResponse, Answer> {
    let status = response.status();
    if status.is_success() || matches!(status.as_u16(), 304 | 412) {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = beginning(body).await;
    let answer = Answer::read(status.as_u16(), &String::from_utf8_lossy(&body));
    // Whoever stands before the server may say 404, too, and then nothing is known about the object.
    if answer.status == 404
        && (!has_body || answer.code.starts_with("NoSuch") && answer.code != "NoSuchBucket")
    {
        return Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(Bytes::from(body))));
    }
    Err(answer)
}

/// The first bytes of a body, as far as they come.
async fn beginning(body: HttpResponseBody) -> Vec<u8> {
    let mut pieces = body.bytes_stream();
    let mut bytes = Vec::new();
    while let Ok(Some(piece)) = pieces.try_next().await {
        bytes.extend_from_slice(&piece[..piece.len().min(LONGEST_REFUSAL - bytes.len())]);
        if bytes.len() == LONGEST_REFUSAL {
            break;
        }
    }
    bytes
}

/// An answer that is no success.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// S3's word for it, such as `SlowDown`; empty if there is none.
    code: String,
    message: String,
}

impl Answer {
    fn read(status: u16, body: &str) -> Self {
        let part = |name: &str| {
            let (_, from) = body.split_once(&format!("<{name}>"))?;
            Some(from.split_once(&format!("</{name}>"))?.0.to_owned())
        };
        let one_line = |text: String| -> String {
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_MESSAGE).collect()
        };
        let [code, message] = ["Code", "Message"].map(|name| one_line(part(name).unwrap_or_default()));
        Self { status, code, message }
    }

    /// Whether the server may have done it, or may do it the next time.
    fn is_passing(&self) -> bool {
        match self.status {
            // A request that breaks off too late is answered with 400 and this.
            400 => self.code == "RequestTimeout",
            404 => self.code.is_empty(),
            408 | 409 | 425 | 429 => true,
            501 | 505 => false,
            status => status >= 500,
        }
    }

    /// What to do about it.
    fn advice(&self) -> &'static str {
        match (self.status, self.code.as_str()) {
            (404, _) => ": make the bucket, or correct the URL",
            (401 | 403, _) => {
                ": check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what this key may do with the bucket"
            }
            (300..400, _) | (400, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
                ": check AWS_REGION and AWS_ENDPOINT_URL"
            }
            (501, _) => ": the server cannot do what checkpoints need, use another store",
            _ => "",
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, code, message } = self;
        write!(f, "answered {status}")?;
        match (code.is_empty(), message.is_empty()) {
            (true, _) => Ok(()),
            (false, true) => write!(f, " {code}"),
            (false, false) => write!(f, " {code} ({message})"),
        }
    }
}

impl StdError for Answer {}

/// Nobody could say with which key to sign: nothing was sent.
#[derive(Debug)]
struct NoCredentials {
    why: String,
    /// Whoever gives them out has done so before: it may pass.
    were_there: bool,
}

impl fmt::Display for NoCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { why, were_there } = self;
        match were_there {
            true => write!(f, "no new credentials in place of those that end ({why})"),
            false => write!(f, "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY ({why})"),
        }
    }
}

impl StdError for NoCredentials {}

/// Credentials whose absence is told from what goes wrong with a request.
#[derive(Debug)]
pub(super) struct Credentials {
    provider: AwsCredentialProvider,
    were_there: AtomicBool,
}

impl Credentials {
    pub(super) fn new(provider: AwsCredentialProvider) -> Self {
        Self { provider, were_there: AtomicBool::new(false) }
    }
}

#[async_trait::async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let found = self.provider.get_credential().await;
        if found.is_ok() {
            self.were_there.store(true, Ordering::Relaxed);
        }
        found.map_err(|error| {
            let (why, were_there) = (innermost(&error), self.were_there.load(Ordering::Relaxed));
            S3Error::Generic { store: "S3", source: Box::new(NoCredentials { why, were_there }) }
        })
    }
}

/// The error of this type in the chain of causes.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// What stands at the end of the chain of causes, as one short line.
pub(super) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string().lines().next().unwrap_or_default().chars().take(LONGEST_MESSAGE).collect()
}

/// The status that the server answered with, where it said no.
pub(super) fn status(error: &S3Error) -> Option<u16> {
    find::<Answer>(error).map(|answer| answer.status)
}

/// `error` in our words; `place` says what could not be done and where. `Unavailable` only where it certainly was not.
pub(super) fn failed(place: &str, error: &S3Error) -> Error {
    if let Some(answer) = find::<Answer>(error) {
        let kind = if answer.is_passing() { ErrorKind::Retryable } else { ErrorKind::Unavailable };
        return Error::new(kind, format!("{place}: the server {answer}{}", answer.advice()));
    }
    if let Some(none) = find::<NoCredentials>(error) {
        let kind = if none.were_there { ErrorKind::Retryable } else { ErrorKind::Unavailable };
        return Error::new(kind, format!("{place}: {none}"));
    }
    if let S3Error::InvalidPath { source } = error {
        let text = format!("{place}: the bucket holds a key that nobody can list past ({source})");
        return Error::unavailable(text)
            .with_advice("take it out of the bucket, or give another prefix, or a bucket of its own");
    }
    Error::retryable(format!("{place}: {}", innermost(error)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Gives credentials out the first time it is asked, if at all.
    #[derive(Debug)]
    struct Failing(AtomicU32);

    #[async_trait::async_trait]
    impl CredentialProvider for Failing {
        type Credential = AwsCredential;

        async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
            if self.0.fetch_sub(1, Ordering::Relaxed) > 1 {
                let text = || "x".to_owned();
                return Ok(Arc::new(AwsCredential { key_id: text(), secret_key: text(), token: None }));
            }
            Err(S3Error::Generic { store: "S3", source: "connection refused".into() })
        }
    }

    #[tokio::test]
    async fn credentials_that_were_there_once_may_come_back() {
        for (given, expected) in [(1, ErrorKind::Unavailable), (2, ErrorKind::Retryable)] {
            let credentials = Credentials::new(Arc::new(Failing(AtomicU32::new(given))));
            for _ in 1..given {
                assert!(credentials.get_credential().await.is_ok(), "{given}");
            }
            let error = credentials.get_credential().await.expect_err("there are no more");
            let error = failed("cannot read x", &error);
            assert_eq!(error.kind(), expected, "{error}");
            assert!(error.message().contains("connection refused"), "{error}");
        }
    }
}
