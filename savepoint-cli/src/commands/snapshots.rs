//! `tidegate snapshots`: what a checkpoint or savepoint directory holds.

use checkpoint::{
    history::{CheckpointKind, Holder, JobLock, Record},
    manifest::SnapshotKind,
    savepoint::SnapshotLocation,
    snapshots::{self, CheckpointInfo, Listing, SavepointInfo},
};
use env::Env;
use serde::Serialize;
use types::Result;

use crate::{
    format::{bytes, or_dash, table, time},
    offline,
    output::{Output, Report},
    progress::waiting,
    size::{Files, Size, files},
};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A checkpoint or savepoint directory.
    dir: String,
}

pub(crate) async fn execute(args: Args, env: &Env, output: &mut Output) -> Result<()> {
    let store = offline::directory(env, &args.dir).await?;
    let running = match JobLock::holder(env, &*store).await? {
        Holder::Process(_) => Some(true),
        Holder::Nobody => Some(false),
        Holder::Unknown => None,
    };
    let listing = waiting(env, "reading manifests", snapshots::list(env, store)).await?;
    output.show(&match listing {
        Listing::Job { newest, checkpoints, savepoints } => job(&newest, &checkpoints, &savepoints, running),
        Listing::Savepoint(location) => savepoint(&location),
    })
}

/// What is shown.
#[derive(Serialize)]
struct Snapshots {
    job: String,
    job_id: String,
    /// The last attempt, of a checkpoint directory.
    attempt: Option<AttemptRow>,
    checkpoints: Vec<CheckpointRow>,
    savepoints: Vec<SavepointRow>,
}

#[derive(Serialize)]
struct AttemptRow {
    attempt: u64,
    lineage: String,
    process: String,
    started: String,
    /// `finished`, `stopped`, `cancelled` or `failed`; none while it runs, or if it died.
    ended: Option<String>,
    ended_at: Option<String>,
    /// Whether a process holds the directory now; none where nobody can tell.
    running: Option<bool>,
}

#[derive(Serialize)]
struct CheckpointRow {
    checkpoint: u64,
    kind: &'static str,
    attempt: u64,
    lineage: String,
    /// When it was complete; of a savepoint, which does not say that, when the job was asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    triggered: Option<String>,
    /// Whether its sinks are known to have committed.
    committed: bool,
    #[serde(flatten)]
    size: Option<Size>,
    /// Why its manifest cannot be read.
    damage: Option<String>,
}

#[derive(Serialize)]
struct SavepointRow {
    checkpoint: u64,
    url: String,
    /// Whether it is still there, as it was.
    present: bool,
}

fn job(
    newest: &Record,
    checkpoints: &[CheckpointInfo],
    savepoints: &[SavepointInfo],
    running: Option<bool>,
) -> Snapshots {
    let standing = &newest.standing;
    let mut before = None;
    let rows = checkpoints.iter().map(|info| checkpoint(info, &mut before)).collect();
    let savepoint = |info: &SavepointInfo| SavepointRow {
        checkpoint: info.savepoint.checkpoint.0,
        url: info.savepoint.url.clone(),
        present: info.present,
    };
    Snapshots {
        job: standing.job_name.clone(),
        job_id: standing.job.to_string(),
        attempt: Some(AttemptRow {
            attempt: standing.attempt.id.0,
            lineage: standing.attempt.lineage.to_string(),
            process: standing.attempt.process.clone(),
            started: time(standing.attempt.started_at),
            ended: standing.end.as_ref().map(|end| end.kind.name().to_owned()),
            ended_at: standing.end.as_ref().map(|end| time(end.at)),
            running,
        }),
        checkpoints: rows,
        savepoints: savepoints.iter().map(savepoint).collect(),
    }
}

/// The row of a checkpoint; `before` are the files of the one before, which become those of this one.
fn checkpoint(info: &CheckpointInfo, before: &mut Option<Files>) -> CheckpointRow {
    let CheckpointInfo { completed, confirmed, manifest } = info;
    let files = manifest.as_ref().ok().map(|manifest| files(manifest, &completed.manifest));
    let nothing = Files::new();
    // There was none before the first: all of it was added.
    let older = before.as_ref().or((completed.checkpoint.0 == 1).then_some(&nothing));
    let row = CheckpointRow {
        checkpoint: completed.checkpoint.0,
        kind: kind(completed.kind),
        attempt: completed.attempt.0,
        lineage: completed.lineage.to_string(),
        completed: Some(time(completed.completed_at)),
        triggered: None,
        committed: *confirmed,
        size: files.as_ref().map(|files| Size::of(files, older)),
        damage: manifest.as_ref().err().map(ToString::to_string),
    };
    *before = files;
    row
}

