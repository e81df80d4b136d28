//! Replacing files of a live data directory by staged ones, so that a crash leaves the old or the new content.
//!
//! To be written.
