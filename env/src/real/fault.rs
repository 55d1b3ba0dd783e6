//! Fault points of a real process: with the feature `fault-injection` a test can make the process kill itself at one.
//!
//! `TIDEGATE_FAULT=NAME` or `NAME#N`: SIGKILL at the first or N-th hit. `NAME%N`: each N-th hit is an error after which
//! a task is restarted. `TIDEGATE_FAULT_LOG=FILE`: one line for each hit, written before the process dies. Without the
//! feature a point is an empty function.

#[cfg(feature = "fault-injection")]
pub(super) use self::armed::hit;

#[cfg(not(feature = "fault-injection"))]
#[inline]
pub(super) fn hit(_point: crate::FaultPoint) -> types::Result<()> {
    Ok(())
}

#[cfg(feature = "fault-injection")]
mod armed {
    use std::{
        fs::{File, OpenOptions},
        io::Write,
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    use rustix::process::{Signal, getpid, kill_process};
    use types::{Error, ErrorKind, Result};

    use crate::FaultPoint;

    struct Armed {
        fault: Option<Fault>,
        hits: AtomicU64,
        log: Option<File>,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Fault {
        at: FaultPoint,
        what: What,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum What {
        /// The process dies at this hit.
        KillAt(u64),
        /// Each hit fails whose number is a multiple of this.
        FailEvery(u64),
    }

    static ARMED: LazyLock<Result<Armed, String>> = LazyLock::new(|| {
        let fault = std::env::var("TIDEGATE_FAULT").ok().map(|text| parse(&text)).transpose()?;
        let log = std::env::var_os("TIDEGATE_FAULT_LOG")
            .map(|path| OpenOptions::new().append(true).create(true).open(path))
            .transpose()
            .map_err(|error| format!("TIDEGATE_FAULT_LOG cannot be opened: {error}"))?;
        Ok(Armed { fault, hits: AtomicU64::new(0), log })
    });

    /// Reads `NAME`, `NAME#N` or `NAME%N`.
    fn parse(text: &str) -> Result<Fault, String> {
        let (name, what, number): (_, fn(u64) -> What, _) = match (text.split_once('#'), text.split_once('%'))
        {
            (Some((name, number)), _) => (name, What::KillAt, number),
            (None, Some((name, number))) => (name, What::FailEvery, number),
            (None, None) => (text, What::KillAt, "1"),
        };
        let point = FaultPoint::ALL.iter().find(|point| point.name() == name);
        match (point, number.parse()) {
            (Some(&at), Ok(number @ 1..)) => Ok(Fault { at, what: what(number) }),
            _ => Err(format!("TIDEGATE_FAULT={text} is not NAME, NAME#N or NAME%N of a fault point")),
        }
    }

    pub(in crate::real) fn hit(point: FaultPoint) -> Result<()> {
        let armed = ARMED.as_ref().map_err(Error::invalid_job)?;
        if let Some(mut log) = armed.log.as_ref() {
            // One write of a whole line to a file opened for appending: lines of several processes do not mix.
            let line = format!("{}\n", point.name());
            log.write_all(line.as_bytes()).map_err(|error| Error::io("the fault log", error))?;
        }
        let Some(fault) = armed.fault.filter(|fault| fault.at == point) else { return Ok(()) };
        let hit = armed.hits.fetch_add(1, Ordering::SeqCst) + 1;
        match fault.what {
            What::KillAt(number) if hit == number => {
                kill_process(getpid(), Signal::KILL).map_err(|error| Error::io("kill", error.into()))?;
                loop {
                    std::thread::park();
                }
            }
            What::FailEvery(number) if hit.is_multiple_of(number) => {
                let text = format!("the fault point {} fails at hit {hit}", point.name());
                Err(Error::new(ErrorKind::Retryable, text))
            }
            What::KillAt(_) | What::FailEvery(_) => Ok(()),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn specifications() {
            let at = FaultPoint::PublishBefore;
            assert_eq!(parse("publish.before"), Ok(Fault { at, what: What::KillAt(1) }));
            assert_eq!(parse("publish.before#3"), Ok(Fault { at, what: What::KillAt(3) }));
            assert_eq!(parse("publish.before%3"), Ok(Fault { at, what: What::FailEvery(3) }));
            for bad in
                ["", "nothing", "publish.before#", "publish.before#0", "publish.before#x", "publish.before%0"]
            {
                assert!(parse(bad).is_err(), "{bad}");
            }
        }
    }
}
