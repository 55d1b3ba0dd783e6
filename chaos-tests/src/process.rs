//! One life of a job: a real process of an example, started, watched from outside, killed with SIGKILL.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Between two looks at a process or a file that something is awaited of.
const POLL: Duration = Duration::from_millis(2);

/// A running process whose output goes to files. Dropping it kills it.
pub struct Life {
    child: Child,
    log: PathBuf,
}

/// How a life ended.
#[derive(Debug)]
pub struct Ended {
    /// The process's exit status.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub output: String,
    /// What it wrote to standard error.
    pub errors: String,
}

impl Life {
    /// Starts `command`; what it writes goes to `log` with `.out` and `.err` behind it.
    ///
    /// # Errors
    /// If the program is not there, or a file cannot be made.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(log.with_extension("out"))?)
            .stderr(File::create(log.with_extension("err"))?)
            .spawn()?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// The number of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process is still alive.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// How many bytes the process has read and written so far, whatever from and to; 0 once it is dead.
    #[must_use]
    pub fn bytes_moved(&self) -> u64 {
        let counters = fs::read_to_string(format!("/proc/{}/io", self.child.id())).unwrap_or_default();
        let moved = counters.lines().filter(|line| line.starts_with("rchar:") || line.starts_with("wchar:"));
        moved.filter_map(|line| line.split_once(": ")?.1.parse::<u64>().ok()).sum()
    }

    /// The memory that the process holds, in KiB; 0 once it is dead.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = resident.and_then(|text| text.trim().strip_suffix(" kB"));
        number.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    }

    /// SIGKILL. `false` if the process had ended before.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn kill(mut self) -> io::Result<bool> {
        self.child.kill()?;
        Ok(died_of_sigkill(self.child.wait()?))
    }

    /// Waits until the process has ended; `None` if it has not after `limit`, and then it is killed.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn wait(mut self, limit: Duration) -> io::Result<Option<Ended>> {
        let deadline = Instant::now() + limit;
        // Whoever has no time left is told all the same if it has ended.
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(Ended { status, output: self.text("out")?, errors: self.text("err")? }));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(POLL);
        }
    }

    /// What the process has written to standard output so far.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn output(&self) -> io::Result<String> {
        self.text("out")
    }

    /// What the process has written to standard error so far.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn errors(&self) -> io::Result<String> {
        self.text("err")
    }

    fn text(&self, ending: impl AsRef<OsStr>) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.log.with_extension(ending))?).into_owned())
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Both fail only where the process has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether SIGKILL ended the process.
#[must_use]
pub fn died_of_sigkill(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    const SIGKILL: i32 = 9;
    status.signal() == Some(SIGKILL)
}

/// Asks `question` again and again until it answers or `limit` has passed.
///
/// # Errors
/// Those of the question.
pub fn await_answer<T, E>(
    limit: Duration,
    mut question: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let deadline = Instant::now() + limit;
    loop {
        match question()? {
            Some(answer) => return Ok(Some(answer)),
            None if Instant::now() >= deadline => return Ok(None),
            None => thread::sleep(POLL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_watched_and_ended() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("life");
        let ended = Life::start(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), &log)?;
        let ended = ended.wait(Duration::from_secs(10))?.expect("it ends by itself");
        assert_eq!((ended.status.code(), &*ended.output, &*ended.errors), (Some(3), "out\n", "err\n"));

        let mut sleeper = Life::start(Command::new("sleep").arg("100"), &log)?;
        assert!(sleeper.is_running()?);
        assert!(sleeper.bytes_moved() > 0, "a process reads at least itself");
        assert!(sleeper.resident_kib() > 0, "a process holds at least itself");
        assert!(sleeper.kill()?);
        assert!(Life::start(Command::new("sleep").arg("100"), &log)?.wait(Duration::ZERO)?.is_none());

        let shot = Life::start(Command::new("sh").args(["-c", "kill -9 $$"]), &log)?;
        let shot = shot.wait(Duration::from_secs(10))?.expect("it shoots itself");
        assert!(died_of_sigkill(shot.status));
        Ok(())
    }
}
