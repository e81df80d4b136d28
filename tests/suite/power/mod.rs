//! The power fails. What the program does to the disk is recorded, call by call ([`record`]); of each beginning of that
//! a disk is made as a power failure may leave it, and as a kill leaves it ([`image`]); on each of them everything that
//! was acknowledged must be there, nothing half may be taken for whole, and the next command must work. The next
//! command is recorded too, and the power fails during that.
//!
//! `NBAK_TEST_ROUNDS` multiplies the images, `NBAK_TEST_SEED` repeats them. Recording needs strace: where that is not
//! installed, or may not trace, these tests say so and pass.
#![allow(clippy::print_stdout, reason = "a test that was skipped says so, and the others how much they did")]

mod disk;
mod draws;
mod drive;
mod image;
mod inplace;
mod judge;
mod record;
mod scenes;
mod sweep;
mod trace;

use std::collections::BTreeMap;

use crate::common::strace::can_trace;
use crate::common::{Random, rounds};
use draws::{any, failures, is_long};
use image::{Image, image, killed};
use inplace::Origin;
use record::record;
use scenes::Scene;

/// Kills of a scene, in one round.
const KILLS: u64 = 8;
/// Of so many images the recovery is recorded too, and fails.
const NESTED: u64 = 6;

fn fails_at_any_step(scene: &Scene) {
    if !can_trace() {
        return;
    }
    let mut random = Random::seeded(scene.name);
    let top = scene.top();
    let recording = record(&scene.place.command(&scene.args), &top, scene.note.as_deref());
    assert_eq!(recording.code, Some(0), "{}", scene.name);
    let count = recording.steps.len() as u64;
    let none = (0, BTreeMap::new());
    let (noted, names) = recording.noted.as_ref().unwrap_or(&none);
    // A journal that was there from the beginning means what was there then.
    let was_there = scene.note.as_deref().is_some_and(|note| recording.before.find(note).is_some());
    let origin = if was_there { Origin::Inodes(&recording.before.inodes) } else { Origin::Names(names) };
    let show = |image: &Image, what: &str| {
        scene.lay(&image.disk, origin);
        (scene.judge)(scene, &image.said, what);
    };
    let kills = if is_long() { count + 1 } else { (KILLS * rounds()).min(count + 1) };
    for nth in 0..kills {
        let at = if kills > count { nth } else { nth * count / (kills - 1) };
        let what = format!("{}: killed after step {at} of {count}", scene.name);
        show(&killed(&recording, at as usize), &what);
    }
    let tally = failures(&recording, scene.media, &mut random, &mut |image, failure| {
        show(&image, &format!("{}: power failed, of {count} steps: {failure:?}", scene.name));
    });
    let mut nested = 0;
    for nth in 0..rounds() {
        let failure = any((nth + 1, *noted as u64, count), None, scene.media, &mut random);
        let first = image(&recording, failure, &mut random);
        scene.lay(&first.disk, origin);
        let recovery = record(&scene.place.command(&scene.next), &top, None);
        let steps = recovery.steps.len() as u64;
        for _ in 0..NESTED {
            let again = any((2, 0, steps), None, scene.media, &mut random);
            let second = image(&recovery, again, &mut random);
            scene.lay(&second.disk, Origin::Inodes(&recovery.before.inodes));
            let what = format!(
                "{}: power failed, of {count} steps: {failure:?}, and in the recovery, of {steps} steps: {again:?}",
                scene.name
            );
            (scene.judge)(scene, &first.said, &what);
            nested += 1;
        }
    }
    println!("{}: {count} steps, {kills} kills, {tally}, {nested} in recovery", scene.name);
}

#[test]
fn of_the_first_snapshot() {
    fails_at_any_step(&scenes::first_snapshot());
}

#[test]
fn of_a_later_snapshot() {
    fails_at_any_step(&scenes::later_snapshot());
}

#[test]
fn of_a_snapshot_that_puts_packs_together() {
    fails_at_any_step(&scenes::swarm());
}

#[test]
fn of_a_forget() {
    fails_at_any_step(&scenes::forget());
}

#[test]
fn of_a_gc() {
    fails_at_any_step(&scenes::gc());
}

#[test]
fn of_a_key_rotation() {
    fails_at_any_step(&scenes::rotation());
}

#[test]
fn of_a_key_that_is_added() {
    fails_at_any_step(&scenes::key_added());
}

#[test]
fn of_a_key_that_is_removed() {
    fails_at_any_step(&scenes::key_removed());
}

#[test]
fn of_a_repair() {
    fails_at_any_step(&scenes::repair());
}

#[test]
fn of_a_backup() {
    fails_at_any_step(&scenes::backup());
}

#[test]
fn of_a_restore() {
    fails_at_any_step(&scenes::restore());
}

#[test]
fn of_a_restore_in_place() {
    fails_at_any_step(&scenes::restore_in_place());
}

#[test]
fn of_a_restore_in_place_that_is_given_up() {
    if can_trace() {
        fails_at_any_step(&scenes::giving_up());
    }
}
