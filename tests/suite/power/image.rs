//! What may lie on the disk when the power fails.
//!
//! The rules are those that POSIX gives, and no kinder ones that a file system happens to have:
//!
//! - A `fsync` or `fdatasync` of a file keeps what was written to it before the call began. Nothing else does: it keeps
//!   no name. A `fsync` of a folder keeps the names in it.
//! - What no `sync` covers is there, or not, each change for itself, in any order. Of a write any sectors of 512 bytes
//!   may be there; the file may have grown by it, with zeros, and have none of its bytes.
//! - A rename is done or not done, and each of its two folders keeps it.

use super::disk::{Change, Disk, Step};
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

/// All kinds of losses that a power failure makes.
pub const LOSSES: [Loss; 4] = [Loss::All, Loss::Data, Loss::Names, Loss::Any];

/// The disk, and what the process had said, after the first `count` steps.
pub struct Image {
    pub disk: Disk,
    pub said: String,
}

pub fn image(recording: &Recording, count: usize, loss: Loss, random: &mut Random) -> Image {
    let steps = &recording.steps[..count];
    let (mut disk, mut said) = (recording.before.clone(), Vec::new());
    for (nth, step) in steps.iter().enumerate() {
        if let Change::Said(bytes) = &step.change {
            said.extend_from_slice(bytes);
        }
        if loss == Loss::Nothing || is_kept(step, &steps[nth + 1..]) {
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

/// Whether one of the steps after it is a sync of what it changed, and began when it was over.
fn is_kept(step: &Step, after: &[Step]) -> bool {
    let nodes = match &step.change {
        Change::Data { node, .. } | Change::Size { node, .. } => [*node, *node],
        Change::Entry { folder, .. } => [*folder, *folder],
        Change::Rename { from, to, .. } => [from.0, to.0],
        _ => return true,
    };
    after.iter().filter(|sync| sync.began > step.ended).any(|sync| match &sync.change {
        Change::Sync { node } => nodes.contains(node),
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
