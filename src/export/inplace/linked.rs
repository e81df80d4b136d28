//! Files with more than one name: what is set by one name is set by all.
//!
//! A snapshot has each name as a file of its own, with its own mode, owner and time. Where two of them are one file in
//! the live directory by now, setting the mode of one may open the other to everybody. So a file with other names is
//! only touched if all of these are in what is restored, with the same content, and are to have the same; else a file
//! of its own is put in its place.

use std::collections::{BTreeMap, BTreeSet};

use super::root::{Kind, Seen};

/// What is to be set of a file.
type Wish = (u32, (u32, u32), (i64, u32));

/// What is known of files with more than one name, by inode.
#[derive(Default)]
pub struct Links {
    same: BTreeMap<u64, Names>,
    /// Databases of which another name is exchanged: for that, what lies in its log is written into the file that all
    /// names have.
    taken: BTreeSet<u64>,
}

struct Names {
    /// How many of them are restored, with the content that is there.
    count: u64,
    /// What the first is to have; none if another is to have something else.
    wish: Option<Wish>,
}

impl Links {
    /// Of what is as it is to be, but maybe for mode, owner and time: what is staged, and what is live.
    pub fn of(same: impl Iterator<Item = (Seen, Seen)>) -> Links {
        let mut found = Links::default();
        for (staged, live) in same.filter(|(_, live)| has_more(live)) {
            let wish = Some((staged.mode, staged.owner, staged.mtime));
            let names = found.same.entry(live.stamp.inode).or_insert(Names { count: 0, wish });
            names.count += 1;
            if names.wish != wish {
                names.wish = None;
            }
        }
        found
    }

    /// Notes that a database is exchanged, which `live` is one of the names of.
    pub fn take(&mut self, live: Seen) {
        if has_more(&live) {
            self.taken.insert(live.stamp.inode);
        }
    }

    /// Whether another name of `live` is exchanged as a database.
    pub fn is_taken(&self, live: Seen) -> bool {
        self.taken.contains(&live.stamp.inode)
    }

    /// Whether what is set of `live` is right for all its names.
    pub fn agree(&self, live: Seen) -> bool {
        let all = |names: &Names| names.count == live.links && names.wish.is_some();
        !has_more(&live) || self.same.get(&live.stamp.inode).is_some_and(all)
    }
}

fn has_more(seen: &Seen) -> bool {
    seen.kind != Kind::Folder && seen.links > 1
}
