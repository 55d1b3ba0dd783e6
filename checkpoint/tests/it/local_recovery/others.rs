//! What other jobs have left in the same place.

use std::path::{Path, PathBuf};

use env::{Env, Store, sim::Simulation};
use tidegate_checkpoint::local_recovery::{LocalRecovery, LocalStore};
use types::{AttemptId, CheckpointId, JobId};

use super::{PIECE, content, directories, run_path};

#[test]
fn what_dead_jobs_have_left_is_bounded_and_what_living_ones_have_stays() {
    let sim = Simulation::new(1);
    let control = sim.control();
    sim.run(async |env| {
        let begin = async |env: &Env, job: u64, limit: u64| {
            let local = LocalRecovery::new(env, &format!("job {job}"), PathBuf::from("/local"), limit);
            local.begin(JobId(job.into()), AttemptId(0), CheckpointId(0), [].into_iter()).await;
            LocalStore::new(env.open_store(&format!("sim:{job}")).unwrap(), Some(local), &[])
        };
        let mut alive = Vec::new();
        for job in 1..=4 {
            let (process, own) = control.process(&format!("it {job}"));
            let through = begin(&own, job, 10 * PIECE as u64).await;
            for number in 0..3 {
                through.put(&run_path(0, number), vec![content(PIECE).into()]).await.unwrap();
            }
            if job == 2 {
                alive.push((process, through));
            } else {
                process.kill();
            }
        }
        let files = env.files();
        assert_eq!(directories(&*files).values().copied().collect::<Vec<_>>(), [3; 4]);
        let holding = begin(&env, 5, 7 * PIECE as u64).await;
        let left = directories(&*files);
        assert_eq!(
            left.values().copied().collect::<Vec<_>>(),
            [3, 3, 3, 0],
            "two dead ones have room: {left:?}"
        );
        drop(holding);
        let _holding = begin(&env, 6, PIECE as u64).await;
        let left = directories(&*files);
        assert_eq!(left.values().copied().collect::<Vec<_>>(), [3, 0, 0], "only the living one: {left:?}");
    });
}

#[test]
fn what_others_have_and_nobody_may_touch_is_not_in_the_way() {
    Simulation::new(1).run(async |env| {
        let files = env.files();
        // Its lock cannot be taken, as where it belongs to another user.
        for dir in ["/local/tidegate-copies-another", "/local/tidegate-copies-another.lock"] {
            files.create_dir_all(Path::new(dir)).unwrap();
        }
        let local = LocalRecovery::new(&env, "job", PathBuf::from("/local"), PIECE as u64);
        local.begin(JobId(1), AttemptId(0), CheckpointId(0), [].into_iter()).await;
        let through = LocalStore::new(env.open_store("sim:far").unwrap(), Some(local), &[]);
        through.put(&run_path(0, 1), vec![content(PIECE).into()]).await.unwrap();
        assert_eq!(directories(&*files).values().copied().collect::<Vec<_>>(), [1, 0]);
    });
}
