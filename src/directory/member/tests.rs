//! Memberships: who may make what of whom.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use futures_util::future::join_all;
use xpush_protocol::{ChannelName, DeviceId, UserId};

use super::{Invitation, Member, MemberPatch, MemberState, Notify};
use crate::directory::{
    Actor, Change, ChangeFeed, Directory, DirectoryError, PageQuery, Role,
    fixture::{all, channel, data, directory_of, user},
    store::{Store, contract::on_every_store},
};

on_every_store!(
    an_invitation_is_accepted_or_declined
    who_blocks_the_inviter_is_not_invited
    everybody_joins_a_public_channel_and_nobody_a_private_one
    the_last_owner_does_not_leave_the_others_without_one
    the_channel_goes_with_its_last_member
    a_ban_ends_what_somebody_was
    a_member_sets_what_is_its_own
    what_takes_a_right_away_is_told
    many_who_join_at_once_are_all_counted
    a_channel_takes_as_many_members_as_the_app_allows
    what_was_said_before_somebody_came_is_not_unread
    cursors_only_go_forward
    the_device_furthest_behind_makes_room
    lists_come_page_by_page
    a_user_who_is_deleted_leaves_everything
    no_right_comes_from_somebody_who_does_not_have_it
);

fn invited() -> Invitation {
    Invitation { state: MemberState::Invited, role: None, seen: 0 }
}

async fn an_invitation_is_accepted_or_declined(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob", "cid", "eve"]).await;
    let (name, ann) = (channel("chat:a"), user("ann"));
    directory.make("chat:a", "ann", &["cid"]).await.unwrap();
    let refused = directory.invite(&name, Actor::User(&user("cid")), &user("bob"), invited()).await;
    assert!(matches!(refused, Err(DirectoryError::Forbidden(_))));
    let stranger = directory.invite(&name, Actor::User(&user("eve")), &user("bob"), invited()).await;
    assert_eq!(stranger, Err(DirectoryError::NotFound("channel")));
    let unknown = directory.invite(&name, Actor::User(&ann), &user("nobody"), invited()).await;
    assert_eq!(unknown, Err(DirectoryError::NotFound("user")));

    directory.invite(&name, Actor::User(&ann), &user("bob"), invited()).await.unwrap();
    assert!(!directory.standing(&name, Some(&user("bob"))).await.unwrap().is_active());
    directory.join(&name, &user("bob"), false, 0).await.unwrap();
    assert!(directory.standing(&name, Some(&user("bob"))).await.unwrap().is_active());
    directory.remove_member(&name, Actor::User(&user("bob")), &user("bob")).await.unwrap();
    let back = directory.join(&name, &user("bob"), false, 0).await;
    assert_eq!(back, Err(DirectoryError::NotFound("channel")));

    directory.invite(&name, Actor::User(&ann), &user("bob"), invited()).await.unwrap();
    directory.remove_member(&name, Actor::User(&user("bob")), &user("bob")).await.unwrap();
    assert_eq!(directory.channel(&name).await.unwrap().unwrap().value.members, 2);
    assert_eq!(directory.conversations(&user("bob"), all()).await.unwrap().items, []);
}

async fn who_blocks_the_inviter_is_not_invited(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob"]).await;
    directory.make("chat:a", "ann", &[]).await.unwrap();
    directory.block(&user("bob"), &user("ann")).await.unwrap();
    let name = channel("chat:a");
    let refused = directory.invite(&name, Actor::User(&user("ann")), &user("bob"), invited()).await;
    assert!(matches!(refused, Err(DirectoryError::Forbidden(_))));
    let refused = directory.make("chat:b", "ann", &["bob"]).await;
    assert!(matches!(refused, Err(DirectoryError::Forbidden(_))));
}

