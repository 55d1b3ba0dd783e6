//! The example `socket_alerts` as a real process: this test is the peer that sends the readings, and reads what the
//! process prints.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::Duration,
};

/// Many times what a step takes; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that dies with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only where the process has ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What comes of `items`, made in a thread of its own, so that none is awaited for ever.
fn apart<T: Send + 'static>(items: impl Iterator<Item = T> + Send + 'static) -> Receiver<T> {
    let (to, from) = sync_channel(16);
    thread::spawn(move || items.into_iter().try_for_each(|item| to.send(item)));
    from
}

/// The process, the connection that it has made, and the lines that it prints.
fn started() -> (Program, TcpStream, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_socket_alerts"));
    command.args(["--rest", "off"]).env("SENSORS", listener.local_addr().unwrap().to_string());
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut program = Program(child);
    let printed = BufReader::new(program.0.stdout.take().unwrap());
    let lines = apart(printed.lines().map_while(Result::ok));
    let accepted = apart(std::iter::once_with(move || listener.accept()));
    let (stream, _) = accepted.recv_timeout(PATIENCE).expect("the process connects").unwrap();
    (program, stream, lines)
}

#[test]
fn a_sensor_that_stays_too_hot_is_told_and_a_late_reading_stands_apart() {
    let (program, mut stream, lines) = started();
    let next = || lines.recv_timeout(PATIENCE).expect("the process prints a line");

    // The oven cools down in time, the boiler does not; the clock lets event time pass.
    stream.write_all(b"boiler 0 95.5\noven 0 90\noven 9999 80\nboiler 1 warm\n").unwrap();
    assert_eq!(next(), r#"late or unreadable: ("boiler 1 warm", Timestamp(-9223372036854775808), 0.0)"#);
    stream.write_all(b"clock 11001 0\n").unwrap();
    assert_eq!(next(), "boiler has been too hot for ten seconds at 10000ms");

    // The watermark stands at 10000: what comes up to there is late and changes nothing.
    stream.write_all(b"boiler 10000 99\nboiler 10001 99\nclock 21001 0\n").unwrap();
    assert_eq!(next(), r#"late or unreadable: ("boiler", Timestamp(10000), 99.0)"#);
    // Its ten seconds end 1 ms above the watermark.
    stream.write_all(b"clock 21002 0\n").unwrap();
    assert_eq!(next(), "boiler has been too hot for ten seconds at 20001ms");

    drop(program);
    assert_eq!(lines.into_iter().collect::<Vec<_>>(), [""; 0], "nothing else was printed");
}

#[test]
fn the_example_is_short() {
    let lines = include_str!("../../../examples/socket_alerts.rs").lines().count();
    assert!(lines < 60, "{lines} lines");
}
