//! What every presence promises, as tests. Each backend runs all of them: `contract!` makes one test of each.

use std::{any::Any, sync::Arc};

use futures_util::future::{BoxFuture, join_all};
use xpush_protocol::{AppId, ChannelName, Member, SessionId, UserId};

use super::{Joined, LIST_LIMIT, Left, List, Presence};

/// A presence of a backend, and what must live as long.
pub(super) type Opened = (Arc<dyn Presence>, Box<dyn Any + Send>);

pub(super) type Open = fn() -> BoxFuture<'static, Opened>;

macro_rules! contract {
    ($backend:ident, $open:expr) => {
        mod $backend {
            $crate::presence::contract::contract!(
                $open,
                an_older_connection_does_not_take_a_session_out
                a_user_with_many_sessions_is_counted_once
                a_session_that_becomes_another_users_is_counted_for_that_one
                a_list_names_some_and_counts_all
                channels_do_not_know_of_each_other
                apps_do_not_know_of_each_other
                many_who_come_and_go_at_once_are_counted_right
            );
        }
    };
    ($open:expr, $($test:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $crate::presence::contract::$test($open).await;
            }
        )*
    };
}
pub(super) use contract;

contract!(in_process, || Box::pin(async {
    (std::sync::Arc::new(crate::presence::InProcess::default()) as _, Box::new(()) as _)
}));
#[cfg(feature = "redis")]
contract!(redis, || Box::pin(async {
    let server = xpush_test_servers::Redis::start().await;
    crate::presence::redis::tests::one_node(server.url(), Box::new(server)).await
}));
#[cfg(feature = "redis")]
contract!(redis_cluster, || Box::pin(async {
    let server = xpush_test_servers::RedisCluster::start().await;
    crate::presence::redis::tests::one_node(server.url(), Box::new(server)).await
}));

pub(super) fn member(user: Option<&str>) -> Member {
    Member { session: SessionId::random(), user: user.map(|user| user.parse().unwrap()) }
}

fn room(name: &str) -> ChannelName {
    format!("room:{name}").parse().unwrap()
}

pub(super) async fn an_older_connection_does_not_take_a_session_out(open: Open) {
    let (presence, _guard) = open().await;
    let (channel, ann) = (room("a"), member(None));
    assert_eq!(presence.join(&channel, ann.clone(), 1).await, Joined { occupancy: 1, new: true });
    assert_eq!(presence.join(&channel, ann.clone(), 2).await, Joined { occupancy: 1, new: false });
    assert_eq!(presence.leave(&channel, &ann.session, 1).await, None);
    assert_eq!(presence.list(&channel).await.sessions, 1);
    assert_eq!(presence.leave(&channel, &ann.session, 2).await, Some(Left { member: ann, occupancy: 0 }));
    assert_eq!(presence.list(&channel).await, List::default());
}

pub(super) async fn a_user_with_many_sessions_is_counted_once(open: Open) {
    let (presence, _guard) = open().await;
    let channel = room("a");
    let members = [member(Some("Ann Ü. {1}")), member(Some("Ann Ü. {1}")), member(Some("bob")), member(None)];
    for (occupancy, member) in (1..).zip(&members) {
        assert_eq!(presence.join(&channel, member.clone(), 7).await, Joined { occupancy, new: true });
    }
    let mut list = presence.list(&channel).await;
    assert_eq!((list.sessions, list.users), (4, 2));
    let mut expected = members.to_vec();
    for list in [&mut list.members, &mut expected] {
        list.sort_by(|a, b| a.session.cmp(&b.session));
    }
    assert_eq!(list.members, expected);
    for (users, member) in [2, 1, 0, 0].into_iter().zip([&members[0], &members[1], &members[2], &members[3]])
    {
        assert!(presence.leave(&channel, &member.session, 7).await.is_some());
        assert_eq!(presence.list(&channel).await.users, users);
    }
}

pub(super) async fn a_session_that_becomes_another_users_is_counted_for_that_one(open: Open) {
    let (presence, _guard) = open().await;
    let (channel, ann) = (room("a"), member(None));
    for (user, users) in [(None, 0), (Some("ann"), 1), (Some("bob"), 1), (None, 0)] {
        let ann = Member { user: user.map(|user: &str| user.parse().unwrap()), ..ann.clone() };
        presence.join(&channel, ann.clone(), 1).await;
        let list = presence.list(&channel).await;
        assert_eq!((list.sessions, list.users, list.members), (1, users, vec![ann]));
    }
}

pub(super) async fn a_list_names_some_and_counts_all(open: Open) {
    let (presence, _guard) = open().await;
    let channel = room("a");
    let joins = (0..1100).map(|n| {
        let user = format!("u{}", n / 2);
        let (presence, channel) = (&presence, &channel);
        async move { presence.join(channel, member(Some(&user)), 1).await }
    });
    join_all(joins).await;
    let list = presence.list(&channel).await;
    assert_eq!((list.sessions, list.users, list.members.len()), (1100, 550, LIST_LIMIT));
}

pub(super) async fn channels_do_not_know_of_each_other(open: Open) {
    let (presence, _guard) = open().await;
    let ann = member(Some("ann"));
    for channel in [room("a"), room("b")] {
        assert_eq!(presence.join(&channel, ann.clone(), 1).await, Joined { occupancy: 1, new: true });
    }
    assert!(presence.leave(&room("a"), &ann.session, 1).await.is_some());
    assert_eq!(presence.leave(&room("a"), &ann.session, 1).await, None, "it has left already");
    assert_eq!(presence.list(&room("b")).await.members, [ann]);
    assert_eq!(presence.list(&room("c")).await, List::default());
}

pub(super) async fn apps_do_not_know_of_each_other(open: Open) {
    let (presence, _guard) = open().await;
    let apps = ["default", "shop", "game"].map(|app| app.parse::<AppId>().unwrap());
    let of = |app: &AppId| {
        let ann = "ann".parse::<UserId>().unwrap().within(app);
        (room("a").within(app), Member { session: SessionId::random(), user: Some(ann) })
    };
    let members = apps.each_ref().map(of);
    for (channel, ann) in &members {
        assert_eq!(presence.join(channel, ann.clone(), 1).await, Joined { occupancy: 1, new: true });
    }
    for (channel, ann) in &members {
        let list = presence.list(channel).await;
        assert_eq!((list.sessions, list.users, list.members), (1, 1, vec![ann.clone()]));
    }
    let [(_, of_default), (shop, of_shop), (game, of_game)] = &members;
    assert_eq!(presence.leave(shop, &of_default.session, 1).await, None);
    let left = presence.leave(shop, &of_shop.session, 1).await;
    assert_eq!(left, Some(Left { member: of_shop.clone(), occupancy: 0 }));
    assert_eq!(presence.list(game).await.members, std::slice::from_ref(of_game));
}

pub(super) async fn many_who_come_and_go_at_once_are_counted_right(open: Open) {
    let (presence, _guard) = open().await;
    let channel = room("a");
    let come_and_go = (0..200).map(|n| {
        let (presence, channel) = (Arc::clone(&presence), channel.clone());
        tokio::spawn(async move {
            let one = member(Some(&format!("u{}", n % 7)));
            for connection in 0..5 {
                presence.join(&channel, one.clone(), connection).await;
                if (n + connection) % 2 == 0 {
                    assert!(presence.leave(&channel, &one.session, connection).await.is_some());
                }
            }
            presence.leave(&channel, &one.session, 4).await;
        })
    });
    for task in join_all(come_and_go).await {
        task.unwrap();
    }
    assert_eq!(presence.list(&channel).await, List::default());
}