async fn everybody_joins_a_public_channel_and_nobody_a_private_one(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob", "cid"]).await;
    let name = channel("chat:a");
    directory.make("chat:a", "ann", &[]).await.unwrap();
    let refused = directory.join(&name, &user("bob"), false, 0).await;
    assert_eq!(refused, Err(DirectoryError::NotFound("channel")));
    let open = directory.join(&name, &user("cid"), true, 0).await.unwrap();
    assert_eq!(open.after.unwrap().role, Role::Member);
    let public = crate::directory::ChannelPatch { public: Some(true), ..Default::default() };
    directory.update_channel(&name, Actor::Backend, &public, None).await.unwrap();
    directory.join(&name, &user("bob"), false, 0).await.unwrap();
    assert_eq!(directory.channel(&name).await.unwrap().unwrap().value.members, 3);
}

async fn the_last_owner_does_not_leave_the_others_without_one(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob"]).await;
    let (name, ann, bob) = (channel("chat:a"), user("ann"), user("bob"));
    directory.make("chat:a", "ann", &["bob"]).await.unwrap();
    let to = |role| MemberPatch { role: Some(role), ..Default::default() };
    let leave = directory.remove_member(&name, Actor::User(&ann), &ann).await;
    assert!(matches!(leave, Err(DirectoryError::Forbidden(_))));
    let down = directory.change_member(&name, Actor::User(&ann), &ann, &to(Role::Member)).await;
    assert!(matches!(down, Err(DirectoryError::Forbidden(_))));
    // It is handed on.
    directory.change_member(&name, Actor::User(&ann), &bob, &to(Role::Owner)).await.unwrap();
    directory.change_member(&name, Actor::User(&ann), &ann, &to(Role::Member)).await.unwrap();
    let up = directory.change_member(&name, Actor::User(&ann), &ann, &to(Role::Owner)).await;
    assert!(matches!(up, Err(DirectoryError::Forbidden(_))));
    directory.remove_member(&name, Actor::User(&ann), &ann).await.unwrap();
    let record = directory.channel(&name).await.unwrap().unwrap().value;
    assert_eq!((record.members, record.owners), (1, 1));
}

async fn the_channel_goes_with_its_last_member(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann"]).await;
    let (name, ann) = (channel("chat:a"), user("ann"));
    directory.make("chat:a", "ann", &[]).await.unwrap();
    directory.remove_member(&name, Actor::User(&ann), &ann).await.unwrap();
    assert_eq!(directory.channel(&name).await.unwrap(), None);
    assert_eq!(directory.conversations(&ann, all()).await.unwrap().items, []);
}

async fn a_ban_ends_what_somebody_was(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob", "cid"]).await;
    let (name, ann, bob, cid) = (channel("chat:a"), user("ann"), user("bob"), user("cid"));
    directory.make("chat:a", "ann", &["bob", "cid"]).await.unwrap();
    let admin = MemberPatch { role: Some(Role::Admin), ..Default::default() };
    for user in [&bob, &cid] {
        directory.change_member(&name, Actor::User(&ann), user, &admin).await.unwrap();
    }
    let equal = directory.ban(&name, Actor::User(&bob), &cid).await;
    assert!(matches!(equal, Err(DirectoryError::Forbidden(_))));
    directory.ban(&name, Actor::User(&ann), &bob).await.unwrap();
    let record = directory.channel(&name).await.unwrap().unwrap().value;
    assert_eq!((record.members, record.banned), (2, 1));
    let invite = directory.invite(&name, Actor::User(&cid), &bob, invited()).await;
    assert!(matches!(invite, Err(DirectoryError::Forbidden(_))));
    let kick = directory.remove_member(&name, Actor::User(&ann), &bob).await;
    assert_eq!(kick, Err(DirectoryError::NotFound("member")));
    directory.unban(&name, Actor::User(&cid), &bob).await.unwrap();
    assert_eq!(directory.join(&name, &bob, true, 0).await.unwrap().after.unwrap().role, Role::Member);
}

