//! What a store in a file does beside the contract: opening, closing, whose it is.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tempfile::TempDir;

use super::{SqliteStore, Tuning};
use crate::identity::OnionAddress;
use crate::replica::log::store::Store;
use crate::replica::log::store::contract::{self, Fixture};
use crate::replica::place::NodeId;
use crate::store::StoreError;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Fixture for Folder {
    fn open(&self, node: NodeId) -> BoxFuture<'_, Result<Arc<dyn Store>, StoreError>> {
        async move {
            let path = self.0.path().join("log.db");
            let store = SqliteStore::open(&path, &service(), &node, Tuning::default())?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        }
        .boxed()
    }
}

/// Some address.
pub(super) fn service() -> OnionAddress {
    crate::identity::Identity::from_seed(&[7; 32]).address()
}

macro_rules! each {
    ($($name:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                contract::$name(&Folder::new()).await;
            }
        )+
    };
}
contract::all!(each);
