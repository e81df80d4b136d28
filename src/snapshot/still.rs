//! The short cut of a snapshot that finds nothing to do: what one walk saw, in sixteen bytes.
//!
//! A snapshot that ends leaves a note: a keyed digest over all that its walk saw, that is the path, kind, mode, owner
//! and stamp of each entry, folders included, and which snapshot holds it. If the walk of the next one has the same
//! digest, that snapshot still holds everything: no receipt is read, no tree is loaded or built, nothing is written.
//!
//! **Why an equal digest proves it.** The note is left only if ([`Still::of`])
//! - every folder stood still: its stamp was the same after everything had been read as before it was listed, and lies
//!   clearly before the walk began ([`crate::source::moved`] calls that a calm look). So the stamp is of the very list
//!   of names that was captured, and any later change of that list shows in it;
//! - every file has a receipt with the stamp that the walk saw, so that any later change of its content shows in its
//!   stamp ([`super::receipts`]). For a database that goes for its log and its journal too, which are then entries of
//!   the walk with the very stamps that the receipt names;
//! - every symbolic link is old enough that another one in its place would have another stamp;
//! - nothing was unreadable, and nothing vanished.
//!
//! Nothing can hide from the second walk, though it is only one, and others move files all the while. Suppose that an
//! entry is there when that walk begins, and not where the note's snapshot has it. Then somebody put it there after the
//! note's walk, and the folder that it is in has another stamp ever since. Either that folder is one that the snapshot
//! has, under the same path: then the walk saw its new stamp, and the digest differs. Or it is itself not where the
//! snapshot has it, and the same is said of the folder above. The topmost is the data directory, which every walk sees.
//! So at the beginning of the second walk all was as the snapshot has it; what comes later is the next one's business.
//! And each entry was seen with its own stamp during the walk, so the content that the snapshot has of it was there at
//! that moment: it is of the second snapshot's span, as it is when files are read.
//!
//! **What is not in the digest.** A `-shm` that was left out changes through a map, without notice, and is captured
//! never; its path is in, and whether its size is one that such a file has. **Young files**, of which no stamp can be
//! relied on yet, are listed: their stamps are in the digest, and each is read again and held against the parent
//! ([`super::same`]). Once they are old enough they get their receipts, and leave the list.
//!
//! **Packs.** That the note is there says what the receipts say: every chunk that the snapshot names was looked up. The
//! note is sealed under the index's own file, and goes when a pack goes. Over the packs that were there it has a second
//! digest, of their stamps: a pack that somebody wrote to or put back is looked into, as without the short cut.

use std::collections::HashMap;
use std::path::Path;

use super::contents::{Contents, Listed};
use super::now::{Moment, now_nanos};
use super::parent::{Parent, Trees, load_trees};
use super::receipt::Receipt;
use super::receipts::Receipts;
use super::record::Record;
use super::same;
use super::sidecar::{Sidecar, sidecars};
use super::subtree::{Digests, Untouched};
use super::taking::{Taken, Taking};
use super::tree::{Consistency, Node};
use crate::codec::{Malformed, Reader, put_varint};
use crate::id::SnapshotId;
use crate::source::walk::{Found, Kind, Stamp, Walk};

/// What is noted of a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Still {
    /// The snapshot that holds what was there.
    snapshot: SnapshotId,
    /// How many packs the index had counted, and the digest of their stamps.
    packs: (u32, [u8; 16]),
    /// The digest of the walk.
    walk: [u8; 16],
    /// Places in the walk of sidecars that were left out, in order.
    left_out: Vec<(usize, Sidecar)>,
    /// Places of files that are too young for a receipt.
    young: Vec<usize>,
}

/// The name of the note for the data directory `source`.
pub(super) fn note_name(source: &str) -> String {
    format!("still {source}")
}

