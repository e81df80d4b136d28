//! What every kind of channel does: one try, with an end in time.
//!
//! The contract: [`Deliver::once`] tries once, and is back within about the time that it is given for one step, or a
//! few of those; it is never called twice at the same time. It may be called again after [`Trouble::Passing`], with the
//! same [`Letter`]: a second delivery does no more than tell twice. No text in a [`Trouble`] has a secret, an address,
//! or words of the other side in it.

use std::time::Duration;

use super::message::Notice;
use super::patience::Patience;
use super::secret::Secret;

/// What is to be delivered.
pub(super) struct Letter {
    /// What is told, in its bounds and without secrets.
    pub notice: Notice,
    /// The same for every try, and of no other letter.
    pub id: String,
    /// How long to wait.
    pub patience: Patience,
}

/// Why it was not delivered.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Another try is worth it, after this long if the other side says so.
    Passing(String, Option<Duration>),
    /// It does not pass.
    Lasting(String),
}

/// Delivers notices.
pub(super) trait Deliver: Send + Sync {
    /// As in the configuration.
    fn kind(&self) -> &'static str;

    /// Where it goes, as far as that is no secret.
    fn host(&self) -> Option<String>;

    /// What must be told to nobody.
    fn secrets(&self) -> Vec<&Secret>;

    /// Tries once.
    fn once(&self, letter: &Letter) -> Result<(), Trouble>;
}

impl Trouble {
    /// Trouble that another try may not meet again.
    pub fn passing(why: impl Into<String>) -> Trouble {
        Trouble::Passing(why.into(), None)
    }
}

/// Twice as many digits as there are bytes.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
