//! Standard input and output, on threads of their own: they may block, and the runtime's threads must not.

use std::io::{IsTerminal, Read, Write};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::lines::{Line, MAX_LINE, Splitter};
use crate::request;

/// Lines that wait for a slow reader; more make the events wait, which lie in the database.
const QUEUE: usize = 64;
/// How often somebody in the background looks whether the terminal is theirs.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long the end waits for a reader that does not read.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// Writes lines to standard output.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    lines: mpsc::Sender<String>,
}

/// Waits for what was told.
#[derive(Debug)]
pub(crate) struct Written(oneshot::Receiver<()>);

impl Output {
    pub(crate) fn start() -> (Self, Written) {
        let (lines, mut queue) = mpsc::channel::<String>(QUEUE);
        let (done, written) = oneshot::channel();
        std::thread::spawn(move || {
            let mut out = std::io::stdout();
            while let Some(line) = queue.blocking_recv() {
                // A reader that has gone away is no reason to go offline.
                let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
            }
            let _ = done.send(());
        });
        (Self { lines }, Written(written))
    }

    pub(crate) async fn tell(&self, value: &Value) {
        self.tell_line(request::line(value)).await;
    }

    pub(crate) async fn tell_line(&self, line: String) {
        let _ = self.lines.send(line).await;
    }
}

impl Written {
    /// Returns when everything is written, once all outputs are dropped, or when nobody reads it.
    pub(crate) async fn finish(self) {
        let _ = tokio::time::timeout(FLUSH_DEADLINE, self.0).await;
    }
}

/// Whether another job has the terminal of this process. Where that cannot be told, none has.
fn in_background() -> bool {
    // After the name, which may hold anything: state, parent, group, session, terminal, the terminal's group (proc(5)).
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return false };
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // It is not known of a terminal that does not control the process, and that stops nobody.
    matches!(fields[..], [_, _, group, _, _, foreground, ..] if foreground != "-1" && group != foreground)
}

/// Reads lines from standard input; at most one waits.
pub(crate) fn input() -> mpsc::Receiver<Line> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut splitter = Splitter::new(MAX_LINE);
        let mut chunk = [0; 16 * 1024];
        let mut stdin = std::io::stdin().lock();
        // Who reads a terminal from its background is stopped, with the socket that others wait at.
        while stdin.is_terminal() && in_background() {
            std::thread::sleep(LOOK_AGAIN);
        }
        loop {
            let len = stdin.read(&mut chunk).unwrap_or(0);
            if len == 0 {
                splitter.finish();
            } else {
                splitter.push(&chunk[..len]);
            }
            while let Some(line) = splitter.next() {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
            if len == 0 {
                return;
            }
        }
    });
    lines
}
