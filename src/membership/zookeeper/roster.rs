//! The other nodes' records, for as long as one session lives: the list of them and each one is watched, so that a
//! change costs one read and not one of all.

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
};

use futures_util::{
    StreamExt as _,
    future::{BoxFuture, join_all},
    stream::FuturesUnordered,
};
use tokio::time::sleep;
use tracing::warn;
use zookeeper_client::{Client, CreateMode, Error};

use super::{
    Known,
    notice::Notice,
    session::{RETRY_PAUSE, reconnected},
};
use crate::membership::{NodeId, NodeInfo};

/// Nodes of one cluster; of more, those whose ids come first.
const NODES_LIMIT: usize = 1024;
/// Records that are asked for at once.
const READS_LIMIT: usize = 64;
/// A node's wires, URLs and name.
const RECORD_LIMIT: usize = 64 * 1024;

/// Follows the nodes.
pub(super) struct Roster<'a> {
    known: &'a Known,
    client: &'a Client,
    nodes: BTreeMap<NodeId, NodeInfo>,
    /// Whose record's next change is waited for.
    watched: HashSet<NodeId>,
    changes: FuturesUnordered<BoxFuture<'static, NodeId>>,
    /// Whose record can't be read, which was said.
    unreadable: HashSet<NodeId>,
}

impl<'a> Roster<'a> {
    pub(super) fn new(known: &'a Known, client: &'a Client) -> Self {
        Self {
            known,
            client,
            nodes: BTreeMap::new(),
            watched: HashSet::new(),
            changes: FuturesUnordered::new(),
            unreadable: HashSet::new(),
        }
    }

    pub(super) async fn keep(mut self) -> Infallible {
        let mut notice = Notice::default();
        loop {
            let Err(error) = self.follow(&mut notice).await;
            notice.wrong(format!("{} can't be followed: {error}", self.known.place.nodes()));
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn follow(&mut self, notice: &mut Notice) -> Result<Infallible, Error> {
        let directory = self.known.place.nodes();
        let mut states = self.client.state_watcher();
        loop {
            let (children, _, watcher) = match self.client.get_and_watch_children(&directory).await {
                Err(Error::NoNode) => {
                    let options = self.known.place.create(CreateMode::Persistent);
                    self.client.mkdir(&directory, &options).await?;
                    continue;
                }
                listed => listed?,
            };
            let ids = ids(children);
            self.nodes.retain(|id, _| ids.contains(id));
            self.unreadable.retain(|id| ids.contains(id));
            let unwatched: Vec<_> = ids.into_iter().filter(|id| !self.watched.contains(id)).collect();
            self.read(unwatched).await?;
            notice.right("the nodes are followed again");
            let listed = watcher.changed();
            tokio::pin!(listed);
            loop {
                tokio::select! {
                    _ = &mut listed => break,
                    () = reconnected(&mut states) => break,
                    Some(id) = self.changes.next() => {
                        self.watched.remove(&id);
                        self.read(vec![id]).await?;
                    }
                }
            }
        }
    }

    /// Reads these records, waits for the next change of each, and tells what came of it.
    async fn read(&mut self, ids: Vec<NodeId>) -> Result<(), Error> {
        for ids in ids.chunks(READS_LIMIT) {
            let paths: Vec<_> = ids.iter().map(|id| self.known.place.node(id)).collect();
            let reads = paths.iter().map(|path| self.client.get_and_watch_data(path));
            for (id, read) in ids.iter().zip(join_all(reads).await) {
                match read {
                    Ok((data, _, watcher)) => {
                        self.watched.insert(id.clone());
                        let changed = id.clone();
                        self.changes.push(Box::pin(async move {
                            watcher.changed().await;
                            changed
                        }));
                        self.note(id, read_record(id, &data));
                    }
                    Err(Error::NoNode) => {
                        self.nodes.remove(id);
                    }
                    Err(Error::NoAuth) => self.note(id, Err("it belongs to another user".into())),
                    Err(error) => return Err(error),
                }
            }
        }
        self.known.learn(self.nodes.values().cloned());
        Ok(())
    }

    fn note(&mut self, id: &NodeId, read: Result<NodeInfo, String>) {
        match read {
            Ok(node) => {
                self.unreadable.remove(id);
                self.nodes.insert(id.clone(), node);
            }
            Err(error) => {
                self.nodes.remove(id);
                if self.unreadable.insert(id.clone()) {
                    warn!(node = %id, error, "a node's record is not understood; it is left out");
                }
            }
        }
    }
}

/// What a node said of itself.
pub(super) fn read_record(id: &NodeId, data: &[u8]) -> Result<NodeInfo, String> {
    if data.len() > RECORD_LIMIT {
        return Err(format!("it has {} bytes, {RECORD_LIMIT} are the limit", data.len()));
    }
    let node: NodeInfo = serde_json::from_slice(data).map_err(|error| error.to_string())?;
    if node.id != *id {
        return Err(format!("it calls itself {}", node.id));
    }
    Ok(node)
}

/// The names that a node can have.
fn ids(children: Vec<String>) -> Vec<NodeId> {
    let mut ids: Vec<NodeId> = children.into_iter().filter_map(|name| name.parse().ok()).collect();
    ids.sort_unstable();
    if ids.len() > NODES_LIMIT {
        warn!(nodes = ids.len(), limit = NODES_LIMIT, "there are more nodes than can be followed");
        ids.truncate(NODES_LIMIT);
    }
    ids
}
