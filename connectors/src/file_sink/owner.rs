//! Whose an output directory is: `DIR/.tidegate`, five lines of text. Made once, and replaced whole, by one rename, where a
//! renamed sink takes its directory over, or the job's checkpoints have moved: whoever reads it finds what stood there
//! before or what stands there now.
//!
//! ```text
//! tidegate file sink 2
//! job 000102030405060708090a0b0c0d0e0f
//! sink totals
//! checkpoints /data/checkpoints           where to go on with it, for people
//! checksum 3f...                          xxh3-128 of the lines above
//! ```

use std::{
    io,
    path::{Path, PathBuf},
};

use env::Files;
use types::{Digest, Error, JobId, Result, Uid};

use super::{
    naming::OWNER,
    output_dir::{failed, not_renamed},
};

/// The longest file that is read: many times what one can be.
const LONGEST: usize = 16 << 10;
const MAGIC: &str = "tidegate file sink ";
const VERSION: &str = "2";

/// The one job and sink that may write into a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) job: JobId,
    pub(super) sink: Uid,
    /// Where the job's checkpoints are, or were when it was last looked at; in one line.
    pub(super) checkpoints: String,
}

/// Whose a directory is, for the one who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Nobody,
    This,
    /// This sink's, under a name that it had before, or with its checkpoints at another place.
    Before,
}

impl Owner {
    pub(super) fn new(job: JobId, sink: Uid, checkpoints: &str) -> Self {
        let one_line = |letter: char| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
        Self { job, sink, checkpoints: checkpoints.chars().map(one_line).collect() }
    }

    /// Whose the directory is; `formerly` are the names that the sink had before.
    ///
    /// # Errors
    /// `Conflict` if it is another's; `Corrupt` if nobody can tell.
    pub(super) fn holder(&self, files: &dyn Files, dir: &Path, formerly: &[Uid]) -> Result<Holder> {
        let path = dir.join(OWNER);
        let text = match read(files, &path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Holder::Nobody);
            }
            Err(error) => return Err(failed("read", &path, error)),
        };
        let found = Self::parse(&text).map_err(|error| error.context(path.display()))?;
        if found == *self {
            return Ok(Holder::This);
        }
        if found.job == self.job && (found.sink == self.sink || formerly.contains(&found.sink)) {
            return Ok(Holder::Before);
        }
        Err(self.conflict(&found, dir))
    }

    fn conflict(&self, found: &Self, dir: &Path) -> Error {
        let (dir, sink, job) = (dir.display(), &found.sink, found.job);
        Error::conflict(if job == self.job {
            format!(
                "the output directory {dir} belongs to sink {sink} of this job, and this is sink {}: choose another one, \
                 or, if it is the same sink under a new name, add .formerly(\"{sink}\")",
                self.sink
            )
        } else {
            let checkpoints = &found.checkpoints;
            format!(
                "the output directory {dir} belongs to sink {sink} of the job whose checkpoints are in {checkpoints} (job \
                 {job}): go on there (--checkpoints {checkpoints}, without --from), or choose another output directory"
            )
        })
    }

    /// Takes a directory that was nobody's; durable once that is synced. Of several at once one wins; the others look
    /// again.
    pub(super) fn claim(
        &self,
        files: &dyn Files,
        dir: &Path,
        staging: &Path,
        formerly: &[Uid],
        claimant: &str,
    ) -> Result<()> {
        let (staged, path) = self.staged(files, dir, staging, claimant)?;
        match files.rename_new(&staged, &path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // The next sweep removes it otherwise; what matters is who won.
                let _ = files.remove_file(&staged);
                match self.holder(files, dir, formerly)? {
                    Holder::This => {}
                    // An older process of this job, which does not know the new name or place yet.
                    Holder::Before => return self.take_over(files, dir, staging, claimant),
                    Holder::Nobody => return Err(failed("create", &path, error)),
                }
            }
            Err(error) => return Err(not_renamed("create", &path, error)),
        }
        Ok(())
    }

    /// Takes a directory over from what the sink was before; durable once that is synced. Made again, it changes
    /// nothing.
    pub(super) fn take_over(
        &self,
        files: &dyn Files,
        dir: &Path,
        staging: &Path,
        claimant: &str,
    ) -> Result<()> {
        let (staged, path) = self.staged(files, dir, staging, claimant)?;
        files.rename(&staged, &path).map_err(|error| failed("replace", &path, error))
    }

    /// Writes the file where nobody looks for it; returns its place and the one where it belongs.
    fn staged(
        &self,
        files: &dyn Files,
        dir: &Path,
        staging: &Path,
        claimant: &str,
    ) -> Result<(PathBuf, PathBuf)> {
        let (staged, path) = (staging.join(format!("{OWNER}-{claimant}")), dir.join(OWNER));
        self.stage(files, &staged).map_err(|error| failed("write", &staged, error))?;
        Ok((staged, path))
    }

    fn stage(&self, files: &dyn Files, staged: &Path) -> io::Result<()> {
        let mut file = match files.create_new(staged) {
            // Left by a process that died here.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                files.remove_file(staged)?;
                files.create_new(staged)?
            }
            other => other?,
        };
        file.write_all(self.text().as_bytes())?;
        file.sync_all()
    }

    fn text(&self) -> String {
        let Self { job, sink, checkpoints } = self;
        let body = format!("{MAGIC}{VERSION}\njob {job}\nsink {sink}\ncheckpoints {checkpoints}\n");
        let checksum = Digest::of(body.as_bytes());
        format!("{body}checksum {checksum}\n")
    }

    fn parse(text: &[u8]) -> Result<Self> {
        let damaged = || Error::corrupt("damaged: restore it, or choose another output directory");
        let text = str::from_utf8(text).map_err(|_| damaged())?;
        let Some(version) = text.lines().next().and_then(|line| line.strip_prefix(MAGIC)) else {
            return Err(if is_of_another_kind(text) { another_kind() } else { damaged() });
        };
        if version != VERSION {
            return Err(Error::corrupt(format!(
                "written by version {version} of the file sink, this one knows version {VERSION}: use that tidegate"
            )));
        }
        let mut lines = text.lines().skip(1);
        let mut field =
            |name: &str| lines.next().and_then(|line| line.strip_prefix(name)).ok_or_else(damaged);
        let job = JobId(u128::from_str_radix(field("job ")?, 16).map_err(|_| damaged())?);
        let sink = Uid::new(field("sink ")?).map_err(|_| damaged())?;
        let owner = Self { job, sink, checkpoints: field("checkpoints ")?.to_owned() };
        if owner.text() == text { Ok(owner) } else { Err(damaged()) }
    }
}

