//! Google Drive, against a server on loopback that behaves as Drive does, or as it should not.
//!
//! One program, so that the server is compiled once: the story of a lost machine, what is never taken over, copies that
//! are ahead of a store, hostile answers, and seeded scripts of faults.

#[path = "../common/mod.rs"]
mod common;
#[path = "../drive_common/mod.rs"]
mod drive_common;
#[path = "../fake_drive/mod.rs"]
mod fake_drive;

mod ahead;
mod faults;
mod hostile;
mod story;
mod trust;
