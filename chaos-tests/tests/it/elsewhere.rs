//! The same checkpoint directory with another input or output: refused by the real command, and nothing is changed.

use std::{process::Command, time::Duration};

use tidegate_chaos_tests::{Ended, Scene, Seeded, damage::Image};

const LIFE_LIMIT: Duration = Duration::from_secs(60);
/// The exit code of the error `incompatible-state`.
const INCOMPATIBLE: i32 = 8;

/// One life with this input and output, to its end.
fn life(scene: &mut Scene, input: &str, output: &str) -> Ended {
    let mut command = Command::new(super::word_count());
    command.arg("--input").arg(scene.path(input)).arg("--output").arg(scene.path(output));
    command.arg("--checkpoints").arg(scene.path("checkpoints"));
    command.args(["--interval", "50ms", "--rest", "off"]);
    let ended = scene.start(&mut command).wait(LIFE_LIMIT).unwrap();
    ended.unwrap_or_else(|| scene.fail("the process did not end"))
}

/// The files of the checkpoints and of the output.
pub(super) type Images = (Image, Image);

/// The checkpoints and the output. The lock names the process that looked last.
pub(super) fn images(scene: &Scene) -> Images {
    let mut checkpoints = scene.image("checkpoints");
    checkpoints.remove("job.lock");
    (checkpoints, scene.image("output"))
}

#[test]
fn another_input_or_output_is_refused_before_and_after_the_end() {
    let mut seeded = Seeded::announced("another_input_or_output_is_refused", 5);
    let mut scene = super::damage::killed_job(&mut seeded);
    std::fs::create_dir(scene.path("other")).unwrap();
    std::fs::write(scene.path("other/text"), "another text").unwrap();
    for finished in [false, true] {
        let before = images(&scene);
        for (input, output, texts) in [
            ("other", "output", ["source lines read ", "/input up to checkpoint "]),
            ("input", "elsewhere", ["sink counts wrote to ", "/output up to checkpoint "]),
        ] {
            let ended = life(&mut scene, input, output);
            assert_eq!(ended.status.code(), Some(INCOMPATIBLE), "{}", ended.errors);
            let given = scene.path(if input == "other" { "other" } else { "elsewhere" });
            let given = given.canonicalize().unwrap_or(given).display().to_string();
            let advice = if finished { "has finished" } else { "--allow-moved " };
            for text in texts.into_iter().chain([&*given, advice, "another checkpoint directory"]) {
                assert!(ended.errors.contains(text), "{text:?} is missing in: {}", ended.errors);
            }
            assert_eq!(ended.errors.lines().count(), 1, "{}", ended.errors);
            assert!(before == images(&scene), "something has changed");
            assert!(!scene.path("elsewhere").exists());
        }
        if !finished {
            scene.finish(2);
        }
    }
    let again = life(&mut scene, "input", "output");
    assert!(again.status.success() && again.output.starts_with("nothing to do: job word-count finished at "));
    // What a start compares is shown.
    let shown =
        Command::new(super::tidegate()).arg("inspect").arg(scene.path("checkpoints")).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let place = scene.path("input").canonicalize().unwrap();
    let row = |line: &str| line.starts_with("lines ") && line.ends_with(&*place.display().to_string());
    assert!(shown.lines().any(row), "{shown}");
}
