//! The warden: hands out, one after the other, grants that the owner made in advance, into a folder or to nodes that dial it.
//!
//! It has no key of the service and verifies nothing; a node does. What may leave the stock the core's [`Stock`] says.

use std::fs;
use std::path::Path;
use std::time::Duration;

use hcp_core::owner::Stock;

use super::args::Warden;
use super::folder::{read_grant, write};
use super::time::now;
use crate::failure::Failure;
use crate::keys::{self, print};
use crate::serve;

/// `hcp-irc warden`.
pub(crate) async fn warden(command: Warden) -> Result<(), Failure> {
    let stock = Stock::new(&command.stock);
    match (&command.out, &command.home) {
        (Some(out), _) => fill(&command, &stock, out).await,
        (None, Some(home)) => {
            let protection = keys::protection(&command.keys.protection())?;
            serve::warden::listen(home, &command.place, &protection, stock).await
        }
        (None, None) => Err(Failure::new("say where to hand out: --out DIR, or --listen --home DIR")),
    }
}

/// Puts what is due into a folder, once or again and again.
async fn fill(command: &Warden, stock: &Stock, out: &Path) -> Result<(), Failure> {
    keys::make_private_folder(out)?;
    loop {
        let due = stock.due(now()).map_err(|error| Failure::file("read the stock", &command.stock, &error))?;
        for due in due {
            let grant = read_grant(&due.path)?;
            let out = out.join(format!("{}.grant", due.name));
            if fs::read(&out).is_ok_and(|held| held == grant) {
                continue;
            }
            write(&out, &grant)?;
            print(&format!("{}\n", out.display()))?;
        }
        let Some(seconds) = command.every else { return Ok(()) };
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}
