//! Disks that are full, shared, restored or somebody else's.

use hcp_core::identity::LogKey;
use hcp_core::replica::{AppendError, Disk, Frontier, OpenReplicaError, ReceiptError, Replica, Storage};

use crate::harness::{Cluster, all_linked, next_entry, read, soon};

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_named_and_all_goes_on_when_there_is_room() {
    let cluster = Cluster::new(2);
    let running = cluster.start_all().await;
    all_linked(&running).await;
    let before = running[0].replica.append("before").await.unwrap();
    soon(before.replicated(1)).await.unwrap();

    cluster.machines[0].disk.set_full(true);
    let waits = running[0].replica.append("waits").await.unwrap();
    assert!(matches!(soon(waits.durable()).await, Err(ReceiptError::Full)));
    assert!(matches!(running[0].replica.append("refused").await, Err(AppendError::Full)));
    soon(running[0].replica.status().wait_for(|status| status.disk == Disk::Full)).await.unwrap();
    // What is there is read, here and by others, who go on.
    assert_eq!(next_entry(&mut running[0].replica.subscribe(Frontier::start())).await.entry, "before");
    let meanwhile = running[1].replica.append("meanwhile").await.unwrap();
    soon(meanwhile.durable()).await.unwrap();

    cluster.machines[0].disk.set_full(false);
    soon(running[0].replica.status().wait_for(|status| status.disk == Disk::Good)).await.unwrap();
    assert_eq!(soon(waits.replicated(1)).await.unwrap(), 1);
    assert_eq!(soon(meanwhile.replicated(1)).await.unwrap(), 1);
    running[0].replica.append("after").await.unwrap().durable().await.unwrap();
    let mut texts = read(&mut running[1].replica.subscribe(Frontier::start()), 4).await;
    texts.sort();
    assert_eq!(texts, ["after", "before", "meanwhile", "waits"]);
}

#[tokio::test(start_paused = true)]
async fn a_restored_backup_forks_nothing_and_loses_nothing_that_others_hold() {
    let mut cluster = Cluster::new(2);
    let mut running = cluster.start_all().await;
    all_linked(&running).await;
    let first = running[0].replica.append("first").await.unwrap();
    soon(first.replicated(1)).await.unwrap();
    let backup = cluster.machines[0].disk.backup();
    let second = running[0].replica.append("second").await.unwrap();
    soon(second.replicated(1)).await.unwrap();
    running.remove(0).stop().await;

    cluster.machines[0].disk = backup;
    running.insert(0, cluster.start(0).await);
    let third = running[0].replica.append("third").await.unwrap();
    soon(third.replicated(1)).await.unwrap();
    for node in &running {
        let mut texts = read(&mut node.replica.subscribe(Frontier::start()), 3).await;
        texts.sort();
        assert_eq!(texts, ["first", "second", "third"]);
        assert!(node.replica.status().borrow().forked.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn another_nodes_disk_and_one_in_use_are_refused() {
    let cluster = Cluster::new(2);
    let node = cluster.start(0).await;
    let open = |key: &LogKey| {
        let storage = Storage::memory(&cluster.machines[0].disk);
        Replica::builder(storage, key.clone(), cluster.owner.public_key(), cluster.manifest.clone()).open()
    };
    let in_use = open(&cluster.machines[0].key).await.unwrap_err();
    assert!(matches!(in_use, OpenReplicaError::Store(hcp_core::replica::StoreError::InUse)), "{in_use:?}");
    node.stop().await;
    let foreign = open(&cluster.machines[1].key).await.unwrap_err();
    assert!(matches!(foreign, OpenReplicaError::Store(hcp_core::replica::StoreError::Damaged(_))), "{foreign:?}");
    let stranger = open(&LogKey::generate()).await.unwrap_err();
    assert!(matches!(stranger, OpenReplicaError::NotAMember), "{stranger:?}");
}

/// On SQLite, where threads of their own take real time.
#[tokio::test]
async fn a_database_is_opened_again_with_all_that_was_durable() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(1);
    for run in 0..3 {
        let storage = Storage::sqlite(folder.path().join("log.db"));
        let key = cluster.machines[0].key.clone();
        let builder = Replica::builder(storage, key, cluster.owner.public_key(), cluster.manifest.clone());
        let replica = builder.open().await.unwrap();
        let mut subscription = replica.subscribe(Frontier::start());
        let expected: Vec<String> = (0..run).map(|run| format!("run {run}")).collect();
        assert_eq!(read(&mut subscription, run).await, expected);
        replica.append(format!("run {run}")).await.unwrap().durable().await.unwrap();
        replica.shutdown().await;
    }
}