impl Still {
    /// What can be noted of a snapshot that began at `began`; nothing if its walk proves
    /// nothing. The snapshot and its packs are not known yet. `left_out` are the places of sidecars that were left out,
    /// in order; what is in an `untouched` subtree has receipts for all.
    pub(super) fn of(
        digests: &Digests,
        left_out: Vec<(usize, Sidecar)>,
        walked: &Walk,
        contents: &Contents,
        untouched: &Untouched,
        began: Moment,
    ) -> Option<Still> {
        if !contents.calm || !is_whole(walked) {
            return None;
        }
        let looked_at = || walked.found.iter().enumerate().filter(|(at, _)| !untouched.is_inside(*at));
        let named = looked_at().map(|(_, found)| found).filter(|found| Sidecar::named(&found.path).is_some());
        let beside: HashMap<&Path, Stamp> = named.map(|found| (&*found.path, found.stamp)).collect();
        let mut young = Vec::new();
        for (at, found) in looked_at() {
            let is_settled = match (found.kind, &contents.nodes[at]) {
                (Kind::Directory, _) => true,
                (Kind::Symlink, node) => {
                    // Nobody writes to a link: its times are those of a call.
                    let receipt = Receipt::of_database(found.stamp, [None; 2]);
                    node.is_some() && receipt.is_safe(began) && !contents.other_links.contains(&at)
                }
                (Kind::File, None) => is_left_out(walked, contents, found, *contents.left_out.get(&at)?),
                (Kind::File, Some((node, _))) => match (contents.receipts.get(&at), node) {
                    (Some(receipt), _) => is_vouched(receipt, found, &beside),
                    (None, Node::File { consistency: Consistency::Stable, .. }) => {
                        young.push(at);
                        contents.young.get(&found.path) == Some(&found.stamp) && !beside.contains_key(&*found.path)
                    }
                    _ => false,
                },
            };
            if !is_settled {
                return None;
            }
        }
        let walk = digests.root()?;
        Some(Still { snapshot: SnapshotId([0; 16]), packs: (0, [0; 16]), walk, left_out, young })
    }

    /// The note, with the snapshot that holds what was seen, and what [`Store::stamped`](super::store::Store::stamped)
    /// says of the packs now.
    pub(super) fn encode_for(self, snapshot: SnapshotId, packs: (u32, [u8; 16])) -> Vec<u8> {
        Still { snapshot, packs, ..self }.encode()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = self.snapshot.0.to_vec();
        put_varint(&mut out, u64::from(self.packs.0));
        out.extend_from_slice(&self.packs.1);
        out.extend_from_slice(&self.walk);
        put_varint(&mut out, self.left_out.len() as u64);
        for (at, which) in &self.left_out {
            put_varint(&mut out, *at as u64);
            out.push(match which {
                Sidecar::Log => 0,
                Sidecar::Memory => 1,
                Sidecar::Journal => 2,
            });
        }
        put_varint(&mut out, self.young.len() as u64);
        self.young.iter().for_each(|at| put_varint(&mut out, *at as u64));
        out
    }

    fn decode(bytes: &[u8]) -> Result<Still, Malformed> {
        let mut reader = Reader::new(bytes);
        let snapshot = SnapshotId(reader.array()?);
        let packs = (reader.varint_up_to(u64::from(u32::MAX), "too many packs")? as u32, reader.array()?);
        let walk = reader.array()?;
        let count = reader.count(2)?;
        let mut left_out = Vec::with_capacity(count);
        for _ in 0..count {
            let at = reader.varint()? as usize;
            let which = match reader.u8()? {
                0 => Sidecar::Log,
                1 => Sidecar::Memory,
                2 => Sidecar::Journal,
                _ => return Err(Malformed("a sidecar of an unknown kind")),
            };
            left_out.push((at, which));
        }
        let count = reader.count(1)?;
        let young = (0..count).map(|_| Ok(reader.varint()? as usize)).collect::<Result<Vec<_>, _>>()?;
        reader.end()?;
        Ok(Still { snapshot, packs, walk, left_out, young })
    }
}

