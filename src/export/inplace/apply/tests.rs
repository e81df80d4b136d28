//! A restore on a file system that cannot exchange: two steps in place of one, and what happens between them.
//! The steps are called one by one, as a process that is killed leaves them.

use super::super::called::FOLDER;
use super::super::intent::Name;
use super::*;
use crate::snapshot::progress::Silent;

/// A restore of `a` over another `a`, as far as the journal.
fn begun(data: &Path) -> (Root, Intent) {
    std::fs::create_dir_all(data.join(NEW)).expect("made");
    std::fs::write(data.join("a"), "old").expect("written");
    std::fs::write(data.join(NEW).join("a"), "new").expect("written");
    let root = Root::open(data).expect("opened");
    let stamp = |path: &str| root.seen(Path::new(path)).expect("seen").expect("there").stamp;
    let mut intent = Intent::new(".nbak-kept-test".to_owned());
    intent.moves.push(Move {
        path: Name("a".into()),
        way: Way::File,
        staged: stamp(".nbak-restore/new/a"),
        hash: blake3::hash(b"new").to_hex().to_string(),
        live: Some(stamp("a")),
        mode: None,
        owner: None,
    });
    (root, intent)
}

#[test]
fn without_an_exchange_it_takes_two_steps_and_goes_on_between_them() {
    for steps in 0..=2 {
        let folder = tempfile::TempDir::new().expect("a folder");
        let (root, intent) = begun(folder.path());
        let run = Run::new(&root, &intent, &Silent);
        match steps {
            1 => run.set_aside(Path::new("a")).expect("the first step"),
            2 => run.swap_in_two(&Path::new(NEW).join("a"), Path::new("a")).expect("both"),
            _ => {}
        }
        let old = std::fs::read(folder.path().join(OLD).join("a"));
        assert_eq!(old.is_ok(), steps > 0, "nothing is gone");
        let done = run.finish().expect("finished");
        assert_eq!(std::fs::read(folder.path().join("a")).expect("there"), b"new");
        assert!(done.remarks.is_empty() && !folder.path().join(FOLDER).exists(), "{steps}: {done:?}");
    }
}

#[test]
fn what_was_made_between_two_steps_is_kept() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let (root, intent) = begun(folder.path());
    let run = Run::new(&root, &intent, &Silent);
    run.set_aside(Path::new("a")).expect("the first step");
    std::fs::write(folder.path().join("a"), "meanwhile").expect("written");
    run.swap_in_two(&Path::new(NEW).join("a"), Path::new("a")).expect("again");
    assert_eq!(std::fs::read(folder.path().join("a")).expect("there"), b"new");
    assert_eq!(std::fs::read(folder.path().join(".nbak-kept-test/a")).expect("kept"), b"meanwhile");
    assert_eq!(std::fs::read(folder.path().join(OLD).join("a")).expect("there"), b"old");
}
