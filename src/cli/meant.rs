//! Which snapshots are meant: those of this data directory, and the one that a name stands for.
//!
//! Whoever only looks is answered with what is most likely meant, and told of what else it may be. Whoever changes
//! something is answered only where it is certain: else it takes an id.

use std::collections::BTreeSet;

use jiff::ZonedDateTime;

use super::context::Context;
use super::output;
use crate::error::{Error, Result};
use crate::snapshot::look;
use crate::snapshot::record::Record;
use crate::snapshot::store::Store;
use crate::upkeep::alike::Alike;
use crate::upkeep::remembered;

/// So many other data directories are named.
const NAMED: usize = 5;

impl Context {
    /// Whose what is known as this data directory is in `store`.
    pub fn alike(&self, store: &Store) -> Result<Alike> {
        remembered::alike(&self.data_dir()?, &self.known_as()?, store)
    }

    /// Those of `all` in `store` that are of this data directory.
    pub fn of_this(&self, store: &Store, all: &[Record]) -> Vec<Record> {
        // One that is not there yet may be about to be restored.
        let alike = self.alike(store).ok();
        all.iter().filter(|record| alike.as_ref().is_some_and(|alike| alike.means(record))).cloned().collect()
    }

    /// The same, to change something of them. Where there are others' alone it is an error: that takes a name.
    pub fn own(&self, store: &Store, all: &[Record]) -> Result<Vec<Record>> {
        let own = self.of_this(store, all);
        if own.is_empty() && !all.is_empty() { Err(self.has_none(all)) } else { Ok(own) }
    }

    /// That there are only snapshots of other data directories, and which those are.
    fn has_none(&self, all: &[Record]) -> Error {
        let sources: BTreeSet<&str> = all.iter().map(|record| record.source.as_str()).collect();
        let named: Vec<_> = sources.iter().take(NAMED).map(|source| output::shown(source)).collect();
        let more = if sources.len() > NAMED { format!(" and {} more", sources.len() - NAMED) } else { String::new() };
        let own = self.known_as().map(|own| format!(" ({})", output::shown(&own))).unwrap_or_default();
        let named = named.join(", ");
        Error::usage(format!(
            "none of this data directory's snapshots{own} is in the store, only those of {named}{more}"
        ))
        .hint(
            "name the snapshot by its id (`nbak snapshots`), or the right data directory with --data-dir; nothing was \
             changed",
        )
    }

    /// The snapshot that `name` means to who only looks: any by its id, and otherwise one of this data directory. If it
    /// has none, one of the only other one there is, which may be this one, at another place; of several nobody can
    /// tell which is meant, nor where this one has a name, since it has it to be told from others.
    pub fn select(&self, store: &Store, name: &str) -> Result<Record> {
        let all = store.records()?;
        let by_id = is_id(&all, name);
        // One that is not there yet may be about to be restored.
        let alike = self.alike(store).ok().filter(|_| !by_id);
        if let Some(other) = alike.as_ref().and_then(Alike::text) {
            output::warning(format!("{other}: name the one that is meant by its id"));
        }
        let is_meant = |record: &&Record| by_id || alike.as_ref().is_some_and(|alike| alike.means(record));
        let mut records: Vec<Record> = all.iter().filter(is_meant).cloned().collect();
        let is_other = records.is_empty() && !all.is_empty();
        if is_other {
            if self.name()?.is_some() || all.iter().any(|record| record.source != all[0].source) {
                return Err(self.has_none(&all));
            }
            records = all;
        }
        let record = pick(store, &records, name)?;
        if is_other {
            output::warning(format!(
                "none of this data directory's snapshots is in the store: {} is of {}",
                record.id.short(),
                output::shown(&record.source)
            ));
        }
        Ok(record)
    }

    /// The same to who restores from it: `latest` passes over what was taken while a restore in place was half done.
    pub fn select_to_restore(&self, store: &Store, name: &str) -> Result<Record> {
        self.select(store, name).and_then(|record| self.pass_over(store, name, record))
    }

    /// The same to who changes something: another data directory's only by its id.
    pub fn select_own(&self, store: &Store, name: &str) -> Result<Record> {
        let all = store.records()?;
        let records = if is_id(&all, name) {
            all
        } else {
            // A restore may be what mends a configuration that cannot be read at all.
            if !self.config()?.unreadable {
                self.require_name()?;
            }
            // Which of the two lies here now may be a mistake: a disk that is not mounted.
            if let Some(other) = self.alike(store)?.text() {
                return Err(Error::usage(other).hint("name the one that is meant by its id; nothing was changed"));
            }
            self.own(store, &all)?
        };
        pick(store, &records, name)
    }

    /// The same, where it has to be certain that it is of this very directory: what is taken from another stays so.
    pub fn select_certain(&self, store: &Store, name: &str) -> Result<Record> {
        let record = self.select_own(store, name)?;
        let alike = self.alike(store)?;
        if alike.owns(&record) || is_id(std::slice::from_ref(&record), name) {
            return Ok(record);
        }
        Err(Error::usage(alike.leaves(false).unwrap_or_else(|| "it may be of another data directory".to_owned()))
            .hint(format!("name it by its id, {}, if it is meant; nothing was changed", record.id.short())))
    }

    /// The same to who restores from it in place.
    pub fn select_own_to_restore(&self, store: &Store, name: &str) -> Result<Record> {
        self.select_own(store, name).and_then(|record| self.pass_over(store, name, record))
    }

    /// What is restored in place of `record`, which `name` means, if that is the newest and a mixture: the newest of
    /// the same data directory that is none. Both are named. Where all are, it stays.
    fn pass_over(&self, store: &Store, name: &str, record: Record) -> Result<Record> {
        if name != "latest" || !record.lack().mixed {
            return Ok(record);
        }
        let all = store.records()?;
        let (alike, its) = (self.alike(store).ok(), |one: &Record| (one.source.clone(), one.instance));
        let is_of_it = |one: &Record| match &alike {
            Some(alike) if alike.means(&record) => alike.means(one),
            _ => its(one) == its(&record),
        };
        let Some(whole) = all.iter().rev().find(|one| is_of_it(one) && !one.lack().mixed) else {
            return Ok(record);
        };
        output::warning(format!(
            "the newest snapshot, {}, was passed over: {}. {} of {} is taken; give the id of the other if that is \
             meant",
            record.id.short(),
            record.lack(),
            whole.id.short(),
            output::time(whole.started),
        ));
        Ok(whole.clone())
    }
}

/// Whether `name` is the beginning of an id of `all`.
pub fn is_id(all: &[Record], name: &str) -> bool {
    let id = name.to_ascii_lowercase();
    name.len() >= 4 && all.iter().any(|record| record.id.to_string().starts_with(&id))
}

/// The one of `records` that `name` means. Of one that was forgotten it is said that it was.
fn pick(store: &Store, records: &[Record], name: &str) -> Result<Record> {
    look::select(records, name, &ZonedDateTime::now()).cloned().map_err(|error| {
        let history = store.history().ok();
        let mut forgotten = history.iter().flat_map(|history| history.forgotten());
        match forgotten.find(|one| is_id(std::slice::from_ref(&one.record), name)) {
            Some(one) => Error::usage(format!("snapshot {} was forgotten", one.record.id.short())).hint(format!(
                "`nbak undelete {}` brings it back, if its space was not reclaimed",
                one.record.id.short()
            )),
            None => error,
        }
    })
}
