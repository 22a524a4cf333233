//! A flood of logins beside messages: each login is meant to cost some 30 ms of a core, and messages must not pay for it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    latency::across,
    load,
    measure::Took,
    nodes::{self, Node, OPERATOR_KEY, ProcessDoors, call},
};

/// How long it is flooded; a short run floods for less.
const FLOOD: Duration = Duration::from_secs(60);
const SHORT_FLOOD: Duration = Duration::from_secs(5);
/// Who log in all the time, each as soon as it was answered: more than the cores, and more than may wait for one.
const ATTACKERS: usize = 128;
/// Messages a second.
const RATE: u32 = 200;
/// By how much the slowest messages may be slower.
const AT_MOST: f64 = 2.0;

/// Slower ones without a flood are no measure for those with one: something else is busy with the disk, or the cores.
const CALM: Duration = Duration::from_millis(50);
/// How often it is waited for calm.
const TRIES: usize = 5;

const CHANNEL: &str = "room:a";

/// Logs in with a wrong password, a user that is not there, and the right one, in turn; counts what was answered.
async fn attack(node: SocketAddr, n: usize, answers: Arc<[AtomicU64; 3]>, stop: CancellationToken) {
    for turn in n.. {
        let (user, password) = match turn % 3 {
            0 => ("ann", "not her password"),
            1 => ("nobody", "nobody's password"),
            _ => ("ann", "ann's own password"),
        };
        let body = json!({ "user": user, "password": password });
        let (status, _) = tokio::select! {
            () = stop.cancelled() => return,
            answer = call(node, "POST", "/v1/login", OPERATOR_KEY, &body) => answer,
        };
        let answer = match status {
            200 => 0,
            401 => 1,
            503 | 429 => 2,
            other => panic!("a login is answered by {other}"),
        };
        answers[answer].fetch_add(1, Ordering::Relaxed);
    }
}

async fn messages(doors: &ProcessDoors, measured_for: Duration) -> Took {
    across(doors, [0, 0], RATE, measured_for, CHANNEL).await
}

/// As `messages`, while nothing else is going on.
async fn calm(doors: &ProcessDoors, measured_for: Duration) -> Took {
    for _ in 0..TRIES {
        let took = messages(doors, measured_for).await;
        if took.p99() <= CALM {
            return took;
        }
        println!("without a flood: {took}; once more");
    }
    panic!("the machine is busy with something else: even without a flood, messages take more than {CALM:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes the whole machine for minutes: ./tests/run cluster"]
async fn a_flood_of_logins_leaves_messages_alone() {
    let _alone = nodes::alone().await;
    let mut node = Node::alone("n1");
    node.start().await;
    let doors = ProcessDoors::default();
    doors.add(&node);
    let body = json!({ "user": "ann", "password": "ann's own password" });
    let (status, answer) = call(node.http, "POST", "/v1/users", OPERATOR_KEY, &body).await;
    assert_eq!(status, 201, "{answer}");
    let measured_for = if load::is_timed() { FLOOD } else { SHORT_FLOOD };

    let before = calm(&doors, measured_for / 3).await;
    let (stop, answers, mut attackers) = (CancellationToken::new(), Arc::default(), JoinSet::new());
    for n in 0..ATTACKERS {
        attackers.spawn(attack(node.http, n, Arc::clone(&answers), stop.clone()));
    }
    let during = messages(&doors, measured_for).await;
    stop.cancel();
    while let Some(ended) = attackers.join_next().await {
        ended.unwrap();
    }
    let after = calm(&doors, measured_for / 3).await;
    let [let_in, refused, turned_away] = [0, 1, 2].map(|at: usize| answers[at].load(Ordering::Relaxed));
    println!("{RATE} durable messages/s before: {before}");
    println!("during {let_in} logins, {refused} that were refused, {turned_away} turned away: {during}");
    println!("after: {after}");
    // The machine itself is not the same before and after: the flood is held against the slower of the two.
    let without = before.p99().max(after.p99());
    println!("p99 {:.2} times that without the flood", during.p99().as_secs_f64() / without.as_secs_f64());
    assert!(let_in > 0 && refused > 0, "the flood was none");
    if load::is_timed() {
        assert!(during.p99().as_secs_f64() <= AT_MOST * without.as_secs_f64());
    }
    let (status, _) = call(node.http, "POST", "/v1/login", OPERATOR_KEY, &body).await;
    assert_eq!(status, 200, "who has the right password gets in once it is over");
}
