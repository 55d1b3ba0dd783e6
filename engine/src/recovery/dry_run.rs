//! What a start from a snapshot would do with each state, without doing it: `--check-restore`. Of state, and of output
//! that is left behind, it asks what a start asks ([`compatible`](super::compatible), [`pending`](super::pending)),
//! state by state, so that all that does not fit is seen at once. It does not ask sources and sinks what they find.

use std::{collections::BTreeSet, fmt};

use checkpoint::{
    history::{Standing, start::own},
    manifest::{Manifest, OperatorSnapshot},
    savepoint::SnapshotLocation,
};
use statebackend::{Action, Version, is_timers};
use types::{Error, Result, Shape, Uid, count};
use unicode_width::UnicodeWidthStr;

use super::{compatible, describe, pending};
use crate::{
    config::Settings,
    graph::{
        logical::{Vertex, VertexKind},
        physical::Plan,
    },
};

/// What would be done with a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is restored.
    Restored,
    /// It is restored, and its values are written anew before: how they change, in words.
    Migrated(String),
    /// The snapshot does not have it: it begins empty.
    Begins,
    /// The snapshot does not have this source: it reads its input from the beginning.
    ReadsAnew,
    /// The job does not have it any more, and it was said that it may be dropped.
    Dropped,
    /// The job is not started, for this reason.
    Refused(String),
}

/// A state of the snapshot or of the job, or something else of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreRow {
    /// The operator's uid in the job; in the snapshot, if the job has none; empty for what is true of all.
    pub operator: String,
    /// The state's name, or what it is in parentheses.
    pub state: String,
    /// Its kind.
    pub kind: String,
    /// What would be done with it.
    pub outcome: Outcome,
}

/// What a start from a snapshot would do. Rows are in the order of the job's operators, then of the snapshot's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// The snapshot.
    pub place: String,
    /// What would be done, state by state.
    pub rows: Vec<RestoreRow>,
}

impl RestoreReport {
    /// The job would not start, for something that is true of all.
    pub(crate) fn refuse(&mut self, what: &str, error: &Error) {
        let (operator, kind) = (String::new(), String::new());
        let outcome = Outcome::Refused(error.message().to_owned());
        self.rows.insert(0, RestoreRow { operator, state: what.to_owned(), kind, outcome });
    }

    /// Whether the job would start.
    ///
    /// # Errors
    /// `IncompatibleState` saying how much does not fit.
    pub fn verdict(&self) -> Result<()> {
        let refused = self.rows.iter().filter(|row| matches!(row.outcome, Outcome::Refused(_))).count();
        match refused {
            0 => Ok(()),
            refused => Err(Error::incompatible(format!(
                "{}: the job would not start from it, for {}",
                self.place,
                count(refused, "reason"),
            ))),
        }
    }
}

impl fmt::Display for RestoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEAD: [&str; 4] = ["operator", "state", "kind", "what would be done"];
        let line = |row: &RestoreRow| {
            let outcome = match &row.outcome {
                Outcome::Restored => "restored".to_owned(),
                Outcome::Migrated(change) => format!("migrated: {change}"),
                Outcome::Begins => "begins empty".to_owned(),
                Outcome::ReadsAnew => "reads its input from the beginning".to_owned(),
                Outcome::Dropped => "dropped".to_owned(),
                Outcome::Refused(reason) => format!("refused: {reason}"),
            };
            [row.operator.clone(), row.state.clone(), row.kind.clone(), outcome]
        };
        let lines: Vec<[String; 4]> =
            std::iter::once(HEAD.map(str::to_owned)).chain(self.rows.iter().map(line)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].width()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2)];
        writeln!(f, "restore from {}", self.place)?;
        for [cells @ .., outcome] in &lines {
            for (cell, width) in cells.iter().zip(widths) {
                // Of a terminal's columns, of which a character may take two or none.
                write!(f, "  {cell}{:fill$}", "", fill = width - cell.width())?;
            }
            writeln!(f, "  {outcome}")?;
        }
        Ok(())
    }
}

/// What a start of `plan` from `location` would do, as `settings` say, on top of `standing`: what holds of the job in
/// its own directory, if that is there. What the job would restore anyhow is taken for that, and not for a new
/// beginning.
pub(crate) fn report(
    plan: &Plan,
    location: &SnapshotLocation,
    settings: &Settings,
    standing: Option<&Standing>,
    place: &str,
) -> RestoreReport {
    let (manifest, digest) = (&*location.manifest, location.file.digest);
    let restores = |it: &Standing| it.restore_point().manifest().is_some_and(|it| it.digest == digest);
    let goes_on = standing.filter(|it| !settings.begin_again && (restores(it) || it.began_from(digest)));
    let before = goes_on.map(|it| &*it.attempt.origin.dropped).unwrap_or_default();
    let may_drop = &compatible::dropped(&settings.allow_dropped_state, before, manifest);
    let mut report = Rows { rows: Vec::new(), may_drop };
    let is_copy = goes_on.is_none() && standing.and_then(|it| own(it, location)).is_none();
    if is_copy
        && !settings.abandon_pending
        && let Err(error) = pending::refuse_left_behind(&location.unconfirmed, location.url())
    {
        report.push("", "(pending output)", "", Outcome::Refused(error.message().to_owned()));
    }
    if let Err(error) = compatible::max_parallelism_fits(plan, manifest, place) {
        report.push("", "(max parallelism)", "", Outcome::Refused(error.message().to_owned()));
    }
    if let Err(error) = compatible::dropped_is_there(manifest, may_drop, place) {
        report.push("", "(dropped state)", "", Outcome::Refused(error.message().to_owned()));
    }
    for vertex in &plan.graph.vertices {
        if let Some(uid) = &vertex.uid {
            report.vertex(uid, vertex, manifest);
        }
    }
    for operator in &manifest.operators {
        let claims = |vertex: &&Vertex| compatible::claims(vertex, operator);
        match plan.graph.vertices.iter().find(claims) {
            None => report.left_out(operator, compatible::unclaimed_fits(operator, may_drop, place)),
            Some(vertex) => {
                if let Some(restored) = compatible::shadowed_by(vertex, operator, manifest) {
                    let fits = compatible::shadowed_fits(operator, restored, may_drop, place);
                    report.left_out(operator, fits);
                }
            }
        }
    }
    RestoreReport { place: place.to_owned(), rows: report.rows }
}

