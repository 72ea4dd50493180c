//! Files that hold secrets: written whole or not at all, never over another, read with a bound.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use crate::identity::key::random;

/// Writes a new file with mode 0600, durably; `AlreadyExists` when there is anything at `path`.
///
/// After a crash there is the whole file, or none and perhaps a file beside it whose name ends in `.tmp`.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A dangling symbolic link counts as something, which `exists` would follow.
    if fs::symlink_metadata(path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let temporary = Temporary::beside(path)?;
    let mut file = private(&temporary.0)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    match fs::hard_link(&temporary.0, path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
        // Some file systems have no hard links.
        Err(_) => publish_by_rename(&temporary.0, path)?,
    }
    drop(temporary);
    sync_parent(path)
}

/// Replaces a file, durably: after a crash there is the old one or the new one, and perhaps one beside it whose name ends
/// in `.tmp`.
pub(crate) fn write_over(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = Temporary::beside(path)?;
    let mut file = private(&temporary.0)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary.0, path)?;
    sync_parent(path)
}

/// Reads a regular file of at most `limit` bytes; `InvalidData` when it is longer or something else, such as a pipe
/// on which reading would wait for ever.
pub(crate) fn read_bounded(path: &Path, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > limit as u64 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // One byte of room more than allowed shows that the file has grown since; with it the buffer never moves.
    let mut bytes = Zeroizing::new(vec![0; limit + 1]);
    let mut file = File::open(path)?;
    let mut len = 0;
    while len < bytes.len() {
        match file.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if len > limit {
        return Err(io::ErrorKind::InvalidData.into());
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// Reserves the name first, since a rename replaces what is there; a crash in between leaves an empty file.
fn publish_by_rename(temporary: &Path, path: &Path) -> io::Result<()> {
    drop(private(path)?);
    fs::rename(temporary, path).inspect_err(|_| drop(fs::remove_file(path)))
}

/// Makes the new name itself survive a power cut.
fn sync_parent(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(parent(path))?.sync_all()?;
    }
    Ok(())
}

fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name beside the file to be, on the same file system; what is there is removed when dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path) -> io::Result<Self> {
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let mut suffix = [0; 8];
        random(&mut suffix);
        name.push(format!(".{}.tmp", HEXLOWER.encode(&suffix)));
        Ok(Self(parent(path).join(name)))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing to do about a failure: the file is private, and its name says that it is left over.
        drop(fs::remove_file(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("readable");
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8")).collect()
    }

    #[test]
    fn writes_one_private_file_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("secret");
        write_new(&path, b"bytes").expect("written");
        assert_eq!(names(dir.path()), ["secret"]);
        assert_eq!(fs::read(&path).expect("readable"), b"bytes");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o600);
        }
    }

    #[test]
    fn replaces_neither_file_nor_directory_nor_dangling_link() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), b"old").expect("written");
        fs::create_dir(path("dir")).expect("made");
        let mut taken = vec!["file", "dir"];
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("nowhere", path("link")).expect("linked");
            taken.push("link");
        }
        for name in &taken {
            let error = write_new(&path(name), b"new").expect_err("taken");
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{name}");
            let error = publish_by_rename(&path("file"), &path(name)).expect_err("taken");
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{name}");
        }
        assert_eq!(fs::read(path("file")).expect("readable"), b"old");
        assert_eq!(names(dir.path()).len(), taken.len());
    }

    #[test]
    fn publishes_where_there_are_no_hard_links() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (temporary, path) = (dir.path().join("a.tmp"), dir.path().join("a"));
        fs::write(&temporary, b"bytes").expect("written");
        publish_by_rename(&temporary, &path).expect("published");
        assert_eq!(fs::read(&path).expect("readable"), b"bytes");
        assert_eq!(names(dir.path()), ["a"]);
        publish_by_rename(&dir.path().join("missing"), &dir.path().join("b")).expect_err("nothing to publish");
        assert_eq!(names(dir.path()), ["a"], "the reserved name is given back");
    }

    #[test]
    fn of_many_writers_exactly_one_wins() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("secret");
        let won: Vec<u8> = std::thread::scope(|scope| {
            let path = &path;
            let writers: Vec<_> =
                (0..16_u8).map(|i| scope.spawn(move || write_new(path, &[i; 100]).is_ok().then_some(i))).collect();
            writers.into_iter().filter_map(|writer| writer.join().expect("no panic")).collect()
        });
        assert_eq!(won.len(), 1);
        assert_eq!(fs::read(&path).expect("readable"), [won[0]; 100]);
    }

    #[test]
    fn reads_no_more_than_the_limit_and_no_pipe() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("file");
        fs::write(&path, [1; 10]).expect("written");
        assert_eq!(read_bounded(&path, 10).expect("fits").as_slice(), [1; 10]);
        assert_eq!(read_bounded(&path, 9).expect_err("too long").kind(), io::ErrorKind::InvalidData);
        assert_eq!(read_bounded(dir.path(), 10).expect_err("a directory").kind(), io::ErrorKind::InvalidData);
        // Its length says 0 and its content never ends.
        #[cfg(target_os = "linux")]
        read_bounded(Path::new("/dev/zero"), 10).expect_err("a device");
    }
}
