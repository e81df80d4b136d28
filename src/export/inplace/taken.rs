//! Taking the live databases that are to be replaced away from every program, before anything is changed; and how each
//! is to be put in place then.
//!
//! What SQLite opens is locked ([`super::databases`]). What it cannot open, since it is encrypted by itself, is looked
//! for among the files that programs have open ([`crate::source::holders`]): that is all there is to tell by.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::apply::Run;
use super::asked::Options;
use super::called::NEW;
use super::company::{base_of, has_log, is_log, is_own, may_be_database};
use super::databases::{self, Held, Standing, hold, standing_sidecars};
use super::intent::{Intent, Move, Name, Way};
use super::plan::{self, Plan, hash_live};
use super::root::{Kind, Root, Seen, Stamp};
use super::staging::Staging;
use crate::error::{Error, Result};
use crate::snapshot::progress::Progress;
use crate::snapshot::sidecar::sidecars;
use crate::source::handle::FileHandle;
use crate::source::holders::{Process, Whose, holders, in_words};
use crate::source::sqlite::{HEADER_BYTES, looks_like_database};

/// Fails if a program has a database open that is staged to be replaced, but for those that are written `into_live`.
/// To be asked before work is done that would be for nothing then; [`take`] asks again, and does not rest on this.
pub fn look_for_openers(staging: &Staging, into_live: bool) -> Result<()> {
    let root = &staging.root;
    let (mut live, mut sealed) = (Vec::new(), Vec::new());
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for staged in root.names(&Path::new(NEW).join(&folder))? {
            let path = folder.join(staged.file_name().unwrap_or_default());
            match root.seen(&path)? {
                Some(seen) if seen.kind == Kind::Folder => folders.push(path),
                Some(seen) if seen.kind == Kind::File && may_be_database(root, &path)? => {
                    let is_sealed = databases::header(root, &path).is_none();
                    if is_sealed { &mut sealed } else { &mut live }.push((path, seen));
                }
                Some(seen) => sealed.extend(behind_link(root, &path, seen)),
                None => {}
            }
        }
    }
    // What is as it should be is not replaced. Only what is open is read for that.
    for (path, who) in all_that_have(&sealed) {
        if has_log(root, path)? || !stays(root, path) {
            return Err(refuse_sealed(root, path, &who));
        }
    }
    for (path, who) in all_that_have(&live).into_iter().filter(|_| !into_live) {
        if !standing_sidecars(root, path)?.is_empty() || !stays(root, path) {
            return Err(in_use(root, path, &who).hint("stop it, or give --into-live; nothing was changed"));
        }
    }
    Ok(())
}

/// Whether what stands at `path` is byte for byte what is staged.
fn stays(root: &Root, path: &Path) -> bool {
    let staged = Path::new(NEW).join(path);
    let kind = |path: &Path| root.seen(path).ok().flatten().map(|seen| seen.kind);
    let content = |path: &Path| match kind(path) {
        Some(Kind::File) => hash_live(&root.place(path)).ok(),
        Some(Kind::Link) => root.link(path).ok().map(|text| blake3::hash(&text)),
        _ => None,
    };
    kind(path) == kind(&staged) && content(path).is_some_and(|live| content(&staged) == Some(live))
}

/// The database behind a symbolic link that is to be replaced: who has that open goes on with it, and the next who
/// opens the path finds another.
fn behind_link(root: &Root, path: &Path, seen: Seen) -> Option<(PathBuf, Seen)> {
    let place = Some(root.place(path)).filter(|_| seen.kind == Kind::Link)?.canonicalize().ok()?;
    let meta = std::fs::metadata(&place).ok().filter(std::fs::Metadata::is_file)?;
    let mut head = [0; HEADER_BYTES];
    let got = FileHandle::open(&place).and_then(|file| file.read_at(&mut head, 0)).ok()?;
    let is_one = looks_like_database(&head[..got]).is_some() || sidecars(&place).iter().any(|beside| beside.exists());
    let stamp = Stamp { inode: meta.ino(), ..seen.stamp };
    is_one.then(|| (path.to_path_buf(), Seen { device: meta.dev(), stamp, ..seen }))
}

fn file_of(seen: &Seen) -> (u64, u64) {
    (seen.device, seen.stamp.inode)
}

fn in_use(root: &Root, path: &Path, who: &[Process]) -> Error {
    Error::locked(format!("a database that is to be replaced is open in {}", in_words(who))).at(root.place(path))
}

