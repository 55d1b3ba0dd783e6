//! Output that would be read as input, output among the checkpoints, output that is no directory, and output that is
//! gone before it was committed: told in one line, with what to do.

use std::path::Path;

use env::{Env, FaultPoint};
use types::ErrorKind;

use crate::moved::{assert_says, die_at, image, job, run, simulate};

#[test]
fn a_place_that_is_read_or_written_otherwise_is_refused() {
    simulate(async |sim, env| {
        env.files().create_new(Path::new("/a-file")).unwrap();
        let pattern = "/in/*.txt";
        for (input, output, checkpoints, texts) in [
            (
                "/in",
                "/checkpoints",
                "/checkpoints",
                &["sink copies writes to /checkpoints, where", "--checkpoints"][..],
            ),
            ("/in", "/checkpoints/out", "/checkpoints", &["sink copies writes to /checkpoints/out, where"]),
            (
                "/in",
                "/in",
                "/checkpoints",
                &["sink copies writes to /in, and source lines reads all that is in /in"],
            ),
            ("/in", "in/sub/out", "/checkpoints", &["sink copies writes to /in/sub/out", "outside of it"]),
            ("/in", "/out", "/in/checkpoints", &["checkpoints go to /in/checkpoints", "outside of it"]),
            ("/in", "/a-file", "/checkpoints", &["the output /a-file is no directory"]),
        ] {
            let error = run(sim, job(input, output, &[("checkpoints.url", checkpoints)])).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidJob, "{error}");
            assert_says(&error, texts);
        }
        // Nothing of these is read; what the first leaves, the others would read if it were.
        for (input, output, checkpoints) in [
            ("/in", "/in/_out", "/in/.own"),
            (pattern, "/in/out", "/one"),
            ("/in/a.txt", "/in/two", "/in/two/three"),
        ] {
            run(sim, job(input, output, &[("checkpoints.url", checkpoints)])).await.unwrap();
        }
    });
}

/// Everything that waits to be published.
fn lose_pending(env: &Env) -> usize {
    let names: Vec<_> = image(env, "/out/.pending").into_keys().collect();
    for name in &names {
        env.files().remove_file(&Path::new("/out/.pending").join(name)).unwrap();
    }
    names.len()
}

#[test]
fn what_is_lost_before_it_was_committed_is_given_up_with_the_flags_that_the_error_names() {
    simulate(async |sim, env| {
        die_at(sim, job("/in", "/out", &[]), FaultPoint::CompletedRecordAfter, 3).await;
        assert!(lose_pending(&env) > 0);
        let error = run(sim, job("/in", "/out", &[])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
        let flags = "--from /checkpoints@3 --abandon-pending --accept-foreign-output";
        let texts = ["put it back where it was; if that cannot be, give up what is pending with ", flags];
        assert_says(&error, &texts);
        let settings =
            [("from", "/checkpoints@3"), ("abandon-pending", "true"), ("accept-foreign-output", "true")];
        assert_eq!(run(sim, job("/in", "/out", &settings)).await.unwrap(), "finished");
    });
}
