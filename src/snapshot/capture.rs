//! One file of the data directory into the session: a database as an image, anything else as bytes.
//!
//! A file is read, up to the size that it had, and then looked at again: if its stamp is what it was before, the
//! content is of one moment ([`Consistency::Stable`]). If not, it is read again, up to [`ATTEMPTS`] times; after that
//! what was read last stays, and says so ([`Consistency::Changed`]).
//!
//! What a file is, is judged by the very bytes that would be saved, and not by an earlier look: a database that was
//! none a moment ago is handed back to be opened as one, and a sidecar of an image is not saved at all
//! ([`super::sidecar`]).
//!
//! What only looks like a database, or is too broken for SQLite to read, is captured as the bytes that it is, sidecars
//! included. So is one that stays locked, which is reported besides.

use std::io::ErrorKind;
use std::path::Path;

use rayon::Scope;

use super::against::Expected;
use super::ahead::Ahead;
use super::captured::{Bytes, Captured, Instead, Opening};
use super::frames::{self, Earlier};
use super::images::{Differing, Lent};
use super::marks::Mark;
use super::receipt::Receipt;
use super::save::{Failure, Session};
use super::scan::Scanned;
use super::sidecar::{HEAD, Sidecar, is_shared_memory, sidecar_stamps};
use super::tree::{Attributes, Consistency, Content};
use crate::chunk::Cut;
use crate::error::Result;
use crate::index::catalog::Catalog;
use crate::source::sqlite::{Database, HEADER_BYTES, Opened, Refusal, View, looks_like_database};
use crate::source::walk::{Found, Identity, Stamp, identity, lies_in, stamp};
use crate::store::segment::Content as Segment;

/// How often a file that changes is read.
const ATTEMPTS: u32 = 3;
/// A larger file, in bytes, is read once only: what changes all the time and is large would cost too much.
pub(super) const RETRY_MOST: u64 = 256 * 1024 * 1024;
/// The smallest database has one page of 512 bytes.
const DATABASE_LEAST: u64 = 512;

/// A file that was read before its turn came, while its stamp stood still.
pub enum Early {
    /// All of it.
    Read(Ahead),
    /// It was held against the parent's, and what differs is at hand.
    Scanned(Scanned),
}

impl Early {
    fn stamp(&self) -> Stamp {
        match self {
            Early::Read(ahead) => ahead.stamp,
            Early::Scanned(scanned) => scanned.stamp,
        }
    }

    /// The first [`HEAD`] bytes of it, or all if there are fewer.
    fn head(&self) -> &[u8] {
        match self {
            Early::Read(ahead) => &ahead.bytes[..ahead.bytes.len().min(HEAD)],
            Early::Scanned(scanned) => &scanned.head,
        }
    }

    /// Saves it. Nothing comes of it if what the parent has cannot be loaded: then all has to be read.
    fn save(self, session: &mut Session<'_>, before: Option<&Content>) -> Result<Option<(u64, Content)>> {
        match self {
            Early::Read(ahead) => session.save_ahead(ahead, before).map(Some),
            Early::Scanned(it) => {
                let saved =
                    session.save_changed(it.before(), it.pages, &it.changed, &mut |page, into| it.read(page, into));
                match saved {
                    Ok(saved) => Ok(saved),
                    Err(Failure::Store(error)) => Err(error),
                    Err(Failure::Source(_)) => Ok(None),
                }
            }
        }
    }
}

/// A file that has a database's header.
pub struct Open {
    state: State,
    receipt: Receipt,
    attributes: Attributes,
    /// Where the log stood when it was captured the last time.
    earlier: Option<Earlier>,
}

enum State {
    Here(std::result::Result<Opened, Refusal>),
    /// Another core holds it against the parent's.
    Lent(Lent),
}

