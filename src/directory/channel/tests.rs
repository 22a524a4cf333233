//! Channels: made, opened, changed, deleted.

use std::{sync::Arc, time::SystemTime};

use futures_util::future::join_all;
use xpush_protocol::UserId;

use super::{ChannelPatch, ChannelProfile, Kind, Life, NewChannel};
use crate::{
    auth::Permission,
    directory::{
        Actor, Change, ChangeFeed, Directory, DirectoryError, MemberState, Role,
        fixture::{all, channel, data, directory_of, user},
        store::{Prefix, Scan, Store, contract::on_every_store},
    },
    namespace::Access,
};

on_every_store!(
    who_makes_a_channel_owns_it
    a_name_is_given_once_also_after_the_channel_went
    a_direct_channel_is_the_same_from_both_sides
    a_direct_channel_that_is_opened_by_many_at_once_is_one
    nobody_makes_a_direct_channel_by_its_name
    a_block_shuts_a_direct_channel_for_both
    a_channel_is_changed_by_admins_if_it_is_still_what_they_read
    what_is_no_title_is_refused_by_name
    a_deleted_channel_is_gone_for_all_of_its_members
    a_deletion_that_stopped_half_way_is_finished
    a_channel_is_seen_by_those_who_may_know_of_it
    names_of_another_app_are_other_channels
);

async fn who_makes_a_channel_owns_it(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob"]).await;
    let made = directory.make("chat:a", "ann", &["bob", "bob", "ann"]).await.unwrap();
    let record = &made.value;
    assert_eq!((record.members, record.owners, record.kind), (2, 1, Kind::Group));
    assert_eq!(record.creator, Some(user("ann")));
    let role = async |name| directory.member(&channel("chat:a"), &user(name)).await.unwrap().unwrap().role;
    assert_eq!((role("ann").await, role("bob").await), (Role::Owner, Role::Member));
    for name in ["ann", "bob"] {
        let list = directory.conversations(&user(name), all()).await.unwrap();
        assert_eq!(list.items.len(), 1, "{name}");
        let standing = directory.standing(&channel("chat:a"), Some(&user(name))).await.unwrap();
        assert!(standing.may(Permission::Publish, Access::Members, SystemTime::now()));
    }
    let error = directory.make("chat:b", "ann", &["nobody"]).await.unwrap_err();
    assert_eq!(error, DirectoryError::NotFound("user"));
    assert_eq!(directory.channel(&channel("chat:b")).await.unwrap(), None);
}

async fn a_name_is_given_once_also_after_the_channel_went(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob"]).await;
    directory.make("chat:a", "ann", &[]).await.unwrap();
    let taken = Err(DirectoryError::AlreadyExists("channel"));
    assert_eq!(directory.make("chat:a", "bob", &[]).await, taken);
    directory.delete_channel(&channel("chat:a"), Actor::User(&user("ann")), None).await.unwrap();
    assert_eq!(directory.make("chat:a", "bob", &[]).await, taken);
}

async fn a_direct_channel_is_the_same_from_both_sides(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob", "cid"]).await;
    let (ann, bob, cid) = (user("ann"), user("bob"), user("cid"));
    let (one, created) = directory.open_direct(Actor::User(&ann), &ann, &bob).await.unwrap();
    assert!(created && one.value.kind == Kind::Direct);
    let (two, created) = directory.open_direct(Actor::User(&bob), &bob, &ann).await.unwrap();
    assert!(!created);
    assert_eq!(one, two);
    assert_eq!((one.value.other(&ann), one.value.other(&bob)), (Some(&bob), Some(&ann)));
    let (other, _) = directory.open_direct(Actor::User(&cid), &cid, &ann).await.unwrap();
    assert_ne!(other.value.channel, one.value.channel);
    for (who, other) in [(&ann, &ann), (&ann, &user("nobody"))] {
        assert!(directory.open_direct(Actor::User(who), who, other).await.is_err());
    }
    // It has nobody above anybody.
    let name = &one.value.channel;
    let ban = directory.ban(name, Actor::User(&ann), &bob).await;
    let leave = directory.remove_member(name, Actor::User(&ann), &ann).await;
    for refused in
        [ban.map(drop), leave.map(drop), directory.delete_channel(name, Actor::User(&ann), None).await]
    {
        assert!(matches!(refused, Err(DirectoryError::NotSupported(_))), "{refused:?}");
    }
    let stranger = directory.ban(name, Actor::User(&user("cid")), &bob).await;
    assert!(stranger.is_err());
}

async fn a_direct_channel_that_is_opened_by_many_at_once_is_one(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob"]).await;
    let (ann, bob) = (user("ann"), user("bob"));
    let opened = (0..16).map(|n| {
        let (one, other) = if n % 2 == 0 { (&ann, &bob) } else { (&bob, &ann) };
        directory.open_direct(Actor::User(one), one, other)
    });
    let opened: Vec<_> = join_all(opened).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(opened.iter().filter(|(_, created)| *created).count(), 1);
    assert!(opened.iter().all(|(channel, _)| *channel == opened[0].0));
    assert_eq!(
        directory
            .members(&opened[0].0.value.channel, &[MemberState::Active], all())
            .await
            .unwrap()
            .items
            .len(),
        2
    );
}

