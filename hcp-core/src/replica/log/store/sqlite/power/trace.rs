//! Reads what strace recorded of a process: the calls that change the files of one folder, and what it said.

use std::collections::HashMap;
use std::path::Path;

/// What strace is told: all strings in hexadecimal, all calls that change files or could. Reading is left out.
pub(super) const ARGUMENTS: &[&str] = &[
    "-f",
    "--seccomp-bpf",
    "-qq",
    "-xx",
    "-y",
    "-s",
    "1048576",
    "-e",
    "trace=open,openat,openat2,creat,write,writev,pwrite64,pwritev,pwritev2,sendfile,copy_file_range,splice,truncate,\
     ftruncate,fallocate,fsync,fdatasync,sync_file_range,sync,syncfs,msync,mmap,unlink,unlinkat,rename,renameat,\
     renameat2,link,linkat,symlink,symlinkat,io_uring_setup,io_submit",
];

/// A call that changes what a power cut may leave. Names are those within the folder.
#[derive(Debug)]
pub(super) enum Call {
    Create(String),
    Write {
        name: String,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        name: String,
        length: usize,
    },
    Sync(String),
    SyncFolder,
    Unlink(String),
    /// The process said that this batch is durable.
    Said(u64),
}

/// The calls in the order in which they were done. Fails at what it does not know.
pub(super) fn trace(record: &str, folder: &Path) -> Vec<Call> {
    let folder = folder.canonicalize().unwrap().to_str().unwrap().to_owned();
    let (mut calls, mut begun) = (Vec::new(), HashMap::<&str, (String, usize)>::new());
    for line in record.lines() {
        let (process, text) = line.split_once(' ').unwrap();
        let text = text.trim_start();
        if let Some(head) = text.strip_suffix("<unfinished ...>") {
            begun.insert(process, (head.to_owned(), calls.len()));
        } else if text.starts_with("<... ") {
            let (head, since) = begun.remove(process).unwrap();
            let tail = text.split_once("resumed>").unwrap().1;
            let call = parse(&format!("{head}{tail}"), &folder);
            if let Some(Call::Sync(name)) = &call {
                // What is written during a sync need not be synced by it.
                let meanwhile = |call: &Call| matches!(call, Call::Write { name: other, .. } if other == name);
                assert!(!calls[since..].iter().any(meanwhile), "a file is written while it is synced");
            }
            calls.extend(call);
        } else {
            calls.extend(parse(text, &folder));
        }
    }
    calls
}

fn parse(text: &str, folder: &str) -> Option<Call> {
    let (call, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let arguments = arguments.trim_end().strip_suffix(')')?;
    if result.starts_with('-') || result.starts_with('?') {
        return None;
    }
    let path = || between(arguments, '<', '>').map(text_of);
    let string = || between(arguments, '"', '"').map(bytes_of);
    if call == "write" && arguments.starts_with("1<") {
        let text = String::from_utf8(string()?).ok()?;
        return text.lines().find_map(super::super::workload::said).map(Call::Said);
    }
    let named = match call {
        "unlink" | "rename" | "link" | "truncate" | "creat" | "open" => {
            string().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        }
        "openat" => between(result, '<', '>').map(text_of),
        _ => path(),
    };
    let named = named?;
    let within = named.strip_prefix(folder)?;
    let name = within.trim_start_matches('/').to_owned();
    if call == "mmap" {
        let shared = arguments.contains("PROT_WRITE") && arguments.contains("MAP_SHARED");
        assert!(!shared || name.ends_with("-shm"), "{name} is written through memory");
        return None;
    }
    // The index beside the database is made anew by whoever opens it first, and a lock holds nothing.
    if name.ends_with("-shm") || name.ends_with(".lock") {
        return None;
    }
    let last = |back: usize| arguments.rsplit(", ").nth(back).and_then(|number| number.trim().parse().ok());
    match call {
        "openat" if arguments.contains("O_TRUNC") => panic!("{name} is cut when it is opened"),
        "openat" if arguments.contains("O_CREAT") => Some(Call::Create(name)),
        "openat" => None,
        "pwrite64" => {
            let (offset, mut bytes) = (last(0).unwrap(), string().unwrap());
            bytes.truncate(result.parse().unwrap());
            Some(Call::Write { name, offset, bytes })
        }
        "ftruncate" => Some(Call::Truncate { name, length: last(0).unwrap() }),
        "fsync" | "fdatasync" if name.is_empty() => Some(Call::SyncFolder),
        "fsync" | "fdatasync" => Some(Call::Sync(name)),
        "unlink" => Some(Call::Unlink(name)),
        other => panic!("{other} on {name}"),
    }
}

fn between(text: &str, open: char, end: char) -> Option<&str> {
    text.split_once(open)?.1.split_once(end).map(|(inner, _)| inner)
}

/// `\x61\x62` is "ab".
fn bytes_of(text: &str) -> Vec<u8> {
    let hexadecimal = |part: &str| u8::from_str_radix(part, 16).expect("strace writes strings in hexadecimal");
    text.split("\\x").skip(1).map(hexadecimal).collect()
}

fn text_of(text: &str) -> String {
    String::from_utf8_lossy(&bytes_of(text.trim_end_matches("(deleted)"))).into_owned()
}