impl Open {
    /// Has other cores begin with it, if all of it is to be read and `expected` says that this is worth it.
    pub(super) fn lent<'s>(
        self,
        scope: &Scope<'s>,
        catalog: &'s Catalog,
        expected: impl FnOnce(&Database) -> Option<Expected>,
    ) -> Open {
        let state = match self.state {
            State::Here(Ok(Opened::Whole(database))) => match expected(&database) {
                Some(expected) => State::Lent(Lent::to(scope, catalog, database, expected)),
                None => State::Here(Ok(Opened::Whole(database))),
            },
            state => state,
        };
        Open { state, ..self }
    }

    /// Closes it. Nobody has it open any more when this returns.
    pub(super) fn close(self) {
        if let State::Lent(lent) = self.state {
            drop(lent.back());
        }
    }

    /// The file that is open.
    pub fn identity(&self) -> Identity {
        identity(&self.receipt.stamp)
    }

    /// Whether writers wait for it to be captured.
    pub fn blocks_writers(&self) -> bool {
        match &self.state {
            State::Here(Ok(Opened::Whole(database))) => matches!(database.view(), View::Quiet | View::Rollback),
            State::Here(_) | State::Lent(_) => false,
        }
    }
}

/// What `stat` says of the file at `path`, if it begins as a database does, or may be one that is all in its log.
pub fn looks_open(path: &Path) -> std::io::Result<Option<std::fs::Metadata>> {
    let there = |error: std::io::Error| if error.kind() == ErrorKind::NotFound { Ok(None) } else { Err(error) };
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => meta,
        Ok(_) => return Ok(None),
        Err(error) => return there(error),
    };
    if meta.len() == 0 {
        return Ok(sidecar_stamps(path)[0].is_some_and(|log| log.size > 0).then_some(meta));
    }
    if meta.len() < DATABASE_LEAST || is_shared_memory(path) {
        return Ok(None);
    }
    let mut head = [0; HEADER_BYTES];
    match Bytes::open(path).and_then(|bytes| bytes.read_full(&mut head, 0)) {
        Ok(got) => Ok(looks_like_database(&head[..got]).map(|_| meta)),
        Err(error) => there(error),
    }
}

/// Opens `found`, which lies in `folder`, if it is a database; only what changed, if `earlier` has what that takes. An
/// error is one of looking at it; the database's own waits for its turn.
pub fn open_database(
    opening: &Opening<'_>,
    found: &Found,
    folder: Identity,
    earlier: Option<Earlier>,
) -> std::io::Result<Option<Open>> {
    let (path, held) = (opening.source.join(&found.path), opening.through.join(&found.path));
    // The stamps come first: what changes after them is noticed the next time.
    let Some(meta) = looks_open(&held)? else { return Ok(None) };
    let beside = sidecar_stamps(&held);
    // What the mark is of is looked at as it was before the opening; the receipt is of what it left.
    let before = Receipt::of_database(stamp(&meta), beside);
    let earlier = earlier.filter(|earlier| earlier.mark.is_of(&before));
    let state = in_place(&path, folder, identity(&before.stamp), || frames::open(opening, &path, earlier.as_ref()));
    if let Err(Refusal::Io(error)) = &state
        && error.kind() == ErrorKind::NotFound
    {
        return Err(ErrorKind::NotFound.into());
    }
    let after = sidecar_stamps(&held);
    let attributes = attributes_at(found, before.stamp);
    let receipt = Receipt::of_database(before.stamp, as_opened(beside, after));
    Ok(Some(Open { state: State::Here(state), receipt, attributes, earlier }))
}

