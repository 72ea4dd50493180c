//! Child processes that end with this one.
//!
//! Three things see to it: dropping the value, a small shell that waits for this process to vanish and then kills the
//! children and removes the directory, and tor's own watch over its owner, should the shell be killed too.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::error::StartError;

/// Running processes, and the directory that holds what they write.
#[derive(Debug)]
pub(super) struct Processes {
    children: Vec<Child>,
    reaper: Child,
    orders: ChildStdin,
    directory: tempfile::TempDir,
}

impl Processes {
    /// Takes over `directory`, with no process yet.
    pub(super) fn new(directory: tempfile::TempDir) -> Result<Self, StartError> {
        let failed = |problem: String| StartError::Failed { program: "sh".into(), problem };
        let mut reaper = Command::new("sh")
            .args(["-c", REAPER, "sh"])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|e| failed(e.to_string()))?;
        let orders = reaper.stdin.take().ok_or_else(|| failed("no standard input".into()))?;
        Ok(Self { children: Vec::new(), reaper, orders, directory })
    }

    /// Starts a `tor` with the configuration in `folder`.
    pub(super) fn spawn_tor(&mut self, tor: &Path, folder: &Path) -> Result<(), StartError> {
        let failed =
            |e: std::io::Error| StartError::Failed { program: tor.display().to_string(), problem: e.to_string() };
        let child = Command::new(tor)
            .args(["--defaults-torrc", "/nonexistent", "--ignore-missing-torrc", "--quiet", "-f"])
            .arg(folder.join("torrc"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own: an interrupt from the terminal is for the program, which then ends its network.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let id = child.id();
        self.children.push(child);
        writeln!(self.orders, "{id}").map_err(failed)
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn count(&self) -> usize {
        self.children.len()
    }

    /// Whether every process still runs.
    pub(super) fn all_run(&mut self) -> bool {
        self.children.iter_mut().all(|child| matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
        }
        // The reaper must forget the ids before they are free for other processes.
        let _ = self.orders.write_all(b"done\n");
        let _ = self.reaper.wait();
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

/// Reads process ids until its input ends, which is when the process at the other end is gone.
const REAPER: &str = r#"
trap '' HUP INT TERM
ids=
while read -r line; do
    case $line in
        done) exit 0 ;;
        *) ids="$ids $line" ;;
    esac
done
[ -z "$ids" ] || kill -9 $ids
rm -rf -- "$1"
"#;
