//! `key list`, `key add`, `key remove`, `key rotate`.
//!
//! The key that opens the store comes from where it always does; the new one has flags of its own.

use serde_json::json;

use super::args::{KeyAction, KeyArgs};
use super::context::Context;
use super::output::{self, line, time};
use crate::error::{Error, Result};
use crate::id::SlotId;
use crate::snapshot::now::now_ms;
use crate::snapshot::store::Store;

/// Shows and changes what opens the store.
pub fn run(context: &Context, args: KeyArgs) -> Result<u8> {
    match args.action {
        KeyAction::List => list(context),
        KeyAction::Add(new) => {
            let mut store = open(context)?;
            let credential = Context::new_credential(&new)?.ok_or_else(|| {
                Error::usage("no new key was given")
                    .hint("give --new-vault-key-file, --new-vault-key-command or --new-passphrase-file")
            })?;
            let id = store.add_slot(&credential, now_ms() / 1000, &new.label)?;
            if store.is_unprotected() {
                output::warning(
                    "a slot that opens without a key is still there: `nbak key remove` it to protect the store",
                );
            }
            done(context, "added", id);
            Ok(0)
        }
        KeyAction::Rotate(new) => {
            let mut store = open(context)?;
            let credential = match Context::new_credential(&new)? {
                Some(credential) => Some(credential),
                // A store that is not protected gets the key that is set already.
                None if store.is_unprotected() => context.credentials()?.into_iter().next(),
                None => None,
            };
            let credential = credential.ok_or_else(|| {
                Error::usage("no new key was given")
                    .hint("give --new-vault-key-file, --new-vault-key-command or --new-passphrase-file")
            })?;
            let id = store.rotate_slot(&context.credentials()?, &credential, now_ms() / 1000, &new.label)?;
            context
                .say("from now on the store opens with the new key: give it to the application, .env and timers too");
            if let Err(error) = super::drive::reseal(context, &credential) {
                output::warning(format!("the access to Google Drive is to be granted anew: {error}"));
            }
            done(context, "rotated to", id);
            Ok(0)
        }
        KeyAction::Remove { slot } => {
            let mut store = open(context)?;
            let hits: Vec<SlotId> =
                store.slots().iter().map(|s| s.id).filter(|id| id.to_string().starts_with(&slot)).collect();
            let id = match hits[..] {
                [id] => id,
                [] => return Err(Error::usage(format!("there is no key slot {slot}")).hint("see `nbak key list`")),
                _ => {
                    return Err(
                        Error::usage(format!("more than one key slot's id begins with {slot}")).hint("give more of it")
                    );
                }
            };
            store.remove_slot(id)?;
            done(context, "removed", id);
            Ok(0)
        }
    }
}

fn open(context: &Context) -> Result<Store> {
    let store = Store::open_for_keys(&context.repo()?, &context.credentials()?, context.patience())?;
    Context::warn_of_losses(&store);
    Ok(store)
}

fn done(context: &Context, what: &str, id: SlotId) {
    if context.json {
        output::json(&json!({"done": what, "slot": id.to_string()}));
    } else {
        line(format!("{what} key slot {}", id.short()));
    }
}

fn list(context: &Context) -> Result<u8> {
    let store = context.open()?;
    for slot in store.slots() {
        let used = slot.id == store.opened_with();
        if context.json {
            output::json(&json!({
                "slot": slot.id.to_string(),
                "method": slot.method.as_str(),
                "created": output::iso(slot.created.saturating_mul(1000)),
                "label": slot.label,
                "in_use": used,
            }));
        } else {
            let mark = if used { "*" } else { " " };
            line(format!(
                "{mark} {}  {:<11}  {}  {}",
                slot.id.short(),
                slot.method.as_str(),
                time(slot.created.saturating_mul(1000)),
                slot.label
            ));
        }
    }
    Ok(0)
}
