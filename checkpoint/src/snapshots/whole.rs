//! What a user can still start from when a checkpoint is damaged: called where an error names the choices, so that none of
//! them leads to the next error.

use std::sync::Arc;

use env::{Env, Store};
use types::{CheckpointId, ErrorKind, Result};

use super::verify::check_file;
use crate::{
    history::{
        CompletedCheckpoint, Standing,
        fallback::{self, Advice},
    },
    manifest,
};

/// The choices of a user whose checkpoint `damaged` cannot be restored, to end an error message with. Reads the
/// checkpoints before it, newest first, until one is whole.
pub async fn choices(
    env: &Env,
    store: &Arc<dyn Store>,
    standing: &Standing,
    damaged: CheckpointId,
) -> String {
    let mut advice = Advice { lost_pending: lost_pending(env, store, standing).await, ..Advice::default() };
    if let Some(whole) = whole_before(env, store, standing, damaged).await {
        advice.whole = Some(whole.checkpoint);
        advice.began_from_it = standing.began_from(whole.manifest.digest);
    }
    advice.has_damaged = advice.whole.is_none() && older(standing, damaged).next().is_some();
    fallback::choices(store.url(), &advice)
}

/// The newest checkpoint before `damaged` all of whose files are there and are what was written.
pub async fn whole_before<'a>(
    env: &Env,
    store: &Arc<dyn Store>,
    standing: &'a Standing,
    damaged: CheckpointId,
) -> Option<&'a CompletedCheckpoint> {
    for older in older(standing, damaged) {
        // Whatever cannot be read now is not to be recommended.
        if is_whole(env, store, older).await.unwrap_or(false) {
            return Some(older);
        }
    }
    None
}

/// The retained checkpoints before this one, newest first.
fn older(standing: &Standing, damaged: CheckpointId) -> impl Iterator<Item = &CompletedCheckpoint> {
    standing.completed.iter().rev().filter(move |held| held.checkpoint < damaged)
}

/// Whether all files of a checkpoint are there and are what was written.
async fn is_whole(env: &Env, store: &Arc<dyn Store>, completed: &CompletedCheckpoint) -> Result<bool> {
    let manifest = match manifest::read(env, &**store, &completed.manifest).await {
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(false),
        manifest => manifest?,
    };
    for file in manifest.files() {
        if check_file(env, &**store, file, &mut |_| {}).await?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether nobody can tell any more what is to be committed of some checkpoint: a start must give it up.
async fn lost_pending(env: &Env, store: &Arc<dyn Store>, standing: &Standing) -> bool {
    for held in standing.completed.iter().filter(|held| standing.unconfirmed.contains(&held.checkpoint)) {
        let read = manifest::read(env, &**store, &held.manifest).await;
        if read.is_err_and(|error| error.kind() == ErrorKind::Corrupt) {
            return true;
        }
    }
    false
}
