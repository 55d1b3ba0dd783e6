//! The file source: the conformance kit over many shapes of files, and every kind of bad input.

use std::path::Path;

use engine::{
    api::source::{ReadStatus, Source, SourceOutput, SplitReader},
    record::BatchBuilder,
};
use env::{Env, sim::Simulation};
use proptest::prelude::*;
use tidegate_connectors::{
    FileSource,
    conformance::source::{context, contract},
    file_source::{FileSplit, LineOutput},
};
use types::{ErrorKind, Result};

/// Makes a file on the simulated disk, with the directories above it.
fn write(env: &Env, path: &str, bytes: &[u8]) {
    let (files, path) = (env.files(), Path::new(path));
    files.create_dir_all(path.parent().unwrap()).unwrap();
    files.create_new(path).unwrap().write_all(bytes).unwrap();
}

async fn read_rest<S: Source>(reader: &mut S::Reader) -> Result<Vec<S::Out>> {
    let mut records = Vec::new();
    loop {
        let mut batch = BatchBuilder::default();
        let status = reader.read(&mut SourceOutput::new(&mut batch, 100, usize::MAX)).await?;
        let mut batch = batch.take();
        while let Some(record) = batch.next() {
            records.push(record.value);
        }
        if status == ReadStatus::End {
            return Ok(records);
        }
    }
}

/// Everything that the source reads, split by split.
async fn read_all<S: Source>(env: &Env, source: &S) -> Result<Vec<S::Out>> {
    source.validate()?;
    let context = context(env);
    let mut records = Vec::new();
    for split in source.discover(&context).await? {
        let mut reader = source.open(split, &context).await?;
        records.extend(read_rest::<S>(&mut reader).await?);
    }
    Ok(records)
}

fn words(line: &str, out: &mut LineOutput<'_, '_, String>) -> Result<()> {
    for word in line.split(' ').filter(|word| !word.is_empty()) {
        out.emit(word.to_owned());
    }
    Ok(())
}

#[test]
fn reads_every_line_once_however_it_is_split() {
    let texts: [&[u8]; 9] = [
        b"",
        b"\n",
        b"a",
        b"a\n",
        b"a\nb",
        b"\n\n\na\n\n",
        b"one\r\ntwo\r\n\r\nthree\r",
        b"a long line that spans several splits of a few bytes\nx\n",
        "grüße\näöü\n€\n".as_bytes(),
    ];
    for (number, text) in texts.into_iter().enumerate() {
        Simulation::new(number as u64).run(async |env| {
            write(&env, "/in/file", text);
            let lines: Vec<String> = str::from_utf8(text).unwrap().lines().map(str::to_owned).collect();
            for split_bytes in [1, 2, 3, 7, 1000] {
                let source = FileSource::lines("/in/file").split_bytes(split_bytes);
                assert_eq!(read_all(&env, &source).await.unwrap(), lines, "{text:?} by {split_bytes}");
                contract(&env, &source, usize::MAX).await;
            }
        });
    }
}

#[test]
fn goes_on_in_the_middle_of_a_line_with_many_records() {
    Simulation::new(1).run(async |env| {
        write(&env, "/in/file", b"a b c d e f g h i j k l m n o p q r s t u v w x y z\n\n1 2 3\n4");
        for split_bytes in [10, 1000] {
            contract(&env, &FileSource::lines_with("/in/file", words).split_bytes(split_bytes), usize::MAX)
                .await;
        }
    });
}

