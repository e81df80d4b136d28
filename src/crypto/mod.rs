//! Keys and seals.
//!
//! One random **master key** per store, wrapped in [`slot`]s, of which any one opens it. From the master key come
//! labelled **subkeys** ([`keys`]), one for each use, so that no key ever serves two purposes. From the pack
//! subkey and a pack's own random salt comes that pack's AES-256-GCM key ([`seal`]), under which a nonce is the
//! number of the segment: it is counted, never drawn, and a pack is never opened again for writing, so a pair of
//! key and nonce cannot occur twice.
//!
//! The documented backup has keys and a seal of its own, which the application fixed: [`vault`] derives them from the
//! vault key, [`gcm`] seals and opens files of any size with them.
//!
//! [`keys`] also gives the ids of chunks, many pages at once ([`lanes`]).
//!
//! What a secret is held in ([`secret::Secret`]) wipes itself, does not print, and does not copy.

pub mod gcm;
pub mod keys;
mod lanes;
pub mod seal;
pub mod secret;
pub mod slot;
pub mod vault;
