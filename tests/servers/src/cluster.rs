//! A Redis Cluster of three nodes that share the slots, without replicas: a node that is gone takes its slots with
//! it, until it comes back.

use std::net::SocketAddr;

use crate::redis::Redis;
use crate::resp;
use crate::until::Wait;

const NODES: usize = 3;

/// As the specification of Redis Cluster has it.
const SLOTS: usize = 16_384;

pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Returns when every node says that the cluster is whole.
    pub async fn start() -> Self {
        let lines = "cluster-enabled yes\ncluster-node-timeout 1000\ncluster-announce-ip 127.0.0.1\n";
        let nodes = (0..NODES).map(|at| Redis::configured(&format!("Redis node {at}"), lines, &[])).collect();
        let mut cluster = Self { nodes };
        for node in &mut cluster.nodes {
            node.spawn();
        }
        for node in &mut cluster.nodes {
            node.answers().await;
        }
        cluster.found().await;
        cluster.is_whole().await;
        cluster
    }

    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(|node| node.address().to_string()).collect();
        format!("redis+cluster://{}", addresses.join(","))
    }

    pub fn address(&self, node: usize) -> SocketAddr {
        self.nodes[node].address()
    }

    /// To this node, wherever the key lives. Panics when it refuses, also where it names another node.
    pub async fn command(&self, node: usize, words: &[&str]) -> String {
        self.nodes[node].command(words).await
    }

    /// Its connections stay open and nobody answers.
    pub fn pause(&self, node: usize) {
        self.nodes[node].pause();
    }

    pub fn resume(&self, node: usize) {
        self.nodes[node].resume();
    }

    /// Returns when the process is gone. The others notice after a second.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Empty, but in its old place. Returns when it answers, and, where no other node is missing, when the cluster
    /// is whole.
    pub async fn restart(&mut self, node: usize) {
        self.nodes[node].restart().await;
        if self.nodes.iter().all(Redis::is_running) {
            self.is_whole().await;
        }
    }

    async fn found(&self) {
        let first = self.nodes[0].address();
        for (at, node) in self.nodes.iter().enumerate() {
            let from = (SLOTS * at / NODES).to_string();
            let to = (SLOTS * (at + 1) / NODES - 1).to_string();
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &from, &to]).await;
            // Equal epochs would be told apart by an election at random.
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]).await;
            if at > 0 {
                let (host, port) = (first.ip().to_string(), first.port().to_string());
                node.command(&["CLUSTER", "MEET", &host, &port]).await;
            }
        }
    }

    async fn is_whole(&self) {
        let whole = Wait::until("Redis Cluster to be whole");
        for node in &self.nodes {
            while !says_whole(node.address()).await {
                whole.more().await;
            }
        }
    }
}

async fn says_whole(node: SocketAddr) -> bool {
    let answer = resp::ask(node, &["CLUSTER", "INFO"]).await.unwrap_or_default();
    resp::field(&answer, "cluster_state") == Some("ok")
        && resp::field(&answer, "cluster_size") == Some(&NODES.to_string())
        && resp::field(&answer, "cluster_slots_ok") == Some(&SLOTS.to_string())
}
