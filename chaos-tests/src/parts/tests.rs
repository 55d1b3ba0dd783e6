//! The watcher sees every broken promise.

use super::*;

struct Output {
    folder: tempfile::TempDir,
    watch: Watch,
}

fn output() -> Output {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let watch = Watch::over(folder.path());
    Output { folder, watch }
}

impl Output {
    fn write(&mut self, name: &str, text: &str) -> Result<(), String> {
        fs::write(self.folder.path().join(name), text).expect("written");
        self.watch.look()
    }
}

#[test]
fn whole_prefixes_are_accepted_in_any_order_of_files() {
    let mut output = output();
    assert_eq!(output.write("part-b", "a\t1\na\t2\nb\t1\n"), Ok(()));
    fs::write(output.folder.path().join("part-d"), "a\t3\nb\t4\nb\t6\n").expect("written");
    assert_eq!(output.write("part-e", "b\t2\nb\t5\nb\t3\n"), Ok(()));
    assert_eq!(output.write(".pending", "a\t9\n"), Ok(()));
    assert_eq!(output.watch.look_again(), Ok(()));
    assert_eq!((output.watch.files(), output.watch.lines()), (3, 9));
    assert_eq!(output.watch.matches(&[("a".to_owned(), 3), ("b".to_owned(), 6)].into()), Ok(()));
    let wrong = output.watch.matches(&[("a".to_owned(), 4), ("c".to_owned(), 1)].into());
    assert_eq!(
        wrong,
        Err("3 words are wrong; \"a\": 3 committed, 4 in the input; \"b\": 6 committed, 0 in the input; \
             \"c\": 0 committed, 1 in the input"
            .to_owned())
    );
}

#[test]
fn broken_promises_are_seen() {
    let check = |text: &str, expected: &str| {
        let mut output = output();
        output.write("part-1", "a\t1\na\t2\n").expect("a good start");
        assert_eq!(output.write("part-2", text), Err(expected.to_owned()));
    };
    check("a\t4\n", "\"a\" has the number 4 but not 3");
    check("a\t2\n", "\"a\" has the number 2 twice, the second time on line 1 of part-2");
    check("a\t4\na\t4\n", "\"a\" has the number 4 twice, the second time on line 2 of part-2");
    check("a\t4\na\t5\na\t3\na\t4\n", "\"a\" has the number 4 twice, the second time on line 4 of part-2");
    for damaged in ["a\t3", "a\t0\n", "a 3\n", "A\t3\n", "a\tx\n", "\t3\n"] {
        check(damaged, "line 1 of part-2 is not word<TAB>number");
    }
}

#[test]
fn files_that_change_or_go_are_seen() {
    let mut output = output();
    output.write("part-1", "a\t1\n").expect("a good start");
    assert_eq!(
        output.write("part-1", "a\t1\na\t2\n"),
        Err("the published file part-1 changed from 4 to 8 bytes".to_owned())
    );
    fs::write(output.folder.path().join("part-1"), "b\t1\n").expect("written");
    assert_eq!(output.watch.look(), Ok(()));
    assert_eq!(output.watch.look_again(), Err("the published file part-1 is not what it was".to_owned()));
    fs::remove_file(output.folder.path().join("part-1")).expect("removed");
    assert_eq!(output.watch.look(), Err("the published file part-1 is gone".to_owned()));
}

#[test]
fn numbers_in_any_order_meet() {
    let mut seeded = crate::Seeded::new(3);
    for _ in 0..200 {
        let mut order: Vec<u64> = (1..=12).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, seeded.within(0..at as u64 + 1) as usize);
        }
        let mut numbers = Numbers::default();
        for (taken, number) in order.iter().enumerate() {
            assert!(numbers.add(*number), "{order:?}");
            assert!(order[..=taken].iter().all(|seen| !numbers.clone().add(*seen)), "{order:?}");
        }
        assert_eq!(numbers, Numbers { whole: 12, beyond: BTreeMap::new() }, "{order:?}");
    }
}
