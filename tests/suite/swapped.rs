//! Folders that change places while a snapshot is taken, with all that is below them: what was in the one or in the
//! other all the while is in the snapshot, and what is told of a path was there.
//!
//! The snapshot is held up where it matters, by strace.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::common::strace::{can_trace, closed, opened, traced};
use crate::live_common::{Place, Random, Run, survey};

/// A data directory, and a snapshot of it that is held up at the moments that it opens `held`.
struct Scene {
    place: Place,
    data: PathBuf,
}

impl Scene {
    /// With these files, of 1 MB each where `large`: those are read in their turn.
    fn new(files: &[&str], large: bool) -> Scene {
        let place = Place::new();
        let data = place.data.canonicalize().expect("there");
        let mut random = Random::new(9);
        for file in files {
            let path = data.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
            fs::write(path, random.bytes(if large { 1_000_000 } else { 100 })).expect("a file");
        }
        // What a snapshot finds is older than it.
        std::thread::sleep(Duration::from_millis(130));
        Scene { place, data }
    }

    fn snapshot(&self, held: &[&str]) -> Child {
        let held: Vec<String> =
            held.iter().map(|held| self.data.join(held).to_str().expect("text").to_owned()).collect();
        let paths = held.iter().flat_map(|held| ["-P", held]);
        let how = ["-o", "/dev/null", "-e", "trace=openat", "-e", "inject=openat:delay_exit=700000"];
        let options: Vec<&str> = how.into_iter().chain(paths).collect();
        let mut child = traced(&self.place.nbak(["snapshot", "-q"]), &options);
        child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("strace starts")
    }

    fn exchange(&self, one: &str, other: &str) {
        let (one, other) = (self.data.join(one), self.data.join(other));
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("exchanged");
    }

    /// All that is there must be in the snapshot, at the path where it is.
    fn assert_all(&self, child: Child) {
        Run::of(child.wait_with_output().expect("it ends"), "held up".to_owned()).exits(0);
        let back = self.place.restore("latest", "back");
        // Folders may have the times of any moment meanwhile.
        for path in survey(&self.data).keys().filter(|path| self.data.join(path).is_file()) {
            let held = fs::read(back.join(path)).ok();
            assert_eq!(held, fs::read(self.data.join(path)).ok(), "{} in {:?}", path.display(), survey(&back).keys());
        }
        self.place.check();
    }
}

/// Between the look at a folder and the look into a folder in it, another one takes its place.
#[test]
fn between_two_levels_of_the_walk() {
    if !can_trace() {
        return;
    }
    let scene = Scene::new(&["x/sub/old", "y/sub/new"], false);
    let mut child = scene.snapshot(&["x"]);
    opened(&mut child, &scene.data.join("x"));
    fs::rename(scene.data.join("x"), scene.data.join("z")).expect("moved");
    fs::rename(scene.data.join("y"), scene.data.join("x")).expect("moved");
    scene.assert_all(child);
}

/// The same, and they change back before anything is read.
#[test]
fn and_back_again() {
    if !can_trace() {
        return;
    }
    for names in [["x/sub/one", "y/sub/other"], ["x/sub/same", "y/sub/same"]] {
        let scene = Scene::new(&names, false);
        let mut child = scene.snapshot(&["x", "x/sub"]);
        opened(&mut child, &scene.data.join("x"));
        scene.exchange("x", "y");
        opened(&mut child, &scene.data.join("x/sub"));
        scene.exchange("x", "y");
        scene.assert_all(child);
    }
}

/// They change places after a file of the one was read, and back when the one of the same path in the other was to be.
#[test]
fn while_a_file_is_read() {
    if !can_trace() {
        return;
    }
    let scene = Scene::new(&["a/x/file", "b", "p/x/file", "r"], true);
    let [before, after] = ["b", "r"].map(|held| scene.data.join(held));
    let mut child = scene.snapshot(&["b", "r"]);
    // The first look at each file opens it too, one after the other.
    closed(&mut child, &before);
    closed(&mut child, &after);
    opened(&mut child, &before);
    scene.exchange("a", "p");
    opened(&mut child, &after);
    scene.exchange("a", "p");
    scene.assert_all(child);
}
