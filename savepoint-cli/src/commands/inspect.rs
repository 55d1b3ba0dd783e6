//! `tidegate inspect`: what a snapshot holds, operator by operator, and what of it the checkpoint before has, too.

use std::sync::Arc;

use checkpoint::{
    history,
    manifest::{self, Manifest, OperatorSnapshot, SnapshotKind, StateDescription, SubtaskSnapshot},
    savepoint::SnapshotLocation,
};
use env::{Env, Store};
use serde::Serialize;
use statebackend::{StateKind, StateSpec, StateSummary, summarize};
use types::{Digest, Result, Shape, count};

use crate::{
    format::{bytes, or_dash, table, time},
    output::{Output, Report},
    progress::{Bar, waiting},
    size::{Files, Size, files, lengths},
    state::Kept,
};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A savepoint, or a checkpoint of a checkpoint directory.
    snapshot: String,
    /// Read all runs: live records of each state, and digests that are the same at every parallelism and backend.
    #[arg(long)]
    exact: bool,
}

pub(crate) async fn execute(args: Args, env: &Env, output: &mut Output) -> Result<()> {
    let found = SnapshotLocation::resolve(env, &args.snapshot);
    let location = waiting(env, "looking for the snapshot", found).await?;
    let before = waiting(env, "reading the checkpoint before it", before(env, &location)).await;
    let mut report = snapshot(&location, before.as_ref())?;
    if args.exact {
        exact(env, &*location.store, &location.manifest, &mut report).await?;
    }
    output.show(&report)
}

/// The files of the snapshot before: none of a savepoint, which stands for itself, and of a job's first checkpoint.
/// `None` if it is no longer there, or cannot be read: that stops nothing.
async fn before(env: &Env, location: &SnapshotLocation) -> Option<Files> {
    if location.manifest.kind == SnapshotKind::Savepoint || location.manifest.checkpoint.0 == 1 {
        return Some(Files::new());
    }
    let newest = history::open(env, Arc::clone(&location.store)).await.ok()??;
    let held = newest.standing.held();
    let own = held.iter().position(|one| one.manifest.digest == location.file.digest)?;
    let older = &held.get(own.checked_sub(1)?)?.manifest;
    let manifest = manifest::read(env, &*location.store, older).await.ok()?;
    Some(files(&manifest, older))
}

/// What is shown.
#[derive(Serialize)]
struct Inspected {
    kind: &'static str,
    place: String,
    checkpoint: u64,
    job: String,
    job_id: String,
    attempt: u64,
    lineage: String,
    triggered: String,
    max_parallelism: u16,
    /// The last watermark had been sent.
    drained: bool,
    /// All sources had ended.
    ended: bool,
    #[serde(flatten)]
    size: Size,
    /// Over all operators, with `--exact`.
    digest: Option<String>,
    operators: Vec<Operator>,
}

#[derive(Serialize)]
struct Operator {
    uid: String,
    kind: String,
    parallelism: u32,
    /// Where it reads or writes, of a source or sink of files.
    place: Option<String>,
    /// The shape of its keys, of a keyed operator.
    key: Option<String>,
    /// Its runs.
    size: Size,
    states: Vec<State>,
    subtasks: Vec<Subtask>,
}

#[derive(Serialize)]
struct State {
    name: String,
    kind: String,
    codec: String,
    shape: String,
    map_key: Option<String>,
    /// Elements, of an operator list state.
    elements: Option<u64>,
    /// What lives, with `--exact`, of keyed state.
    live: Option<Live>,
}

#[derive(Serialize)]
struct Live {
    keys: u64,
    entries: u64,
    bytes: u64,
    digest: String,
}

#[derive(Serialize)]
struct Subtask {
    subtask: u32,
    /// First key group and the one after the last; none for an operator without keyed state.
    key_groups: Option<(u16, u16)>,
    runs: u64,
    /// In the runs, those that older runs repeat included.
    entries: u64,
    tombstones: u64,
    bytes: u64,
    /// Elements of operator list states: for a source its splits.
    elements: u64,
    /// Transactions that wait for their commit.
    prepared: u64,
}

fn snapshot(location: &SnapshotLocation, before: Option<&Files>) -> Result<Inspected> {
    let manifest = &location.manifest;
    Ok(Inspected {
        kind: match manifest.kind {
            SnapshotKind::Checkpoint => "checkpoint",
            SnapshotKind::Savepoint => "savepoint",
        },
        place: location.url().to_owned(),
        checkpoint: manifest.checkpoint.0,
        job: manifest.job_name.clone(),
        job_id: manifest.job.to_string(),
        attempt: manifest.attempt.0,
        lineage: manifest.lineage.to_string(),
        triggered: time(manifest.triggered_at),
        max_parallelism: manifest.max_parallelism.0,
        drained: manifest.drained,
        ended: manifest.ended,
        size: Size::of(&files(manifest, &location.file), before),
        digest: None,
        operators: manifest.operators.iter().map(|one| operator(one, before)).collect::<Result<_>>()?,
    })
}