fn savepoint(location: &SnapshotLocation) -> Snapshots {
    let manifest = &location.manifest;
    Snapshots {
        job: manifest.job_name.clone(),
        job_id: manifest.job.to_string(),
        attempt: None,
        checkpoints: vec![CheckpointRow {
            checkpoint: manifest.checkpoint.0,
            kind: match manifest.kind {
                SnapshotKind::Checkpoint => "checkpoint",
                SnapshotKind::Savepoint => "savepoint",
            },
            attempt: manifest.attempt.0,
            lineage: manifest.lineage.to_string(),
            completed: None,
            triggered: Some(time(manifest.triggered_at)),
            committed: true,
            size: Some(Size::of(&files(manifest, &location.file), Some(&Files::new()))),
            damage: None,
        }],
        savepoints: Vec::new(),
    }
}

fn kind(kind: CheckpointKind) -> &'static str {
    match kind {
        CheckpointKind::Ordinary => "checkpoint",
        CheckpointKind::Savepoint => "for a savepoint",
        CheckpointKind::Stop => "stop",
        CheckpointKind::Last => "last",
    }
}

impl Report for Snapshots {
    fn text(&self) -> String {
        let mut text = format!("job {}, id {}\n", self.job, self.job_id);
        if let Some(attempt) = &self.attempt {
            text += &attempt.text();
        }
        if self.checkpoints.is_empty() {
            text += "no completed checkpoint\n";
        } else {
            text += &format!("\n{}", self.table());
        }
        for row in self.checkpoints.iter().filter(|row| row.damage.is_some()) {
            text += &format!("checkpoint {}: {}\n", row.checkpoint, or_dash(row.damage.as_deref()));
        }
        if !self.savepoints.is_empty() {
            let rows = self.savepoints.iter().map(|row| {
                let there = if row.present { "there" } else { "gone or changed" };
                vec![row.checkpoint.to_string(), there.to_owned(), row.url.clone()]
            });
            text += &format!("\n{}", table(&[">OF CHECKPOINT", "IS", "SAVEPOINT"], rows));
        }
        text
    }
}

impl AttemptRow {
    fn text(&self) -> String {
        let Self { attempt, lineage, process, started, .. } = self;
        let end = match (&self.ended, &self.ended_at, self.running) {
            (Some(ended), Some(at), _) => format!("{ended} at {at}"),
            (_, _, Some(true)) => format!("running ({process})"),
            (_, _, Some(false)) => {
                format!("not running, and its end is not recorded: it has failed or died ({process})")
            }
            (_, _, None) => format!("its end is not recorded ({process})"),
        };
        format!("last attempt {attempt} of lineage {lineage}, started {started}, {end}\n")
    }
}

impl Snapshots {
    fn table(&self) -> String {
        let is_savepoint = self.checkpoints.iter().any(|row| row.triggered.is_some());
        let head = [
            ">CHECKPOINT",
            "KIND",
            ">ATTEMPT",
            "LINEAGE",
            if is_savepoint { "TRIGGERED" } else { "COMPLETED" },
            ">FILES",
            ">SIZE",
            ">ADDED",
            ">SHARED",
            "STATE",
        ];
        let rows = self.checkpoints.iter().map(|row| {
            let size = row.size;
            let state = match (&row.damage, row.committed) {
                (Some(_), _) => "damaged",
                (None, true) => "committed",
                (None, false) => "not known to be committed",
            };
            vec![
                row.checkpoint.to_string(),
                row.kind.to_owned(),
                row.attempt.to_string(),
                row.lineage.chars().take(8).collect(),
                or_dash(row.completed.as_ref().or(row.triggered.as_ref())),
                or_dash(size.map(|size| size.files)),
                or_dash(size.map(|size| bytes(size.bytes))),
                or_dash(size.and_then(|size| size.added_bytes).map(bytes)),
                or_dash(size.and_then(|size| size.shared_bytes).map(bytes)),
                state.to_owned(),
            ]
        });
        table(&head, rows)
    }
}
