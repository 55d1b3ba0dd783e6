//! Which object paths and store URLs are well formed. Called by every store before it touches anything.

use std::path::{Component, Path, PathBuf};

use types::{Error, ErrorKind, Result};

use crate::Files;

/// The URLs that a store can be opened at, for messages.
const KNOWN: &str = "a directory (file:///path or a plain path), s3://BUCKET/PREFIX or memory:NAME";

/// Where a store lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A local directory.
    Dir(PathBuf),
    /// A map in this process.
    Memory(String),
    /// A prefix, which may be empty, in a bucket.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// Parts with slashes between them.
        prefix: String,
    },
}

/// Reads a store URL.
pub(crate) fn locate(url: &str) -> Result<Location> {
    let Some((scheme, rest)) = url.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
        return if url.is_empty() {
            Err(Error::invalid_job(format!("the store's URL is empty: give {KNOWN}")))
        } else {
            Ok(Location::Dir(url.into()))
        };
    };
    match scheme {
        "file" => match rest.strip_prefix("//") {
            Some(path) if path.starts_with('/') && !path.contains('%') => Ok(Location::Dir(path.into())),
            _ => Err(Error::invalid_job(format!(
                "{url} is not file:/// and an absolute path without percent escapes: give the path itself"
            ))),
        },
        "memory" if is_part(rest) => Ok(Location::Memory(rest.into())),
        "memory" => Err(Error::invalid_job(format!("{url} has no name of letters, digits, '.', '_', '-'"))),
        "s3" => bucket_and_prefix(rest).ok_or_else(|| {
            Error::invalid_job(format!(
                "{url} is not s3://BUCKET/PREFIX: a bucket of 3 to 63 lower-case letters, digits, '.', '-', and parts of \
                 letters, digits, '.', '_', '-', joined by '/', were expected"
            ))
        }),
        _ => Err(Error::invalid_job(format!("{url} has the unknown scheme {scheme}: give {KNOWN}"))),
    }
}

/// Reads what stands behind `s3:`.
fn bucket_and_prefix(rest: &str) -> Option<Location> {
    let rest = rest.strip_prefix("//")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let is_bucket = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'));
    let is_prefix = prefix.is_empty() || prefix.split('/').all(is_part);
    (is_bucket && is_prefix).then(|| Location::S3 { bucket: bucket.into(), prefix: prefix.into() })
}

/// What a program says to an S3 URL that cannot open it.
#[cfg(any(test, not(feature = "s3")))]
pub(crate) fn without_s3(url: &str) -> Error {
    Error::invalid_job(format!(
        "cannot open {url}: this program was built without the feature s3: build it with --features s3"
    ))
}

/// The URL in words that mean the same from every directory: a relative path becomes an absolute one.
///
/// # Errors
/// `Unavailable` if nobody knows the working directory.
pub fn absolute(files: &dyn Files, url: &str) -> Result<String> {
    let Ok(Location::Dir(path)) = locate(url) else { return Ok(url.to_owned()) };
    if path.is_absolute() {
        return Ok(url.to_owned());
    }
    let here = files.canonical(Path::new(".")).map_err(|error| {
        Error::io(format!("cannot tell where {url} is: no working directory"), error)
            .with_kind(ErrorKind::Unavailable)
    })?;
    let named = path.components().filter(|part| *part != Component::CurDir);
    Ok(named.fold(here, |above, part| above.join(part)).display().to_string())
}

