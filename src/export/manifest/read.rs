//! Reading a manifest's JSON: strict where a field is known, indifferent where it is not.
//!
//! Written out by hand, since a derived reader takes a second value for an unknown name, and does not say in which
//! entry a wrong value stands. Nothing is sized by a count that the file claims; memory grows with the bytes that were
//! read.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::lacks::Lacks;
use super::{ENTRIES_MAX, FileEntry, Kind, Manifest, NUMBER_MAX, OWN_FORMAT, Own, parse_iso};
use crate::crypto::vault::MacSource;
use crate::export::dialect::Dialect;
use crate::export::names::{self, quoted};
use crate::id::{InstanceId, SnapshotId};

/// A manifest of which each part is what it should be. That its paths can be there together is not known yet.
pub(super) struct Parsed(pub(super) Manifest);

/// Takes the value of a field that must be there once at most.
fn once<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut A,
    slot: &mut Option<T>,
    name: &str,
) -> Result<(), A::Error> {
    if slot.is_some() {
        return Err(A::Error::custom(format!("`{name}` stands there twice")));
    }
    *slot = Some(map.next_value().map_err(|error| A::Error::custom(format!("`{name}`: {error}")))?);
    Ok(())
}

/// Skips a field that nobody here knows. Even that one must not stand there twice: another reader may know it.
fn skip<'de, A: MapAccess<'de>>(map: &mut A, seen: &mut HashSet<String>, name: String) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>()?;
    let text = quoted(&name);
    if seen.insert(name) { Ok(()) } else { Err(A::Error::custom(format!("{text} stands there twice"))) }
}

fn missing<E: serde::de::Error>(name: &str) -> E {
    E::custom(format!("`{name}` is missing"))
}

/// 64 lower-case digits as bytes.
fn unhex<E: serde::de::Error>(name: &str, text: &str) -> Result<[u8; 32], E> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    let fits = text.len() == 64;
    let all = bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)).all(|(byte, pair)| {
        let value = digit(pair[0]).zip(digit(pair[1])).map(|(high, low)| high << 4 | low);
        *byte = value.unwrap_or_default();
        value.is_some()
    });
    if fits && all { Ok(bytes) } else { Err(E::custom(format!("`{name}` is not 64 lower-case hexadecimal digits"))) }
}

fn whole<E: serde::de::Error>(name: &str, value: u64, most: u64) -> Result<u64, E> {
    if value <= most { Ok(value) } else { Err(E::custom(format!("`{name}` is more than {most}"))) }
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Top)
    }
}

struct Top;

impl<'de> Visitor<'de> for Top {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the fields of a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parsed, A::Error> {
        let (mut version, mut created_at, mut directory) = (None, None, None::<(Dialect, String)>);
        let (mut encrypted, mut files, mut checksum, mut own) = (None, None::<Files>, None::<String>, None);
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "version" => once(&mut map, &mut version, &name)?,
                "created_at" => once(&mut map, &mut created_at, &name)?,
                "encrypted" => once(&mut map, &mut encrypted, &name)?,
                "checksum" => once(&mut map, &mut checksum, &name)?,
                "nbak" => once(&mut map, &mut own, &name)?,
                "files" => once(&mut map, &mut files, &name)?,
                _ => match Dialect::ALL.into_iter().find(|dialect| dialect.directory_field() == name) {
                    Some(dialect) => {
                        if let Some((other, _)) = directory {
                            let other = other.directory_field();
                            return Err(A::Error::custom(format!("`{name}` stands there after `{other}`")));
                        }
                        let mut text = None;
                        once(&mut map, &mut text, &name)?;
                        directory = text.map(|text| (dialect, text));
                    }
                    None => skip(&mut map, &mut seen, name)?,
                },
            }
        }
        let created_at: String = created_at.ok_or_else(|| missing("created_at"))?;
        let created_ms = parse_iso(&created_at).ok_or_else(|| {
            A::Error::custom(format!("`created_at` is no time like 2026-03-25T03:00:00.000Z: {}", quoted(&created_at)))
        })?;
        let (dialect, source_dir) = directory.ok_or_else(|| missing("nodyn_dir"))?;
        let checksum = checksum.ok_or_else(|| missing("checksum"))?;
        unhex::<A::Error>("checksum", &checksum)?;
        Ok(Parsed(Manifest {
            version: version.ok_or_else(|| missing("version"))?,
            created_at,
            created_ms,
            dialect,
            source_dir,
            encrypted: encrypted.ok_or_else(|| missing("encrypted"))?,
            files: files.ok_or_else(|| missing("files"))?.0,
            checksum,
            own,
        }))
    }
}

struct Files(Vec<FileEntry>);

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Files;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of files")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Files, A::Error> {
                let mut files = Vec::new();
                while let Some(entry) = list.next_element_seed(Entry(files.len()))? {
                    if files.len() == ENTRIES_MAX {
                        return Err(A::Error::custom(format!("there are more than {ENTRIES_MAX} entries")));
                    }
                    files.push(entry);
                }
                Ok(Files(files))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// The entry with this number: what is wrong with it is told with its path, or with the number if that is not known.
#[derive(Clone, Copy)]
struct Entry(usize);

