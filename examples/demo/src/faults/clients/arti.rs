//! Stock Arti clients: arti-client as it comes, with no dialler of ours in front.

use std::sync::Arc;

use arti_client::config::TorClientConfigBuilder;
use arti_client::config::dir::{AuthorityContacts, FallbackDir};
use arti_client::{TorClient, TorClientConfig};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hcp_core::network::tor::PrivateNetwork;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout_at};

use super::{AGAIN, Connect, IRC, Kind, Knowledge, Ticket, Wanted, before, greet, patiently};
use crate::Result;

type Client = TorClient<tor_rtcompat::PreferredRuntime>;

/// Clients with guards and directories of their own. Isolated handles of one share no descriptor and no circuit.
pub(crate) struct ArtiClients {
    clients: Vec<Arc<Client>>,
    _folders: Vec<TempDir>,
}

impl std::fmt::Debug for ArtiClients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArtiClients").finish_non_exhaustive()
    }
}

impl ArtiClients {
    /// Starts them.
    ///
    /// # Errors
    /// When one cannot join the network.
    pub(crate) async fn start(network: &PrivateNetwork) -> Result<Self> {
        let folders: Vec<_> = (0..CLIENTS).map(|_| tempfile::tempdir()).collect::<std::io::Result<_>>()?;
        let join = |folder: &TempDir| {
            let config = config(network, folder);
            async { Ok::<_, Box<dyn std::error::Error + Send + Sync>>(TorClient::create_bootstrapped(config?).await?) }
        };
        let clients = futures::future::try_join_all(folders.iter().map(join)).await?;
        Ok(Self { clients, _folders: folders })
    }

    /// Connects often enough for each client to know how long circuits take: until it has built as many as the private network
    /// says, ten, Arti allows a minute for each, and eight times that for a service that does not answer.
    pub(crate) async fn learn(&self, address: &str) -> Result<()> {
        let all = self.clients.iter().cycle().take(CLIENTS * LESSONS).map(|client| client.isolated_client());
        self.each(all, address).await.map(drop)
    }

    /// Tries as a client that knows nothing, again and again, until it is served or it is `until`; says when it was served.
    pub(crate) async fn until_served(&self, index: usize, address: &str, until: Instant) -> Option<Instant> {
        let client = &self.clients[index % self.clients.len()];
        let tries = async {
            while connect(&client.isolated_client(), address).await.is_err() {
                sleep(AGAIN).await;
            }
        };
        timeout_at(until, tries).await.ok().map(|()| Instant::now())
    }

    /// One connect of each client, so that its links are there again.
    pub(super) async fn settle(&self, address: &str) -> Result<()> {
        self.each(self.clients.iter().map(|client| client.isolated_client()), address).await.map(drop)
    }

    pub(super) async fn tickets(&self, address: &str, wanted: Wanted) -> Result<Vec<Ticket>> {
        let mut clients = self.clients.iter().cycle();
        let mut isolated = || clients.next().map(|client| client.isolated_client());
        let cached = std::iter::from_fn(&mut isolated).take(wanted.cached()).collect::<Vec<_>>();
        let cached = self.each(cached.into_iter(), address).await?;
        let fresh = std::iter::from_fn(isolated).take(wanted.fresh()).map(|client| (Knowledge::Fresh, client));
        let cached = cached.into_iter().map(|client| (Knowledge::Cached, client));
        Ok(cached
            .chain(fresh)
            .map(|(knowledge, client)| {
                let address = address.to_owned();
                let connect: Connect = Box::new(move || {
                    Box::pin(async move {
                        let begun = Instant::now();
                        (begun, patiently(connect(&client, &address)).await)
                    })
                });
                Ticket { kind: Kind::Arti, knowledge, connect }
            })
            .collect())
    }

    /// Connects with each of the handles, a few at a time; gives them back.
    async fn each(&self, clients: impl Iterator<Item = Arc<Client>>, address: &str) -> Result<Vec<Arc<Client>>> {
        stream::iter(clients)
            .map(|client| async move {
                before("Arti", async || patiently(connect(&client, address)).await).await?;
                Ok(client)
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }
}

async fn connect(client: &Client, address: &str) -> Result<()> {
    greet(client.connect((address, IRC)).await.map_err(|error| chain(&error))?).await
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Arti tells of each of several attempts on a line of its own.
        text.push_str(&format!(": {}", error.to_string().replace('\n', "; ")));
        source = error.source();
    }
    text
}

/// What a stock client needs to be told to use a private network, and nothing else.
fn config(network: &PrivateNetwork, folder: &TempDir) -> Result<TorClientConfig> {
    let mut config = TorClientConfigBuilder::from_directories(folder.path().join("state"), folder.path().join("cache"));
    let mut contacts = AuthorityContacts::builder();
    let mut caches = Vec::new();
    for authority in &network.authorities {
        contacts.v3idents().push(authority.v3_identity.into());
        let mut cache = FallbackDir::builder();
        cache.rsa_identity(authority.rsa_identity.into()).ed_identity(authority.ed25519_identity.into());
        cache.orports().push(authority.or_address);
        caches.push(cache);
    }
    *config.tor_network().authorities() = contacts;
    config.tor_network().set_fallback_caches(caches);
    // All relays have one address, and none is the family of another.
    config.path_rules().ipv4_subnet_family_prefix(33).ipv6_subnet_family_prefix(129);
    config.address_filter().allow_local_addrs(true);
    config.storage().permissions().dangerously_trust_everyone();
    Ok(config.build()?)
}

/// Different guards, and yet few enough for each to have learned.
const CLIENTS: usize = 2;

/// Each connect builds two to four circuits, of which not all count.
const LESSONS: usize = 10;

/// More at once would measure the machine.
const AT_ONCE: usize = 6;