/// Opens the database at `path` in `folder`, which must be the file `who`. By name SQLite opens first it and then its
/// log: they belong together only if nothing was moved meanwhile. If something was, it is not there.
fn in_place<T>(
    path: &Path,
    folder: Identity,
    who: Identity,
    open: impl FnOnce() -> std::result::Result<T, Refusal>,
) -> std::result::Result<T, Refusal> {
    let is_it = || {
        let meta = std::fs::symlink_metadata(path);
        meta.is_ok_and(|meta| identity(&stamp(&meta)) == who) && lies_in(path, folder)
    };
    let before = sidecar_stamps(path);
    if !is_it() {
        return Err(std::io::Error::from(ErrorKind::NotFound).into());
    }
    let opened = open();
    let after = sidecar_stamps(path);
    let is_other = |was: Stamp, is: Option<Stamp>| is.is_none_or(|is| identity(&is) != identity(&was));
    let is_other_log = before[0].is_some_and(|was| is_other(was, after[0]));
    // One that was hot is gone.
    let is_other_journal = before[1].is_some_and(|was| after[1].is_some() && is_other(was, after[1]));
    if is_other_log || is_other_journal || !is_it() {
        return Err(std::io::Error::from(ErrorKind::NotFound).into());
    }
    opened
}

/// The stamps of what lies beside a database, from `before` it was opened. What is not in them is only that SQLite gave
/// a log its owner anew as it opened it: else no receipt would ever hold, and the database be read each time.
fn as_opened(before: [Option<Stamp>; 2], after: [Option<Stamp>; 2]) -> [Option<Stamp>; 2] {
    let content = |stamps: [Option<Stamp>; 2]| stamps.map(|stamp| stamp.map(|stamp| Stamp { ctime: 0, ..stamp }));
    if content(before) == content(after) { after } else { before }
}

/// Saves the image of a database, of which `folder` is the folder.
pub fn capture_database(
    session: &mut Session<'_>,
    opening: &Opening<'_>,
    (found, folder): (&Found, Identity),
    open: Open,
    before: Option<&Content>,
) -> Result<Captured> {
    let path = opening.source.join(&found.path);
    let Open { state, receipt, attributes, earlier } = open;
    let mut differing = None;
    let state = match state {
        State::Here(state) => state,
        State::Lent(lent) => lent.back().map_or(Err(Refusal::Busy("nobody could read it".to_owned())), |back| {
            differing = back.1;
            Ok(Opened::Whole(back.0))
        }),
    };
    let who = identity(&receipt.stamp);
    let live = || in_place(&path, folder, who, || Database::open_live_with(&path, opening.hot));
    let copied =
        || in_place(&path, folder, who, || Database::open_backup_with(&path, &(opening.scratch)()?, opening.hot));
    let all_of = |captured: Captured| Captured {
        who: Some(receipt.stamp),
        receipt: Some(receipt.clone()),
        attributes: Some(attributes),
        ..captured
    };
    let mut next = match (state, &earlier, before) {
        (Ok(Opened::Whole(database)), ..) => Ok(*database),
        (Ok(Opened::Changes(changes)), Some(earlier), Some(before)) => {
            match frames::save(session, *changes, earlier, before, &receipt)? {
                Some(captured) => return Ok(all_of(captured)),
                None => live(),
            }
        }
        (Ok(Opened::Changes(_)), ..) => live(),
        (Err(refusal), ..) => Err(refusal),
    };
    let mut attempt = 0;
    let refused = loop {
        attempt += 1;
        let database = match next {
            Ok(database) => database,
            // A live view has no room for a copy: ask for one, if the database can be copied at all.
            Err(Refusal::Busy(_)) if attempt == 2 => {
                next = copied();
                continue;
            }
            Err(refusal) => break refusal,
        };
        match save_image(session, database, before, earlier.as_ref(), &receipt, differing.take())? {
            Ok(captured) => return Ok(all_of(captured)),
            Err(Disturbed::Io(error)) => {
                return Ok(Captured::failed(error));
            }
            Err(Disturbed::Again) => {}
        }
        // Somebody began to write. A live transaction is not disturbed by that; a copy is never.
        next = match attempt {
            1 => live(),
            2 | 3 => copied(),
            _ => break Refusal::Busy("it changed under every attempt to read it".to_owned()),
        };
    };
    if let Refusal::Io(error) = &refused
        && error.kind() == ErrorKind::NotFound
    {
        return Ok(Captured::gone());
    }
    let mut captured = capture_bytes(session, opening.through, (found, folder), before, None, &mut |_| None)?;
    session.sink.close_segment(Segment::Data)?;
    match &refused {
        Refusal::NotADatabase(why) => {
            captured.remarks.push(format!("looks like a database but is not a sound one, kept as bytes: {why}"));
        }
        Refusal::HotJournal => captured.remarks.push(refused.to_string()),
        refusal => {
            captured.error.get_or_insert(format!("{refusal}; kept as bytes, which may not be of one moment"));
            captured.receipt = None;
            if let Some((_, consistency, _)) = &mut captured.content {
                *consistency = Consistency::Changed;
            }
        }
    }
    Ok(captured)
}

