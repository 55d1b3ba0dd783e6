//! Fault points of a real process: with the feature `fault-injection` a test can make the process kill itself at one.
//!
//! `TIDEGATE_FAULT=NAME` or `NAME#N`: SIGKILL at the first or N-th hit. `TIDEGATE_FAULT_LOG=FILE`: one line for each
//! hit, written before the process dies. Without the feature a point is an empty function.

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
    use types::{Error, Result};

    use crate::FaultPoint;

    struct Armed {
        /// The point and the hit at which the process dies.
        kill: Option<(FaultPoint, u64)>,
        hits: AtomicU64,
        log: Option<File>,
    }

    static ARMED: LazyLock<Result<Armed, String>> = LazyLock::new(|| {
        let kill = std::env::var("TIDEGATE_FAULT").ok().map(|text| parse(&text)).transpose()?;
        let log = std::env::var_os("TIDEGATE_FAULT_LOG")
            .map(|path| OpenOptions::new().append(true).create(true).open(path))
            .transpose()
            .map_err(|error| format!("TIDEGATE_FAULT_LOG cannot be opened: {error}"))?;
        Ok(Armed { kill, hits: AtomicU64::new(0), log })
    });

    /// Reads `NAME` or `NAME#N`.
    fn parse(text: &str) -> Result<(FaultPoint, u64), String> {
        let (name, number) = text.split_once('#').unwrap_or((text, "1"));
        let point = FaultPoint::ALL.iter().find(|point| point.name() == name);
        match (point, number.parse()) {
            (Some(&point), Ok(number @ 1..)) => Ok((point, number)),
            _ => Err(format!("TIDEGATE_FAULT={text} is not NAME or NAME#N of a fault point")),
        }
    }

    pub(in crate::real) fn hit(point: FaultPoint) -> Result<()> {
        let armed = ARMED.as_ref().map_err(Error::invalid_job)?;
        if let Some(mut log) = armed.log.as_ref() {
            // One write of a whole line to a file opened for appending: lines of several processes do not mix.
            let line = format!("{}\n", point.name());
            log.write_all(line.as_bytes()).map_err(|error| Error::io("the fault log", error))?;
        }
        if let Some((at, number)) = armed.kill
            && at == point
            && armed.hits.fetch_add(1, Ordering::SeqCst) + 1 == number
        {
            kill_process(getpid(), Signal::KILL).map_err(|error| Error::io("kill", error.into()))?;
            loop {
                std::thread::park();
            }
        }
        Ok(())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn specifications() {
            assert_eq!(parse("publish.before"), Ok((FaultPoint::PublishBefore, 1)));
            assert_eq!(parse("publish.before#3"), Ok((FaultPoint::PublishBefore, 3)));
            for bad in ["", "nothing", "publish.before#", "publish.before#0", "publish.before#x"] {
                assert!(parse(bad).is_err(), "{bad}");
            }
        }
    }
}
