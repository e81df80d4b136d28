//! The calls: [`replace`], and for what a crash left [`recover_untouched`], [`recover`] and [`abandon`].
//!
//! Up to the intent, `replace` gives everything back if something is in the way: databases their journal mode, and the
//! staging is removed. After it, an error says that the next command finishes the restore.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::apply::Run;
use super::asked::{Abandoned, Ended, Options, Replaced};
use super::called::{FOLDER, INTENT};
use super::company::may_be_database;
use super::intent::{Intent, Name, Way};
use super::old::refuse_copy;
use super::pending::{Written, in_the_way, is_about, named, standing, still_to_go, written, written_through};
use super::plan::{self, Plan};
use super::root::{Kind, Root, Stamp};
use super::staging::Staging;
use super::taken::{changed, retake, take};
use super::trust;
use super::versions;
use crate::error::{Error, Result};
use crate::snapshot::progress::Progress;
use crate::source::holders::{Whose, holders, in_words};

/// Puts what is staged in place of what is live. On an error nothing was changed, unless it says that the restore was
/// begun.
///
/// The safety backup is the caller's, and comes before: what is replaced is removed in the end.
pub fn replace(staging: Staging, options: &Options<'_>, progress: &dyn Progress) -> Result<Replaced> {
    let mut staging = staging;
    let mut plan = plan::draw(&staging.root, options)?;
    plan.intent.remarks.extend(staging.left.take());
    let databases = plan.intent.moves.iter().filter(|one| one.way == Way::Database).count() as u64;
    progress.begin("putting in place", Run::steps(&plan.intent) + databases + 1);
    let replaced = carry_out(&mut staging, &mut plan, options, progress);
    progress.end();
    replaced
}

fn carry_out(
    staging: &mut Staging,
    plan: &mut Plan,
    options: &Options<'_>,
    progress: &dyn Progress,
) -> Result<Replaced> {
    (options.recheck)(&BTreeSet::new())?;
    let held = take(&staging.root, plan, options, progress)?;
    has_room(&staging.root, &plan.intent)?;
    // Programs may have been waited for. A file that changes after this is kept, since it is not what the plan saw.
    (options.recheck)(&changed(plan, &held))?;
    progress.advance(1);
    // A journal that was there for a moment is gone for good before it is noted that none is there.
    let databases = plan.intent.moves.iter().filter(|one| one.way != Way::File).map(|one| &one.path.0);
    let folders: BTreeSet<&Path> = databases.chain(held.keys()).filter_map(|path| path.parent()).collect();
    folders.into_iter().try_for_each(|folder| staging.root.sync_folder(folder))?;
    let switched = held.iter().filter(|(_, one)| one.was_switched());
    plan.intent.switched = switched.map(|(path, _)| Name(path.clone())).collect();
    plan.intent.safety = options.safety.map(str::to_owned);
    plan.intent.standing = Some(standing(&staging.root, &plan.intent)?);
    staging.stays();
    let written = plan.intent.write(&staging.root).and_then(|()| staging.mark());
    if let Err(error) = written {
        // If it cannot be taken back either, it stands, and the next command carries it out.
        staging.is_needed = Intent::remove(&staging.root).is_err();
        return Err(if staging.is_needed { begun(&staging.root, error) } else { error });
    }
    staging.is_needed = true;
    for one in held.values() {
        one.commit();
    }
    let mut run = Run::new(&staging.root, &plan.intent, progress);
    run.held = held;
    run.finish().map_err(|error| begun(&staging.root, error))
}

/// Finishes an interrupted restore, if there is one, for somebody who asks for that: what was written since to anything
/// that it replaces is kept aside. `None`: nothing was pending.
///
/// A staging without an intent, which changed nothing or is done with, is swept: copies of files do not lie about.
///
/// Fails if it was given up.
pub fn recover(data: &Path, progress: &dyn Progress) -> Result<Option<Replaced>> {
    let Some((staging, intent)) = interrupted(data)? else { return Ok(None) };
    if Intent::is_given_up(&staging.root)? {
        return Err(Error::failed(
            "a restore that was given up is not finished: what it replaced may be kept aside already",
        )
        .at(staging.root.place(Path::new(FOLDER)))
        .hint(
            "`nbak restore --abandon` brings that to its end, and so does the next `nbak snapshot` or `nbak backup`; \
                 then restore again; nothing was changed",
        ));
    }
    refuse_copy(&staging.root, &intent)?;
    no_database_is_open(&staging.root, &intent).map_err(|error| begun(&staging.root, error))?;
    let through = written_through(&staging.root, &intent)?;
    finish(&staging, intent, through, progress).map(Some)
}

