//! A PostgreSQL server of the system's packages, on a free port of the loopback and with a folder of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::super::disk::Place;
use crate::Failure;

/// A server that is not up by then never will be.
const SOON: Duration = Duration::from_secs(120);
/// How often one that is not up yet is asked.
const PAUSE: Duration = Duration::from_millis(30);

/// As Debian sets it up, with every commit synced. It dies with this.
pub struct Server {
    folder: TempDir,
    port: u16,
    process: Child,
}

impl Server {
    /// Makes a database and serves it.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, or its user cannot reach the folder.
    pub async fn start(place: &Place) -> Result<Self, Failure> {
        let folder = folder(place)?;
        let mut initdb = command("initdb", folder.path())?;
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--pgdata"]);
        run(initdb.arg(folder.path().join("data")))?;
        Self::serve(folder).await
    }

    /// A copy of this server, which follows it under a name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn standby(&self, place: &Place, name: &str) -> Result<Self, Failure> {
        let folder = folder(place)?;
        let from = format!("host=127.0.0.1 port={} user=postgres application_name={name}", self.port);
        let mut copy = command("pg_basebackup", folder.path())?;
        copy.args(["--write-recovery-conf", "--checkpoint=fast", "--dbname", &from, "--pgdata"]);
        run(copy.arg(folder.path().join("data")))?;
        Self::serve(folder).await
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection that may do everything.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn connect(&self) -> Result<Client, Failure> {
        connect(&format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port)).await
    }

    /// As `kill -9` does it to the server's first process; the others follow by themselves.
    ///
    /// # Errors
    /// When it is dead already.
    pub fn kill(&mut self) -> Result<(), Failure> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    async fn serve(folder: TempDir) -> Result<Self, Failure> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = command("postgres", folder.path())?;
        server.arg("-D").arg(folder.path().join("data")).args(["-p", &port.to_string()]);
        server.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        let log = folder.path().join("log");
        let process = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log)?).spawn()?;
        let mut server = Self { folder, port, process };
        let began = Instant::now();
        loop {
            let Err(error) = server.connect().await else { return Ok(server) };
            if began.elapsed() > SOON || server.process.try_wait()?.is_some() {
                let said = std::fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
                return Err(format!("PostgreSQL does not come up: {error}\n{said}").into());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // At once, and with all of its processes.
        let _ = kill_process(Pid::from_child(&self.process), Signal::QUIT);
        let _ = self.process.wait();
    }
}

/// # Errors
/// When nobody answers.
pub(super) async fn connect(to: &str) -> Result<Client, Failure> {
    let (client, connection) = tokio_postgres::connect(to, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A folder that belongs to whom PostgreSQL runs as.
fn folder(place: &Place) -> Result<TempDir, Failure> {
    let folder = place.folder()?;
    if rustix::process::geteuid().is_root() {
        run(Command::new("chown").arg("nobody").arg(folder.path()))?;
        let mut look = as_nobody("test");
        let reached = look.arg("-w").arg(folder.path()).status()?.success();
        if !reached {
            let path = place.path().display();
            return Err(
                format!("PostgreSQL does not run as root, and nobody else reaches {path}: --folder PATH").into()
            );
        }
    }
    Ok(folder)
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let program = command.get_program().to_string_lossy().into_owned();
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// A program of the server, run by somebody who is not root: it refuses root.
fn command(program: &str, folder: &Path) -> Result<Command, Failure> {
    let path = find(program)?;
    let mut command = if rustix::process::geteuid().is_root() { as_nobody(path) } else { Command::new(path) };
    command.current_dir(folder).env("LC_ALL", "C");
    Ok(command)
}

fn as_nobody(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
    command
}

/// Debian keeps the server's programs by version, and out of the way.
fn find(program: &str) -> Result<PathBuf, Failure> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let of_version = versions.filter_map(Result::ok).map(|version| version.path().join("bin").join(program));
    let elsewhere = [Path::new("/usr/local/bin").join(program), Path::new("/usr/bin").join(program)];
    let all = of_version.chain(elsewhere);
    Ok(all.filter(|path| path.exists()).max().ok_or("PostgreSQL is not installed: apt-get install postgresql")?)
}