#[test]
fn reads_files_of_many_chunks() {
    Simulation::new(2).run(async |env| {
        // Chunks end in the middle of lines, of characters, and between `\r` and `\n`.
        let lines: Vec<String> = (0..40_000).map(|n| format!("{n}{}", "ü".repeat(n % 61))).collect();
        write(&env, "/in/file", lines.join("\r\n").as_bytes());
        for split_bytes in [300_000, u64::MAX] {
            let source = FileSource::lines("/in/file").split_bytes(split_bytes);
            assert!(read_all(&env, &source).await.unwrap() == lines, "split by {split_bytes}");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_reads_as_its_lines(text in "[a\r\n ü]{0,40}", split_bytes in 1_u64..12, seed: u64) {
        Simulation::new(seed).run(async |env| {
            write(&env, "/in/file", text.as_bytes());
            let source = FileSource::lines("/in/file").split_bytes(split_bytes);
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            assert_eq!(read_all(&env, &source).await.unwrap(), lines);
            contract(&env, &source, usize::MAX).await;
        });
    }
}

#[test]
fn finds_files_directories_and_patterns() {
    Simulation::new(3).run(async |env| {
        for path in [
            "in/a.txt",
            "in/b.log",
            "in/sub/c.txt",
            "in/sub/deep/d.txt",
            "in/.hidden",
            "in/_temporary/x",
            "top.txt",
        ] {
            write(&env, &format!("/{path}"), format!("{path}\n").as_bytes());
        }
        write(&env, "/in/empty", b"");
        write(&env, "/in/odd[1].txt", b"odd\n");
        let cases: [(&str, &[&str]); 12] = [
            ("/top.txt", &["top.txt"]),
            ("/in", &["in/a.txt", "in/b.log", "odd", "in/sub/c.txt", "in/sub/deep/d.txt"]),
            ("/in/", &["in/a.txt", "in/b.log", "odd", "in/sub/c.txt", "in/sub/deep/d.txt"]),
            ("/in/.hidden", &["in/.hidden"]),
            ("/in/odd[1].txt", &["odd"]),
            ("/in/*.txt", &["in/a.txt", "odd"]),
            ("/in/[ab].*", &["in/a.txt", "in/b.log"]),
            ("/in/s?b/*.txt", &["in/sub/c.txt"]),
            ("/in/s*", &["in/sub/c.txt", "in/sub/deep/d.txt"]),
            ("/in/**/*.txt", &["in/a.txt", "odd", "in/sub/c.txt", "in/sub/deep/d.txt"]),
            ("/*.txt", &["top.txt"]),
            ("/*/*/deep", &["in/sub/deep/d.txt"]),
        ];
        for (path, expected) in cases {
            assert_eq!(read_all(&env, &FileSource::lines(path)).await.unwrap(), expected, "{path}");
        }
        assert_eq!(read_all(&env, &FileSource::lines("in/*.log")).await.unwrap(), ["in/b.log"], "relative");
    });
}

async fn refused(env: &Env, source: &FileSource<String>, kind: ErrorKind, parts: &[&str]) {
    let error = read_all(env, source).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "no {part:?} in {error}");
    }
}

#[test]
fn bad_input_gets_one_clear_line() {
    use ErrorKind::{BadInput, InvalidJob};
    Simulation::new(4).run(async |env| {
        let lines = |path: &str| FileSource::lines(path);
        refused(&env, &lines("/none"), BadInput, &["/none", "does not exist"]).await;
        refused(&env, &lines("/none/*.txt"), BadInput, &["/none/*.txt", "matches no file"]).await;
        refused(&env, &lines(""), InvalidJob, &["empty name"]).await;
        refused(&env, &lines("/in/[a"), InvalidJob, &["/in/[a"]).await;
        refused(&env, &lines("/x").split_bytes(0), InvalidJob, &["split_bytes"]).await;
        refused(&env, &lines("/x").max_line_bytes(0), InvalidJob, &["max_line_bytes"]).await;
        env.files().create_dir_all(Path::new("/empty/sub")).unwrap();
        refused(&env, &lines("/empty"), BadInput, &["/empty", "no file"]).await;

        write(&env, "/latin", b"caf\xe9 au lait\n");
        refused(&env, &lines("/latin"), BadInput, &["/latin", "0xe9", "offset 3", "lossy"]).await;
        write(&env, "/cut", "first\nsecond \u{20ac}".as_bytes().strip_suffix(b"\xac").unwrap());
        refused(&env, &lines("/cut"), BadInput, &["/cut", "0xe2", "offset 13"]).await;
        assert_eq!(read_all(&env, &lines("/latin").lossy()).await.unwrap(), ["caf\u{fffd} au lait"]);

        write(&env, "/long", b"short\n123456\n12345\r\n12345");
        refused(
            &env,
            &lines("/long").max_line_bytes(5),
            BadInput,
            &["/long", "offset 6", "longer than 5 bytes"],
        )
        .await;
        assert_eq!(read_all(&env, &lines("/long").max_line_bytes(6)).await.unwrap().len(), 4);
    });
}

#[test]
fn an_endless_line_is_refused_before_it_fills_memory() {
    Simulation::new(5).run(async |env| {
        write(&env, "/long", &vec![b'x'; 8 << 20]);
        let source = FileSource::lines("/long").split_bytes(u64::MAX);
        let context = context(&env);
        let split = source.discover(&context).await.unwrap().remove(0);
        let mut reader = source.open(split, &context).await.unwrap();
        let mut batch = BatchBuilder::default();
        let mut out = SourceOutput::new(&mut batch, 10, usize::MAX);
        let error = reader.read(&mut out).await.unwrap_err();
        assert!(error.to_string().contains("longer than 1048576 bytes"), "{error}");
        assert!(reader.buffered_bytes() < 3 << 20, "{} bytes were kept", reader.buffered_bytes());
    });
}

#[test]
fn a_line_of_another_split_may_be_of_any_length() {
    Simulation::new(6).run(async |env| {
        let text = format!("{}\nrest\n", "x".repeat(5000));
        write(&env, "/long", text.as_bytes());
        let source = FileSource::lines("/long").split_bytes(1000).max_line_bytes(4999);
        let context = context(&env);
        let splits = source.discover(&context).await.unwrap();
        let mut readers = Vec::new();
        for split in splits {
            readers.push(source.open(split, &context).await.unwrap());
        }
        // Only the split in which it begins complains.
        assert!(read_rest::<FileSource<String>>(&mut readers[0]).await.is_err());
        let mut others = Vec::new();
        for reader in &mut readers[1..] {
            others.extend(read_rest::<FileSource<String>>(reader).await.unwrap());
        }
        assert_eq!(others, ["rest"]);
    });
}

/// Reads `records` of a file, then changes it, then goes on; returns the error.
async fn reopened(
    env: &Env,
    sim: &Simulation,
    records: usize,
    change: impl FnOnce(&mut Vec<u8>),
) -> Result<usize> {
    let source = FileSource::lines("/in/file").split_bytes(u64::MAX);
    let context = context(env);
    let split = source.discover(&context).await?.remove(0);
    let mut reader = source.open(split, &context).await?;
    if records > 0 {
        let mut batch = BatchBuilder::default();
        reader.read(&mut SourceOutput::new(&mut batch, records, usize::MAX)).await?;
        assert_eq!(batch.len(), records);
    }
    let position: FileSplit = reader.position();
    drop(reader);
    sim.disk().damage(Path::new("/in/file"), change).unwrap();
    let mut reader = source.open(position, &context).await?;
    read_rest::<FileSource<String>>(&mut reader).await.map(|rest| rest.len())
}

#[test]
fn a_file_that_changed_below_the_position_is_refused() {
    const LINES: usize = 20_000;
    let text: String = (0..LINES).map(|n| format!("line {n:06}\n")).collect();
    let run = |records: usize, change: fn(&mut Vec<u8>)| {
        let sim = Simulation::new(7);
        sim.run(async |env| {
            write(&env, "/in/file", text.as_bytes());
            reopened(&env, &sim, records, change).await
        })
    };
    let refused = |records: usize, change: fn(&mut Vec<u8>), part: &str| {
        let error = run(records, change).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
        assert!(error.to_string().contains(part) && error.to_string().contains("/in/file"), "{error}");
    };
    // Line 15000 begins at byte 180000.
    refused(15_000, |text| text.truncate(100_000), "has 100000 bytes, but had 240000");
    refused(15_000, |text| text.truncate(239_999), "has 239999 bytes");
    refused(15_000, |text| text[179_999] = b' ', "changed between bytes 114464 and 180000");
    refused(15_000, |text| text[114_464] ^= 1, "changed between");
    refused(1, |text| text[0] = b'L', "changed between bytes 0 and 12");
    refused(0, |text| text.clear(), "has 0 bytes");
    // What is appended is not read; what is not yet read may still change.
    assert_eq!(run(15_000, |text| text.extend_from_slice(b"more\n")).unwrap(), 5_000);
    assert_eq!(run(15_000, |text| text[180_000] = b'L').unwrap(), 5_000);
    assert_eq!(run(0, |text| text.extend_from_slice(b"more\n")).unwrap(), LINES);
}

#[test]
fn a_file_that_is_gone_is_refused() {
    Simulation::new(8).run(async |env| {
        write(&env, "/in/file", b"a\nb\n");
        let source = FileSource::lines("/in/file");
        let context = context(&env);
        let split = source.discover(&context).await.unwrap().remove(0);
        env.files().remove_file(Path::new("/in/file")).unwrap();
        let error = source.open(split, &context).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::BadInput);
        assert!(error.to_string().contains("/in/file"), "{error}");
    });
}

#[test]
fn a_function_that_fails_names_the_line() {
    Simulation::new(9).run(async |env| {
        write(&env, "/in/file", b"1\n2\nthree\n");
        let parse = |line: &str, out: &mut LineOutput<'_, '_, u64>| {
            let number =
                line.parse().map_err(|_| types::Error::bad_input(format!("{line:?} is no number")))?;
            out.emit(number);
            Ok(())
        };
        let error = read_all(&env, &FileSource::lines_with("/in/file", parse)).await.unwrap_err();
        assert_eq!(error.to_string(), "input file /in/file, line at offset 4: \"three\" is no number");
    });
}

#[test]
fn little_input_keeps_all_subtasks_busy() {
    Simulation::new(10).run(async |env| {
        write(&env, "/in/file", &b"0123456789\n".repeat(1 << 20));
        let splits = async |parallelism| {
            let context = engine::api::source::SourceContext { parallelism, ..context(&env) };
            FileSource::lines("/in/file").discover(&context).await.unwrap().len()
        };
        assert_eq!(splits(1).await, 4);
        assert_eq!(splits(2).await, 8);
        assert_eq!(splits(100).await, 11, "no shorter than 1 MiB");
    });
}
