//! What a look at how things stand says: one line for each thing that was looked at, with how it is, and what to do
//! about it.
//!
//! Whoever looks hands its lines to a [`Say`]; who asked decides what becomes of them.

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What it is about.
    pub subject: &'static str,
    /// How it is.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// Wrong.
    Bad,
}

impl Level {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Good => "ok",
            Level::Note => "note",
            Level::Bad => "bad",
        }
    }
}

/// Takes what is said: of what, how it is, what was found, what to do about it.
pub type Say<'a> = dyn FnMut(&'static str, Level, String, &str) + 'a;