/// Whether a walk missed nothing that it knows of, and found anything at all.
fn is_whole(walked: &Walk) -> bool {
    walked.errors.is_empty() && walked.vanished.is_empty() && walked.found.len() > 1
}

/// Whether a sidecar that was left out will be again for as long as its stamp stays: its database vouches for that.
fn is_left_out(walked: &Walk, contents: &Contents, found: &Found, which: Sidecar) -> bool {
    let Some((_, base)) = Sidecar::named(&found.path) else { return false };
    let is_base = |other: &Found| other.parent == found.parent && other.path == base;
    let at = contents.images.get(&base).copied().or_else(|| walked.found.iter().position(is_base));
    let Some(receipt) = at.and_then(|at| contents.receipts.get(&at)) else { return false };
    let database = receipt.beside();
    match which {
        // Its size and its database's header decide.
        Sidecar::Memory => true,
        Sidecar::Log => database.is_some_and(|[log, _]| log == Some(found.stamp)),
        Sidecar::Journal => database.is_some_and(|[_, journal]| journal == Some(found.stamp)),
    }
}

/// Whether `receipt` is about what the walk saw: the file, and for a database what lies beside it.
fn is_vouched(receipt: &Receipt, found: &Found, beside: &HashMap<&Path, Stamp>) -> bool {
    let walked = || {
        let [log, _, journal] = sidecars(&found.path);
        [log, journal].map(|path| beside.get(&*path).copied())
    };
    receipt.stamp == found.stamp && receipt.beside().is_none_or(|seen| seen == walked())
}

impl Taking<'_> {
    /// The note that the snapshot `record` left.
    pub(super) fn still_note(&self, record: Option<&Record>) -> Option<Still> {
        let record = record?;
        let note = self.store.catalog().index().note(&note_name(&record.source))?;
        Still::decode(&note).ok().filter(|note| note.snapshot == record.id)
    }

    /// The digests of what `walked` saw, if all that was left out is what `note` says.
    pub(super) fn digests(&self, walked: &Walk, note: Option<&Still>) -> Digests {
        let left_out = note.map_or(&[][..], |note| &note.left_out);
        let none = (&Digests::default(), &Untouched::default());
        Digests::of(self.store.catalog().packs().keys(), walked, left_out, none)
    }

    /// The answer at once, if `walked`, which has these `digests`, saw what the `note` of the snapshot `record` says.
    /// What is in the way of it is no error: then the snapshot is taken the long way.
    pub(super) fn still(
        &mut self,
        mut note: Still,
        record: &Record,
        walked: &Walk,
        digests: &Digests,
    ) -> Option<Taken> {
        let options = self.options;
        let index = self.store.catalog().index();
        let asked_for = options.full_scan || !options.tags.is_empty() || options.note.is_some();
        if asked_for || !is_whole(walked) || !index.unreadable().is_empty() || index.is_to_be_mended() {
            return None;
        }
        if Some(note.walk) != digests.root() || self.store.stamps_of_packs(note.packs.0) != Some(note.packs.1) {
            return None;
        }
        let mut entries = Vec::new();
        if options.list || !note.young.is_empty() {
            let catalog = self.store.catalog();
            let (trees, damage) = load_trees(catalog, Some(record), walked, Trees::new(), &Untouched::default());
            let parent = Parent::of(trees);
            if !damage.is_empty() || !self.are_same(walked, &parent, &note.young) {
                return None;
            }
            if options.list {
                entries = list(walked, &parent);
            }
            if !options.dry_run {
                self.settle(&mut note, record, walked)?;
            }
        }
        let left_out = note
            .left_out
            .iter()
            .filter_map(|(at, which)| Some((walked.found.get(*at)?.path.clone(), which.reason().to_owned())));
        Some(Taken {
            record: record.clone(),
            unchanged: true,
            at_a_glance: true,
            taken_over: 0,
            new_chunks: 0,
            new_bytes: 0,
            stored_bytes: 0,
            changed_files: 0,
            entries,
            unreadable: Vec::new(),
            remarks: Vec::new(),
            excluded: walked.excluded.iter().cloned().chain(left_out).collect(),
            cut_ms: ((now_nanos() - self.began) / 1_000_000).max(0) as u64,
        })
    }

    fn are_same(&self, walked: &Walk, parent: &Parent, young: &[usize]) -> bool {
        same::find(self.store.catalog(), self.top.through(), walked, parent, young).len() == young.len()
    }

    /// Gives receipts to the young files that are old enough by now; they have just been read, and are the same.
    fn settle(&mut self, note: &mut Still, record: &Record, walked: &Walk) -> Option<()> {
        let (mut contents, began) = (Contents::new(), self.moment());
        self.note_clock(&record.source);
        for &at in &note.young {
            let found = walked.found.get(at)?;
            let receipt = Receipt::of_file(found.stamp);
            if receipt.is_safe(began) {
                contents.hand_out(self.top.through(), at, found, receipt, began);
            }
        }
        if contents.receipts.is_empty() {
            return Some(());
        }
        let index = self.store.catalog_mut().index_mut();
        let name = Receipts::note_name(&record.source);
        let mut receipts = Receipts::decode(&index.note(&name)?).ok().filter(|all| all.snapshot == record.id)?;
        note.young.retain(|&at| !contents.receipts.contains_key(&at));
        let path = |at: usize| walked.found[at].path.clone();
        receipts.files.extend(contents.receipts.into_iter().map(|(at, receipt)| (path(at), receipt)));
        index.leave_note(&name, &receipts.encode());
        index.leave_note(&note_name(&record.source), &note.encode());
        Some(())
    }
}

