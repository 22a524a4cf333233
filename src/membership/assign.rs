//! Which node a client should use: rendezvous hashing (Thaler and Ravishankar, 1998; with weights as in Schindelhauer
//! and Schomaker, 2005), so that a client finds the same node again, and as few as possible move when nodes come and
//! go; with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2018), so that none gets much more than its share.

use super::{NodeId, NodeInfo};

/// A node that has more than this many times its share of the sessions is passed over.
const OVERLOAD: f64 = 1.25;
/// Below so many sessions a node, chance decides the shares, and there is nothing to be relieved of.
const SPARE: f64 = 50.0;

/// The node for a client with this key, of those that take clients. `None`: none does.
#[must_use]
pub fn assign<'a>(nodes: &'a [NodeInfo], key: &str) -> Option<&'a NodeInfo> {
    let takers: Vec<_> = nodes.iter().filter(|node| node.takes_clients()).collect();
    let sessions: f64 = takers.iter().map(|node| f64::from(node.status.sessions)).sum();
    let weights: f64 = takers.iter().map(|node| f64::from(node.weight)).sum();
    let fits = |node: &&&NodeInfo| {
        let share = sessions * f64::from(node.weight) / weights;
        f64::from(node.status.sessions) <= share * OVERLOAD + SPARE
    };
    // Somebody always has his share or less.
    takers.iter().filter(fits).max_by(|a, b| score(a, key).total_cmp(&score(b, key))).copied()
}

/// A node with more than this many times its share asks clients to go elsewhere. Below `assign`'s bound, or the nodes
/// between the two would stay as they are for good.
const UNEVEN: f64 = 1.1;
/// And this many more: chance makes shares uneven too.
const UNEVEN_SPARE: f64 = 10.0;

/// How many of its sessions this node has beyond its share, where the others have room; 0 while it is about even.
#[must_use]
pub fn surplus(nodes: &[NodeInfo], own: &NodeId, sessions: usize) -> usize {
    let takers = || nodes.iter().filter(|node| node.takes_clients());
    let Some(this) = takers().find(|node| node.id == *own) else { return 0 };
    let others: f64 =
        takers().filter(|node| node.id != *own).map(|node| f64::from(node.status.sessions)).sum();
    let weights: f64 = takers().map(|node| f64::from(node.weight)).sum();
    let share = (others + sessions as f64) * f64::from(this.weight) / weights;
    if (sessions as f64) <= share * UNEVEN + UNEVEN_SPARE { 0 } else { sessions - share.ceil() as usize }
}

/// The node that appends to this channel where many would. `None`: there is none that stays.
#[must_use]
pub fn appender<'a>(nodes: impl Iterator<Item = &'a NodeInfo>, channel: &str) -> Option<&'a NodeInfo> {
    let staying = nodes.filter(|node| !node.status.draining && node.weight > 0);
    staying.max_by(|a, b| score(a, channel).total_cmp(&score(b, channel)))
}

/// The node with the highest score is the key's; a weight of two gets twice the keys.
fn score(node: &NodeInfo, key: &str) -> f64 {
    let unit = (hash(node.id.as_str(), key) as f64 + 1.0) / (u64::MAX as f64 + 2.0);
    -f64::from(node.weight) / unit.ln()
}

/// The same on every node and in every version: FNV-1a (Fowler, Noll, Vo), and the finish of SplitMix64 (Steele, Lea and
/// Flood, 2014), which spreads what FNV leaves alike.
fn hash(node: &str, key: &str) -> u64 {
    let fnv = node.bytes().chain([0]).chain(key.bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use xpush_protocol::Transports;

    use super::{
        super::{Roles, Status},
        *,
    };

    fn node(id: &str, weight: u32, sessions: u32) -> NodeInfo {
        let wires = || Transports {
            version: String::new(),
            node: id.into(),
            transports: vec![],
            certificate_hashes: vec![],
        };
        NodeInfo {
            id: id.parse().unwrap(),
            instance: 1,
            version: String::new(),
            roles: Roles { session: true, channel: true },
            weight,
            wires: wires(),
            secure_wires: wires(),
            url: String::new(),
            secure_url: String::new(),
            status: Status { sessions, draining: false, ..Status::default() },
        }
    }

    fn keys() -> impl Iterator<Item = String> {
        (0..10_000).map(|n| format!("user-{n}"))
    }

    fn shares(nodes: &[NodeInfo]) -> HashMap<String, usize> {
        let mut shares = HashMap::new();
        for key in keys() {
            *shares.entry(assign(nodes, &key).unwrap().id.to_string()).or_default() += 1;
        }
        shares
    }

    #[test]
    fn each_node_gets_its_share() {
        let shares = shares(&[node("a", 1, 0), node("b", 1, 0), node("c", 2, 0)]);
        for (id, wanted) in [("a", 2500), ("b", 2500), ("c", 5000)] {
            assert!(shares[id].abs_diff(wanted) < wanted / 10, "{shares:?}");
        }
    }

    #[test]
    fn a_node_that_comes_takes_its_share_and_moves_nobody_else() {
        let three = [node("a", 1, 0), node("b", 1, 0), node("c", 1, 0)];
        let four = [&three[..], &[node("d", 1, 0)]].concat();
        let mut moved = 0;
        for key in keys() {
            let (before, after) = (assign(&three, &key).unwrap(), assign(&four, &key).unwrap());
            if before.id != after.id {
                assert_eq!(after.id.as_str(), "d", "nobody moves between those that stay");
                moved += 1;
            }
        }
        assert!((2200..=2800).contains(&moved), "{moved} of 10,000 moved, a quarter should");
    }

    #[test]
    fn a_full_node_is_passed_over() {
        let nodes = [node("a", 1, 1000), node("b", 1, 100), node("c", 1, 100)];
        assert!(!shares(&nodes).contains_key("a"));
        let even = [node("a", 1, 400), node("b", 1, 380), node("c", 1, 420)];
        assert_eq!(shares(&even).len(), 3, "a small difference moves nobody");
    }

    #[test]
    fn who_has_much_more_than_the_others_has_a_surplus() {
        let id = |id: &str| id.parse::<NodeId>().unwrap();
        let nodes = [node("a", 1, 0), node("b", 1, 250), node("c", 2, 0)];
        assert_eq!(surplus(&nodes, &id("a"), 250), 125, "of 500, a quarter is its share");
        assert_eq!(surplus(&nodes, &id("a"), 90), 0, "about even");
        assert_eq!(surplus(&nodes, &id("c"), 250), 0);
        assert_eq!(surplus(&nodes[..1], &id("a"), 1000), 0, "there is nobody else");
        assert_eq!(surplus(&nodes, &id("z"), 1000), 0);
        assert_eq!(surplus(&[node("a", 1, 0), node("b", 1, 0)], &id("a"), 8), 0, "few are no burden");
    }

    #[test]
    fn a_node_that_leaves_or_holds_no_connections_gets_nobody() {
        let mut leaving = node("a", 1, 0);
        leaving.status.draining = true;
        let mut session = node("b", 1, 0);
        session.roles.channel = false;
        let closed = node("c", 0, 0);
        assert!(assign(&[leaving.clone(), session.clone(), closed.clone()], "x").is_none());
        let nodes = [leaving, session, closed, node("d", 1, 0)];
        assert!(keys().all(|key| assign(&nodes, &key).unwrap().id.as_str() == "d"));
    }
}
