//! One notice, by every channel that wants it, at the same time.
//!
//! Each channel has a thread of its own, so that none keeps another back. Whoever sends waits for all of them, and no
//! longer than [`Patience::whole`]: then what is still on its way is left to itself, and the next notice for that
//! channel waits for its turn, so that there is never more than one on the way by it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::channel::Channel;
use super::deliver::{Letter, Trouble, hex};
use super::message::{Notice, scrub};
use super::patience::{Patience, TRIES_MOST};
use crate::id::random_bytes;

/// There are at most this many channels.
const MOST: usize = 32;
/// How often it is looked whether a notice before this one has left.
const LOOK: Duration = Duration::from_millis(10);
/// How much longer than a channel its caller waits, so that it hears why.
const GRACE: Duration = Duration::from_millis(500);

/// All channels.
pub struct Channels {
    slots: Vec<Arc<Slot>>,
    patience: Patience,
}

struct Slot {
    channel: Channel,
    is_busy: AtomicBool,
}

/// What became of a notice on one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Where the channel stands in the list, from 0 on.
    pub at: usize,
    /// The channel: its kind, and the host.
    pub channel: String,
    /// How often it was tried.
    pub tries: u32,
    /// Why it was not told, if it was not.
    pub error: Option<String>,
}

impl Outcome {
    /// Whether the notice arrived.
    pub fn is_told(&self) -> bool {
        self.error.is_none()
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.slots.iter().map(|slot| &slot.channel)).finish()
    }
}

impl Channels {
    /// By these channels.
    pub fn new(channels: Vec<Channel>) -> Channels {
        let slots = channels.into_iter().map(|channel| Arc::new(Slot { channel, is_busy: AtomicBool::new(false) }));
        Channels { slots: slots.collect(), patience: Patience::default() }
    }

    /// As `nbak.notify` says, which is a list. An error says which object is wrong, from 1 on.
    pub fn parse(value: &Value) -> Result<Channels, String> {
        let all = value.as_array().ok_or("is no list of channels")?;
        if all.len() > MOST {
            return Err(format!("has more than {MOST} channels"));
        }
        let channels = all.iter().enumerate().map(|(at, value)| {
            Channel::parse(value).map_err(|why| format!("channel {} of {}: {why}", at + 1, all.len()))
        });
        channels.collect::<Result<_, _>>().map(Channels::new)
    }

    /// What is wrong with which of them.
    pub fn mistakes(all: &[Value]) -> Vec<String> {
        let more =
            (all.len() > MOST).then(|| format!("has more than {MOST} channels, of which the others are left aside"));
        let each = all.iter().take(MOST).enumerate().filter_map(|(at, value)| {
            Some(format!("channel {} of {}: {}", at + 1, all.len(), Channel::parse(value).err()?))
        });
        more.into_iter().chain(each).collect()
    }

    /// Those that can be understood: a mistake in one keeps no other back.
    pub fn parse_good(value: &Value) -> Channels {
        let all = value.as_array().into_iter().flatten().take(MOST);
        Channels::new(all.filter_map(|value| Channel::parse(value).ok()).collect())
    }

    /// With other bounds than the usual ones.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Channels {
        self.patience = patience;
        self
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What they are.
    pub fn describe(&self) -> Vec<String> {
        self.slots.iter().map(|slot| slot.channel.describe()).collect()
    }

    /// Tells `notice` to every channel that wants it, and says what became of it, in the order of the channels. It
    /// never fails otherwise, and takes no longer than the patience allows.
    pub fn send(&self, notice: &Notice) -> Vec<Outcome> {
        let until = Instant::now() + self.patience.whole;
        let secrets = Arc::new(self.given());
        let (give, take) = mpsc::channel();
        let mut outcomes: Vec<Outcome> = Vec::new();
        for (at, slot) in self.slots.iter().enumerate().filter(|(_, slot)| slot.channel.wants(notice.event)) {
            let mut outcome = Outcome { at, channel: slot.channel.describe(), tries: 0, error: None };
            let (slot, secrets, notice, give) = (slot.clone(), secrets.clone(), notice.clone(), give.clone());
            let patience = self.patience;
            let begun = std::thread::Builder::new().name("notice".to_owned()).spawn(move || {
                let ended = slot.tell(&notice, &secrets, patience, until);
                // Nobody waits for it any more if it comes late.
                let _ = give.send((at, ended));
            });
            outcome.error = Some(match begun {
                Ok(_) => "no answer in time".to_owned(),
                Err(error) => format!("no thread can be started: {}", error.kind()),
            });
            outcomes.push(outcome);
        }
        drop(give);
        // It ends by itself when all have ended.
        while let Ok((at, (tries, error))) =
            take.recv_timeout((until + GRACE).saturating_duration_since(Instant::now()))
        {
            if let Some(outcome) = outcomes.iter_mut().find(|outcome| outcome.at == at) {
                (outcome.tries, outcome.error) = (tries, error);
            }
        }
        outcomes
    }

    /// The secrets of all channels that stand in the configuration: none is to be told by any of them.
    fn given(&self) -> Vec<Zeroizing<String>> {
        let all = self.slots.iter().flat_map(|slot| slot.channel.way.secrets());
        all.filter_map(|secret| secret.given()).map(|text| Zeroizing::new(text.to_owned())).collect()
    }
}

/// Gives the channel free, however its turn ends.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Slot {
    /// Tries until it is told, or there have been enough tries, or time is up: how often, and why it was not told.
    fn tell(
        &self,
        notice: &Notice,
        given: &[Zeroizing<String>],
        patience: Patience,
        until: Instant,
    ) -> (u32, Option<String>) {
        while self.is_busy.swap(true, Ordering::Acquire) {
            if Instant::now() >= until {
                return (0, Some("a notice before this one is still on its way".to_owned()));
            }
            std::thread::sleep(LOOK);
        }
        let _turn = Turn(&self.is_busy);
        // What cannot be read is found out by the first try.
        let own = self.channel.way.secrets().into_iter().filter_map(|secret| secret.read().ok());
        let own: Vec<Zeroizing<String>> = own.collect();
        let secrets: Vec<&str> = given.iter().chain(&own).map(|secret| secret.as_str()).collect();
        let letter = Letter { notice: notice.fit(&secrets), id: hex(&random_bytes::<16>()), patience };
        let mut tries = 0;
        let error = loop {
            tries += 1;
            let (why, asked) = match self.channel.way.once(&letter) {
                Ok(()) => return (tries, None),
                Err(Trouble::Lasting(why)) => break why,
                Err(Trouble::Passing(why, asked)) => (why, asked),
            };
            let wait = patience.wait(tries, asked);
            if tries >= patience.tries.min(TRIES_MOST) || Instant::now() + wait >= until {
                break if tries == 1 { why } else { format!("{why}, {tries} times") };
            }
            std::thread::sleep(wait);
        };
        (tries, Some(scrub(&error, &secrets)))
    }
}