/// What the snapshot has of each entry, in the order of the walk.
fn list(walked: &Walk, parent: &Parent) -> Vec<Listed> {
    let entry = |found: &Found| Some(Listed::of(found, &parent.entry(found)?.node));
    walked.found.iter().skip(1).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::tree::Content;
    use super::*;
    use crate::crypto::keys::Keys;
    use crate::crypto::secret::Secret;
    use crate::error::SourceError;
    use crate::id::StoreId;

    fn found(path: &str, kind: Kind) -> Found {
        let stamp = Stamp { device: 1, inode: 2, size: 4096, mtime: 4, ctime: 5 };
        Found { path: PathBuf::from(path), parent: 0, kind, mode: 0o644, owner: (6, 7), stamp }
    }

    /// What breaks a proof, and how.
    type Break = (&'static str, fn(&mut Walk, &mut Contents));

    const BEGAN: i128 = 1_700_000_000_000_000_007;
    const MOMENT: Moment = Moment { began: BEGAN, steady: 0 };

    /// A link, a database with its sidecars, a file with a receipt, and one that is too young for one.
    fn captured() -> (Walk, Contents) {
        let names = ["", "a", "b.db", "b.db-shm", "b.db-wal", "f", "y"];
        let mut walk = Walk::default();
        for (at, name) in names.into_iter().enumerate() {
            let kind = [Kind::Directory, Kind::Symlink].get(at).copied().unwrap_or(Kind::File);
            let age = if name == "y" { 30 } else { 90 };
            let time = BEGAN - age * 1_000_000_000;
            let stamp = Stamp { inode: at as u64, mtime: time, ctime: time, ..found(name, kind).stamp };
            walk.found.push(Found { stamp, ..found(name, kind) });
        }
        let file = |consistency| Node::File { size: 1, consistency, content: Content::Chunks(Vec::new()) };
        let mut contents = Contents::new();
        contents.calm = true;
        contents.nodes = vec![None; names.len()];
        for (at, node) in [
            (1, Node::Symlink(b"f".to_vec())),
            (2, file(Consistency::Transaction)),
            (5, file(Consistency::Stable)),
            (6, file(Consistency::Stable)),
        ] {
            contents.nodes[at] = Some((node, None));
        }
        contents.left_out = [(3, Sidecar::Memory), (4, Sidecar::Log)].into();
        let stamp = |at: usize| walk.found[at].stamp;
        contents.images.insert("b.db".into(), 2);
        contents.receipts.insert(2, Receipt::of_database(stamp(2), [Some(stamp(4)), None]));
        contents.receipts.insert(5, Receipt::of_file(stamp(5)));
        contents.young.insert("y".into(), stamp(6));
        (walk, contents)
    }

    #[test]
    fn what_proves_nothing_leaves_no_note() {
        let keys = Keys::new(StoreId([1; 16]), &Secret::random());
        let of = |walk: &Walk, contents: &Contents| {
            let (left_out, untouched) = (contents.left_out_in_order(), Untouched::default());
            let digests = Digests::of(&keys, walk, &left_out, (&Digests::default(), &untouched));
            Still::of(&digests, left_out, walk, contents, &untouched, MOMENT)
        };
        let (walk, contents) = captured();
        let note = of(&walk, &contents).expect("a note");
        assert_eq!((note.left_out, note.young), (vec![(3, Sidecar::Memory), (4, Sidecar::Log)], vec![6]));
        let breaks: [Break; 17] = [
            ("a folder that changed", |_, contents| contents.calm = false),
            ("what was unreadable", |walk, _| walk.errors.push(SourceError::new("x", "why"))),
            ("what vanished", |walk, _| walk.vanished.push(0)),
            ("a link of just now", |walk, _| walk.found[1].stamp.ctime = BEGAN - 1),
            ("a link that is gone", |_, contents| contents.nodes[1] = None),
            ("a link that was another one when it was read", |_, contents| {
                contents.other_links.insert(1);
            }),
            ("a database without a receipt", |_, contents| {
                contents.receipts.remove(&2);
            }),
            ("a database that changed since", |walk, _| walk.found[2].stamp.ctime += 1),
            ("a log that changed since", |walk, _| walk.found[4].stamp.ctime += 1),
            ("a log that is excluded, and of which no walk tells", |walk, contents| {
                walk.found.remove(4);
                contents.nodes.remove(4);
                contents.left_out.remove(&4);
            }),
            ("a log that was not there", |_, contents| {
                let receipt = contents.receipts.get_mut(&2).expect("there");
                *receipt = Receipt::of_database(receipt.stamp, [None; 2]);
            }),
            ("a file that is gone", |_, contents| contents.nodes[5] = None),
            ("a file that changed since", |walk, _| walk.found[5].stamp.mtime += 1),
            ("a young file that changed since", |walk, _| walk.found[6].stamp.ctime += 1),
            ("a young file that changed all the while", |_, contents| {
                let content = Content::Chunks(Vec::new());
                contents.nodes[6] = Some((Node::File { size: 1, consistency: Consistency::Changed, content }, None));
            }),
            ("a young file without a stamp", |_, contents| contents.young.clear()),
            ("a young file that is named like a log", |walk, contents| {
                walk.found[6].path = "y-wal".into();
                contents.young.insert("y-wal".into(), walk.found[6].stamp);
            }),
        ];
        for (what, spoil) in breaks {
            let (mut walk, mut contents) = captured();
            spoil(&mut walk, &mut contents);
            assert_eq!(of(&walk, &contents), None, "{what}");
        }
    }

    #[test]
    fn notes_round_trip() {
        let left_out = vec![(3, Sidecar::Log), (4, Sidecar::Memory), (900, Sidecar::Journal)];
        let (snapshot, packs, walk) = (SnapshotId([1; 16]), (7, [2; 16]), [3; 16]);
        let note = Still { snapshot, packs, walk, left_out, young: vec![1, 70_000] };
        let bytes = note.encode();
        assert_eq!(Still::decode(&bytes), Ok(note));
        for length in 0..bytes.len() {
            assert!(Still::decode(&bytes[..length]).is_err());
        }
    }
}
