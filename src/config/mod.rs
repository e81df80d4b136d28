//! What is set, and by whom.
//!
//! Nouns: a *key* is one thing that can be set ([`keys`], the one table of them, from which the documentation and the
//! schema for editors are made); a *layer* is a place that sets some ([`layers`]): the user's file, the project's file
//! for the keys that a project may set, the environment; flags are the command's. A higher layer wins, key by key.
//! [`read`] makes values of what the layers say, and [`cron`] is the value of a schedule.
//!
//! **A mistake is a warning** that names file and line, and what it is about stays as if nothing was said: nobody must
//! be without a backup for a comma. Only what would remove something is left undone then.

pub mod cron;
pub mod keys;
pub mod layers;
pub mod lines;
pub mod read;
