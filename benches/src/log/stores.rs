//! A log in SQLite beside one in a PostgreSQL server, of one node.

use std::time::Instant;

use hcp_core::replica::{Replica, Storage};

use super::Run;
use super::ingest::entries_per_second;
use super::postgres::Server;
use super::service::{Disks, Entries, Reader, Service, Wanted, write};
use crate::Failure;
use crate::measure::{Ratio, Turns, quantile, timed};
use crate::report::{Report, number, time};

const GROUP: &str = "stores";
const TURNS: usize = 5;
const ENTRIES: usize = 100_000;
const ALONE: usize = 100;
const NAMES: [&str; 2] = ["SQLite", "PostgreSQL"];
/// The node's role at the server, and its schema.
const ROLE: &str = "node";

/// Measures both, in turns.
///
/// # Errors
/// When one of them fails.
pub async fn run(report: &mut Report, run: &Run) -> Result<(), Failure> {
    let folder = run.place.folder()?;
    let server = Server::start(&run.place).await?;
    // As its operator is told to do.
    let admin = server.connect().await?;
    let statements = format!(
        "CREATE ROLE {ROLE} LOGIN PASSWORD 'a password';
         CREATE SCHEMA {ROLE} AUTHORIZATION {ROLE};
         REVOKE ALL ON SCHEMA {ROLE} FROM PUBLIC;"
    );
    admin.batch_execute(&statements).await?;
    let connection = format!("host=127.0.0.1 port={} user={ROLE} password='a password' dbname=postgres", server.port());
    let service = Service::new(1)?;
    let sqlite = service.open(0, Disks::sqlite(folder.path()).of(0)).await?;
    let postgres = service.open(0, Storage::postgres(&connection, ROLE)?).await?;
    let logs = [sqlite, postgres];

    let count = run.entries(ENTRIES);
    let ways = logs.len();
    let turns =
        Turns::take(run.turns(TURNS), ways, async |way| timed(write(&logs[way], count, Wanted::Durable)).await).await?;
    let rates = [0, 1].map(|way| format!("{}/s", number(count as f64 / turns.median(way))));
    report.ratio(GROUP, "durable entries, SQLite vs PostgreSQL", turns.speed(0, 1), None, rates.join(" and "));
    entries_per_second(report, GROUP, "durable entries, PostgreSQL", &turns, 1, count, None);

    let turns = Turns::take(run.turns(TURNS), ways, async |way| timed(read(&logs[way])).await).await?;
    let all = [0, 1].map(|way| time(turns.median(way)));
    report.ratio(GROUP, "reading all of it, SQLite vs PostgreSQL", turns.speed(0, 1), None, all.join(" and "));

    for (log, name) in logs.iter().zip(NAMES) {
        let (mut times, entries) = (Vec::new(), Entries::new());
        for number in 0..run.entries(ALONE) {
            let start = Instant::now();
            log.append(entries.get(number)).await?.durable().await?;
            times.push(start.elapsed().as_secs_f64());
        }
        let note = format!("99 % below {}", time(quantile(&times, 0.99)));
        let what = format!("one entry until it is durable, {name}");
        report.value(GROUP, what, Ratio::of(&times).times(1e3), "ms", None, note);
    }
    for log in logs {
        log.shutdown().await;
    }
    Ok(())
}

async fn read(log: &Replica) -> Result<(), Failure> {
    Reader::of(log).catch_up().await.map(drop)
}