struct Rows<'a> {
    rows: Vec<RestoreRow>,
    may_drop: &'a BTreeSet<Uid>,
}

impl Rows<'_> {
    fn push(&mut self, operator: &str, state: &str, kind: &str, outcome: Outcome) {
        let (operator, state, kind) = (operator.to_owned(), state.to_owned(), kind.to_owned());
        self.rows.push(RestoreRow { operator, state, kind, outcome });
    }

    fn checked(&mut self, operator: &str, state: &str, kind: &str, checked: Result<Outcome>) {
        let outcome = checked.unwrap_or_else(|error| Outcome::Refused(error.message().to_owned()));
        self.push(operator, state, kind, outcome);
    }

    fn vertex(&mut self, uid: &Uid, vertex: &Vertex, manifest: &Manifest) {
        let stored = compatible::stored(vertex, manifest);
        if let Some(operator) = stored {
            self.operator(uid, vertex, operator);
        }
        if compatible::reads_anew(vertex, manifest) {
            self.push(uid.as_str(), "(position)", "source", Outcome::ReadsAnew);
        }
        // A keyed state and a list of one name are two states.
        let states = || stored.iter().flat_map(|operator| &operator.states);
        for spec in &vertex.states {
            if !states().any(|state| state.name == spec.name) {
                self.push(uid.as_str(), &spec.name, &spec.kind_text(), Outcome::Begins);
            }
        }
        let subtasks = || stored.iter().flat_map(|operator| &operator.subtasks);
        for list in &vertex.lists {
            if !subtasks().flat_map(|subtask| &subtask.lists).any(|part| part.name == list.name) {
                self.push(uid.as_str(), &list.name, list.redistribution.name(), Outcome::Begins);
            }
        }
    }

    /// What the snapshot holds for an operator of the job.
    fn operator(&mut self, uid: &Uid, vertex: &Vertex, operator: &OperatorSnapshot) {
        let name = match uid == &operator.uid {
            true => uid.to_string(),
            false => format!("{uid} (formerly {})", operator.uid),
        };
        if let Err(error) = compatible::key_fits(vertex, operator) {
            self.push(
                &name,
                "(key)",
                &shape(&operator.key_shape),
                Outcome::Refused(error.message().to_owned()),
            );
        }
        let may_drop = self.may_drop.contains(&operator.uid);
        for description in &operator.states {
            let checked = describe::spec(description).and_then(|spec| {
                Ok(match compatible::state_fits(vertex, operator, &spec, may_drop)? {
                    Action::Restore(_) | Action::Begin(_) => Outcome::Restored,
                    Action::Migrate(_, change) => Outcome::Migrated(change),
                    Action::Drop(_) => Outcome::Dropped,
                })
            });
            self.checked(&name, &description.name, &description.kind, checked);
        }
        let mut seen = BTreeSet::new();
        let parts = operator.subtasks.iter().flat_map(|subtask| &subtask.lists);
        for part in parts.filter(|part| operator.is_list_state(part)) {
            if seen.insert(&part.name) {
                let declared = vertex.lists.iter().find(|list| list.name == part.name);
                let is_own = declared.is_some() || !matches!(vertex.kind, VertexKind::Operator(_));
                let checked =
                    compatible::list_fits(vertex, part, may_drop).map(|version| match (version, declared) {
                        (Version::Older(_), Some(list)) => {
                            Outcome::Migrated(format!("from {} to {}", shape(&part.shape), list.shape))
                        }
                        _ if is_own => Outcome::Restored,
                        _ => Outcome::Dropped,
                    });
                self.checked(&name, &part.name, part.redistribution.name(), checked);
            }
        }
    }

    /// What the snapshot holds and no operator of the job gets.
    fn left_out(&mut self, operator: &OperatorSnapshot, may_be: Result<()>) {
        let outcome = match may_be {
            Ok(()) => Outcome::Dropped,
            Err(error) => Outcome::Refused(error.message().to_owned()),
        };
        let uid = operator.uid.as_str();
        let mut names = BTreeSet::new();
        for state in operator.states.iter().filter(|state| !is_timers(&state.name)) {
            names.insert((state.name.as_str(), state.kind.as_str()));
        }
        for part in operator.subtasks.iter().flat_map(|subtask| &subtask.lists) {
            if operator.is_list_state(part) {
                names.insert((part.name.as_str(), part.redistribution.name()));
            }
        }
        for (name, kind) in &names {
            self.push(uid, name, kind, outcome.clone());
        }
        if names.is_empty() {
            self.push(uid, "(operator)", &operator.kind, outcome);
        }
    }
}

/// For people; the bytes of a shape that cannot be read are somebody else's to complain about.
fn shape(bytes: &[u8]) -> String {
    Shape::from_bytes(bytes).map_or_else(|_| "damaged".to_owned(), |shape| shape.to_string())
}