fn operator(operator: &OperatorSnapshot, before: Option<&Files>) -> Result<Operator> {
    let shown = |error: types::Error| error.context(format!("operator {}", operator.uid));
    let keyed = operator.states.iter().map(keyed_state);
    let mut states = keyed.collect::<Result<Vec<_>>>().map_err(shown)?;
    states.append(&mut list_states(operator).map_err(shown)?);
    let runs = operator.subtasks.iter().flat_map(|subtask| &subtask.runs).map(|run| &run.file);
    Ok(Operator {
        uid: operator.uid.to_string(),
        kind: operator.kind.clone(),
        parallelism: operator.parallelism,
        place: operator.place().map_err(shown)?,
        key: shape(&operator.key_shape).map_err(shown)?,
        size: Size::of(&lengths(runs), before),
        states,
        subtasks: operator.subtasks.iter().map(|one| subtask(operator, one)).collect(),
    })
}

fn keyed_state(state: &StateDescription) -> Result<State> {
    Ok(State {
        name: state.name.clone(),
        kind: state.kind.clone(),
        codec: state.codec.clone(),
        shape: shape(&state.shape)?.unwrap_or_default(),
        map_key: shape(&state.map_key_shape)?,
        elements: None,
        live: None,
    })
}

/// Operator list states, each once: its parts lie with the subtasks.
fn list_states(operator: &OperatorSnapshot) -> Result<Vec<State>> {
    let mut states: Vec<State> = Vec::new();
    let parts = operator.subtasks.iter().flat_map(|subtask| &subtask.lists);
    for part in parts.filter(|part| operator.is_list_state(part)) {
        let elements = part.elements.len() as u64;
        if let Some(state) = states.iter_mut().find(|state| state.name == part.name) {
            state.elements = state.elements.map(|sum| sum + elements);
            continue;
        }
        states.push(State {
            name: part.name.clone(),
            kind: format!("operator {}", part.redistribution.name()),
            codec: part.codec.clone(),
            shape: shape(&part.shape)?.unwrap_or_default(),
            map_key: None,
            elements: Some(elements),
            live: None,
        });
    }
    Ok(states)
}

fn subtask(operator: &OperatorSnapshot, subtask: &SubtaskSnapshot) -> Subtask {
    let elements = subtask.lists.iter().filter(|part| operator.is_list_state(part));
    let sum = |of: fn(&types::Run) -> u64| subtask.runs.iter().map(of).sum();
    let groups = subtask.groups;
    Subtask {
        subtask: subtask.subtask.0,
        key_groups: (!groups.is_empty()).then_some((groups.start, groups.end)),
        runs: subtask.runs.len() as u64,
        entries: sum(|run| run.entries),
        tombstones: sum(|run| run.tombstones),
        bytes: sum(|run| run.file.len),
        elements: elements.map(|part| part.elements.len() as u64).sum(),
        prepared: subtask.prepared.len() as u64,
    }
}

fn shape(bytes: &[u8]) -> Result<Option<String>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    Shape::from_bytes(bytes).map(|shape| Some(shape.to_string()))
}

/// Counts what lives, by merging the runs of each subtask.
async fn exact(env: &Env, store: &dyn Store, manifest: &Manifest, report: &mut Inspected) -> Result<()> {
    let total = manifest.files().iter().map(|file| file.len).sum();
    let mut bar = Bar::new(env, "reading runs");
    let mut done = 0;
    let mut all = StateSummary::default();
    for (operator, shown) in manifest.operators.iter().zip(&mut report.operators) {
        let mut summary = StateSummary::default();
        for subtask in &operator.subtasks {
            summary.add(&summarize(env, store, Kept::of(subtask)?.runs()).await?);
            done += subtask.runs.iter().map(|run| run.file.len).sum::<u64>();
            bar.at(done, total);
        }
        for state in shown.states.iter_mut().filter(|state| state.elements.is_none()) {
            let count = summary.states.get(&state.name).copied().unwrap_or_default();
            state.live = Some(Live {
                keys: count.keys,
                entries: count.entries,
                bytes: count.bytes,
                digest: Digest(count.digest).to_string(),
            });
        }
        for (name, count) in summary.states {
            all.states.insert(format!("{}/{name}", operator.uid), count);
        }
    }
    report.digest = Some(all.digest().to_string());
    Ok(())
}