async fn a_member_sets_what_is_its_own(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob", "cid"]).await;
    let (name, ann, bob) = (channel("chat:a"), user("ann"), user("bob"));
    directory.make("chat:a", "ann", &["bob", "cid"]).await.unwrap();
    let own = MemberPatch {
        data: Some(Some(data(r#"{"nick": "b"}"#))),
        notify: Some(Notify::Mentions),
        ..Default::default()
    };
    let changed = directory.change_member(&name, Actor::User(&bob), &bob, &own).await.unwrap();
    assert_eq!(changed.after.as_ref().unwrap().notify, Notify::Mentions);
    assert_eq!(changed.after.unwrap().data, own.data.clone().unwrap());
    for (actor, target) in [("cid", "bob"), ("ann", "bob")] {
        let refused = directory.change_member(&name, Actor::User(&user(actor)), &user(target), &own).await;
        assert!(matches!(refused, Err(DirectoryError::Forbidden(_))), "{actor}");
    }
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(1024));
    let long = MemberPatch { data: Some(Some(data(&long))), ..Default::default() };
    let refused = directory.change_member(&name, Actor::User(&bob), &bob, &long).await;
    assert!(matches!(refused, Err(DirectoryError::Invalid(_))));
    let mute = MemberPatch { muted_until: Some(Some(u64::MAX)), ..Default::default() };
    directory.change_member(&name, Actor::User(&ann), &bob, &mute).await.unwrap();
    let standing = directory.standing(&name, Some(&bob)).await.unwrap();
    assert!(standing.is_muted(std::time::SystemTime::now()));
    let unmute = MemberPatch { muted_until: Some(None), ..Default::default() };
    let refused = directory.change_member(&name, Actor::User(&bob), &bob, &unmute).await;
    assert!(matches!(refused, Err(DirectoryError::Forbidden(_))));
}

async fn what_takes_a_right_away_is_told(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob", "cid", "dan"]).await;
    let (name, ann) = (channel("chat:a"), user("ann"));
    directory.make("chat:a", "ann", &["bob", "cid", "dan"]).await.unwrap();
    let mut feed = ChangeFeed::default();
    feed.next(&directory).await.unwrap();
    let guest = MemberPatch { role: Some(Role::Guest), ..Default::default() };
    let mute = MemberPatch { muted_until: Some(Some(u64::MAX)), ..Default::default() };
    directory.remove_member(&name, Actor::User(&ann), &user("bob")).await.unwrap();
    assert_eq!(told(&mut feed, &directory).await, ["bob"]);
    directory.ban(&name, Actor::User(&ann), &user("cid")).await.unwrap();
    assert_eq!(told(&mut feed, &directory).await, ["cid"]);
    directory.change_member(&name, Actor::User(&ann), &user("dan"), &guest).await.unwrap();
    assert_eq!(told(&mut feed, &directory).await, ["dan"]);
    directory.change_member(&name, Actor::User(&ann), &user("dan"), &mute).await.unwrap();
    assert_eq!(told(&mut feed, &directory).await, ["dan"]);
    directory.change_member(&name, Actor::User(&ann), &user("dan"), &mute).await.unwrap();
    assert!(told(&mut feed, &directory).await.is_empty());
}

async fn told(feed: &mut ChangeFeed, directory: &Directory) -> Vec<String> {
    let changes = feed.next(directory).await.unwrap();
    let users = changes.into_iter().filter_map(|change| match change {
        Change::Member { user, .. } => Some(user.to_string()),
        _ => None,
    });
    users.collect()
}

async fn many_who_join_at_once_are_all_counted(store: Arc<dyn Store>) {
    let names: Vec<String> = (0..8).map(|n| format!("u{n}")).collect();
    let users: Vec<&str> = names.iter().map(String::as_str).chain(["ann"]).collect();
    let directory = directory_of(store, &users).await;
    directory.make("chat:a", "ann", &[]).await.unwrap();
    let name = channel("chat:a");
    let joining = names.iter().map(|user_name| {
        let (directory, name) = (&directory, &name);
        async move { directory.join(name, &user(user_name), true, 0).await }
    });
    let joined = join_all(joining).await.into_iter().filter(Result::is_ok).count();
    assert!(joined > 0);
    let count = directory.channel(&name).await.unwrap().unwrap().value.members as usize;
    let members = directory.members(&name, &[MemberState::Active], all()).await.unwrap().items.len();
    assert_eq!((count, members), (joined + 1, joined + 1));
}

async fn a_channel_takes_as_many_members_as_the_app_allows(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob", "cid"]).await;
    let app = "default".parse().unwrap();
    let quotas = serde_json::json!({ "quotas": { "members_per_channel": 2, "channels_per_user": 2 } });
    let serde_json::Value::Object(quotas) = quotas else { unreachable!() };
    directory.update_app(&app, None, None, Some(quotas)).await.unwrap();
    let name = channel("chat:a");
    directory.make("chat:a", "ann", &["bob"]).await.unwrap();
    let full = directory.join(&name, &user("cid"), true, 0).await;
    assert!(matches!(full, Err(DirectoryError::LimitReached(_))), "{full:?}");
    directory.make("chat:b", "ann", &[]).await.unwrap();
    let full = directory.make("chat:c", "ann", &[]).await;
    assert!(matches!(full, Err(DirectoryError::LimitReached(_))), "{full:?}");
}

async fn what_was_said_before_somebody_came_is_not_unread(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob", "cid"]).await;
    let (name, ann, bob, cid) = (channel("chat:a"), user("ann"), user("bob"), user("cid"));
    directory.make("chat:a", "ann", &[]).await.unwrap();
    let read = async |of: &UserId| directory.member(&name, of).await.unwrap().unwrap().read;
    let asked = Invitation { seen: 5, ..invited() };
    directory.invite(&name, Actor::User(&ann), &bob, asked).await.unwrap();
    // What is said before he accepts is said to him.
    directory.join(&name, &bob, false, 7).await.unwrap();
    directory.join(&name, &cid, true, 7).await.unwrap();
    assert_eq!((read(&ann).await, read(&bob).await, read(&cid).await), (0, 5, 7));
    // Who is in already stays where he is.
    directory.join(&name, &cid, true, 9).await.unwrap();
    directory.invite(&name, Actor::User(&ann), &cid, Invitation { seen: 9, ..invited() }).await.unwrap();
    assert_eq!(read(&cid).await, 7);
    // Who comes back is new.
    directory.remove_member(&name, Actor::User(&cid), &cid).await.unwrap();
    directory.join(&name, &cid, true, 9).await.unwrap();
    assert_eq!(read(&cid).await, 9);
}

async fn cursors_only_go_forward(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob"]).await;
    let (name, ann) = (channel("chat:a"), user("ann"));
    directory.make("chat:a", "ann", &[]).await.unwrap();
    assert_eq!(directory.mark_read(&name, &ann, 5).await.unwrap(), Some(5));
    assert_eq!(directory.mark_read(&name, &ann, 3).await.unwrap(), None);
    assert_eq!(directory.mark_read(&name, &ann, 5).await.unwrap(), None);
    let (phone, tablet): (DeviceId, DeviceId) = ("phone".parse().unwrap(), "tablet".parse().unwrap());
    assert_eq!(directory.mark_received(&name, &ann, &phone, 7).await.unwrap(), Some(7));
    assert_eq!(directory.mark_received(&name, &ann, &tablet, 2).await.unwrap(), Some(2));
    assert_eq!(directory.mark_received(&name, &ann, &phone, 6).await.unwrap(), None);
    let stranger = directory.mark_read(&name, &user("bob"), 1).await;
    assert_eq!(stranger, Err(DirectoryError::NotFound("member")));
    // Many devices of one user at once: the highest stays.
    join_all((1..=8).map(|n| directory.mark_read(&name, &ann, 10 + n))).await;
    let receipts = directory.receipts(&name, all()).await.unwrap().items;
    assert_eq!(receipts.len(), 1);
    assert_eq!((receipts[0].read, receipts[0].received[&phone]), (18, 7));
}

async fn the_device_furthest_behind_makes_room(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann"]).await;
    let (name, ann) = (channel("chat:a"), user("ann"));
    directory.make("chat:a", "ann", &[]).await.unwrap();
    for n in 1..=40 {
        let device = format!("d{n}").parse().unwrap();
        directory.mark_received(&name, &ann, &device, n).await.unwrap();
    }
    let received = directory.member(&name, &ann).await.unwrap().unwrap().received;
    assert_eq!((received.len(), received.values().min()), (32, Some(&9)));
}

async fn lists_come_page_by_page(store: Arc<dyn Store>) {
    let names: Vec<String> = (0..7).map(|n| format!("u{n}")).collect();
    let users: Vec<&str> = names.iter().map(String::as_str).chain(["ann"]).collect();
    let directory = directory_of(store, &users).await;
    directory.make("chat:a", "ann", &users[..7]).await.unwrap();
    for n in 0..5 {
        directory.make(&format!("chat:more{n}"), "ann", &[]).await.unwrap();
    }
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let query = PageQuery { limit: Some(3), cursor };
        let page = directory.members(&channel("chat:a"), &[MemberState::Active], query).await.unwrap();
        assert!(page.items.len() <= 3);
        seen.extend(page.items.into_iter().map(|member| member.user.to_string()));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 8);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 8);
    let first = PageQuery { limit: Some(4), cursor: None };
    let first = directory.conversations(&user("ann"), first).await.unwrap();
    let rest = PageQuery { limit: Some(4), cursor: first.next };
    let rest = directory.conversations(&user("ann"), rest).await.unwrap();
    assert_eq!((first.items.len(), rest.items.len(), rest.next), (4, 2, None));
    let bad = PageQuery { limit: None, cursor: Some("%%%".into()) };
    let refused = directory.conversations(&user("ann"), bad).await;
    assert!(matches!(refused, Err(DirectoryError::Invalid(_))));
}

