//! What a user wants to start from, and which line of history a start goes on with. Pure, but for the look for what a path
//! names.

use env::Env;
use types::{Digest, ErrorKind, Lineage, Result};

use super::standing::{Restores, Standing};
use crate::savepoint::SnapshotLocation;

/// What the user wants to start from (`--from`).
#[derive(Clone, Debug, Default)]
pub enum From {
    /// Continue if there is a history, else start fresh.
    #[default]
    Auto,
    /// Continue; there must be a history.
    Latest,
    /// Start fresh in spite of a history.
    None,
    /// Go on with the line of history that there is if it began from this checkpoint or savepoint, else begin one from it:
    /// whoever starts a job again gives the same as the first time.
    Snapshot(SnapshotLocation),
    /// Begin a line of history from this checkpoint or savepoint (`--begin-again`).
    Anew(SnapshotLocation),
    /// Go on with the line of history that began from the snapshot with this manifest, which is there no more.
    Gone {
        /// The digest of its manifest.
        manifest: Digest,
        /// How the user names it.
        named: String,
    },
}

impl From {
    /// Whether the line of history goes on that stands, if there is one.
    #[must_use]
    pub fn continues(&self, standing: Option<&Standing>) -> bool {
        match self {
            Self::Auto | Self::Latest => true,
            Self::Snapshot(location) => standing.is_some_and(|it| it.began_from(location.file.digest)),
            Self::Gone { manifest, .. } => standing.is_some_and(|it| it.began_from(*manifest)),
            Self::None | Self::Anew(_) => false,
        }
    }

    /// What `text` (`--from PATH`) means for the job whose checkpoints are, or will be, at `url`. A snapshot may be deleted at
    /// any time: whoever still names it goes on with what began from it. The same where it is damaged or cannot be reached,
    /// and the line has a checkpoint of its own.
    ///
    /// # Errors
    /// As [`SnapshotLocation::resolve`]; what is wrong with the newest history record at `url` if the snapshot is not there.
    pub async fn named(env: &Env, text: &str, url: Option<&str>) -> Result<Self> {
        let (error, url) = match (SnapshotLocation::resolve(env, text).await, url) {
            (Ok(location), _) => return Ok(Self::Snapshot(location)),
            (Err(error), None) => return Err(error),
            (Err(error), Some(url)) => (error, url),
        };
        let is_gone = error.kind() == ErrorKind::InvalidJob;
        let newest = match SnapshotLocation::newest_record(env, url).await {
            Ok(Some(newest)) => newest,
            // What is wrong with the job's own directory comes first: it may be all that is needed.
            Err(own) if is_gone && own.kind() != ErrorKind::InvalidJob => return Err(own),
            Ok(None) | Err(_) => return Err(error),
        };
        let standing = &newest.standing;
        let needs_it = matches!(standing.restore_point(), Restores::Foreign(_));
        let origin = Some(&standing.attempt.origin).filter(|it| it.named.as_deref() == Some(text));
        match origin.and_then(|it| it.restored.manifest()) {
            Some(manifest) if is_gone || !needs_it => {
                Ok(Self::Gone { manifest: manifest.digest, named: text.to_owned() })
            }
            _ => Err(error),
        }
    }

    /// The checkpoint or savepoint that the user names.
    #[must_use]
    pub const fn snapshot(&self) -> Option<&SnapshotLocation> {
        match self {
            Self::Snapshot(location) | Self::Anew(location) => Some(location),
            Self::Auto | Self::Latest | Self::None | Self::Gone { .. } => None,
        }
    }
}

/// The line of history that a start goes on with: what its sinks hold is compared with this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Line {
    /// Whichever there is: nobody has asked the sinks.
    #[default]
    Any,
    /// The one that there is.
    Continued(Lineage),
    /// A new one.
    New,
}

impl Line {
    /// That of a start from `from` on top of `standing`.
    #[must_use]
    pub fn of(standing: Option<&Standing>, from: &From) -> Self {
        match standing.filter(|it| from.continues(standing) && !it.starts_over()) {
            Some(standing) => Self::Continued(standing.attempt.lineage),
            None => Self::New,
        }
    }
}