enum Disturbed {
    Again,
    Io(std::io::Error),
}

fn save_image(
    session: &mut Session<'_>,
    mut database: Database,
    before: Option<&Content>,
    earlier: Option<&Earlier>,
    receipt: &Receipt,
    differing: Option<Differing>,
) -> Result<std::result::Result<Captured, Disturbed>> {
    let listed = earlier.and_then(|earlier| database.changed_since(&earlier.mark.log).ok()?);
    let mark = database.wal_mark().and_then(|log| Mark::new(log, database.len(), receipt));
    // Databases share no segment with other files.
    session.sink.close_segment(Segment::Data)?;
    let saved = match differing.map(|it| save_differing(session, &mut database, &it)) {
        Some(Ok(None)) | None => save_whole(session, &mut database, before),
        Some(Ok(Some(saved))) => Ok(saved),
        Some(Err(error)) => Err(error),
    };
    // Also when it failed half way: what was saved of it shares no segment either.
    session.sink.close_segment(Segment::Data)?;
    let ((size, content), differing) = match saved {
        Ok(saved) => saved,
        Err(Failure::Store(error)) => return Err(error),
        Err(Failure::Source(error)) if error.kind() == ErrorKind::Interrupted => return Ok(Err(Disturbed::Again)),
        Err(Failure::Source(error)) => return Ok(Err(Disturbed::Io(error))),
    };
    let remarks = database.remarks().to_vec();
    match database.finish() {
        Ok(true) => {
            let content = Some((size, Consistency::Transaction, content));
            let error = listed.zip(earlier).and_then(|(listed, earlier)| earlier.belied(&listed, &differing));
            Ok(Ok(Captured { content, mark, error, remarks, ..Captured::default() }))
        }
        Ok(false) => Ok(Err(Disturbed::Again)),
        Err(error) => Ok(Err(Disturbed::Io(error))),
    }
}

/// An image that was saved: its size in bytes, its content, and the pages that differ from the parent's, as far as both
/// go.
type Saved = ((u64, Content), Vec<u32>);

/// Saves all of `database`.
fn save_whole(
    session: &mut Session<'_>,
    database: &mut Database,
    before: Option<&Content>,
) -> std::result::Result<Saved, Failure> {
    session.watch();
    let (length, mut offset) = (database.len(), 0);
    let saved = session.save(Cut::for_database(database.page_size()), before, &mut |buffer| {
        let amount = buffer.len().min((length - offset) as usize);
        database.read_at(offset, &mut buffer[..amount])?;
        offset += amount as u64;
        Ok(amount)
    });
    let differing = session.watched();
    Ok((saved?, differing))
}

/// Saves the pages of `database` that are `differing`. Nothing comes of it if what the parent has cannot be loaded:
/// then all has to be read.
fn save_differing(
    session: &mut Session<'_>,
    database: &mut Database,
    differing: &Differing,
) -> std::result::Result<Option<Saved>, Failure> {
    let page_size = u64::from(database.page_size());
    let pages = (database.len() / page_size) as u32;
    let mut read = |page: u32, into: &mut [u8]| database.read_at(u64::from(page - 1) * page_size, into);
    let saved = session.save_changed(differing.before.paged(), pages, &differing.changed, &mut read)?;
    Ok(saved.map(|saved| (saved, differing.of_both().to_vec())))
}