async fn a_user_who_is_deleted_leaves_everything(store: Arc<dyn Store>) {
    let directory = directory_of(store, &["ann", "bob", "cid"]).await;
    let (ann, bob, cid) = (user("ann"), user("bob"), user("cid"));
    directory.make("chat:shared", "ann", &["bob", "cid"]).await.unwrap();
    directory.make("chat:alone", "ann", &[]).await.unwrap();
    directory.make("chat:other", "cid", &["ann"]).await.unwrap();
    directory.open_direct(Actor::User(&ann), &ann, &bob).await.unwrap();
    let admin = MemberPatch { role: Some(Role::Admin), ..Default::default() };
    let shared = channel("chat:shared");
    directory.change_member(&shared, Actor::User(&ann), &cid, &admin).await.unwrap();
    directory.leave_everything(&ann).await.unwrap();
    assert_eq!(directory.conversations(&ann, all()).await.unwrap().items, []);
    assert_eq!(directory.channel(&channel("chat:alone")).await.unwrap(), None);
    // The highest of those who stay has it then.
    assert_eq!(directory.member(&shared, &cid).await.unwrap().unwrap().role, Role::Owner);
    assert_eq!(directory.member(&shared, &ann).await.unwrap(), None);
    assert_eq!(directory.conversations(&bob, all()).await.unwrap().items.len(), 2);
}