/// Whether the text is whole, and says of another kind of sink whose the directory is: all begin and end alike.
fn is_of_another_kind(text: &str) -> bool {
    let parts = text.rsplit_once("checksum ").filter(|_| text.starts_with("tidegate "));
    parts.is_some_and(|(body, checksum)| format!("{}\n", Digest::of(body.as_bytes())) == checksum)
}

fn another_kind() -> Error {
    Error::conflict("the output directory belongs to a sink of another kind: choose an empty or a new one")
}

fn read(files: &dyn Files, path: &Path) -> io::Result<Vec<u8>> {
    let file = files.open(path)?;
    let mut text = vec![0; LONGEST];
    let filled = file.read_full(0, &mut text)?;
    text.truncate(filled);
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use types::ErrorKind;

    use super::*;

    #[test]
    fn any_damage_is_noticed() {
        let owner = Owner::new(JobId(7), Uid::new("totals").unwrap(), "/check\npoints ");
        assert_eq!(owner.checkpoints, "/check\u{fffd}points ");
        let text = owner.text().into_bytes();
        assert_eq!(Owner::parse(&text).unwrap(), owner);
        for at in 0..text.len() {
            let mut damaged = text.clone();
            damaged[at] ^= 1;
            assert_eq!(Owner::parse(&damaged).unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
            assert_eq!(Owner::parse(&text[..at]).unwrap_err().kind(), ErrorKind::Corrupt, "cut at {at}");
        }
        let body = "tidegate table sink 1\njob 5\n";
        let other = format!("{body}checksum {}\n", Digest::of(body.as_bytes()));
        assert_eq!(Owner::parse(other.as_bytes()).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(Owner::parse(&other.as_bytes()[1..]).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    /// Two processes claim a new directory at once, and the winner still has the sink's old name.
    #[test]
    fn whoever_loses_a_directory_to_the_former_name_takes_it_over() {
        env::sim::Simulation::new(1).run(async |env| {
            let (files, dir, staging) = (env.files(), Path::new("/out"), Path::new("/out/.pending"));
            files.create_dir_all(staging).unwrap();
            let [before, after, other] = ["before", "after", "other"]
                .map(|sink| Owner::new(JobId(7), Uid::new(sink).unwrap(), "/checkpoints"));
            let formerly = [before.sink.clone()];
            before.claim(&*files, dir, staging, &[], "1").unwrap();
            after.claim(&*files, dir, staging, &formerly, "2").unwrap();
            assert_eq!(after.holder(&*files, dir, &[]).unwrap(), Holder::This);
            after.claim(&*files, dir, staging, &formerly, "3").unwrap();
            let error = other.claim(&*files, dir, staging, &formerly, "4").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
        });
    }

    #[test]
    fn a_newer_version_says_so() {
        let error = Owner::parse(b"tidegate file sink 3\nanything\n").unwrap_err();
        assert!(error.message().contains("version 3"), "{error}");
    }
}
