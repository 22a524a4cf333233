//! The checker finds what it is there to find: each test plants one bug at a seam, and fails if the checker does not
//! complain of the right thing. None of them is in what is shipped. The same work without a bug is clean.

use std::{collections::BTreeMap, time::Duration};

use xpush::client::Via;
use xpush_protocol::Codec;

use crate::{
    checker::{Broken, Report},
    client::Tamper,
    harness,
    random::Random,
    run::Workload,
    stand_in::{Cluster, Faults, Flaw, Lie},
};

const NODES: usize = 3;
/// Given to the clients of a node that leaves.
const DRAIN: Duration = Duration::from_secs(2);
/// Of a run's end: the nodes look for late writes of one that died for ten seconds.
const SETTLE: Duration = Duration::from_secs(20);

fn workload(seed: u64) -> Workload {
    Workload {
        seed,
        rooms: 6,
        lives: 3,
        clients: 18,
        listens: 3,
        rate: 300.0,
        payload: 40,
        dead_after: Duration::from_millis(1200),
        wires: vec![(Via::Websocket, Codec::Json)],
        losing_rights: 4,
        tamper: Tamper::None,
        settle: SETTLE,
        token: harness::token_to_listen,
    }
}

/// What is wrong, and what happens while clients publish.
#[derive(Clone, Copy)]
struct Play {
    faults: Faults,
    tamper: Tamper,
    via: Via,
    /// Nodes are killed and drained.
    rough: bool,
    /// The log of what need not last is lost on the way, and tells so if it is `Some(true)`.
    loses: Option<bool>,
}

impl Play {
    fn new(faults: Faults) -> Self {
        Self { faults, tamper: Tamper::None, via: Via::Websocket, rough: true, loses: None }
    }

    async fn play(self, seed: u64) -> Report {
        let mut cluster = Cluster::start(NODES, self.faults, seed);
        let wires = vec![(self.via, Codec::Json)];
        let running = Workload { tamper: self.tamper, wires, ..workload(seed) }.start(cluster.doors()).await;
        running.publish();
        let mut random = Random(seed);
        if self.rough {
            rough_times(&mut cluster, &mut random).await;
        }
        pause(&mut random).await;
        if let Some(tells) = self.loses {
            cluster.recent.lose(tells);
            pause(&mut random).await;
        }
        let report = running.finish().await.report;
        println!("seed {seed}: {report}");
        report
    }

    /// With the seeds that a bug may need to show; one has to be enough.
    async fn catches(self, is_it: fn(&Broken) -> bool) {
        let mut others = BTreeMap::new();
        for seed in 0..3 {
            let report = self.play(seed).await;
            if let Some(caught) = report.violations.iter().find(|violation| is_it(&violation.what)) {
                println!("caught: {caught}");
                return;
            }
            others.extend(report.counts);
        }
        panic!("the bug was not caught; what was complained of: {others:?}");
    }
}

async fn rough_times(cluster: &mut Cluster, random: &mut Random) {
    for _ in 0..4 {
        let node = random.below(NODES as u64) as usize;
        pause(random).await;
        if random.once_in(3) {
            cluster.drain(node, DRAIN);
            tokio::time::sleep(DRAIN).await;
        }
        cluster.kill(node).await;
        pause(random).await;
        cluster.restart(node);
    }
}