/// Numbers that look random, and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }
}

type People = BTreeMap<UserId, Member>;

async fn people(directory: &Directory, channel: &ChannelName) -> People {
    let states = [MemberState::Active, MemberState::Invited, MemberState::Banned];
    let page = directory.members(channel, &states, all()).await.unwrap();
    page.items.into_iter().map(|member| (member.user.clone(), member)).collect()
}

/// What somebody of the people did, whatever it was, must be what the table lets him.
fn check(actor: &UserId, before: &People, after: &People, what: &str) {
    let active = |people: &People, user: &UserId| {
        people.get(user).filter(|member| member.state == MemberState::Active).map(|member| member.role)
    };
    let acts = active(before, actor);
    let users: HashSet<&UserId> = before.keys().chain(after.keys()).collect();
    for target in users {
        let (was, is) = (before.get(target), after.get(target));
        if was == is {
            continue;
        }
        let role =
            |member: Option<&Member>| member.filter(|member| member.counts()).map(|member| member.role);
        if target == actor {
            let (was_role, is_role) = (active(before, actor), active(after, actor));
            let accepts = was.is_some_and(|was| was.state == MemberState::Invited) && is_role == role(was);
            let lowers = was_role.is_some() && is_role < was_role;
            let leaves = was.is_some_and(|was| was.state != MemberState::Banned) && is.is_none();
            let owns = was_role == Some(Role::Owner);
            assert!(accepts || lowers || leaves || (owns && is_role == was_role), "{what}: {was:?} {is:?}");
            continue;
        }
        let acts = acts.unwrap_or_else(|| panic!("{what}: nobody changed {was:?} to {is:?}"));
        assert!(acts >= Role::Admin, "{what}: {was:?} {is:?}");
        for role in [role(was), role(is)].into_iter().flatten() {
            assert!(acts.is_over(role), "{what}: {acts} made {is:?} of {was:?}");
        }
    }
}