/// Takes all live databases that are to be replaced, and settles how each is to be.
pub fn take(
    root: &Root,
    plan: &mut Plan,
    options: &Options<'_>,
    progress: &dyn Progress,
) -> Result<BTreeMap<PathBuf, Rc<Held>>> {
    // Those that SQLite cannot open, since they are encrypted by themselves.
    let mut sealed = Vec::new();
    let mut live = Vec::new();
    for (at, one) in plan.intent.moves.iter().enumerate() {
        let path = &one.path.0;
        let Some(seen) = root.seen(path)? else { continue };
        sealed.extend(behind_link(root, path, seen));
        if seen.kind != Kind::File {
            continue;
        }
        match one.way {
            Way::Database => live.push((Some(at), path.clone(), seen)),
            _ if may_be_database(root, path)? => sealed.push((path.clone(), seen)),
            _ => {}
        }
    }
    // And what is a database and goes, since something else is to stand there.
    for one in &plan.intent.clear {
        let Some(seen) = root.seen(&one.path.0)?.filter(|seen| seen.kind == Kind::File) else { continue };
        if databases::stands(root, &one.path.0)? {
            live.push((None, one.path.0.clone(), seen));
        } else if may_be_database(root, &one.path.0)? {
            sealed.push((one.path.0.clone(), seen));
        }
    }
    refuse_open(root, &sealed)?;
    plan.intent.sealed = Some(sealed.iter().map(|(path, _)| Name(path.clone())).collect());
    // Before any of them is opened here: nothing at all is touched if one is in use.
    let files: Vec<_> = live.iter().map(|(_, _, seen)| file_of(seen)).collect();
    let mut open = holders(&files, Whose::Anybody);
    let refuse = |path: &Path, who: &[Process]| {
        in_use(root, path, who).hint("stop it, or give --into-live; nothing was changed")
    };
    if !options.into_live
        && let Some((_, path, seen)) = live.iter().find(|(_, _, seen)| open.contains_key(&file_of(seen)))
    {
        return Err(refuse(path, open.get(&file_of(seen)).map_or(&[], Vec::as_slice)));
    }
    let mut held = BTreeMap::new();
    let mut by_file = BTreeMap::new();
    for (at, path, seen) in &live {
        progress.advance(1);
        // It cannot be written into, and whoever has it open would go on with what is kept aside.
        let is_open = || open.get(&file_of(seen)).map(|who| refuse_sealed(root, path, who));
        match hold_once(root, path, seen, &mut by_file)? {
            Standing::Absent => {}
            Standing::Held(one) => {
                held.insert(path.clone(), one);
            }
            Standing::Malformed(why) => {
                is_open().map_or(Ok(()), Err)?;
                let Some(at) = at else { continue };
                plan.intent.moves[*at].way = Way::Malformed;
                let kept = root.place(Path::new(&plan.intent.kept));
                let remark = format!("{}: {why}; it is kept in {}", path.display(), kept.display());
                plan.intent.remarks.push(remark);
            }
            Standing::Busy if options.into_live => through(plan, *at),
            Standing::Busy => return Err(refuse(path, &[])),
        }
    }
    // Whoever came in between, and is idle without a lock.
    refuse_open(root, &sealed)?;
    open.append(&mut holders(&files, Whose::Others));
    for (at, path, seen) in &live {
        let Some(who) = open.get(&file_of(seen)).filter(|_| held.contains_key(path)) else { continue };
        if !options.into_live {
            return Err(refuse(path, who));
        }
        held.remove(path);
        through(plan, *at);
    }
    settle(root, plan, &held)?;
    Ok(held)
}

/// Fails if a program has one of these open. Nothing can be written into them while it has.
fn refuse_open(root: &Root, sealed: &[(PathBuf, Seen)]) -> Result<()> {
    match who_has(sealed) {
        Some((path, who)) => Err(refuse_sealed(root, path, &who)),
        None => Ok(()),
    }
}

/// The first of `files` that a program has open, and which do.
fn who_has(files: &[(PathBuf, Seen)]) -> Option<(&Path, Vec<Process>)> {
    all_that_have(files).into_iter().next()
}

fn all_that_have(files: &[(PathBuf, Seen)]) -> Vec<(&Path, Vec<Process>)> {
    let open = holders(&files.iter().map(|(_, seen)| file_of(seen)).collect::<Vec<_>>(), Whose::Anybody);
    files.iter().filter_map(|(path, seen)| Some((path.as_path(), open.get(&file_of(seen))?.clone()))).collect()
}

