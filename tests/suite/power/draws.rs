//! Which power failures of a recording are looked at.
//!
//! Each step of it, with all that is unsynced lost, or all bytes, or all names: one after the other in the long form,
//! and spread evenly, from where the seed says, in the short one. And reorderings, drawn at random: any of the unsynced
//! is there, and parts of writes. What leaves a disk that was seen already, after the same words, is not looked at
//! again, and does not count.

use std::collections::HashSet;

use super::image::{Failure, Image, Loss, Medium, image};
use super::record::Recording;
use crate::common::{Random, rounds};

/// From so many rounds on it is the long form.
const LONG: u64 = 10;
/// Of the steps, in one round of the short form.
const STEPS: u64 = 6;
/// Of the reorderings, in one round of the short form and of the long one.
const DRAWN: (u64, u64) = (6, 25);
/// So many draws for one that is new: a deed of few steps has few of them.
const TRIES: u64 = 12;

/// All kinds of losses that a power failure makes.
const LOSSES: [Loss; 4] = [Loss::All, Loss::Data, Loss::Names, Loss::Any];

/// How many there were.
#[derive(Default)]
pub struct Tally {
    /// Steps after which the power failed, with each kind of loss.
    pub steps: u64,
    /// Reorderings, each other than all others.
    pub different: usize,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} power failures at steps, {} different reorderings", self.steps, self.different)
    }
}

/// Whether this is the long form.
pub fn is_long() -> bool {
    rounds() >= LONG
}

/// A power failure anywhere in `count` steps: the `nth` of them at the end, after `noted`, or anywhere, in turn.
pub fn any((nth, noted, count): (u64, u64, u64), loss: Option<Loss>, media: &[Medium], random: &mut Random) -> Failure {
    let from = [count, noted, 0][nth as usize % 3];
    let at = (from + random.below(count + 1 - from)) as usize;
    let loss = loss.unwrap_or(LOSSES[(random.next() >> 9) as usize % 4]);
    Failure { at, loss, medium: one_of(media, random.next() >> 9) }
}

fn one_of(media: &[Medium], nth: u64) -> Medium {
    media[nth as usize % media.len()]
}

/// Shows the images that power failures leave of `recording`. A third of the reorderings is at the end, when all is
/// acknowledged; a third begins where a journal is there, if one is.
pub fn failures(
    recording: &Recording,
    media: &[Medium],
    random: &mut Random,
    show: &mut dyn FnMut(Image, Failure),
) -> Tally {
    let count = recording.steps.len() as u64;
    let noted = recording.noted.as_ref().map_or(0, |(noted, _)| *noted as u64);
    let (mut seen, mut disks, mut tally) = (HashSet::new(), HashSet::new(), Tally::default());
    let (all, chosen) = ((count + 1) * 6, STEPS * rounds());
    let from = random.below(all);
    let numbers: Vec<u64> =
        if is_long() { (0..all).collect() } else { (0..chosen).map(|n| (from + n * all / chosen) % all).collect() };
    for number in numbers {
        let loss = LOSSES[number as usize % 3];
        let failure = Failure { at: (number / 6) as usize, loss, medium: one_of(media, number / 3) };
        let image = image(recording, failure, random);
        if seen.insert((image.disk.hash(), image.said.clone())) {
            tally.steps += 1;
            show(image, failure);
        }
    }
    let wanted = rounds() * if is_long() { DRAWN.1 } else { DRAWN.0 };
    for nth in 0..wanted * TRIES {
        let failure = any((nth, noted, count), Some(Loss::Any), media, random);
        let image = image(recording, failure, random);
        let hash = image.disk.hash();
        if seen.insert((hash, image.said.clone())) {
            disks.insert(hash);
            show(image, failure);
        }
        if disks.len() as u64 >= wanted {
            break;
        }
    }
    tally.different = disks.len();
    tally
}
