//! The one error of all Tidegate crates. Its kind answers the caller's question "what now?"; its message is one line:
//! what is wrong, where (operator uid, file, offset, key), what was expected, and what to do.

use std::{error::Error as StdError, fmt};

/// What the caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A passing fault of the outside world: the same call may succeed later.
    Retryable,
    /// Another attempt owns the job: this one must end and must not be restarted.
    Fenced,
    /// The program, a flag or the configuration is wrong: mend it; nothing was started.
    InvalidJob,
    /// A snapshot does not fit this job (shape, codec, max parallelism, unclaimed state).
    IncompatibleState,
    /// Bytes at rest are not what was written: a file is damaged, missing, swapped or from a newer version.
    Corrupt,
    /// A directory or an output belongs to another job or lineage.
    Conflict,
    /// The input data is not what the job was told it would be.
    BadInput,
    /// The machine refuses: no space, no permission, read-only, address in use.
    Unavailable,
    /// A user function failed or panicked.
    User,
    /// Something that was promised to be committed can no longer be: the job stops and says so.
    Lost,
    /// The job or the request was cancelled.
    Cancelled,
    /// A broken invariant of Tidegate itself.
    Internal,
}

impl ErrorKind {
    /// The exit code of a process that ends with an error of this kind (0 is success, 2 is bad usage).
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::InvalidJob => 2,
            Self::Internal => 3,
            Self::Retryable => 4,
            Self::Unavailable => 5,
            Self::BadInput => 6,
            Self::User => 7,
            Self::IncompatibleState => 8,
            Self::Corrupt => 9,
            Self::Conflict => 10,
            Self::Lost => 11,
            Self::Cancelled => 12,
            Self::Fenced => 13,
        }
    }

    /// The kind's name as it stands in JSON and in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidJob => "invalid-job",
            Self::Internal => "internal",
            Self::Retryable => "retryable",
            Self::Unavailable => "unavailable",
            Self::BadInput => "bad-input",
            Self::User => "user",
            Self::IncompatibleState => "incompatible-state",
            Self::Corrupt => "corrupt",
            Self::Conflict => "conflict",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
            Self::Fenced => "fenced",
        }
    }
}

impl ErrorKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Retryable,
        Self::Fenced,
        Self::InvalidJob,
        Self::IncompatibleState,
        Self::Corrupt,
        Self::Conflict,
        Self::BadInput,
        Self::Unavailable,
        Self::User,
        Self::Lost,
        Self::Cancelled,
        Self::Internal,
    ];

    /// The kind with this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// An error with its [`ErrorKind`], one line of text, and the error that caused it.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(ErrorKind::$kind, message)
        }
    )*};
}

impl Error {
    /// An error of `kind` with a message in lower case and without a final stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    constructors! {
        /// A passing fault: try again later.
        retryable => Retryable;
        /// Another attempt owns the job.
        fenced => Fenced;
        /// A mistake in the program, a flag or the configuration.
        invalid_job => InvalidJob;
        /// A snapshot that does not fit the job.
        incompatible => IncompatibleState;
        /// Damaged, missing or foreign bytes at rest.
        corrupt => Corrupt;
        /// Somebody else's directory or output.
        conflict => Conflict;
        /// Input data that is not what the job expects.
        bad_input => BadInput;
        /// The machine refuses (space, permission, address).
        unavailable => Unavailable;
        /// A user function failed.
        user => User;
        /// Promised output that can no longer be committed.
        lost => Lost;
        /// Cancelled on request.
        cancelled => Cancelled;
        /// A broken invariant of Tidegate itself.
        internal => Internal;
    }

    /// An I/O error at `place`, its kind chosen by what the caller can do about it.
    pub fn io(place: impl fmt::Display, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound | Io::UnexpectedEof => ErrorKind::BadInput,
            Io::StorageFull
            | Io::QuotaExceeded
            | Io::PermissionDenied
            | Io::ReadOnlyFilesystem
            | Io::AddrInUse
            | Io::FileTooLarge => ErrorKind::Unavailable,
            _ => ErrorKind::Retryable,
        };
        Self::new(kind, place.to_string()).with_source(error)
    }

    /// The same error caused by `source`.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error with `context` (an operator uid, a file) in front of its message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// The same error with `advice` behind its message.
    #[must_use]
    pub fn with_advice(mut self, advice: impl fmt::Display) -> Self {
        self.message = format!("{}; {advice}", self.message);
        self
    }

    /// The same error as another kind, where a caller knows better what can be done.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// What the caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message without its causes.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause = self.source.as_deref().map(|source| source as &dyn StdError);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            // Our own errors print their causes themselves.
            cause = if error.is::<Self>() { None } else { error.source() };
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.kind.name())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
