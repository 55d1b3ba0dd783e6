//! The names of output files. A name tells who wrote the file and for which checkpoint: it is the sink's marker.

use std::fmt;

use engine::api::sink::TransactionId;
use types::{AttemptId, CheckpointId, Lineage, SubtaskIndex};

/// The directory, hidden from readers, in which files wait for their checkpoint.
pub(super) const PENDING: &str = ".pending";
/// The file that says whose the output directory is. All kinds of sinks look for it under this name: that is how one
/// refuses the directory of another.
pub(super) const OWNER: &str = ".tidegate";
/// What the names of published files begin with.
pub(super) const PART: &str = "part-";
/// What the names of files begin with that are still being written.
const OPEN: &str = "open-";

/// The name of one file of one transaction, the same in `.pending` and published. Names of one writer sort in the
/// order in which they were written, compared number by number: as text only while no number outgrows its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartName {
    pub(super) lineage: Lineage,
    pub(super) writer: SubtaskIndex,
    pub(super) attempt: AttemptId,
    pub(super) checkpoint: CheckpointId,
    /// The file's place in its transaction.
    pub(super) place: u32,
}

impl PartName {
    pub(super) fn new(id: &TransactionId, place: usize) -> Self {
        let place = u32::try_from(place).expect("a transaction has fewer than 4 billion files");
        let TransactionId { lineage, writer, attempt, checkpoint, .. } = *id;
        Self { lineage, writer, attempt, checkpoint, place }
    }

    /// The name that is written exactly so; anything else is not ours.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut fields = name.strip_prefix(PART)?.split('-');
        let parsed = Self {
            lineage: Lineage(u128::from_str_radix(fields.next()?, 16).ok()?),
            writer: SubtaskIndex(fields.next()?.parse().ok()?),
            attempt: AttemptId(fields.next()?.parse().ok()?),
            checkpoint: CheckpointId(fields.next()?.parse().ok()?),
            place: fields.next()?.parse().ok()?,
        };
        (parsed.to_string() == name).then_some(parsed)
    }

    /// Whether the file belongs to the transaction `id` of this sink.
    pub(super) fn is_of(&self, id: &TransactionId) -> bool {
        *self == Self { place: self.place, ..Self::new(id, 0) }
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lineage, writer, attempt, checkpoint, place } = self;
        write!(f, "{PART}{lineage}-{:05}-{:06}-{:010}-{place:04}", writer.0, attempt.0, checkpoint.0)
    }
}

/// The name of the `number`-th file that a writer begins; its checkpoint is not known yet.
pub(super) fn open_name(lineage: Lineage, attempt: AttemptId, writer: SubtaskIndex, number: u64) -> String {
    format!("{OPEN}{lineage}-{attempt}-{writer}-{number}")
}

/// Whether a file in `.pending` may be one of ours.
pub(super) fn is_pending(name: &str) -> bool {
    name.starts_with(OPEN) || name.starts_with(PART) || name.starts_with(OWNER)
}

/// The attempt that made a file in `.pending`, if its name says so.
pub(super) fn attempt_of(name: &str) -> Option<AttemptId> {
    if let Some(part) = PartName::parse(name) {
        return Some(part.attempt);
    }
    let open = name.strip_prefix(OPEN).and_then(|rest| rest.split('-').nth(1));
    let claim = || name.strip_prefix(OWNER)?.strip_prefix('-')?.split('-').next();
    open.or_else(claim)?.parse().ok().map(AttemptId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pending_name_says_whose_it_is() {
        assert_eq!(attempt_of(&NAME.to_string()), Some(AttemptId(17)));
        let open = open_name(Lineage(0xab), AttemptId(18), SubtaskIndex(3), 2);
        assert_eq!(attempt_of(&open), Some(AttemptId(18)));
        assert_eq!(attempt_of(&format!("{OWNER}-19-sweep")), Some(AttemptId(19)));
        assert_eq!(attempt_of("part-of-something"), None);
    }

    const NAME: PartName = PartName {
        lineage: Lineage(0xab),
        writer: SubtaskIndex(3),
        attempt: AttemptId(17),
        checkpoint: CheckpointId(42),
        place: 1,
    };

    #[test]
    fn a_name_reads_back() {
        let text = NAME.to_string();
        assert_eq!(text, "part-000000000000000000000000000000ab-00003-000017-0000000042-0001");
        assert_eq!(PartName::parse(&text), Some(NAME));
        let wide = PartName { attempt: AttemptId(u64::MAX), checkpoint: CheckpointId(u64::MAX), ..NAME };
        assert_eq!(PartName::parse(&wide.to_string()), Some(wide));
    }

    #[test]
    fn other_names_are_not_ours() {
        let text = NAME.to_string();
        let changed = [
            text.replace("part-", "Part-"),
            text.replace("ab-", "AB-"),
            text.replace("-00003-", "-3-"),
            text.replace("-00003-", "-+0003-"),
            format!("{text}.gz"),
            format!("{text}-0001"),
            text.replace("-0001", ""),
            "part-".to_owned(),
            String::new(),
        ];
        for name in changed {
            assert_eq!(PartName::parse(&name), None, "{name}");
        }
    }

    #[test]
    fn names_sort_as_written() {
        let later = [
            PartName { place: 10, ..NAME },
            PartName { checkpoint: CheckpointId(100), ..NAME },
            PartName { attempt: AttemptId(120), checkpoint: CheckpointId(1), ..NAME },
        ];
        for pair in [NAME, later[0], later[1], later[2]].windows(2) {
            assert!(pair[0].to_string() < pair[1].to_string(), "{} {}", pair[0], pair[1]);
        }
    }
}