async fn nobody_makes_a_direct_channel_by_its_name(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["eve"]).await;
    let error = directory.make("dm:anything", "eve", &[]).await.unwrap_err();
    assert!(matches!(error, DirectoryError::NotSupported(_)), "{error}");
}

async fn a_block_shuts_a_direct_channel_for_both(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob", "cid"]).await;
    let (ann, bob, cid) = (user("ann"), user("bob"), user("cid"));
    let (direct, _) = directory.open_direct(Actor::User(&ann), &ann, &bob).await.unwrap();
    let name = direct.value.channel;
    let mut feed = ChangeFeed::default();
    feed.next(&directory).await.unwrap();
    let publishes = async |user: &UserId| {
        let standing = directory.standing(&name, Some(user)).await.unwrap();
        standing.may(Permission::Publish, Access::Members, SystemTime::now())
    };
    assert!(publishes(&ann).await && publishes(&bob).await);
    directory.block(&ann, &bob).await.unwrap();
    assert!(!publishes(&ann).await && !publishes(&bob).await);
    let told = feed.next(&directory).await.unwrap();
    for user in [&ann, &bob] {
        let change = Change::Member { app: user.app(), channel: name.clone(), user: user.clone() };
        assert!(told.contains(&change), "{told:?}");
    }
    // It is shut until both let it be.
    directory.block(&bob, &ann).await.unwrap();
    directory.unblock(&ann, &bob).await.unwrap();
    assert!(!publishes(&ann).await);
    directory.unblock(&bob, &ann).await.unwrap();
    assert!(publishes(&ann).await && publishes(&bob).await);
    // None is made either.
    directory.block(&cid, &ann).await.unwrap();
    let refused = directory.open_direct(Actor::User(&ann), &ann, &cid).await;
    assert!(matches!(refused, Err(DirectoryError::Forbidden(_))));
}

async fn a_channel_is_changed_by_admins_if_it_is_still_what_they_read(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob"]).await;
    let name = channel("chat:a");
    let made = directory.make("chat:a", "ann", &["bob"]).await.unwrap();
    let patch =
        |title: Option<&str>| ChannelPatch { title: Some(title.map(Into::into)), ..Default::default() };
    let (ann, bob) = (user("ann"), user("bob"));
    let tea = patch(Some("Tea"));
    let changed = directory.update_channel(&name, Actor::User(&ann), &tea, Some(made.version)).await.unwrap();
    assert_eq!(changed.value.profile.title.as_deref(), Some("Tea"));
    assert_ne!(changed.etag(), made.etag());
    let stale = directory.update_channel(&name, Actor::User(&ann), &patch(None), Some(made.version)).await;
    assert_eq!(stale, Err(DirectoryError::Stale));
    let refused = directory.update_channel(&name, Actor::User(&bob), &patch(None), None).await;
    assert!(matches!(refused, Err(DirectoryError::Forbidden(_))));
    let back = directory.update_channel(&name, Actor::Backend, &patch(None), None).await.unwrap();
    assert_eq!(back.value.profile, ChannelProfile::default());
}

