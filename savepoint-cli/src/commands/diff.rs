//! `tidegate diff`: what differs between the state of two snapshots. Both are read in order and side by side, so that memory
//! does not grow with them, and neither parallelism nor backend is seen.

mod differences;
mod pairs;

use std::cell::RefCell;

use checkpoint::{manifest::SnapshotKind, savepoint::SnapshotLocation};
use env::Env;
use serde::Serialize;
use types::{Error, Result};

use self::pairs::{Pair, States};
use crate::{
    compare::{Next, Tally},
    format::{or_dash, table},
    output::{Output, Report},
    progress::{Bar, waiting},
};

/// With `--exit-code`, where something differs.
const DIFFERS: u8 = 14;

/// Arguments.
#[derive(clap::Args)]
#[command(
    after_help = "Counted are keys; of maps their entries, of timers times, of operator lists elements. A list counts \
                        as one value of its key. What lives longer than before, by its time to live, has changed. Keys that \
                        only AFTER has are added, those that only BEFORE has are removed.\n\n\
                        Compared is state alone: keyed state, timers and operator lists, the positions of readers among \
                        them. What says how far the job had come is not, since it differs between any two checkpoints: \
                        watermarks, the splits that no reader has yet, and transactions that sinks had prepared, which \
                        `tidegate inspect` counts."
)]
pub(crate) struct Args {
    /// A savepoint, or a checkpoint of a checkpoint directory: the earlier one.
    before: String,
    /// The later one.
    after: String,
    /// Compare only this operator.
    #[arg(long)]
    uid: Option<String>,
    /// Print what differs in this state of it.
    #[arg(long, requires = "uid")]
    state: Option<String>,
    /// Print no more than so many differences.
    #[arg(long, requires = "state")]
    limit: Option<u64>,
    /// End with exit code 14 if anything differs.
    #[arg(long)]
    exit_code: bool,
}

pub(crate) async fn execute(args: Args, env: &Env, output: &mut Output) -> Result<()> {
    let resolve = async |named: &str| {
        waiting(env, "looking for the snapshots", SnapshotLocation::resolve(env, named)).await
    };
    let (before, after) = (resolve(&args.before).await?, resolve(&args.after).await?);
    let (old, new) = (before.manifest.max_parallelism, after.manifest.max_parallelism);
    if old != new {
        return Err(Error::incompatible(format!(
            "{} has max parallelism {}, {} has {}: their keys lie in other key groups and cannot be compared",
            args.before, old.0, args.after, new.0
        )));
    }
    let pairs = pairs::pairs(&before, &after, args.uid.as_deref(), args.state.as_deref())?;
    let is_watched = args.state.is_none() || !output.is_terminal();
    let total = pairs.iter().map(|pair| pair.len).sum();
    let bar = is_watched.then(|| RefCell::new((Bar::new(env, "comparing runs"), 0)));
    let progress = |bytes: u64| {
        if let Some(bar) = &bar {
            let (bar, done) = &mut *bar.borrow_mut();
            *done += bytes;
            bar.at(*done, total);
        }
    };
    let sides = Sides { env, before: &before, after: &after, progress: &progress };
    let differ = match (&args.state, pairs.as_slice()) {
        (Some(_), [pair]) => sides.print(pair, args.limit, output).await?,
        _ => {
            let mut states = Vec::new();
            for pair in &pairs {
                states.extend(sides.compare(pair).await?);
            }
            let compared = Compared {
                before: Snapshot::of(&before),
                after: Snapshot::of(&after),
                differ: states.iter().any(State::differs),
                states,
            };
            drop(bar);
            output.show(&compared)?;
            compared.differ
        }
    };
    if args.exit_code && differ {
        output.set_code(DIFFERS);
    }
    Ok(())
}

/// The two snapshots.
struct Sides<'a> {
    env: &'a Env,
    before: &'a SnapshotLocation,
    after: &'a SnapshotLocation,
    progress: &'a dyn Fn(u64),
}