fn refuse_sealed(root: &Root, path: &Path, who: &[Process]) -> Error {
    in_use(root, path, who).hint(
        "stop it: this one cannot be written through SQLite, since it is encrypted or damaged; nothing was changed",
    )
}

/// What an interrupted restore did not come to, or is still to put a log beside, and SQLite cannot open. What told it
/// to be a database may have been taken away by then.
fn sealed_of(root: &Root, intent: &Intent) -> Result<Vec<(PathBuf, Seen)>> {
    let noted: BTreeSet<&Path> = intent.sealed.iter().flatten().map(|name| name.0.as_path()).collect();
    let (mut with_log, mut awaited) = (BTreeSet::new(), BTreeSet::new());
    for one in &intent.moves {
        let Some(base) = base_of(&one.path.0) else { continue };
        let is_pending = one.is_pending(root)?;
        // A journal that does not say which are sealed is of an older version: then names have to do.
        if intent.sealed.is_none() || is_pending && is_log(root, &Path::new(NEW).join(&one.path.0))? {
            with_log.insert(base.clone());
        }
        if is_pending {
            awaited.insert(base);
        }
    }
    if intent.sealed.is_none() {
        with_log.extend(intent.removed.iter().filter_map(|name| base_of(&name.0)));
    }
    let mut all = BTreeSet::new();
    for one in intent.moves.iter().filter(|one| one.way != Way::Through) {
        if one.is_pending(root)? || awaited.contains(&one.path.0) {
            all.insert(&one.path.0);
        }
    }
    all.extend(intent.clear.iter().map(|one| &one.path.0));
    all.extend(intent.folders.iter().map(|one| &one.path.0));
    let mut found = Vec::new();
    for path in all {
        let Some(seen) = root.seen(path)?.filter(|seen| seen.kind == Kind::File) else { continue };
        let is_noted = noted.contains(path.as_path()) || with_log.contains(path);
        if databases::header(root, path).is_none() && (is_noted || may_be_database(root, path)?) {
            found.push((path.clone(), seen));
        }
    }
    Ok(found)
}

/// Takes the database at `path`, once under all its names: a second lock on the same file would be refused.
fn hold_once(
    root: &Root,
    path: &Path,
    seen: &Seen,
    by_file: &mut BTreeMap<(u64, u64), Rc<Held>>,
) -> Result<Standing<Rc<Held>>> {
    if let Some(one) = by_file.get(&file_of(seen)) {
        return Ok(Standing::Held(one.clone()));
    }
    Ok(match hold(root, path)? {
        Standing::Held(one) => {
            let one = Rc::new(one);
            by_file.insert(file_of(seen), one.clone());
            Standing::Held(one)
        }
        Standing::Absent => Standing::Absent,
        Standing::Malformed(why) => Standing::Malformed(why),
        Standing::Busy => Standing::Busy,
    })
}

/// One that goes and is in use goes all the same: there is nothing to write into it.
fn through(plan: &mut Plan, at: Option<usize>) {
    if let Some(at) = at {
        plan.intent.moves[at].way = Way::Through;
    }
}

/// The databases that are not as they were before they were taken.
pub fn changed(plan: &Plan, held: &BTreeMap<PathBuf, Rc<Held>>) -> BTreeSet<PathBuf> {
    let is_changed = |one: &&Move| match one.way {
        Way::File => false,
        Way::Database => held.get(&one.path.0).is_some_and(|one| one.was_switched()),
        Way::Malformed | Way::Through => true,
    };
    let cleared = plan.intent.clear.iter().map(|one| &one.path.0);
    let cleared = cleared.filter(|path| held.get(*path).is_some_and(|one| one.was_switched()));
    plan.intent.moves.iter().filter(is_changed).map(|one| &one.path.0).chain(cleared).cloned().collect()
}

/// Notes how things stand now that the databases were taken.
fn settle(root: &Root, plan: &mut Plan, held: &BTreeMap<PathBuf, Rc<Held>>) -> Result<()> {
    let paths: BTreeSet<PathBuf> =
        plan.intent.moves.iter().filter(|one| one.way != Way::File).map(|one| one.path.0.clone()).collect();
    for at in 0..plan.intent.moves.len() {
        let Move { path: Name(path), way, .. } = plan.intent.moves[at].clone();
        let is_sidecar = base_of(&path).is_some_and(|base| paths.contains(&base));
        if way == Way::File {
            note_company(root, plan, &path)?;
        }
        if way == Way::File && !is_sidecar {
            continue;
        }
        plan.intent.moves[at].live = root.seen(&path)?.map(|seen| seen.stamp);
        if way == Way::Through {
            can_be_written(root, plan, &path)?;
        }
        if way == Way::Database {
            let left = standing_sidecars(root, &path)?;
            let gone = left.into_iter().filter(|beside| !plan.staged.contains(beside)).map(Name);
            plan.intent.removed.extend(gone);
        }
    }
    for at in 0..plan.intent.clear.len() {
        let path = plan.intent.clear[at].path.0.clone();
        let is_beside_held = base_of(&path).is_some_and(|base| held.contains_key(&base));
        if (held.contains_key(&path) || is_beside_held)
            && let Some(seen) = root.seen(&path)?
        {
            plan.intent.clear[at].live = seen.stamp;
        }
        note_company(root, plan, &path)?;
    }
    Ok(())
}