async fn pause(random: &mut Random) {
    tokio::time::sleep(Duration::from_millis(500) + random.up_to(Duration::from_secs(1))).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_bug_it_is_clean_whatever_the_broker_loses() {
    for seed in 0..8 {
        let faults = if seed % 2 == 0 { Faults::storm() } else { Faults::none() };
        let report = Play::new(faults).play(seed).await;
        report.assert_clean();
        assert!(report.acknowledged > 1000 && report.unknown == 0 && report.delivered > report.acknowledged);
        assert!(report.connections > 18 && report.duplicates > 0, "{report}");
        assert_eq!(report.gaps, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_bug_a_log_that_is_lost_costs_a_gap_that_is_told() {
    for via in [Via::Websocket, Via::Quic] {
        for seed in 0..4 {
            let report = Play { via, loses: Some(true), ..Play::new(Faults::storm()) }.play(seed).await;
            report.assert_clean();
            assert!(report.gaps > 0, "{report}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_bug_a_wire_of_several_streams_is_clean() {
    for seed in 0..4 {
        let report = Play { via: Via::Quic, ..Play::new(Faults::storm()) }.play(seed).await;
        report.assert_clean();
        assert!(report.acknowledged > 1000 && report.unknown == 0 && report.connections > 18, "{report}");
    }
}

/// A bug of a log, at all its nodes or at one.
fn log(flaw: Flaw, flawed_node: Option<usize>) -> Play {
    Play::new(Faults { flaw, flawed_node, ..Faults::storm() })
}

fn broker(lie: Lie) -> Play {
    Play::new(Faults { lie, ..Faults::storm() })
}

/// Over a wire of several streams.
fn streams(play: Play) -> Play {
    Play { via: Via::Quic, ..play }
}

fn client(tamper: Tamper) -> Play {
    Play { tamper, ..Play::new(Faults::none()) }
}

macro_rules! planted {
    ($($name:ident: $kind:ident of $play:expr;)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            $play.catches(|broken| matches!(broken, Broken::$kind { .. })).await;
        }
    )*};
}

planted! {
    an_answer_before_the_write_is_caught: AcknowledgedLost of log(Flaw::AnswersFirst, None);
    a_write_that_is_rolled_back_is_caught: AcknowledgedLost of log(Flaw::RollsBack, None);
    an_offset_that_is_used_twice_is_caught: OffsetReused of log(Flaw::ReusesOffset, None);
    a_retry_that_stands_twice_is_caught: StandsTwice of log(Flaw::ForgetsIds, None);
    a_retry_that_is_told_another_place_is_caught: AnsweredElsewhere of log(Flaw::MisplacesDuplicates, None);
    a_stale_node_that_acknowledges_is_caught: AcknowledgedLost of log(Flaw::Freezes, Some(1));
    a_stale_node_that_places_what_stands_elsewhere_is_caught: OffsetReused of log(Flaw::Freezes, Some(1));
    a_hole_that_is_not_filled_is_caught: Hole of log(Flaw::LeavesOut, None);
    a_hole_in_what_a_node_tells_is_caught: HoleInLog of log(Flaw::LeavesOut, Some(2));
    a_resume_that_begins_one_too_late_is_caught: Hole of log(Flaw::ReadsLate, None);
    a_resume_that_begins_one_too_early_is_caught: DeliveredTwice of log(Flaw::ReadsEarly, None);
    a_node_with_another_order_is_caught: OffsetReused of log(Flaw::SwapsNeighbours, Some(0));
    a_subscription_that_begins_ahead_of_the_log_is_caught: BeforeItsPast of log(Flaw::LeapsAhead, None);
    a_node_that_hides_the_end_is_caught: NodesDiffer of log(Flaw::HidesTheEnd, Some(1));
    a_gap_that_is_told_of_what_is_there_is_caught: FalseGap of log(Flaw::DisownsTheOld, None);
    data_that_is_anothers_is_caught: Garbled of log(Flaw::MixesData, None);
    tops_that_are_not_compared_are_caught: Missed of Play { rough: false, ..broker(Lie::StaleTops) };
    publications_that_the_broker_renumbers_are_caught: OffsetReused of broker(Lie::Renumbers);
    publications_of_another_channel_are_caught: Invented of broker(Lie::MisdirectsChannels);
    a_client_that_resumes_one_too_late_is_caught: ResumedElsewhere of client(Tamper::SkipsOne);
    a_client_that_resumes_one_too_early_is_caught: ResumedElsewhere of client(Tamper::RepeatsOne);
    a_subscription_that_is_lost_on_the_way_to_another_node_is_caught: Missed of client(Tamper::ForgetsOne);
    a_hole_that_is_not_filled_is_caught_on_streams: Missed of streams(log(Flaw::LeavesOut, None));
    a_resume_that_begins_one_too_early_is_caught_on_streams: DeliveredTwice of streams(log(Flaw::ReadsEarly, None));
    a_resume_that_begins_one_too_late_is_caught_on_streams: Missed of streams(log(Flaw::ReadsLate, None));
    an_offset_that_is_used_twice_is_caught_on_streams: OffsetReused of streams(log(Flaw::ReusesOffset, None));
    a_subscription_that_is_lost_is_caught_on_streams: Missed of streams(client(Tamper::ForgetsOne));
    a_right_that_is_kept_after_it_was_revoked_is_caught: Leaked of client(Tamper::KeepsRight);
    a_retry_under_another_id_is_caught: StandsTwice of client(Tamper::RenamesRetry);
    a_log_that_is_lost_and_keeps_its_epoch_is_caught: OffsetReused of Play { loses: Some(false), ..Play::new(Faults::storm()) };
}