/// The same for a command that is about something else and may write, also one that nobody watches: fails if anything
/// was written since to what the restore is about, or a program has open what is still to be replaced, and then nothing
/// is changed. One that was given up goes on being given up. It costs one `stat` when there is nothing to do.
pub fn recover_untouched(data: &Path, progress: &dyn Progress) -> Result<Option<Ended>> {
    let Some((staging, intent)) = interrupted(data)? else { return Ok(None) };
    let root = &staging.root;
    if Intent::is_given_up(root)? {
        return give_up(root, &intent, progress).map(|ended| Some(Ended::GivenUp(ended)));
    }
    refuse_copy(root, &intent)?;
    let mut written = in_the_way(root, &intent)?;
    if written.is_empty() {
        written = written_through(root, &intent)?;
    }
    if let Some(first) = written.first() {
        return Err(was_written(root, &intent, first, &written));
    }
    nobody_has_it_open(root, &intent).map_err(|error| begun(root, error))?;
    finish(&staging, intent, Vec::new(), progress).map(|replaced| Some(Ended::Finished(replaced)))
}

/// Ends an interrupted restore, if there is one, and leaves what is live as it is. What the restore had replaced is
/// kept, where the answer says, if there is any of that. `None`: nothing was pending.
pub fn abandon(data: &Path, progress: &dyn Progress) -> Result<Option<Abandoned>> {
    if !trust::is_there(data)? {
        return Ok(None);
    }
    let staging = Staging::lock(data).map_err(|error| not_locked(data, error))?;
    let root = &staging.root;
    if root.seen(Path::new(INTENT))?.is_none() {
        return Ok(None);
    }
    let intent = Intent::read(root)?;
    give_up(root, &intent, progress).map(Some)
}

fn give_up(root: &Root, intent: &Intent, progress: &dyn Progress) -> Result<Abandoned> {
    progress.begin("ending an interrupted restore", Run::steps(intent));
    let ended = Run::new(root, intent, progress).abandon();
    progress.end();
    ended.map_err(|error| match Intent::is_given_up(root) {
        Ok(true) => error.also(
            "the restore is given up: `nbak restore --abandon` goes on with that, and so does the next `nbak snapshot` \
             or `nbak backup`",
        ),
        _ => error,
    })
}

/// What is there to be gone on with. A staging without an intent is swept.
fn interrupted(data: &Path) -> Result<Option<(Staging, Intent)>> {
    match data.join(FOLDER).symlink_metadata() {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(Error::io("look for an interrupted restore", data.join(FOLDER), error)),
    }
    let is_pending = trust::is_there(data)?;
    let staging = match Staging::lock(data) {
        // Somebody is staging files. They change nothing yet.
        Err(error) if error.is_locked() && !is_pending => return Ok(None),
        other => other.map_err(|error| not_locked(data, error))?,
    };
    let root = &staging.root;
    if root.seen(Path::new(INTENT))?.is_none() {
        // As far as it can be done: the next restore does it too, and says why it cannot.
        if root.seen(Path::new(FOLDER))?.is_some_and(|seen| seen.kind == Kind::Folder) {
            let _ = staging.discard();
        }
        return Ok(None);
    }
    let intent = Intent::read(root)?;
    Ok(Some((staging, intent)))
}

fn finish(staging: &Staging, mut intent: Intent, through: Vec<PathBuf>, progress: &dyn Progress) -> Result<Replaced> {
    let root = &staging.root;
    // Asked while it can still be told, and noted before anything is moved: whoever ends this has to say it.
    let Written { stays, beside_graph, .. } = written(root, &intent)?;
    let now = versions::now(root, &intent)?;
    intent.note(root, stays.into_iter().chain(through), now)?;
    progress.begin("finishing an interrupted restore", Run::steps(&intent));
    // It may be that a full disk keeps it from being marked: it is to be finished all the same.
    let _ = staging.mark();
    let mut run = Run::new(root, &intent, progress);
    run.is_recovery = true;
    run.beside_graph = beside_graph;
    let replaced = retake(&mut run).and_then(|()| run.finish()).map_err(|error| begun(root, error));
    progress.end();
    replaced
}