/// Notes what goes with `path`, and what does not since it is somebody's own.
fn note_company(root: &Root, plan: &mut Plan, path: &Path) -> Result<()> {
    for beside in standing_sidecars(root, path)? {
        if plan.staged.contains(&beside) || plan.intent.clear.iter().any(|one| one.path.0 == beside) {
            continue;
        }
        if is_own(root, &beside, path)? {
            let kept = root.place(Path::new(&plan.intent.kept));
            plan.intent.remarks.push(format!(
                "{}: it is named as if it belonged to {}, which is replaced; it is kept in {}",
                beside.display(),
                path.display(),
                kept.display()
            ));
        } else {
            plan.intent.removed.push(Name(beside));
        }
    }
    Ok(())
}

/// What the backup API needs.
fn can_be_written(root: &Root, plan: &Plan, path: &Path) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::locked(format!("a database that somebody has open cannot be written through SQLite: {why}"))
            .at(root.place(path))
            .hint("stop the program that uses it, and restore again; nothing was changed"))
    };
    if !plan::stands_alone(plan, path) {
        return refuse("what is to be restored is no database, or has a journal of its own");
    }
    let pages = plan.databases.get(path).map(|header| header.page_size);
    match databases::header(root, path) {
        Some(live) if Some(live.page_size) != pages && live.write_version != 1 => {
            refuse("its pages are of another size")
        }
        _ => Ok(()),
    }
}

/// The same of an interrupted restore: it was begun.
fn refuse_open_since(root: &Root, sealed: &[(PathBuf, Seen)]) -> Result<()> {
    match who_has(sealed) {
        Some((path, who)) => Err(in_use(root, path, &who)),
        None => Ok(()),
    }
}

/// Takes the databases that an interrupted restore did not come to.
pub fn retake(run: &mut Run<'_>) -> Result<()> {
    let root = run.root;
    let mut live = Vec::new();
    let sealed = sealed_of(root, run.intent)?;
    refuse_open_since(root, &sealed)?;
    // Whatever is to come there: by what stands there now.
    for one in run.intent.moves.iter().filter(|one| one.way != Way::Through) {
        if one.is_pending(root)?
            && let Some(seen) = root.seen(&one.path.0)?.filter(|seen| seen.kind == Kind::File)
            && (one.way != Way::File || databases::stands(root, &one.path.0)?)
        {
            live.push((&one.path.0, seen));
        }
    }
    let cleared = run.intent.clear.iter().map(|one| &one.path.0);
    let cleared: BTreeSet<&PathBuf> = cleared.chain(run.intent.folders.iter().map(|one| &one.path.0)).collect();
    for path in cleared {
        if let Some(seen) = root.seen(path)?
            && databases::stands(root, path)?
        {
            live.push((path, seen));
        }
    }
    let files: Vec<_> = live.iter().map(|(_, seen)| file_of(seen)).collect();
    let mut open = holders(&files, Whose::Anybody);
    if open.is_empty() {
        let mut by_file = BTreeMap::new();
        for (path, seen) in &live {
            run.progress.advance(1);
            run.keep_beside(path)?;
            match hold_once(root, path, seen, &mut by_file)? {
                Standing::Absent => {}
                Standing::Held(held) => {
                    held.commit();
                    run.held.insert((*path).clone(), held);
                }
                Standing::Malformed(_) => {
                    run.malformed.insert((*path).clone());
                }
                Standing::Busy => return Err(in_use(run.root, path, &[])),
            }
        }
        open = holders(&files, Whose::Others);
        refuse_open_since(root, &sealed)?;
    }
    match live.iter().find(|(_, seen)| open.contains_key(&file_of(seen))) {
        Some((path, seen)) => Err(in_use(run.root, path, open.get(&file_of(seen)).map_or(&[], Vec::as_slice))),
        None => Ok(()),
    }
}
