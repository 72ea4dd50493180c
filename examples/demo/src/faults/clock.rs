//! A clock that is wrong, by libfaketime (Debian's package faketime); clocks that only measure time stay right.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::Result;

/// What a program has to have in its environment for its clock to be off, `+90s` or `-90s` for example.
///
/// # Errors
/// When libfaketime is not installed.
pub(super) fn off_by(offset: &str) -> Result<Vec<(OsString, OsString)>> {
    let library = library()?;
    Ok([
        ("LD_PRELOAD", library.into_os_string()),
        ("FAKETIME", offset.into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
    ]
    .map(|(name, value)| (OsString::from(name), value))
    .into())
}

/// The name by which a process that has the library loaded shows it.
pub(super) const LIBRARY: &str = "libfaketime.so.1";

fn library() -> Result<PathBuf> {
    let folders =
        std::fs::read_dir("/usr/lib")?.filter_map(|entry| Some(entry.ok()?.path().join("faketime").join(LIBRARY)));
    folders
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| "libfaketime is missing: apt-get install faketime".into())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    /// What another process takes for the time, and for the time since the machine was started.
    #[test]
    fn only_the_time_of_day_is_off() {
        if let Ok(shown) = std::env::var("HCP_SHOW_CLOCKS") {
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
            let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec;
            std::fs::write(shown, format!("{wall} {since_boot} {monotonic}")).unwrap();
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let show = |variables: Vec<(OsString, OsString)>| {
            let file = folder.path().join("clocks");
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "faults::clock::tests::only_the_time_of_day_is_off"]);
            command.env("HCP_SHOW_CLOCKS", &file).envs(variables);
            assert!(command.output().unwrap().status.success());
            let text = std::fs::read_to_string(file).unwrap();
            let numbers: Vec<i64> = text.split(' ').map(|number| number.parse().unwrap()).collect();
            <[i64; 3]>::try_from(numbers).unwrap()
        };
        let right = show(Vec::new());
        for (offset, seconds) in [("+90s", 90), ("-90s", -90)] {
            let wrong = show(off_by(offset).unwrap());
            assert!((wrong[0] - right[0] - seconds).abs() < 10, "{right:?} {wrong:?}");
            assert!((wrong[1] - right[1]).abs() < 10, "{right:?} {wrong:?}");
            assert!((wrong[2] - right[2]).abs() < 10, "{right:?} {wrong:?}");
        }
    }
}
