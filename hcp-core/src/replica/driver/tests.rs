//! The application's state at the checkpoint, when it cannot be read at the moment it is needed.

use std::sync::Mutex;

use super::*;
use crate::identity::delegation::OwnerKey;
use crate::identity::manifest::{Contents, Member, Role, SoftwareVersion};
use crate::identity::{Identity, LogKey};
use crate::replica::log::keys::Keys;
use crate::replica::log::storage::Opened as Held;
use crate::replica::log::storage::{Read, Row};
use crate::replica::{
    Applied, Event, Follower, Frontier, MemoryDisk, Replica, RestoreError, Split, Subscription, share,
};
use crate::store::StoreError;

/// How many entries there are.
#[derive(Default)]
struct Count(u64);

impl StateMachine for Count {
    fn apply(&mut self, _: &Applied) {
        self.0 += 1;
    }

    fn split(&mut self, _: &Split) {}

    fn checkpoint(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), RestoreError> {
        self.0 = u64::from_be_bytes(state.try_into().map_err(|_| RestoreError)?);
        Ok(())
    }
}

/// A store that does not say at first what it holds.
#[derive(Debug)]
struct Reluctant {
    store: Arc<dyn Store>,
    errors: Mutex<Vec<StoreError>>,
    /// Told, once, that another checkpoint takes the place of the one that is read at the moment.
    replaced: Mutex<Option<watch::Sender<Head>>>,
}

impl Store for Reluctant {
    fn write(&self, batch: Box<Batch>) -> BoxFuture<'_, Outcome> {
        self.store.write(batch)
    }

    fn read(&self, what: Read) -> BoxFuture<'_, Found> {
        match self.replaced.lock().unwrap().take() {
            Some(head) => {
                head.send_modify(|head| head.pruned += 2);
                futures::future::ready(Found::Piece(None)).boxed()
            }
            None => self.store.read(what),
        }
    }

    fn opened(&self) -> BoxFuture<'_, Result<Held, StoreError>> {
        match self.errors.lock().unwrap().pop() {
            Some(error) => futures::future::ready(Err(error)).boxed(),
            None => self.store.opened(),
        }
    }

    fn scan(&self, after: Position, bytes: usize, payloads: Payloads) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.store.scan(after, bytes, payloads)
    }

    fn payload(&self, position: Position) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        self.store.payload(position)
    }

    fn failure(&self) -> Option<Arc<StoreError>> {
        self.store.failure()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        self.store.shutdown()
    }
}

/// A driver that does not run, at a checkpoint of seven entries.
async fn at_a_checkpoint() -> Driver {
    let (service, owner, key) = (Identity::generate(), OwnerKey::generate(), LogKey::generate());
    let member = Member::new(Identity::generate().address(), key.public_key(), Role::Publisher).unwrap();
    let manifest = Manifest::sign(&owner, service.address(), Contents::new(1, vec![member]).unwrap()).unwrap();
    let storage = Storage::memory(&MemoryDisk::new());
    let builder = Replica::builder(storage.clone(), key.clone(), owner.public_key(), manifest.clone());
    let replica = builder.state_machine(Count::default).open().await.unwrap();
    let mut follower = Follower::new(replica.subscribe(Frontier::start()), Count::default());
    for _ in 0..7 {
        replica.append("an entry").await.unwrap();
    }
    while follower.state().0 < 7 {
        follower.next().await.unwrap();
    }
    replica.retain().await.unwrap();
    let mut status = replica.status();
    tokio::select! {
        _ = status.wait_for(|status| status.checkpoint) => {}
        () = async { while follower.next().await.unwrap().is_some() {} } => panic!("the log ended"),
    }
    replica.shutdown().await;

    let keys = Keys::new(service.address(), owner.public_key(), key);
    let software = SoftwareVersion::of_this_library();
    let opening = Opening { config: Config { keys: keys.clone(), manifest, software }, storage };
    let began = Instant::now();
    let factory: Factory = Box::new(|| Box::new(Count::default()));
    let opened = open(&opening, Some(factory), began, Position(0)).await.map_err(|(_, error)| error).unwrap();
    let (told, shared, _commands, _inbox) = share(keys, &opened);
    Driver::new(shared, opening, opened, told, began).map_err(|(_, error)| error).unwrap()
}

fn counted(state: Vec<u8>) -> u64 {
    u64::from_be_bytes(state.try_into().unwrap())
}

/// Takes the copy back to the checkpoint, in a store that first has these errors, and returns what it counts.
async fn count_at_the_checkpoint(errors: Vec<StoreError>) -> Option<u64> {
    let mut driver = at_a_checkpoint().await;
    let store = Arc::clone(&driver.store);
    driver.store = Arc::new(Reluctant { store, errors: Mutex::new(errors), replaced: Mutex::default() });
    driver.unfold(machine::Unfold::Checkpoint).await;
    Some(counted(driver.copy.as_mut()?.lend()?.checkpoint()))
}

#[tokio::test(start_paused = true)]
async fn the_copy_goes_back_to_the_checkpoint() {
    assert_eq!(count_at_the_checkpoint(vec![]).await, Some(7));
}

/// From nothing it would go on to sign another state than everybody else.
#[tokio::test(start_paused = true)]
async fn without_the_checkpoint_there_is_no_copy_rather_than_an_empty_one() {
    assert_eq!(count_at_the_checkpoint(vec![StoreError::Damaged("for good")]).await, None);
}

#[cfg(feature = "postgres")]
#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_waited_for_when_the_copy_goes_back() {
    assert_eq!(count_at_the_checkpoint(vec![StoreError::Silent, StoreError::Silent]).await, Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_whose_checkpoint_is_replaced_while_it_is_read_begins_again() {
    let driver = at_a_checkpoint().await;
    let (store, head) = (Arc::clone(&driver.store), driver.told.head.clone());
    let replaced = Mutex::new(Some(head.clone()));
    let store: Arc<dyn Store> = Arc::new(Reluctant { store, errors: Mutex::default(), replaced });
    head.send_modify(|head| head.ground.store = Some(store));
    let delivered = Arc::default();
    let shared = Arc::clone(&driver.shared);
    let mut subscription = Subscription::new(shared, head.subscribe(), Frontier::start(), delivered);
    let event = subscription.next().await;
    assert!(matches!(&event, Ok(Some(Event::State(state))) if counted(state.to_vec()) == 7), "{event:?}");
}
