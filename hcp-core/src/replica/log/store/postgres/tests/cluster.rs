//! A PostgreSQL server from the system's packages, on a free port of the loopback and with a folder of its own.
//!
//! The tests of replicas, which are outside the crate, include this file too.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

/// A server that is not up by then never will be.
const SOON: Duration = Duration::from_secs(120);

pub(crate) struct Cluster {
    folder: TempDir,
    port: u16,
    process: Child,
    options: Vec<&'static str>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(options: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            let nobody = Command::new("chown").arg("nobody").arg(folder.path()).status().unwrap();
            assert!(nobody.success());
        }
        let mut initdb = command("initdb", folder.path());
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--pgdata"]);
        let made = initdb.arg(folder.path().join("data")).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = serve(folder.path(), port, options);
        let mut cluster = Self { folder, port, process, options: options.to_vec() };
        cluster.wait().await;
        cluster
    }

    /// Makes a role with a schema of its own, as `Storage::postgres` tells operators to, and returns how it gets there.
    pub(crate) async fn provision(&self, role: &str) -> String {
        let statements = format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'a password';
             CREATE SCHEMA {role} AUTHORIZATION {role};
             REVOKE ALL ON SCHEMA {role} FROM PUBLIC;"
        );
        self.as_operator(async |client| client.batch_execute(&statements).await).await;
        self.role_at(role, self.port)
    }

    pub(crate) fn role_at(&self, role: &str, port: u16) -> String {
        format!("host=127.0.0.1 port={port} user={role} password='a password' dbname=postgres")
    }

    pub(crate) fn superuser(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port)
    }

    /// Does something that only the server's operator may.
    pub(crate) async fn as_operator<T>(&self, act: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>) -> T {
        let (client, connection) = self.admin().connect(NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let done = act(&client).await.unwrap();
        connection.abort();
        done
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// As `kill -9` does it to the server's first process; the others follow by themselves.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Stops all of its processes, which keep what they have open.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// The first process last, which would have the others start again.
    fn signal(&self, signal: Signal) {
        let children = format!("/proc/{0}/task/{0}/children", self.process.id());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().unwrap()));
        for process in children.chain([Pid::from_child(&self.process)]) {
            // One that has just ended is as good as stopped.
            let _ = kill_process(process, signal);
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.process = serve(self.folder.path(), self.port, &self.options);
        self.wait().await;
    }

    fn admin(&self) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname("postgres");
        config
    }

    async fn wait(&mut self) {
        let began = Instant::now();
        loop {
            if self.process.try_wait().unwrap().is_some() {
                // The processes of the one that was killed are not all gone yet.
                self.process = serve(self.folder.path(), self.port, &self.options);
            }
            let connected = self.admin().connect(NoTls).await;
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            match connected {
                Ok(_) => return,
                Err(error) => assert!(began.elapsed() < SOON, "{error}: {}", log()),
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // At once, and with all of its processes.
        let _ = kill_process(Pid::from_child(&self.process), Signal::QUIT);
        self.thaw();
        let _ = self.process.wait();
    }
}

fn serve(folder: &Path, port: u16, options: &[&str]) -> Child {
    let mut server = command("postgres", folder);
    server.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string()]).args(options);
    server.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// A program of the server, run by somebody who is not root: it refuses root.
fn command(program: &str, folder: &Path) -> Command {
    let path = find(program);
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(path);
        command
    } else {
        Command::new(path)
    };
    command.current_dir(folder).env("LC_ALL", "C");
    command
}

/// Debian keeps the server's programs by version, and out of the way.
fn find(program: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let of_version = versions.filter_map(Result::ok).map(|version| version.path().join("bin").join(program));
    let elsewhere = [Path::new("/usr/local/bin").join(program), Path::new("/usr/bin").join(program)];
    let all = of_version.chain(elsewhere);
    all.filter(|path| path.exists()).max().expect("PostgreSQL's programs are installed")
}