async fn what_is_no_title_is_refused_by_name(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann"]).await;
    directory.make("chat:a", "ann", &[]).await.unwrap();
    let text = |text: &str| Some(Some(text.to_owned()));
    let none = ChannelPatch::default;
    for (patch, field) in [
        (ChannelPatch { title: text(""), ..none() }, "title"),
        (ChannelPatch { title: text(&"x".repeat(257)), ..none() }, "title"),
        (ChannelPatch { title: text("a\u{0}b"), ..none() }, "title"),
        (ChannelPatch { topic: text("a\u{1b}[2J"), ..none() }, "topic"),
        (ChannelPatch { avatar: text("javascript:alert(1)"), ..none() }, "avatar"),
        (ChannelPatch { data: Some(Some(data("[1]"))), ..none() }, "data"),
        (
            ChannelPatch { data: Some(Some(data(&format!("{{\"a\":\"{}\"}}", "x".repeat(9000))))), ..none() },
            "data",
        ),
    ] {
        let refused = directory.update_channel(&channel("chat:a"), Actor::Backend, &patch, None).await;
        let error = refused.unwrap_err();
        assert!(matches!(&error, DirectoryError::Invalid(text) if text.contains(field)), "{error}");
    }
    let kept = ChannelPatch { data: Some(Some(data(r#"{"$gt": "", "a.b": 1}"#))), ..none() };
    let changed = directory.update_channel(&channel("chat:a"), Actor::Backend, &kept, None).await.unwrap();
    assert_eq!(changed.value.profile.data, Some(data(r#"{"$gt": "", "a.b": 1}"#)));
}

async fn a_deleted_channel_is_gone_for_all_of_its_members(store: Arc<dyn Store>) {
    let many: Vec<String> = (0..100).map(|n| format!("u{n:03}")).collect();
    let names: Vec<&str> = many.iter().map(String::as_str).chain(["ann"]).collect();
    let directory = directory_of(Arc::clone(&store), &names).await;
    let name = channel("chat:a");
    directory.make("chat:a", "ann", &names[..100]).await.unwrap();
    let mut feed = ChangeFeed::default();
    feed.next(&directory).await.unwrap();
    let refused = directory.delete_channel(&name, Actor::User(&user("u001")), None).await;
    assert!(matches!(refused, Err(DirectoryError::Forbidden(_))));
    directory.delete_channel(&name, Actor::User(&user("ann")), None).await.unwrap();
    let told = feed.next(&directory).await.unwrap();
    assert_eq!(told, [Change::Channel { app: name.app(), channel: name.clone() }]);
    assert_eq!(directory.channel(&name).await.unwrap(), None);
    for prefix in [Prefix::new(&["member", "default"]), Prefix::new(&["mine", "default"])] {
        assert_eq!(store.scan(Scan::of(prefix)).await.unwrap(), []);
    }
    let again = directory.delete_channel(&name, Actor::User(&user("ann")), None).await;
    assert_eq!(again, Err(DirectoryError::NotFound("channel")));
}

async fn a_deletion_that_stopped_half_way_is_finished(store: Arc<dyn Store>) {
    let directory = directory_of(Arc::clone(&store), &["ann", "bob"]).await;
    let name = channel("chat:a");
    let made = directory.make("chat:a", "ann", &["bob"]).await.unwrap();
    // As a node that died behind the first commit leaves it.
    let going = super::Channel { life: Life::Going, ..made.value };
    let key = super::Channel::key(&name);
    let commit = crate::directory::store::Commit::new().put(key, crate::directory::record::encode(&going));
    store.commit(commit).await.unwrap();
    let standing = directory.standing(&name, Some(&user("bob"))).await.unwrap();
    assert_eq!((standing.channel, standing.member), (None, None));
    assert_eq!(directory.conversations(&user("bob"), all()).await.unwrap().items, []);
    let join = directory.join(&name, &user("bob"), true, 0).await;
    assert_eq!(join, Err(DirectoryError::NotFound("channel")));
    let again = directory.delete_channel(&name, Actor::Backend, None).await;
    assert_eq!(again, Err(DirectoryError::NotFound("channel")));
    assert_eq!(store.scan(Scan::of(Prefix::new(&["mine", "default"]))).await.unwrap(), []);
}

async fn a_channel_is_seen_by_those_who_may_know_of_it(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob", "eve"]).await;
    let name = channel("chat:a");
    directory.make("chat:a", "ann", &["bob"]).await.unwrap();
    let sees = async |name_of: &str, open| {
        directory.see_channel(&name, Actor::User(&user(name_of)), open).await.is_ok()
    };
    assert!(sees("bob", false).await && !sees("eve", false).await && sees("eve", true).await);
    directory.ban(&name, Actor::User(&user("ann")), &user("eve")).await.unwrap();
    assert!(!sees("eve", true).await);
    let refused = directory.join(&name, &user("eve"), true, 0).await;
    assert!(matches!(refused, Err(DirectoryError::Forbidden(_))));
}

async fn names_of_another_app_are_other_channels(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob"]).await;
    let shop = "shop".parse().unwrap();
    directory.create_app(&shop, "Shop", crate::directory::AppPolicy::default()).await.unwrap();
    directory.make("chat:a", "ann", &["bob"]).await.unwrap();
    let (there, ann) = (channel("chat:a").within(&shop), user("ann").within(&shop));
    assert_eq!(directory.channel(&there).await.unwrap(), None);
    // A user of one app in a channel of the other is nobody.
    let here = channel("chat:a");
    let standing = directory.standing(&here, Some(&ann)).await.unwrap();
    assert!(!standing.is_user && standing.member.is_none());
    for refused in [
        directory.ban(&here, Actor::User(&ann), &user("bob")).await.map(drop),
        directory.join(&here, &ann, true, 0).await.map(drop),
        directory.see_channel(&here, Actor::User(&ann), true).await.map(drop),
        directory.delete_channel(&here, Actor::User(&ann), None).await,
        directory.open_direct(Actor::User(&ann), &ann, &user("bob")).await.map(drop),
        directory.block(&ann, &user("bob")).await.map(drop),
    ] {
        assert!(matches!(refused, Err(DirectoryError::NotFound(_))), "{refused:?}");
    }
    let new = NewChannel {
        channel: &there,
        profile: ChannelProfile::default(),
        creator: Some(&ann),
        members: &[],
        state: MemberState::Active,
    };
    directory.create_channel(new, Actor::User(&ann)).await.unwrap();
    assert_eq!(mine(&directory, &ann).await, 1);
    assert_eq!(mine(&directory, &user("ann")).await, 1);
}

async fn mine(directory: &Directory, user: &UserId) -> usize {
    directory.conversations(user, all()).await.unwrap().items.len()
}
