//! Google Drive, against a server on loopback that behaves as Drive does, or as it should not.
//!
//! The story of a lost machine, what is never taken over, copies that
//! are ahead of a store, hostile answers, and seeded scripts of faults.

mod ahead;
mod disk;
mod faults;
mod hostile;
mod newest;
mod story;
mod trust;
