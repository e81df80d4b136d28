//! Names of backups, and paths of entries.
//!
//! The input is lines of text: each is tried as both, and all together as the paths of one manifest.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use nbak::export::names::{
    COMPONENT_MAX, PATH_MAX, TEMPORARY, case_collision, check_name, check_path, check_together, date_of, is_dated,
    new_name,
};

pub fn body(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines: Vec<&str> = text.split('\n').take(64).collect();
    for line in &lines {
        path(line);
        name(line);
    }
    let paths: Vec<&str> = lines.into_iter().filter(|line| check_path(line).is_ok()).collect();
    together(&paths);
    cases(&paths);
}

fn path(text: &str) {
    if check_path(text).is_err() {
        return;
    }
    let path = Path::new(text);
    assert!(text.len() <= PATH_MAX && !text.contains(['\\', '\0']), "{text:?}");
    assert!(path.components().all(|part| matches!(part, Component::Normal(name) if name.len() <= COMPONENT_MAX)));
    // It is read as it is written: no part is lost on the way.
    assert_eq!(path.components().collect::<std::path::PathBuf>().as_os_str(), text, "{text:?}");
    assert!(Path::new("/backup").join(path).starts_with("/backup"), "{text:?}");
}

fn name(text: &str) {
    if check_name(text).is_ok() {
        let joined = Path::new("/backups").join(text);
        assert_eq!(joined.parent(), Some(Path::new("/backups")), "{text:?}");
        assert!(!text.ends_with(TEMPORARY) && !text.starts_with(".nbak-"));
    }
    let Some(ms) = date_of(text) else { return assert!(!is_dated(text)) };
    assert!(check_name(text).is_ok() && text.is_ascii(), "{text:?}");
    // A name of our own for the same moment tells it to the second.
    let ours = new_name(ms, &|_| false);
    assert_eq!(date_of(&ours).map(|other| other.div_euclid(1000)), Some(ms.div_euclid(1000)), "{text:?}: {ours}");
    let next = new_name(ms, &|name| name == ours);
    assert!(next != ours && date_of(&next) == date_of(&ours), "{next}");
}

/// The slow way: every path against every other.
fn together(paths: &[&str]) {
    let is_folder = |path: &str| path.len().is_multiple_of(2);
    let possible = paths.iter().enumerate().all(|(at, one)| {
        paths[..at].iter().all(|other| one != other)
            && paths.iter().all(|other| is_folder(one) || !other.starts_with(&format!("{one}/")))
    });
    assert_eq!(check_together(paths.iter().map(|path| (*path, is_folder(path)))).is_ok(), possible, "{paths:?}");
}

/// The slow way too: two paths collide if what leads to them is different, and the same in lower case.
fn cases(paths: &[&str]) {
    let above = |path: &str| -> Vec<String> {
        path.match_indices('/').map(|(at, _)| path[..at].to_owned()).chain([path.to_owned()]).collect()
    };
    let all: BTreeSet<String> = paths.iter().flat_map(|path| above(path)).collect();
    let low: BTreeSet<String> = all.iter().map(|path| path.to_lowercase()).collect();
    assert_eq!(case_collision(paths.iter().copied()).is_some(), low.len() < all.len(), "{paths:?}");
}