/// Saves the bytes of a file in `folder`, unless they turn out to be those of a database, or of the sidecar that lies
/// `beside` an image.
pub fn capture_file(
    session: &mut Session<'_>,
    source: &Path,
    (found, folder): (&Found, Identity),
    before: Option<&Content>,
    beside: Option<Sidecar>,
    early: Option<Early>,
) -> Result<Captured> {
    let named = Sidecar::named(&found.path).map(|(which, _)| which);
    let mut judged = None;
    let captured = capture_bytes(session, source, (found, folder), before, early, &mut |head| {
        judged = named.map(|which| which.is_true(head));
        if beside.is_some() && judged == Some(true) {
            return Some(Instead::Sidecar);
        }
        let is_database = head.len() as u64 >= DATABASE_LEAST && looks_like_database(head).is_some();
        is_database.then_some(Instead::Database)
    })?;
    Ok(Captured { judged, ..captured })
}

/// Saves a file's bytes, unless `judge` says of the first [`HEAD`] of them, or of all if there are fewer, that it is
/// something else.
fn capture_bytes(
    session: &mut Session<'_>,
    source: &Path,
    (found, folder): (&Found, Identity),
    before: Option<&Content>,
    early: Option<Early>,
    judge: &mut dyn FnMut(&[u8]) -> Option<Instead>,
) -> Result<Captured> {
    if let Some(early) = early {
        let stamp = early.stamp();
        let who = Some(stamp);
        if let Some(instead) = judge(early.head()) {
            return Ok(Captured { instead: Some(instead), who, ..Captured::default() });
        }
        if let Some((size, content)) = early.save(session, before)? {
            let content = Some((size, Consistency::Stable, content));
            let receipt = Some(Receipt::of_file(stamp));
            let attributes = Some(attributes_at(found, stamp));
            return Ok(Captured { content, receipt, attributes, who, ..Captured::default() });
        }
    }
    let path = source.join(&found.path);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let seen = match std::fs::symlink_metadata(&path) {
            Ok(_) if !lies_in(&path, folder) => return Ok(Captured::gone()),
            Ok(meta) if meta.is_file() => stamp(&meta),
            Ok(_) => return Ok(Captured::failed("it became something else while the snapshot was taken")),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Captured::gone()),
            Err(error) => return Ok(Captured::failed(error)),
        };
        let mut verdict = None;
        let saved = Bytes::open(&path).map_err(Failure::Source).and_then(|bytes| {
            let mut offset = 0;
            session.save(Cut::for_file(seen.size), before, &mut |buffer| {
                // No further than the file went: one that grows as fast as it is read has no end.
                let most = usize::try_from(seen.size - offset).unwrap_or(usize::MAX).min(buffer.len());
                let got = bytes.read_full(&mut buffer[..most], offset)?;
                if offset == 0 {
                    verdict = judge(&buffer[..got.min(HEAD)]);
                    if verdict.is_some() {
                        // Before a byte of it was saved.
                        return Err(ErrorKind::Other.into());
                    }
                }
                offset += got as u64;
                Ok(got)
            })
        });
        if verdict.is_some() {
            return Ok(Captured { instead: verdict, who: Some(seen), ..Captured::default() });
        }
        let after = std::fs::symlink_metadata(&path);
        let (size, content) = match (saved, &after) {
            (Err(Failure::Store(error)), _) => return Err(error),
            // Deleted while the snapshot was taken: it is not in it.
            (Err(Failure::Source(error)), _) if error.kind() == ErrorKind::NotFound => return Ok(Captured::gone()),
            (_, Err(error)) if error.kind() == ErrorKind::NotFound => return Ok(Captured::gone()),
            (_, Ok(_)) if !lies_in(&path, folder) => return Ok(Captured::gone()),
            (_, Ok(meta)) if !meta.is_file() => {
                return Ok(Captured::failed("it became something else while the snapshot was taken"));
            }
            // It became one since it was looked at last.
            (Err(Failure::Source(_)), _) if is_shared_memory(&path) => {
                let instead = Some(Instead::Sidecar);
                return Ok(Captured { instead, who: Some(seen), ..Captured::default() });
            }
            (Err(Failure::Source(error)), _) => return Ok(Captured::failed(error)),
            (Ok(saved), _) => saved,
        };
        let now = after.map_or(seen, |meta| stamp(&meta));
        let captured = |consistency| Captured {
            content: Some((size, consistency, content)),
            attributes: Some(attributes_at(found, now)),
            // Nothing that came after the first look is known to be in it.
            who: (identity(&now) == identity(&seen)).then_some(seen),
            ..Captured::default()
        };
        if now == seen && size == now.size {
            let receipt = Some(Receipt::of_file(now));
            return Ok(Captured { receipt, ..captured(Consistency::Stable) });
        }
        if attempt >= ATTEMPTS || now.size > RETRY_MOST {
            return Ok(captured(Consistency::Changed));
        }
    }
}

