//! `checkpoints.retained`, from the setting to the disk: so many completed checkpoints are there, the newest ones, each
//! of them whole and good to start from, and the files of older ones are gone.

use std::{collections::BTreeSet, time::Duration};

use checkpoint::{
    savepoint::SnapshotLocation,
    snapshots::{self, Listing},
};
use tidegate_engine::cluster::attempt::Ask;
use types::CheckpointId;

use crate::{
    counting::{assert_gapless, counting, endless},
    full_disk::image,
    ledger::Ledger,
    world::{simulate, start},
};

const TAKEN: u64 = 8;

#[test]
fn as_many_checkpoints_stay_on_disk_as_are_to_be_retained() {
    for (setting, retained) in
        [(Some("1"), 1), (Some("2"), 2), (None, 3), (Some("5"), 5), (Some("20"), TAKEN)]
    {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            let mut settings = vec![("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "off")];
            settings.extend(setting.map(|count| ("checkpoints.retained", count)));
            let (_process, handle) = start(sim, counting(&endless(), &settings, &ledger)).await.unwrap();
            for _ in 0..TAKEN {
                env.sleep(Duration::from_millis(500)).await;
                handle.control().ask(Ask::Checkpoint).await.unwrap();
            }
            // Until what is too much is deleted.
            env.sleep(Duration::from_secs(5)).await;
            let newest: Vec<_> = (TAKEN - retained + 1..=TAKEN).map(CheckpointId).collect();
            let store = env.open_store("/checkpoints").unwrap();
            let listing = snapshots::list(&env, store).await.unwrap();
            let Listing::Job { checkpoints, .. } = listing else { panic!("{listing:?}") };
            let listed: Vec<_> = checkpoints.iter().map(|one| one.completed.checkpoint).collect();
            assert_eq!(listed, newest, "{setting:?}");

            let mut needed = BTreeSet::new();
            for checkpoint in &newest {
                let place = format!("/checkpoints@{checkpoint}");
                let found = SnapshotLocation::resolve(&env, &place).await.unwrap();
                let files = found.manifest.files().into_iter().chain([&found.file]);
                needed.extend(files.map(|file| format!("/checkpoints/{}", file.path)));
            }
            let on_disk: BTreeSet<_> = image(&env, "/checkpoints")
                .into_keys()
                .map(|path| path.to_string_lossy().into_owned())
                .filter(|path| path.contains("/attempt-"))
                .collect();
            assert_eq!(on_disk, needed, "{setting:?}");
            handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
            handle.join().await.unwrap();
            assert_gapless(&ledger, 1_000);
        });
    }
}
