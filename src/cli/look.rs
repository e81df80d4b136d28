//! `ls` and `cat`.
//!
//! Nothing is written anywhere but to stdout, and no lock is taken.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::{CatArgs, LsArgs};
use super::context::Context;
use super::output::{self, line, time};
use crate::error::{Error, Result};
use crate::snapshot::look::{self, Place};
use crate::snapshot::tree::{Entry, Node};

/// Lists a directory of a snapshot, or one entry.
pub fn ls(context: &Context, args: &LsArgs) -> Result<u8> {
    let store = context.open()?;
    let record = &context.select_to_restore(&store, &args.snapshot)?;
    let path = look::clean_path(args.path.as_deref().unwrap_or(Path::new("")))?;
    let entries: Vec<(PathBuf, Entry)> = match look::find(&store, record, &path)? {
        Place::Root(tree) => look::list_of(&store, record, tree, &path, args.recursive)?,
        Place::Entry(Entry { node: Node::Directory(tree), .. }) => {
            look::list_of(&store, record, tree, &path, args.recursive)?
        }
        Place::Entry(entry) => vec![(path, entry)],
    };
    for (path, entry) in &entries {
        print(context, args.long, path, entry);
    }
    Ok(0)
}

fn print(context: &Context, long: bool, path: &Path, entry: &Entry) {
    let (kind, letter, bytes, consistency, link) = match &entry.node {
        Node::File { size, consistency, .. } => ("file", '-', *size, consistency.as_str(), None),
        Node::Directory(_) => ("directory", 'd', 0, "stable", None),
        Node::Symlink(target) => ("symlink", 'l', 0, "stable", Some(String::from_utf8_lossy(target).into_owned())),
    };
    let attributes = entry.attributes;
    let mtime = attributes.mtime.saturating_mul(1000).saturating_add(i64::from(attributes.mtime_nanos / 1_000_000));
    if context.json {
        output::json(&json!({
            "path": path.to_string_lossy(),
            "type": kind,
            "bytes": bytes,
            "mode": format!("{:04o}", attributes.mode),
            "uid": attributes.uid,
            "gid": attributes.gid,
            "mtime": output::iso(mtime),
            "consistency": consistency,
            "target": link,
        }));
        return;
    }
    let mut name = path.display().to_string();
    if kind == "directory" {
        name.push('/');
    }
    if !long {
        line(name);
        return;
    }
    let arrow = link.map(|target| format!(" -> {target}")).unwrap_or_default();
    line(format!("{letter}{} {bytes:>12} {} {consistency:<11} {name}{arrow}", mode(attributes.mode), time(mtime)));
}

fn mode(bits: u32) -> String {
    (0..9).rev().map(|at| if bits >> at & 1 == 1 { ['x', 'w', 'r'][at as usize % 3] } else { '-' }).collect()
}

/// Prints a file of a snapshot.
pub fn cat(context: &Context, args: &CatArgs) -> Result<u8> {
    let store = context.open()?;
    let record = &context.select_to_restore(&store, &args.snapshot)?;
    let path = look::clean_path(&args.path)?;
    match look::find(&store, record, &path)? {
        Place::Entry(Entry { node: Node::File { size, content, .. }, .. }) => {
            let mut out = std::io::BufWriter::with_capacity(1 << 18, std::io::stdout().lock());
            let written = look::cat(&store, size, &content, &mut out).and_then(|()| {
                out.flush().map_err(|error| Error::io("write the file's content", "standard output", error))
            });
            match written {
                // A reader that went away has seen enough.
                Err(error) if is_broken_pipe(&error) => {}
                other => other?,
            }
            Ok(0)
        }
        _ => Err(Error::failed("this is not a file").at(path).hint("`nbak ls` lists a directory")),
    }
}

fn is_broken_pipe(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