async fn no_right_comes_from_somebody_who_does_not_have_it(store: Arc<dyn Store>) {
    const STEPS: usize = 600;
    let names = ["ann", "bob", "cid", "dan", "eve", "fay"];
    let directory = directory_of(store, &names).await;
    let name = channel("chat:a");
    directory.make("chat:a", "ann", &["bob", "cid"]).await.unwrap();
    let mut dice = Dice(7);
    let mut done = 0;
    for step in 0..STEPS {
        if step % 20 == 0 {
            // Of themselves they would soon have banned each other.
            gather(&directory, &name, &names, &mut dice).await;
        }
        let (actor, target) = (user(dice.pick(&names)), user(dice.pick(&names)));
        let (role, by) = (dice.pick(&Role::ALL), Actor::User(&actor));
        let before = people(&directory, &name).await;
        let act = dice.roll(8);
        let outcome = match act {
            0 => {
                let state = dice.pick(&[MemberState::Active, MemberState::Invited]);
                let role = dice.pick(&[None, Some(role)]);
                directory.invite(&name, by, &target, Invitation { state, role, seen: 0 }).await.map(drop)
            }
            1 => directory.join(&name, &actor, false, 0).await.map(drop),
            2 if before.len() > 1 => directory.remove_member(&name, by, &target).await.map(drop),
            3 => directory.ban(&name, by, &target).await.map(drop),
            4 => directory.unban(&name, by, &target).await.map(drop),
            5 => {
                let muted_until = Some(dice.pick(&[None, Some(5), Some(9)]));
                let patch = MemberPatch { muted_until, ..Default::default() };
                directory.change_member(&name, by, &target, &patch).await.map(drop)
            }
            _ => {
                let patch = MemberPatch { role: Some(role), ..Default::default() };
                directory.change_member(&name, by, &target, &patch).await.map(drop)
            }
        };
        // The last one has left, and the channel is gone.
        let Some(record) = directory.channel(&name).await.unwrap() else { break };
        let after = people(&directory, &name).await;
        let what = format!("step {step}: {actor} does {act} to {target}");
        match &outcome {
            Ok(()) => done += 1,
            Err(_) => assert_eq!(before, after, "{what}"),
        }
        check(&actor, &before, &after, &what);
        let count = |wanted: &dyn Fn(&Member) -> bool| after.values().filter(|member| wanted(member)).count();
        let owners = count(&|member| member.state == MemberState::Active && member.role == Role::Owner);
        let record = record.value;
        assert!(owners > 0, "{what}");
        assert_eq!(record.owners as usize, owners, "{what}");
        assert_eq!(record.members as usize, count(&Member::counts), "{what}");
        assert_eq!(record.banned as usize, count(&|member| !member.counts()), "{what}");
        for target in names {
            let listed = !directory.conversations(&user(target), all()).await.unwrap().items.is_empty();
            assert_eq!(listed, after.get(&user(target)).is_some_and(Member::counts), "{what}");
        }
    }
    assert!(done > 100, "only {done} of {STEPS} did something");
}

/// A backend brings everybody in, some as something new.
async fn gather(directory: &Directory, channel: &ChannelName, names: &[&str], dice: &mut Dice) {
    let by = Actor::Backend;
    for name in names {
        let user = user(name);
        // Who is not banned stays as he is.
        let _ = directory.unban(channel, by, &user).await;
        let invitation =
            Invitation { state: MemberState::Active, role: Some(dice.pick(&Role::ALL)), seen: 0 };
        directory.invite(channel, by, &user, invitation).await.unwrap();
    }
}