impl Report for Inspected {
    fn text(&self) -> String {
        let Self { kind, checkpoint, place, job, job_id, attempt, lineage, triggered, .. } = self;
        let of = if *kind == "savepoint" { "savepoint of checkpoint" } else { "checkpoint" };
        let mut text = format!(
            "{of} {checkpoint} in {place}\njob {job}, id {job_id}, attempt {attempt} of lineage {lineage}\n"
        );
        text += &format!(
            "triggered {triggered}, {} of {}, max parallelism {}{}{}\n",
            count(self.size.files, "file"),
            bytes(self.size.bytes),
            self.max_parallelism,
            if self.drained { ", drained" } else { "" },
            if self.ended { ", all sources had ended" } else { "" },
        );
        if let Size { added_bytes: Some(added), shared_bytes: Some(shared), .. } = self.size {
            text += &format!("added {}, shared with the one before {}\n", bytes(added), bytes(shared));
        }
        if let Some(digest) = &self.digest {
            text += &format!("digest of all keyed state {digest}\n");
        }
        text += &format!("\n{}", self.operators());
        if self.operators.iter().any(|operator| !operator.states.is_empty()) {
            text += &format!("\n{}", self.states());
        }
        text += &format!("\n{}", self.subtasks());
        let placed = self.operators.iter().filter_map(|it| Some((it, it.place.as_ref()?)));
        let rows: Vec<_> =
            placed.map(|(it, place)| vec![it.uid.clone(), it.kind.clone(), place.clone()]).collect();
        if rows.is_empty() {
            text
        } else {
            text + &format!("\n{}", table(&["OPERATOR", "KIND", "PLACE"], rows))
        }
    }
}

impl Inspected {
    fn operators(&self) -> String {
        let head = [
            "OPERATOR",
            "KIND",
            ">PARALLELISM",
            "KEY",
            ">STATES",
            ">RUNS",
            ">ENTRIES",
            ">BYTES",
            ">ADDED",
            ">SHARED",
        ];
        let rows = self.operators.iter().map(|operator| {
            let sum = |of: fn(&Subtask) -> u64| operator.subtasks.iter().map(of).sum::<u64>();
            vec![
                operator.uid.clone(),
                operator.kind.clone(),
                operator.parallelism.to_string(),
                or_dash(operator.key.as_ref()),
                operator.states.len().to_string(),
                sum(|subtask| subtask.runs).to_string(),
                sum(|subtask| subtask.entries).to_string(),
                bytes(operator.size.bytes),
                or_dash(operator.size.added_bytes.map(bytes)),
                or_dash(operator.size.shared_bytes.map(bytes)),
            ]
        });
        table(&head, rows)
    }

    fn states(&self) -> String {
        let exact = self.digest.is_some();
        let mut head = vec!["OPERATOR", "STATE", "KIND", "SHAPE"];
        if exact {
            head.extend([">KEYS", ">ENTRIES", ">BYTES", "DIGEST"]);
        }
        let states = self.operators.iter().flat_map(|it| it.states.iter().map(move |state| (it, state)));
        let rows = states.map(|(operator, state)| {
            let shape = match &state.map_key {
                Some(key) if is_map(&state.kind) => format!("{key} -> {}", state.shape),
                Some(key) => key.clone(),
                None => state.shape.clone(),
            };
            let mut row = vec![operator.uid.clone(), state.name.clone(), state.kind.clone(), shape];
            if exact {
                let live = state.live.as_ref();
                row.push(or_dash(live.map(|live| live.keys)));
                row.push(or_dash(live.map(|live| live.entries).or(state.elements)));
                row.push(or_dash(live.map(|live| bytes(live.bytes))));
                row.push(or_dash(live.map(|live| &live.digest)));
            }
            row
        });
        table(&head, rows)
    }

    fn subtasks(&self) -> String {
        let head = [
            "SUBTASK",
            ">KEY GROUPS",
            ">RUNS",
            ">ENTRIES",
            ">TOMBSTONES",
            ">BYTES",
            ">ELEMENTS",
            ">PREPARED",
        ];
        let subtasks = self.operators.iter().flat_map(|it| it.subtasks.iter().map(move |one| (it, one)));
        let rows = subtasks.map(|(operator, one)| {
            vec![
                format!("{} {}", operator.uid, one.subtask),
                or_dash(one.key_groups.map(|(start, end)| format!("{start}..{end}"))),
                one.runs.to_string(),
                one.entries.to_string(),
                one.tombstones.to_string(),
                bytes(one.bytes),
                one.elements.to_string(),
                one.prepared.to_string(),
            ]
        });
        table(&head, rows)
    }
}

/// Whether a kind, with or without a time to live, is that of maps.
fn is_map(kind: &str) -> bool {
    StateSpec::kind_of_text(kind).is_some_and(|(kind, _)| kind == StateKind::Map)
}