/// Whose the restore is says more than that its lock does not open.
fn not_locked(data: &Path, error: Error) -> Error {
    if error.is_locked() { error } else { trust::check(data).err().unwrap_or(error) }
}

/// Nothing was written, and somebody may be about to: an event log is opened once, and written to when there is an
/// event. Who has a part of it open that stays is at work, and would find the rest exchanged.
fn nobody_has_it_open(root: &Root, intent: &Intent) -> Result<()> {
    let mut all = is_about(root, intent)?;
    all.extend(still_to_go(root, intent)?);
    refuse_holders(root, &all, "what an interrupted restore is about is open")
}

/// The same for who asked for it to be finished, and may have stopped the application or not.
fn no_database_is_open(root: &Root, intent: &Intent) -> Result<()> {
    let mut all = is_about(root, intent)?;
    let mut databases = BTreeMap::new();
    for (path, stamp) in std::mem::take(&mut all) {
        if may_be_database(root, &path)? {
            databases.insert(path, stamp);
        }
    }
    let all = databases;
    refuse_holders(root, &all, "a database that an interrupted restore is about is open")
}

fn refuse_holders(root: &Root, all: &BTreeMap<PathBuf, Stamp>, what: &str) -> Result<()> {
    let device = root.seen(Path::new(""))?.map_or(0, |top| top.device);
    let files: Vec<_> = all.values().map(|stamp| (device, stamp.inode)).collect();
    let open = holders(&files, Whose::Anybody);
    match all.iter().find_map(|(path, stamp)| Some((path, open.get(&(device, stamp.inode))?))) {
        Some((path, who)) => Err(Error::locked(format!("{what} in {}", in_words(who))).at(root.place(path))),
        None => Ok(()),
    }
}

fn was_written(root: &Root, intent: &Intent, first: &Path, paths: &[PathBuf]) -> Error {
    Error::failed("a restore into this directory was interrupted, and this was written since")
        .at(root.place(first))
        .hint(format!(
            "written since: {}; stop the application, then `nbak restore --resume` finishes the restore, keeps what it \
             replaces of that in {} and names the rest, or `nbak restore --abandon` leaves the live data as it is and \
             keeps there what was replaced; nothing was changed",
            named(paths),
            root.place(Path::new(&intent.kept)).display()
        ))
}

fn begun(root: &Root, error: Error) -> Error {
    if error.is_integrity() {
        // All of it was done, and what is to be known is where the old files are.
        return error;
    }
    let place = root.place(Path::new(INTENT));
    let place = place.parent().unwrap_or(&place).display();
    let stop = if error.is_locked() { "stop the program that uses it; " } else { "" };
    error.hint(format!(
        "{stop}the restore was begun: `nbak restore --resume` finishes it, and so does the next `nbak snapshot`, `nbak \
         backup` or restore in place if nothing is written till then; until then what was there and what is to be \
         there stand in {place}: do not remove it"
    ))
}

/// Bytes that are needed besides: the journal, folders, and what is written through SQLite, once into its log and once
/// to compare. Everything else is only renamed.
fn has_room(root: &Root, intent: &Intent) -> Result<()> {
    let through = intent.moves.iter().filter(|one| one.way == Way::Through);
    let entries = (intent.moves.len()
        + intent.folders.len()
        + intent.clear.len()
        + intent.extra.len()
        + intent.same.as_ref().map_or(0, Vec::len)) as u64;
    let needed = (1 << 20) + entries * 1024 + through.map(|one| one.staged.size.saturating_mul(3)).sum::<u64>();
    match root.free_bytes() {
        Some(free) if free < needed => {
            Err(Error::failed(format!("{needed} bytes are needed to replace files safely, and {free} are free"))
                .at(root.place(Path::new("")))
                .hint("free some space; nothing was changed"))
        }
        _ => Ok(()),
    }
}