impl Sides<'_> {
    /// Counts what differs in one state. None for timers of which there are none.
    async fn compare(&self, pair: &Pair<'_>) -> Result<Option<State>> {
        let note = pair.note(&self.before.named, &self.after.named);
        let mut tally = match &pair.states {
            States::Different(_) if !pair.is_optional => None,
            States::Lists(before, after) => Some(differences::lists(before, after, |_, _| Ok(Next::Go))?),
            States::Keyed(_) | States::Different(_) => {
                let [mut before, mut after] = pair.sides(self);
                let tally = crate::compare::compare(&mut before, &mut after, |_| Ok(Next::Go)).await;
                Some(tally.map_err(|error| error.context(format!("operator {}", pair.uid)))?)
            }
        };
        if pair.is_optional && tally == Some(Tally::default()) {
            return Ok(None);
        }
        tally = tally.filter(|_| !matches!(pair.states, States::Different(_)));
        let count = |of: fn(&Tally) -> u64| tally.as_ref().map(of);
        Ok(Some(State {
            operator: pair.uid.to_owned(),
            state: pair.state.to_owned(),
            kind: pair.kind.clone(),
            added: count(|tally| tally.added),
            removed: count(|tally| tally.removed),
            changed: count(|tally| tally.changed),
            unchanged: count(|tally| tally.unchanged),
            note,
        }))
    }
}

/// What is shown.
#[derive(Serialize)]
struct Compared {
    before: Snapshot,
    after: Snapshot,
    /// Whether anything differs.
    differ: bool,
    states: Vec<State>,
}

#[derive(Serialize)]
struct Snapshot {
    place: String,
    kind: &'static str,
    checkpoint: u64,
    job: String,
}

impl Snapshot {
    fn of(location: &SnapshotLocation) -> Self {
        let manifest = &location.manifest;
        let kind = match manifest.kind {
            SnapshotKind::Checkpoint => "checkpoint",
            SnapshotKind::Savepoint => "savepoint",
        };
        Self {
            place: location.named.clone(),
            kind,
            checkpoint: manifest.checkpoint.0,
            job: manifest.job_name.clone(),
        }
    }

    fn text(&self) -> String {
        let of = if self.kind == "savepoint" { "savepoint of checkpoint" } else { "checkpoint" };
        format!("{}: {of} {} of job {}", self.place, self.checkpoint, self.job)
    }
}

#[derive(Serialize)]
struct State {
    operator: String,
    state: String,
    kind: String,
    /// Only in the later one; none where nothing could be compared.
    added: Option<u64>,
    /// Only in the earlier one.
    removed: Option<u64>,
    /// In both, with other values.
    changed: Option<u64>,
    unchanged: Option<u64>,
    /// What differs about the state itself.
    note: Option<String>,
}

impl State {
    fn differs(&self) -> bool {
        let counts = [self.added, self.removed, self.changed];
        self.note.is_some() || counts.iter().any(|count| *count != Some(0))
    }
}

impl Report for Compared {
    fn text(&self) -> String {
        let mut text = format!("before  {}\nafter   {}\n", self.before.text(), self.after.text());
        if !self.states.is_empty() {
            let head = ["OPERATOR", "STATE", "KIND", ">ADDED", ">REMOVED", ">CHANGED", ">UNCHANGED", "NOTE"];
            let rows = self.states.iter().map(|state| {
                vec![
                    state.operator.clone(),
                    state.state.clone(),
                    state.kind.clone(),
                    or_dash(state.added),
                    or_dash(state.removed),
                    or_dash(state.changed),
                    or_dash(state.unchanged),
                    state.note.clone().unwrap_or_default(),
                ]
            });
            text += &format!("\n{}", table(&head, rows));
        }
        let differing = self.states.iter().filter(|state| state.differs()).count();
        text + &match differing {
            0 => "\nthe state is the same\n".to_owned(),
            _ => format!("\n{differing} of {} states differ\n", self.states.len()),
        }
    }
}
