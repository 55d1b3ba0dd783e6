//! `watch_parts DIR UNTIL`: reads the output of a word count again and again while it is written, until the file UNTIL
//! exists, and fails as soon as a committed number is missing, doubled or gone. The demo's witness.

// A witness stands outside of the job: it waits in real time and prints.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)]

use std::{path::PathBuf, process::ExitCode, thread, time::Duration};

use tidegate_chaos_tests::Watch;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(until), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!("usage: watch_parts DIR UNTIL");
        return ExitCode::from(2);
    };
    let mut watch = Watch::over(&folder);
    let mut looks = 1_u64;
    let result = loop {
        let last = until.exists();
        match watch.look() {
            Ok(()) if last => break watch.look_again(),
            Ok(()) => {}
            Err(broken) => break Err(broken),
        }
        looks += 1;
        thread::sleep(PAUSE);
    };
    match result {
        Ok(()) => {
            println!(
                "watched {looks} times: {} files, {} lines; for each word the numbers were always exactly 1..m, \
                 no m ever fell, no published file ever changed",
                watch.files(),
                watch.lines()
            );
            ExitCode::SUCCESS
        }
        Err(broken) => {
            eprintln!("the watcher saw a broken promise: {broken}");
            ExitCode::FAILURE
        }
    }
}
