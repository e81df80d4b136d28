//! What may lie on the disk when the power fails.
//!
//! The rules are those that POSIX gives, and no kinder ones that a file system happens to have:
//!
//! - A `fsync` or `fdatasync` of a file keeps what was written to it before the call began. Nothing else does: it keeps
//!   no name. A `fsync` of a folder keeps the names in it, and none in any other folder.
//! - What no `sync` covers is there, or not, each change for itself, in any order. Of a write any sectors of 512 bytes
//!   may be there; the file may have grown by it, with zeros, and have none of its bytes.
//! - A rename within a folder is done or not done. One from a folder to another is two changes, and each folder keeps
//!   its own: [`Medium`] says what may be there when not both are kept.

use super::disk::{Change, Disk, Node, Step};
use super::record::Recording;
use crate::common::Random;

const SECTOR: u64 = 512;

/// What is lost of that which no `sync` covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Nothing: the process was killed, and the system lives on.
    Nothing,
    /// All of it.
    All,
    /// What was written to files; the names are there.
    Data,
    /// Names; what was written to files is there.
    Names,
    /// Any of it, and parts of writes.
    Any,
}

/// What a file system makes of a rename from one folder to another, of which the folders are not both synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    /// ext4 and xfs, as everybody has them: the rename is one transaction. It is there as a whole or not at all, and a
    /// sync of either folder has all of it: that writes the journal up to there.
    Journal,
    /// ext2, ext4 without a journal, and all that POSIX allows: two blocks, each written for itself, and each kept by a
    /// sync of its own folder alone. The name may be in both folders, or in neither.
    Bare,
}

/// Both.
pub const MEDIA: [Medium; 2] = [Medium::Journal, Medium::Bare];

/// How the power fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// After so many steps.
    pub at: usize,
    pub loss: Loss,
    pub medium: Medium,
}

/// The disk, and what the process had said, after the first `count` steps.
pub struct Image {
    pub disk: Disk,
    pub said: String,
}

pub fn image(recording: &Recording, failure: Failure, random: &mut Random) -> Image {
    let Failure { at, loss, medium } = failure;
    let steps = &recording.steps[..at];
    let (mut disk, mut said) = (recording.before.clone(), Vec::new());
    for (nth, step) in steps.iter().enumerate() {
        if let Change::Said(bytes) = &step.change {
            said.extend_from_slice(bytes);
        }
        let after = &steps[nth + 1..];
        if let Change::Rename { from, to, .. } = &step.change
            && from.0 != to.0
            && loss != Loss::Nothing
        {
            let drawn = |random: &mut Random| match loss {
                Loss::Any => random.below(2) == 0,
                loss => loss == Loss::Data,
            };
            let (left, right) = (is_kept(step, from.0, after), is_kept(step, to.0, after));
            let (gone, come) = match medium {
                Medium::Journal => {
                    let done = left || right || drawn(random);
                    (done, done)
                }
                Medium::Bare => (left || drawn(random), right || drawn(random)),
            };
            disk.apply_halves(&step.change, gone, come);
            continue;
        }
        let node = match &step.change {
            Change::Data { node, .. } | Change::Size { node, .. } => Some(*node),
            Change::Entry { folder, .. } => Some(*folder),
            Change::Rename { to, .. } => Some(to.0),
            _ => None,
        };
        if loss == Loss::Nothing || node.is_none_or(|node| is_kept(step, node, after)) {
            disk.apply(&step.change);
            continue;
        }
        let is_data = matches!(step.change, Change::Data { .. } | Change::Size { .. });
        match loss {
            Loss::All => {}
            Loss::Data if is_data => {}
            Loss::Names if !is_data => {}
            Loss::Any => apply_some(&mut disk, &step.change, random),
            _ => disk.apply(&step.change),
        }
    }
    Image { disk, said: String::from_utf8_lossy(&said).into_owned() }
}

/// The disk after so many steps, of a process that was killed.
pub fn killed(recording: &Recording, at: usize) -> Image {
    let failure = Failure { at, loss: Loss::Nothing, medium: Medium::Journal };
    image(recording, failure, &mut Random::fixed(1))
}

/// Whether one of the steps after it is a sync of `node`, which it changed, and began when it was over.
fn is_kept(step: &Step, node: Node, after: &[Step]) -> bool {
    after.iter().filter(|sync| sync.began > step.ended).any(|sync| match &sync.change {
        Change::Sync { node: synced } => *synced == node,
        Change::SyncAll => true,
        _ => false,
    })
}

fn apply_some(disk: &mut Disk, change: &Change, random: &mut Random) {
    let Change::Data { node, at, bytes } = change else {
        if random.below(2) == 0 {
            disk.apply(change);
        }
        return;
    };
    let end = *at + bytes.len() as u64;
    let file = disk.bytes_mut(*node);
    if (file.len() as u64) < end && random.below(4) == 0 {
        file.resize(end as usize, 0);
    }
    // All, none, a beginning, or any of the sectors.
    let (way, cut) = (random.below(4), *at + random.below(bytes.len() as u64 + 1));
    let mut from = *at;
    while from < end {
        let to = ((from / SECTOR + 1) * SECTOR).min(end);
        let is_there = match way {
            0 => true,
            1 => false,
            2 => to <= cut,
            _ => random.below(2) == 0,
        };
        if is_there {
            let bytes = bytes[(from - at) as usize..(to - at) as usize].to_vec();
            disk.apply(&Change::Data { node: *node, at: from, bytes });
        }
        from = to;
    }
}