impl<'de> DeserializeSeed<'de> for Entry {
    type Value = FileEntry;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<FileEntry, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entry {
    type Value = FileEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object for files[{}]", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FileEntry, A::Error> {
        let mut path = None;
        entry(&mut map, &mut path).map_err(|error| match &path {
            Some(path) => A::Error::custom(format!("the entry {}: {error}", quoted(path))),
            None => A::Error::custom(format!("files[{}]: {error}", self.0)),
        })
    }
}

fn entry<'de, A: MapAccess<'de>>(map: &mut A, path: &mut Option<String>) -> Result<FileEntry, A::Error> {
    let (mut size, mut sha256, mut kind) = (None, None::<String>, None::<String>);
    let (mut mode, mut mtime_ms) = (None::<u64>, None::<i64>);
    let mut seen = HashSet::new();
    while let Some(name) = map.next_key::<String>()? {
        match name.as_str() {
            "path" => once(map, path, &name)?,
            "size_bytes" => once(map, &mut size, &name)?,
            "checksum_sha256" => once(map, &mut sha256, &name)?,
            "type" => once(map, &mut kind, &name)?,
            "mode" => once(map, &mut mode, &name)?,
            "mtime_ms" => once(map, &mut mtime_ms, &name)?,
            _ => skip(map, &mut seen, name)?,
        }
    }
    let path = path.clone().ok_or_else(|| missing("path"))?;
    names::check_path(&path).map_err(|why| A::Error::custom(format!("`path`: {why}")))?;
    let size = whole("size_bytes", size.ok_or_else(|| missing("size_bytes"))?, NUMBER_MAX)?;
    let sha256 = sha256.ok_or_else(|| missing("checksum_sha256"))?;
    let kind = kind.ok_or_else(|| missing("type"))?;
    let kind = Kind::parse(&kind).ok_or_else(|| A::Error::custom(format!("`type` is unknown: {}", quoted(&kind))))?;
    if kind.is_directory() {
        if size != 0 {
            return Err(A::Error::custom("`size_bytes` of a folder is not 0"));
        }
        if !sha256.is_empty() {
            return Err(A::Error::custom("`checksum_sha256` of a folder is not empty"));
        }
    } else {
        unhex::<A::Error>("checksum_sha256", &sha256)?;
    }
    let mode = mode.map(|mode| whole("mode", mode, 0o7777)).transpose()?.map(|mode| mode as u32);
    if mtime_ms.is_some_and(|ms| ms.unsigned_abs() > NUMBER_MAX) {
        return Err(A::Error::custom(format!("`mtime_ms` is more than {NUMBER_MAX} away from 1970")));
    }
    Ok(FileEntry { path, size, sha256, kind, mode, mtime_ms })
}

impl<'de> Deserialize<'de> for Own {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Own;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a MAC")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Own, A::Error> {
                let (mut format, mut snapshot, mut mac_key) = (None::<u64>, None::<String>, None::<String>);
                let (mut mac, mut mac_salt, mut before_restore) = (None::<String>, None::<String>, None::<bool>);
                let mut instance = None::<String>;
                let (mut named, mut count) = (None::<Vec<(String, String)>>, None::<u64>);
                let mut seen = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "format" => once(&mut map, &mut format, &name)?,
                        "snapshot" => once(&mut map, &mut snapshot, &name)?,
                        "mac" => once(&mut map, &mut mac, &name)?,
                        "mac_key" => once(&mut map, &mut mac_key, &name)?,
                        "mac_salt" => once(&mut map, &mut mac_salt, &name)?,
                        "instance" => once(&mut map, &mut instance, &name)?,
                        "before_restore" => once(&mut map, &mut before_restore, &name)?,
                        "lacks" => once(&mut map, &mut named, &name)?,
                        "lacks_count" => once(&mut map, &mut count, &name)?,
                        _ => skip(&mut map, &mut seen, name)?,
                    }
                }
                // A MAC that is not understood is not the same as none.
                if format.ok_or_else(|| missing("format"))? != OWN_FORMAT {
                    return Err(A::Error::custom("`format` is unknown: use a newer nbak"));
                }
                let snapshot = snapshot.ok_or_else(|| missing("snapshot"))?;
                if SnapshotId::parse(&snapshot).is_err() {
                    return Err(A::Error::custom("`snapshot` is not 32 lower-case hexadecimal digits"));
                }
                let instance = instance.as_deref().map(InstanceId::parse).transpose();
                let instance =
                    instance.map_err(|_| A::Error::custom("`instance` is not 32 lower-case hexadecimal digits"))?;
                let mac_key = mac_key.ok_or_else(|| missing("mac_key"))?;
                let count = whole("lacks_count", count.unwrap_or(0), NUMBER_MAX)?;
                let lacks = Lacks { named: named.unwrap_or_default(), count };
                lacks.check().map_err(A::Error::custom)?;
                Ok(Own {
                    snapshot,
                    mac: unhex("mac", &mac.ok_or_else(|| missing("mac"))?)?,
                    mac_key: MacSource::parse(&mac_key)
                        .ok_or_else(|| A::Error::custom(format!("`mac_key` is unknown: {}", quoted(&mac_key))))?,
                    mac_salt: unhex("mac_salt", &mac_salt.ok_or_else(|| missing("mac_salt"))?)?,
                    instance,
                    before_restore: before_restore.unwrap_or(false),
                    lacks,
                })
            }
        }
        deserializer.deserialize_map(Object)
    }
}
