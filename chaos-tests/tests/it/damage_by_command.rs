//! Damage once more, through the real programs: `tidegate verify` names the file, and the word count either refuses with
//! one line or writes exactly the right output.

use std::{
    collections::BTreeMap,
    process::{Command, ExitStatus},
    time::Duration,
};

use tidegate_chaos_tests::{Laboratory, Scene, Seeded, damage::Damage};

use crate::{
    damage::{damages, killed_job, kind, print_table, targets},
    tidegate,
};

/// How many damages of each kind.
const OF_EACH_KIND: usize = 20;
const LIMIT: Duration = Duration::from_secs(30);
const PARALLELISM: u64 = 2;
/// The exit code of `corrupt`.
const CORRUPT: i32 = 9;

#[test]
fn damage_is_refused_by_the_programs() {
    let mut seeded = Seeded::announced("damage_is_refused_by_the_programs", 12);
    let mut scene = killed_job(&mut seeded);
    let (checkpoints, output) = (scene.image("checkpoints"), scene.image("output"));
    let needed =
        Laboratory::new(checkpoints.clone(), Vec::new()).unwrap().examine(Vec::new()).unwrap().needed;
    let targets = targets(&checkpoints, &needed);

    let mut by_kind = BTreeMap::<&str, Vec<Damage>>::new();
    for damage in damages(&checkpoints, &targets, &mut seeded) {
        by_kind.entry(kind(&damage, &checkpoints)).or_default().push(damage);
    }
    // The undamaged directory, put back in the same way, is not refused.
    scene.put_image("checkpoints", &checkpoints);
    scene.put_image("output", &output);
    scene.finish(PARALLELISM);

    let mut verdicts = Vec::new();
    for (kind, damages) in &by_kind {
        for _ in 0..OF_EACH_KIND {
            let damage = &damages[seeded.within(0..damages.len() as u64) as usize];
            scene.put_image("checkpoints", &damage.done_to(&checkpoints));
            scene.put_image("output", &output);
            verify_names(&scene, damage);
            verdicts.push((*kind, is_refused(&mut scene, damage)));
        }
    }
    print_table("damage_is_refused_by_the_programs", verdicts);
}

/// `tidegate verify` must name the file; whether as needed or not is told by its exit code.
fn verify_names(scene: &Scene, damage: &Damage) {
    let verify = Command::new(tidegate()).arg("verify").arg(scene.path("checkpoints")).output().unwrap();
    let text = String::from_utf8_lossy(&verify.stdout);
    let code = verify.status.code();
    assert!(
        code == Some(0) || code == Some(CORRUPT),
        "{damage}: tidegate verify ended with {}",
        verify.status
    );
    assert!(
        damage.files().iter().any(|file| text.contains(file)),
        "{damage}: verify does not name it:\n{text}"
    );
}

/// Starts the job: it must refuse, or end with the right output.
fn is_refused(scene: &mut Scene, damage: &Damage) -> bool {
    let mut command = scene.command(PARALLELISM);
    let Some(ended) = scene.start(&mut command).wait(LIMIT).unwrap() else {
        scene.fail(&format!("{damage}: the job does not end"));
    };
    if ended.status.success() {
        scene.check();
        return false;
    }
    let lines: Vec<_> = ended.errors.lines().filter(|line| line.starts_with("error: ")).collect();
    if !is_refusal(ended.status) || lines.len() != 1 {
        scene.fail(&format!(
            "{damage}: the job ended with {} and {} lines of error",
            ended.status,
            lines.len()
        ));
    }
    true
}

/// An exit code that says what to do: neither a panic, nor a signal, nor a broken invariant.
fn is_refusal(status: ExitStatus) -> bool {
    const INTERNAL: i32 = 3;
    const PANIC: i32 = 101;
    status.code().is_some_and(|code| code != INTERNAL && code != PANIC)
}