fn attributes_at(found: &Found, now: Stamp) -> Attributes {
    let (mtime, mtime_nanos) = Found { stamp: now, ..found.clone() }.mtime();
    Attributes { mode: found.mode, uid: found.owner.0, gid: found.owner.1, mtime, mtime_nanos }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Metadata};

    use rustix::fs::{CWD, RenameFlags, renameat_with};

    use super::*;
    use crate::source::sqlite::Refusal;

    /// Whether a database in one of two folders counts as opened in place if `meanwhile` happens as it is opened.
    fn holds(meanwhile: impl FnOnce(&Path)) -> bool {
        let root = tempfile::tempdir().expect("a folder");
        for file in ["a/db", "a/db-wal", "a/db-journal", "b/db", "b/db-wal", "other"] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, file).expect("written");
        }
        let path = root.path().join("a/db");
        let of = |meta: Metadata| identity(&stamp(&meta));
        let folder = of(fs::metadata(root.path().join("a")).expect("there"));
        let who = of(fs::metadata(&path).expect("there"));
        let opened: std::result::Result<(), Refusal> = in_place(&path, folder, who, || {
            meanwhile(root.path());
            Ok(())
        });
        opened.is_ok()
    }

    #[test]
    fn a_database_is_opened_where_it_was_seen() {
        assert!(holds(|_| {}));
        assert!(holds(|root| fs::write(root.join("a/db-wal"), "longer than before").expect("written")));
        assert!(holds(|root| fs::remove_file(root.join("a/db-journal")).expect("rolled back")));
        let exchange = |root: &Path, one, other| {
            renameat_with(CWD, root.join(one), CWD, root.join(other), RenameFlags::EXCHANGE).expect("exchanged");
        };
        assert!(!holds(|root| exchange(root, "a", "b")), "the folder is another one");
        assert!(!holds(|root| exchange(root, "a/db", "b/db")), "the database is another one");
        assert!(!holds(|root| exchange(root, "a/db-wal", "b/db-wal")), "the log is another one");
        assert!(!holds(|root| fs::remove_file(root.join("a/db-wal")).expect("removed")), "the log is gone");
        assert!(
            !holds(|root| fs::rename(root.join("other"), root.join("a/db-journal")).expect("moved")),
            "the journal"
        );
        // A hard link has the same identity, and another folder beside it.
        assert!(!holds(|root| {
            fs::remove_file(root.join("b/db")).expect("removed");
            fs::hard_link(root.join("a/db"), root.join("b/db")).expect("linked");
            exchange(root, "a", "b");
        }));
    }
}