/// Whether what is stored at a URL is gone with the process.
#[must_use]
pub fn is_volatile(url: &str) -> bool {
    matches!(locate(url), Ok(Location::Memory(_)))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// Whether `text` may stand between two slashes.
pub(crate) fn is_part(text: &str) -> bool {
    const LONGEST: usize = 200;
    !matches!(text, "" | "." | "..")
        && text.len() <= LONGEST
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Refuses what is not the path of an object.
pub(crate) fn check_object(path: &str) -> Result<()> {
    if path.split('/').all(is_part) {
        return Ok(());
    }
    Err(Error::internal(format!(
        "{path:?} is no object path: parts of letters, digits, '.', '_', '-', joined by '/', were expected"
    )))
}

/// Refuses what is not a prefix for a listing: empty, or whole parts with a slash at the end.
pub(crate) fn check_prefix(prefix: &str) -> Result<()> {
    match prefix.strip_suffix('/') {
        Some(parts) => check_object(parts),
        None if prefix.is_empty() => Ok(()),
        None => {
            Err(Error::internal(format!("{prefix:?} is no listing prefix: a '/' at its end was expected")))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use types::ErrorKind;

    use super::*;

    #[test]
    fn urls() {
        assert_eq!(locate("file:///a/b").unwrap(), Location::Dir("/a/b".into()));
        assert_eq!(locate("a/b").unwrap(), Location::Dir("a/b".into()));
        assert_eq!(locate("./a:b").unwrap(), Location::Dir("./a:b".into()));
        assert_eq!(locate("memory:x").unwrap(), Location::Memory("x".into()));
        for (url, bucket, prefix) in [
            ("s3://bucket", "bucket", ""),
            ("s3://bucket/", "bucket", ""),
            ("s3://my.bucket-1/a/B_2", "my.bucket-1", "a/B_2"),
            ("s3://bucket/a/", "bucket", "a"),
        ] {
            let (bucket, prefix) = (bucket.into(), prefix.into());
            assert_eq!(locate(url).unwrap(), Location::S3 { bucket, prefix }, "{url}");
        }
        for bad in [
            "s3:bucket/a",
            "s3:///a",
            "s3://Bucket/a",
            "s3://b/a",
            "s3://bucket/a//b",
            "s3://bucket/../a",
            "s3://bucket/a%20b",
            "s3://key:secret@bucket/a",
            "s3a://bucket/a",
        ] {
            assert_eq!(locate(bad).unwrap_err().kind(), ErrorKind::InvalidJob, "{bad}");
        }
        for bad in ["", "file:a", "file://host/a", "file:///a%20b", "memory:", "memory:a/b", "hdfs://a/b"] {
            assert_eq!(locate(bad).unwrap_err().kind(), ErrorKind::InvalidJob, "{bad}");
        }
        assert!(locate("hdfs://a/b").unwrap_err().to_string().contains("memory:NAME"));
    }

    #[test]
    fn a_program_without_s3_says_so() {
        let error = without_s3("s3://bucket/a");
        assert_eq!(error.kind(), ErrorKind::InvalidJob);
        let expected = "cannot open s3://bucket/a: this program was built without the feature s3: build it with --features s3";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn an_absolute_url_means_the_same_from_everywhere() {
        crate::sim::Simulation::new(1).run(async |env| {
            let files = env.files();
            for (url, expected) in [
                ("a/b", "/a/b"),
                ("./a/./b", "/a/b"),
                ("../a", "/../a"),
                ("/a", "/a"),
                ("file:///a", "file:///a"),
                ("memory:a", "memory:a"),
                ("s3://bucket/a", "s3://bucket/a"),
                ("hdfs://a", "hdfs://a"),
            ] {
                assert_eq!(absolute(&*files, url).unwrap(), expected, "{url}");
            }
        });
    }

    #[test]
    fn object_paths() {
        for good in ["a", "history/12", "a-b_c.d/E"] {
            check_object(good).unwrap();
        }
        for bad in ["", "/a", "a/", "a//b", ".", "a/..", "../a", "a b", "a~b", "ä", "a\0b", "staging~/x"] {
            assert!(check_object(bad).is_err(), "{bad}");
        }
        for good in ["", "a/", "a/b/"] {
            check_prefix(good).unwrap();
        }
        for bad in ["a", "/", "../", "a//"] {
            assert!(check_prefix(bad).is_err(), "{bad}");
        }
    }
}
