//! The nodes of a cluster, in ZooKeeper: each is an ephemeral of its session, so that one that dies is gone for all
//! within the session's time-out, whoever was connected to it or not.
//!
//! Under the root are `nodes/<id>`, the record of each node as JSON, and `config`, which operators write. A session
//! that ends is followed by another; while ZooKeeper is out of reach, what was known last stands.

mod notice;
mod place;
mod registration;
mod roster;
mod session;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{self, BoxFuture};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use place::Place;
pub use place::Settings;

use super::{Membership, MembershipError, NodeId, NodeInfo, Nodes, Status};

/// The nodes of a cluster.
pub struct ZooKeeper {
    known: Arc<Known>,
    stop: CancellationToken,
    /// Taken by who closes.
    task: Mutex<Option<JoinHandle<()>>>,
    /// Who forgets to close leaves no task behind.
    _stop_on_drop: DropGuard,
}

/// What the task learns, and what it is to tell.
struct Known {
    place: Place,
    id: NodeId,
    /// This node's own record is the one in here.
    nodes: watch::Sender<Nodes>,
    /// Wakes who writes the record.
    status: watch::Sender<Status>,
    config: watch::Sender<Option<String>>,
    /// Why ZooKeeper is out of reach, if it is.
    lost: watch::Sender<Option<MembershipError>>,
}

impl ZooKeeper {
    /// Begins to register this node and to follow the others. It does not wait for ZooKeeper: a node that can't
    /// reach it serves all the same. Fails for settings that can't be right only. Needs a Tokio runtime.
    pub fn start(settings: Settings, me: NodeInfo) -> Result<Arc<Self>, MembershipError> {
        let place = Place::new(settings)?;
        let not_yet = MembershipError { reason: format!("ZooKeeper at {place} was not reached yet") };
        let known = Arc::new(Known {
            place,
            id: me.id.clone(),
            status: watch::Sender::new(me.status),
            nodes: watch::Sender::new(Arc::new([me])),
            config: watch::Sender::new(None),
            lost: watch::Sender::new(Some(not_yet)),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(session::keep(Arc::clone(&known), stop.clone()));
        Ok(Arc::new(Self {
            known,
            task: Mutex::new(Some(task)),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        }))
    }

    /// The text of `config` under the root, and every change; `None`: there is none. What was known last while
    /// ZooKeeper is out of reach.
    #[must_use]
    pub fn config(&self) -> watch::Receiver<Option<String>> {
        self.known.config.subscribe()
    }

    /// Takes this node off the list. Bounded in time.
    pub async fn close(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // One that panicked has ended as well.
            let _ = task.await;
        }
    }
}

impl Membership for ZooKeeper {
    fn nodes(&self) -> watch::Receiver<Nodes> {
        self.known.nodes.subscribe()
    }

    fn tell(&self, status: Status) {
        self.known.tell(status);
    }

    fn check(&self) -> BoxFuture<'_, Result<(), MembershipError>> {
        Box::pin(future::ready(self.known.lost.borrow().clone().map_or(Ok(()), Err)))
    }
}

impl Known {
    fn tell(&self, status: Status) {
        self.nodes.send_if_modified(|nodes| {
            let is_new = |node: &NodeInfo| node.id == self.id && node.status != status;
            let changed = nodes.iter().any(is_new);
            if changed {
                let told = |node: &NodeInfo| {
                    let status = if node.id == self.id { status } else { node.status };
                    NodeInfo { status, ..node.clone() }
                };
                *nodes = nodes.iter().map(told).collect();
            }
            changed
        });
        // After the list, from which the record is written.
        self.status.send_if_modified(|known| std::mem::replace(known, status) != status);
    }

    /// This node's own record.
    fn me(&self) -> NodeInfo {
        let nodes = self.nodes.borrow();
        nodes.iter().find(|node| node.id == self.id).expect("a node is on its own list").clone()
    }

    /// Notes who else lives.
    fn learn(&self, others: impl Iterator<Item = NodeInfo>) {
        let mut others: Vec<_> = others.filter(|node| node.id != self.id).collect();
        self.nodes.send_if_modified(|nodes| {
            others.extend(nodes.iter().find(|node| node.id == self.id).cloned());
            others.sort_by(|a, b| a.id.cmp(&b.id));
            let changed = **nodes != *others;
            if changed {
                *nodes = others.into();
            }
            changed
        });
    }
}
