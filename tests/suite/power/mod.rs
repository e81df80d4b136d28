//! The power fails. What the program does to the disk is recorded, call by call ([`record`]); of each beginning of that
//! a disk is made as a power failure may leave it, and as a kill leaves it ([`image`]); on each of them everything that
//! was acknowledged must be there, nothing half may be taken for whole, and the next command must work. The next
//! command is recorded too, and the power fails during that.
//!
//! `NBAK_TEST_ROUNDS` multiplies the images, `NBAK_TEST_SEED` repeats them. Recording needs strace: where that is not
//! installed, or may not trace, these tests say so and pass.
#![allow(clippy::print_stdout, reason = "a test that was skipped says so, and the others how much they did")]

mod disk;
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
use image::{Image, LOSSES, Loss, image};
use inplace::Origin;
use record::record;
use scenes::Scene;

/// Images that power failures leave, of a scene, in one round.
const IMAGES: u64 = 12;
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
    // A third of all tries is at the end, when all is acknowledged; a third begins where a journal is there, if one is.
    let none = (0, BTreeMap::new());
    let (noted, names) = recording.noted.as_ref().unwrap_or(&none);
    let any = |nth: u64, random: &mut Random| {
        let from = [count, *noted as u64, 0][nth as usize % 3];
        from + random.below(count + 1 - from)
    };
    // A journal that was there from the beginning means what was there then.
    let was_there = scene.note.as_deref().is_some_and(|note| recording.before.find(note).is_some());
    let origin = if was_there { Origin::Inodes(&recording.before.inodes) } else { Origin::Names(names) };
    let show = |image: Image, what: &str| {
        scene.lay(&image.disk, origin);
        (scene.judge)(scene, &image.said, what);
    };
    let kills = (KILLS * rounds()).min(count + 1);
    for nth in 0..kills {
        let at = if kills > count { nth } else { nth * count / (kills - 1) };
        let what = format!("{}: killed after step {at} of {count}", scene.name);
        show(image(&recording, at as usize, Loss::Nothing, &mut random), &what);
    }
    for nth in 0..IMAGES * rounds() {
        let at = any(nth / LOSSES.len() as u64, &mut random);
        let loss = LOSSES[nth as usize % LOSSES.len()];
        let what = format!("{}: power failed after step {at} of {count}, {loss:?} lost", scene.name);
        show(image(&recording, at as usize, loss, &mut random), &what);
    }
    let mut nested = 0;
    for nth in 0..rounds() {
        let (at, loss) = (any(nth, &mut random), LOSSES[nth as usize % LOSSES.len()]);
        let first = image(&recording, at as usize, loss, &mut random);
        scene.lay(&first.disk, origin);
        let recovery = record(&scene.place.command(&scene.next), &top, None);
        let steps = recovery.steps.len() as u64;
        for _ in 0..NESTED {
            let (again, lost) = (random.below(steps + 1), LOSSES[random.below(4) as usize]);
            let second = image(&recovery, again as usize, lost, &mut random);
            scene.lay(&second.disk, Origin::Inodes(&recovery.before.inodes));
            let what = format!(
                "{}: power failed after step {at} of {count}, {loss:?} lost, and in the recovery after step {again} of \
                 {steps}, {lost:?} lost",
                scene.name
            );
            (scene.judge)(scene, &first.said, &what);
            nested += 1;
        }
    }
    println!(
        "{}: {count} steps, {kills} kills, {} power failures, {nested} in recovery",
        scene.name,
        IMAGES * rounds()
    );
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
