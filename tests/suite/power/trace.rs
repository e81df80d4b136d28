//! What a process asked of the kernel, read from strace's log: one [`Call`] for each system call that went well.
//!
//! strace prints strings and paths in hexadecimal here (`-xx`), so that no byte of theirs is mistaken for its own
//! commas and brackets. A call during which another thread did something comes in two parts, which are put together.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// The calls that the model of a disk has to know: those that change files, and those that say which file is meant.
pub const CALLS: &str = "open,openat,openat2,creat,close,dup,dup2,dup3,fcntl,lseek,read,write,writev,pwrite64,pwritev,\
                         pwritev2,ftruncate,truncate,fallocate,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,\
                         mkdirat,symlink,symlinkat,link,linkat,fsync,fdatasync,syncfs,sync,copy_file_range,sendfile,\
                         ioctl";

/// A call, as it was made and answered.
#[derive(Debug)]
pub struct Call {
    /// The line of the log on which it began, and the one on which it was over.
    pub began: usize,
    pub ended: usize,
    pub name: String,
    pub args: Vec<String>,
    pub answer: i64,
}

/// All calls of a log, in the order in which they were over. Those that failed are left out.
pub fn read(log: &str) -> Vec<Call> {
    let mut open: HashMap<(String, String), (usize, String)> = HashMap::new();
    let mut calls = Vec::new();
    for (line, text) in log.lines().enumerate() {
        let Some((thread, text)) = text.split_once(' ') else { continue };
        let (thread, text) = (thread.to_owned(), text.trim_start());
        if let Some(rest) = text.strip_prefix("<... ") {
            let Some((name, rest)) = rest.split_once(" resumed>") else { continue };
            let Some((began, first)) = open.remove(&(thread, name.to_owned())) else { continue };
            calls.extend(parse(began, line, name, &format!("{first}{rest}")));
            continue;
        }
        let Some((name, rest)) = text.split_once('(') else { continue };
        if let Some(first) = rest.strip_suffix("<unfinished ...>") {
            if name == "close" {
                // The number may be another thread's before this call is over: it is free from its beginning on.
                calls.extend(parse(line, line, name, &format!("{}) = 0", first.trim_end())));
                continue;
            }
            open.insert((thread, name.to_owned()), (line, first.trim_end().to_owned()));
        } else {
            calls.extend(parse(line, line, name, rest));
        }
    }
    calls
}

fn parse(began: usize, ended: usize, name: &str, rest: &str) -> Option<Call> {
    let (args, answer) = rest.rsplit_once(" = ")?;
    let digits: String = answer.chars().take_while(|c| c.is_ascii_digit() || *c == '-').collect();
    let answer: i64 = digits.parse().ok().filter(|answer| *answer >= 0)?;
    let mut args = split(args.trim_end().strip_suffix(')')?);
    // The same but for how the path is resolved; its flags stand in a struct.
    let name = if name == "openat2" { "openat" } else { name };
    let flags = args.get(2).and_then(|how| how.strip_prefix("{flags=")?.split(',').next().map(str::to_owned));
    if let Some(flags) = flags {
        args[2] = flags;
    }
    Some(Call { began, ended, name: name.to_owned(), args, answer })
}

/// The arguments, at the commas that are in no bracket.
fn split(args: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in args.chars() {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("there is one").push(c);
    }
    parts.iter().map(|part| part.trim().to_owned()).collect()
}

impl Call {
    fn arg(&self, nth: usize) -> &str {
        self.args.get(nth).unwrap_or_else(|| panic!("no argument {nth}: {self:?}"))
    }

    /// A descriptor.
    pub fn fd(&self, nth: usize) -> i64 {
        let digits: String = self.arg(nth).chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(-1)
    }

    /// The path that a descriptor, or the working directory, had.
    pub fn fd_path(&self, nth: usize) -> Option<PathBuf> {
        let (_, path) = self.arg(nth).split_once('<')?;
        Some(PathBuf::from(OsString::from_vec(bytes(path.split_once('>')?.0))))
    }

    /// A number.
    pub fn number(&self, nth: usize) -> u64 {
        let text = self.arg(nth);
        text.parse().unwrap_or_else(|_| panic!("{text:?} is no number: {self:?}"))
    }

    /// Whether this flag is set.
    pub fn has(&self, nth: usize, flag: &str) -> bool {
        self.args.get(nth).is_some_and(|arg| arg.split('|').any(|one| one == flag))
    }

    /// A path.
    pub fn path(&self, nth: usize) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.data(nth)))
    }

    /// A string's bytes; of several strings, all of them.
    pub fn data(&self, nth: usize) -> Vec<u8> {
        let arg = self.arg(nth);
        assert!(!arg.contains("..."), "strace cut a string short: {} characters", arg.len());
        arg.split('"').skip(1).step_by(2).flat_map(bytes).collect()
    }
}

/// What `\x41\x42` stands for.
fn bytes(hex: &str) -> Vec<u8> {
    hex.split("\\x").skip(1).map(|two| u8::from_str_radix(&two[..2], 16).expect("two digits")).collect()
}
