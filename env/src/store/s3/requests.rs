//! How many requests were sent, by kind: what S3 asks money for, and what its limits count.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::StoreRequests;

/// The kinds, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Create,
    Put,
    Get,
    Head,
    List,
    Delete,
    BeginUpload,
    UploadPart,
    CompleteUpload,
    AbortUpload,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Create,
        Self::Put,
        Self::Get,
        Self::Head,
        Self::List,
        Self::Delete,
        Self::BeginUpload,
        Self::UploadPart,
        Self::CompleteUpload,
        Self::AbortUpload,
    ];

    /// The kind of a request with this method and query.
    pub(super) fn of(method: &str, query: &str, conditional: bool) -> Self {
        let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
        match method {
            "PUT" if has("partNumber") => Self::UploadPart,
            "PUT" if conditional => Self::Create,
            "PUT" => Self::Put,
            "POST" if has("uploads") => Self::BeginUpload,
            "POST" => Self::CompleteUpload,
            "DELETE" if has("uploadId") => Self::AbortUpload,
            "DELETE" => Self::Delete,
            "HEAD" => Self::Head,
            _ if has("list-type") => Self::List,
            _ => Self::Get,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
            Self::BeginUpload => "begin-upload",
            Self::UploadPart => "upload-part",
            Self::CompleteUpload => "complete-upload",
            Self::AbortUpload => "abort-upload",
        }
    }
}

/// The counts of one store.
#[derive(Debug, Default)]
pub(super) struct Requests {
    sent: [AtomicU64; Kind::ALL.len()],
    unanswered: [AtomicU64; Kind::ALL.len()],
}

impl Requests {
    pub(super) fn sent(&self, kind: Kind) {
        self.sent[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn unanswered(&self, kind: Kind) {
        self.unanswered[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> Vec<StoreRequests> {
        let of = |counts: &[AtomicU64], kind: Kind| counts[kind as usize].load(Ordering::Relaxed);
        let counted = |&kind: &Kind| StoreRequests {
            kind: kind.name(),
            sent: of(&self.sent, kind),
            unanswered: of(&self.unanswered, kind),
        };
        Kind::ALL.iter().map(counted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_its_kind() {
        for (method, query, conditional, expected) in [
            ("PUT", "", true, Kind::Create),
            ("PUT", "", false, Kind::Put),
            ("PUT", "partNumber=1&uploadId=u", false, Kind::UploadPart),
            ("POST", "uploads=", false, Kind::BeginUpload),
            ("POST", "uploads", false, Kind::BeginUpload),
            ("POST", "uploadId=uploads", true, Kind::CompleteUpload),
            ("DELETE", "uploadId=u", false, Kind::AbortUpload),
            ("DELETE", "", false, Kind::Delete),
            ("HEAD", "", false, Kind::Head),
            ("GET", "", false, Kind::Get),
            ("GET", "list-type=2&prefix=a", false, Kind::List),
        ] {
            assert_eq!(Kind::of(method, query, conditional), expected, "{method} {query}");
        }
        for (at, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, at, "{kind:?} is counted elsewhere");
        }
    }
}
