//! Telling people what happened: a *notice* goes out by every *channel* that is configured for its event.
//!
//! A [`Notice`] says of one [`Event`] what, where and when ([`message`], [`event`]). A [`Channel`] is one object of
//! `nbak.notify` ([`channel`], [`fields`]): a [`command`], a [`webhook`], [`ntfy`], [`telegram`], an [`email`] (by way
//! of a [`relay`] that has an end), or the [`ping`] of a service that misses what does not come. [`Channels`] sends one
//! notice by all of them at once ([`channels`], [`patience`]). [`Muffle`] decides whether the same trouble is worth
//! telling again ([`muffle`]).
//!
//! Three things hold throughout. **No channel keeps another back**, and none keeps the caller: tries are counted, and
//! every wait has an end. **No secret leaves by the wrong door**: what is a key to a channel (a token, a password, an
//! address that is its own key) goes to that channel's server only, over TLS or within this machine, and is in no
//! message, no [`Outcome`] and no `Debug` output ([`secret`], [`address`], [`web`]). **A notice is text and nothing
//! else**: whatever a path or an error puts into it, it cannot become a header, a second recipient or a shell's word.

mod address;
pub mod channel;
pub mod channels;
mod command;
mod deliver;
mod email;
pub mod event;
mod fields;
pub mod message;
pub mod muffle;
mod ntfy;
pub mod patience;
mod ping;
mod relay;
mod secret;
mod telegram;
mod web;
mod webhook;

pub use channel::Channel;
pub use channels::{Channels, Outcome};
pub use event::Event;
pub use message::{Notice, scrub};
pub use muffle::{Muffle, Past, Say};
pub use patience::Patience;
