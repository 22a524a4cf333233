//! What every store promises, as tests, and how the rooms above are tested on every store.
//!
//! A test of a room is an `async fn` of a fresh store, named to the macro, which makes one test a store of it:
//!
//! ```ignore
//! use crate::directory::store::contract::on_every_store;
//!
//! on_every_store!(two_users_become_friends a_blocked_user_is_refused);
//!
//! async fn two_users_become_friends(store: Arc<dyn Store>) {
//!     let directory = Directory::new(store);
//!     …
//! }
//! ```
//!
//! They are `two_users_become_friends::memory`, `::embedded` and `::mongodb`.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use xpush_test_servers::until;

use super::{
    COMMIT_BYTES, COMMIT_KEYS, Commit, CommitError, Entry, Key, MAX_KEY, MAX_VALUE, Memory, Prefix,
    SCAN_LIMIT, Scan, Store, StoreError,
};

/// An empty store, and what must live as long.
pub(crate) type Opened = (Arc<dyn Store>, Box<dyn Any + Send>);

macro_rules! on_every_store {
    ($($test:ident)*) => {
        $(
            mod $test {
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn memory() {
                    let (store, _guard) = $crate::directory::store::contract::memory().await;
                    super::$test(store).await;
                }

                #[cfg(feature = "embedded")]
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn embedded() {
                    let (store, _guard) = $crate::directory::store::contract::embedded().await;
                    super::$test(store).await;
                }

                #[cfg(feature = "mongodb")]
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn mongodb() {
                    let (store, _guard) = $crate::directory::store::contract::mongodb().await;
                    super::$test(store).await;
                }
            }
        )*
    };
}
pub(crate) use on_every_store;

pub(crate) async fn memory() -> Opened {
    (Arc::new(Memory::default()), Box::new(()))
}

#[cfg(feature = "embedded")]
pub(crate) async fn embedded() -> Opened {
    let folder = tempfile::tempdir().unwrap();
    (Arc::new(super::Embedded::open(folder.path()).unwrap()), Box::new(folder))
}

/// A database of its own, of the server that all tests at this time share.
#[cfg(feature = "mongodb")]
pub(crate) async fn mongodb() -> Opened {
    let server = crate::log::mongodb::server().await;
    let store = super::MongoDb::connect(&server.url(), &crate::log::mongodb::database()).await.unwrap();
    (Arc::new(store), Box::new(server))
}

on_every_store!(
    what_was_written_is_read
    a_commit_happens_whole_or_not_at_all
    what_is_expected_and_not_written_is_compared_too
    what_nobody_expects_is_written_whatever_it_was
    a_key_that_a_commit_names_twice_has_the_last_value
    nothing_is_lost_where_many_count_one_counter
    two_entries_that_change_together_are_never_seen_apart
    of_many_who_claim_a_name_one_gets_it
    two_who_each_expect_what_the_other_writes_do_not_both_succeed
    many_who_expect_one_entry_and_leave_it_as_it_is_all_succeed
    a_version_never_comes_back
    several_are_given_in_the_order_asked_for
    a_scan_gives_keys_in_order_and_keeps_to_its_prefix
    pages_follow_one_another_in_both_directions
    what_has_expired_is_not_there
    a_new_value_has_its_own_expiry
    what_a_query_language_would_understand_is_text_like_any_other
    what_is_too_large_is_refused_and_what_is_just_small_enough_is_kept
    as_many_entries_as_a_commit_may_have_are_written_at_once
);

fn key(name: &str) -> Key {
    Key::new(&["user", "app", name])
}

fn names(page: &[(Key, Entry)]) -> Vec<&str> {
    page.iter().map(|(key, _)| key.component(2)).collect()
}

async fn put(store: &dyn Store, name: &str, value: &str) {
    store.commit(Commit::new().put(key(name), value.to_owned())).await.unwrap();
}

async fn get(store: &dyn Store, name: &str) -> Option<Entry> {
    store.get(&key(name)).await.unwrap()
}

async fn value(store: &dyn Store, name: &str) -> Option<String> {
    get(store, name).await.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
}

async fn version(store: &dyn Store, name: &str) -> Option<u64> {
    get(store, name).await.map(|entry| entry.version)
}

/// As precise as stores keep a time.
fn in_millis(millis: u64) -> SystemTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    UNIX_EPOCH + Duration::from_millis(u64::try_from(now).unwrap() + millis)
}

async fn what_was_written_is_read(store: Arc<dyn Store>) {
    assert_eq!(get(&*store, "ann").await, None);
    let bytes: Vec<u8> = (0..=255).collect();
    store.commit(Commit::new().expect(key("ann"), None).put(key("ann"), bytes.clone())).await.unwrap();
    assert_eq!(get(&*store, "ann").await.unwrap().value, bytes);
    put(&*store, "ann", "").await;
    assert_eq!(value(&*store, "ann").await.as_deref(), Some(""));
    store.commit(Commit::new().delete(key("ann")).delete(key("nobody"))).await.unwrap();
    assert_eq!(get(&*store, "ann").await, None);
    store.commit(Commit::new().put(key("ann"), "soon").soon()).await.unwrap();
    assert_eq!(value(&*store, "ann").await.as_deref(), Some("soon"));
    store.commit(Commit::new()).await.unwrap();
}

async fn a_commit_happens_whole_or_not_at_all(store: Arc<dyn Store>) {
    put(&*store, "ann", "1").await;
    let ann = version(&*store, "ann").await;
    let wrong = [(key("ann"), None), (key("ann"), ann.map(|version| version + 1)), (key("bob"), ann)];
    for (expected, found) in wrong {
        let commit = Commit::new().put(key("new"), "2").put(key("ann"), "2").delete(key("bob"));
        let refused = store.commit(commit.expect(expected, found)).await;
        assert_eq!(refused, Err(CommitError::Conflict));
        assert_eq!((value(&*store, "ann").await.as_deref(), get(&*store, "new").await), (Some("1"), None));
    }
    let one = Commit::new().expect(key("ann"), None).put(key("ann"), "2");
    assert_eq!(store.commit(one).await, Err(CommitError::Conflict));
    let one = Commit::new().expect(key("bob"), ann).put(key("bob"), "2");
    assert_eq!(store.commit(one).await, Err(CommitError::Conflict));
    let one = Commit::new().expect(key("ann"), ann.map(|version| version + 1)).delete(key("ann"));
    assert_eq!(store.commit(one).await, Err(CommitError::Conflict));
    let right = Commit::new().expect(key("ann"), ann).expect(key("bob"), None);
    store.commit(right.put(key("new"), "2").delete(key("ann"))).await.unwrap();
    assert_eq!((get(&*store, "ann").await, value(&*store, "new").await.as_deref()), (None, Some("2")));
}

async fn what_is_expected_and_not_written_is_compared_too(store: Arc<dyn Store>) {
    put(&*store, "ann", "1").await;
    let ann = version(&*store, "ann").await;
    let commit = |expected, found| Commit::new().expect(key(expected), found).put(key("x"), "1");
    assert_eq!(store.commit(commit("ann", None)).await, Err(CommitError::Conflict));
    assert_eq!(store.commit(commit("bob", ann)).await, Err(CommitError::Conflict));
    assert_eq!(get(&*store, "x").await, None);
    store.commit(commit("ann", ann)).await.unwrap();
    store.commit(commit("bob", None)).await.unwrap();
    // Nothing is written where nothing is to be: its version is the same.
    assert_eq!((version(&*store, "ann").await, get(&*store, "bob").await), (ann, None));
    let checks = Commit::new().expect(key("ann"), ann).expect(key("bob"), None);
    store.commit(checks.clone()).await.unwrap();
    put(&*store, "bob", "1").await;
    assert_eq!(store.commit(checks).await, Err(CommitError::Conflict));
}

async fn what_nobody_expects_is_written_whatever_it_was(store: Arc<dyn Store>) {
    for n in 0..3 {
        let commit = Commit::new().put(key("ann"), n.to_string()).put(key("bob"), n.to_string());
        store.commit(commit).await.unwrap();
        assert_eq!(value(&*store, "bob").await, Some(n.to_string()));
    }
    let both = join_all((0..20).map(|n| {
        let commit = Commit::new().put(key("ann"), n.to_string()).put(key(&n.to_string()), "");
        let store = Arc::clone(&store);
        tokio::spawn(async move { commit_at_last(&*store, commit).await })
    }));
    assert!(both.await.into_iter().all(|done| done.is_ok()));
    assert!(value(&*store, "ann").await.is_some());
}

/// A conflict may also be one that another writer of the same key is the cause of.
async fn commit_at_last(store: &dyn Store, commit: Commit) {
    loop {
        match store.commit(commit.clone()).await {
            Ok(()) => return,
            Err(error) => assert_eq!(error, CommitError::Conflict),
        }
    }
}

async fn a_key_that_a_commit_names_twice_has_the_last_value(store: Arc<dyn Store>) {
    let twice = Commit::new().put(key("ann"), "1").put(key("bob"), "1").delete(key("bob"));
    store.commit(twice.put(key("ann"), "2")).await.unwrap();
    assert_eq!((value(&*store, "ann").await.as_deref(), get(&*store, "bob").await), (Some("2"), None));
    let ann = version(&*store, "ann").await;
    let contrary = Commit::new().expect(key("ann"), ann).expect(key("ann"), None).put(key("ann"), "3");
    assert_eq!(store.commit(contrary).await, Err(CommitError::Conflict));
    let same = Commit::new().expect(key("ann"), ann).expect(key("ann"), ann).put(key("ann"), "3");
    store.commit(same).await.unwrap();
    assert_eq!(value(&*store, "ann").await.as_deref(), Some("3"));
}

/// Adds one to a number until nobody was quicker.
async fn count(store: &dyn Store, also: Option<&str>) {
    loop {
        let found = get(store, "count").await;
        let number = found.as_ref().map_or(0, |entry| str::from_utf8(&entry.value).unwrap().parse().unwrap());
        let next = (number + 1_u64).to_string();
        let mut commit = Commit::new().expect(key("count"), found.map(|entry| entry.version));
        commit = commit.put(key("count"), next.clone());
        if let Some(also) = also {
            commit = commit.put(key(also), next);
        }
        match store.commit(commit).await {
            Ok(()) => return,
            Err(error) => assert_eq!(error, CommitError::Conflict),
        }
    }
}

async fn nothing_is_lost_where_many_count_one_counter(store: Arc<dyn Store>) {
    const TASKS: u64 = 8;
    const EACH: u64 = 12;
    let tasks = (0..TASKS).map(|task| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..EACH {
                // By one write and by a commit of several in turn.
                count(&*store, Some("also").filter(|_| (task + n) % 2 == 0)).await;
            }
        })
    });
    assert!(join_all(tasks).await.into_iter().all(|done| done.is_ok()));
    assert_eq!(value(&*store, "count").await, Some((TASKS * EACH).to_string()));
}

async fn two_entries_that_change_together_are_never_seen_apart(store: Arc<dyn Store>) {
    const CHANGES: u32 = 40;
    let both = |n: u32| Commit::new().put(key("a"), n.to_string()).put(key("b"), n.to_string());
    store.commit(both(0)).await.unwrap();
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 1..=CHANGES {
                store.commit(both(n)).await.unwrap();
            }
        })
    };
    let mut last = String::new();
    while last != CHANGES.to_string() {
        let found = store.get_many(&[key("a"), key("b")]).await.unwrap();
        let [Some(a), Some(b)] = &found[..] else { panic!("both are there") };
        assert_eq!(a.value, b.value);
        let page = store.scan(Scan::of(Prefix::new(&["user", "app"]))).await.unwrap();
        assert_eq!((names(&page), &page[0].1.value), (vec!["a", "b"], &page[1].1.value));
        last = String::from_utf8(a.value.to_vec()).unwrap();
    }
    writer.await.unwrap();
}

async fn of_many_who_claim_a_name_one_gets_it(store: Arc<dyn Store>) {
    for round in 0..5 {
        let name = format!("name{round}");
        let claims = (0..8).map(|n| {
            let (store, name) = (Arc::clone(&store), name.clone());
            tokio::spawn(async move {
                let commit = Commit::new().expect(key(&name), None).put(key(&name), n.to_string());
                let commit = if n % 2 == 0 { commit.put(key(&format!("{name}:{n}")), "") } else { commit };
                (n, store.commit(commit).await)
            })
        });
        let claims: Vec<_> = join_all(claims).await.into_iter().map(Result::unwrap).collect();
        let got: Vec<_> = claims.iter().filter(|(_, claim)| claim.is_ok()).collect();
        assert_eq!(got.len(), 1, "{claims:?}");
        assert!(claims.iter().all(|(_, claim)| matches!(claim, Ok(()) | Err(CommitError::Conflict))));
        assert_eq!(value(&*store, &name).await, Some(got[0].0.to_string()));
    }
}

async fn two_who_each_expect_what_the_other_writes_do_not_both_succeed(store: Arc<dyn Store>) {
    for round in 0..10 {
        let (a, b) = (key(&format!("a{round}")), key(&format!("b{round}")));
        put(&*store, &format!("a{round}"), "on duty").await;
        let present = store.get(&a).await.unwrap().map(|entry| entry.version);
        // One expects the entry that the other takes away, the other one the absence of what the first writes.
        let writes = Commit::new().expect(a.clone(), present).put(b.clone(), "1");
        let takes = Commit::new().expect(b.clone(), None).delete(a.clone());
        let (writes, takes) = tokio::join!(store.commit(writes), store.commit(takes));
        assert!(writes.is_err() || takes.is_err(), "round {round}: write skew");
        for outcome in [writes, takes] {
            assert!(matches!(outcome, Ok(()) | Err(CommitError::Conflict)), "{outcome:?}");
        }
    }
}

async fn many_who_expect_one_entry_and_leave_it_as_it_is_all_succeed(store: Arc<dyn Store>) {
    put(&*store, "rules", "1").await;
    let rules = version(&*store, "rules").await;
    let commits = (0..24).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let name = format!("new{n}");
            let commit = Commit::new().expect(key("rules"), rules).expect(key("ban"), None);
            store.commit(commit.expect(key(&name), None).put(key(&name), "1")).await
        })
    });
    for done in join_all(commits).await {
        assert_eq!(done.unwrap(), Ok(()));
    }
    assert_eq!(version(&*store, "rules").await, rules);
}

async fn a_version_never_comes_back(store: Arc<dyn Store>) {
    let mut versions = Vec::new();
    for n in 0..4 {
        put(&*store, "ann", "same").await;
        versions.push(version(&*store, "ann").await.unwrap());
        if n % 2 == 1 {
            store.commit(Commit::new().delete(key("ann"))).await.unwrap();
        }
        store.commit(Commit::new().put(key("ann"), "same").put(key("bob"), "")).await.unwrap();
        versions.push(version(&*store, "ann").await.unwrap());
        store.commit(Commit::new().delete(key("ann")).delete(key("bob"))).await.unwrap();
    }
    let stale = Commit::new().expect(key("ann"), versions.first().copied()).put(key("ann"), "stale");
    assert_eq!(store.commit(stale).await, Err(CommitError::Conflict));
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), 8);
}

async fn several_are_given_in_the_order_asked_for(store: Arc<dyn Store>) {
    for name in ["a", "b", "c"] {
        put(&*store, name, name).await;
    }
    let asked = ["c", "none", "a", "c", "b"].map(key);
    let found = store.get_many(&asked).await.unwrap();
    let values: Vec<_> = found.iter().map(|entry| entry.as_ref().map(|entry| &entry.value[..])).collect();
    assert_eq!(values, [Some(&b"c"[..]), None, Some(b"a"), Some(b"c"), Some(b"b")]);
    assert_eq!(store.get_many(&[]).await, Ok(Vec::new()));
}

async fn a_scan_gives_keys_in_order_and_keeps_to_its_prefix(store: Arc<dyn Store>) {
    // Bytewise, whatever a language's order would be: capitals first, then what is not ASCII.
    let ordered = ["", "A", "B", "a", "a b", "a.b", "aa", "b", "z", "~", "ä", "Ω", "€", "𝄞"];
    let mut commit = Commit::new();
    for name in ordered.iter().rev() {
        commit = commit.put(key(name), (*name).to_owned());
    }
    for outside in
        [&["user"][..], &["user", "app"], &["user", "ap", "a"], &["user", "appl", "a"], &["v", "app", "a"]]
    {
        commit = commit.put(Key::new(outside), "");
    }
    commit = commit.put(Key::new(&["user", "app", "b", "below"]), "");
    store.commit(commit).await.unwrap();
    let scan = Scan::of(Prefix::new(&["user", "app"]));
    let page = store.scan(scan.clone()).await.unwrap();
    let mut with_below: Vec<&str> = ordered.to_vec();
    with_below.insert(8, "b");
    assert_eq!(names(&page), with_below);
    assert!(page.iter().all(|(key, entry)| entry.value == key.component(2) || key.component(3) == "below"));
    let page = store.scan(Scan { backward: true, ..scan }).await.unwrap();
    with_below.reverse();
    assert_eq!(names(&page), with_below);
    let scan = Scan::of(Prefix::beginning(&["user", "app"], "a"));
    assert_eq!(names(&store.scan(scan).await.unwrap()), ["a", "a b", "a.b", "aa"]);
    let scan = Scan::of(Prefix::new(&["user", "nobody"]));
    assert_eq!(store.scan(scan).await, Ok(Vec::new()));
}

async fn pages_follow_one_another_in_both_directions(store: Arc<dyn Store>) {
    let all: Vec<String> = (0..25).map(|n| format!("{n:02}")).collect();
    let mut commit =
        Commit::new().put(Key::new(&["user", "apo", "z"]), "").put(Key::new(&["user", "apq", "a"]), "");
    for name in &all {
        commit = commit.put(key(name), "");
    }
    store.commit(commit).await.unwrap();
    for backward in [false, true] {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let prefix = Prefix::new(&["user", "app"]);
            let page = store.scan(Scan { prefix, after, limit: 10, backward }).await.unwrap();
            found.extend(page.iter().map(|(key, _)| key.component(2).to_owned()));
            if page.len() < 10 {
                break;
            }
            after = page.last().map(|(key, _)| key.clone());
        }
        if backward {
            found.reverse();
        }
        assert_eq!(found, all);
    }
    // Behind a key that is not there, or not even within the prefix.
    let scan = |after: &Key, backward| Scan {
        after: Some(after.clone()),
        backward,
        limit: 2,
        ..Scan::of(Prefix::new(&["user", "app"]))
    };
    for (after, forward, backward) in [
        (key("07x"), vec!["08", "09"], vec!["07", "06"]),
        (Key::new(&["user", "ap"]), vec!["00", "01"], vec![]),
        (Key::new(&["user", "apz"]), vec![], vec!["24", "23"]),
        (Key::new(&["user", "app"]), vec!["00", "01"], vec![]),
    ] {
        assert_eq!(names(&store.scan(scan(&after, false)).await.unwrap()), forward, "{after:?}");
        assert_eq!(names(&store.scan(scan(&after, true)).await.unwrap()), backward, "{after:?}");
    }
}

async fn what_has_expired_is_not_there(store: Arc<dyn Store>) {
    let (soon, late) = (in_millis(300), in_millis(3_600_000));
    let commit = Commit::new().put_until(key("soon"), "1", soon).put_until(key("late"), "1", late);
    store.commit(commit).await.unwrap();
    store.commit(Commit::new().put_until(key("gone"), "1", in_millis(0))).await.unwrap();
    assert_eq!(get(&*store, "late").await.unwrap().expires, Some(late));
    assert_eq!(get(&*store, "gone").await, None);
    until("it to expire", async || get(&*store, "soon").await.is_none()).await;
    assert!(SystemTime::now() >= soon);
    let found = store.get_many(&["soon", "late", "gone"].map(key)).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
    let page = store.scan(Scan { limit: 1, ..Scan::of(Prefix::new(&["user", "app"])) }).await.unwrap();
    assert_eq!(names(&page), ["late"]);
    // What has expired is expected not to be there, by one write and by several.
    store.commit(Commit::new().expect(key("soon"), None).put(key("soon"), "2")).await.unwrap();
    let several = Commit::new().expect(key("gone"), None).put(key("gone"), "2").put(key("x"), "2");
    store.commit(several).await.unwrap();
    let found = [value(&*store, "soon").await, value(&*store, "gone").await];
    assert_eq!(found, [Some("2".into()), Some("2".into())]);
}

async fn a_new_value_has_its_own_expiry(store: Arc<dyn Store>) {
    let soon = in_millis(200);
    for name in ["ann", "bob", "cid"] {
        store.commit(Commit::new().put_until(key(name), "1", soon)).await.unwrap();
    }
    let late = in_millis(3_600_000);
    let several = Commit::new().put(key("bob"), "2").put_until(key("cid"), "2", late);
    store.commit(several).await.unwrap();
    until("the first one to expire", async || get(&*store, "ann").await.is_none()).await;
    assert_eq!(get(&*store, "bob").await.unwrap().expires, None);
    assert_eq!(get(&*store, "cid").await.unwrap().expires, Some(late));
}

async fn what_a_query_language_would_understand_is_text_like_any_other(store: Arc<dyn Store>) {
    let hostile = [
        r#"{"$gt":""}"#,
        "$where",
        "$gt",
        "a.b.c",
        "_id",
        "$$ROOT",
        r#"{"$ne":null}"#,
        "/.*/",
        ".*",
        "';return true;var x='",
        "__proto__",
        "%00",
    ];
    put(&*store, "ann", "hers").await;
    for text in hostile {
        assert_eq!(get(&*store, text).await, None, "{text} finds nothing that is not there");
        let refused = store.commit(Commit::new().expect(key(text), Some(1)).delete(key(text))).await;
        assert_eq!(refused, Err(CommitError::Conflict), "{text}");
        store.commit(Commit::new().delete(key(text))).await.unwrap();
        let one = Commit::new().expect(key(text), None).put(key(text), text.to_owned());
        store.commit(one).await.unwrap();
        let found = version(&*store, text).await;
        let several = Commit::new().expect(key(text), found).put(key(text), text.to_owned());
        store.commit(several.put(Key::new(&[text, text]), text.to_owned())).await.unwrap();
        assert_eq!(value(&*store, text).await.as_deref(), Some(text));
        let scan = Scan::of(Prefix::new(&[text]));
        let page = store.scan(scan).await.unwrap();
        assert_eq!((page.len(), page[0].0.clone()), (1, Key::new(&[text, text])));
        let page = store.scan(Scan::of(Prefix::beginning(&["user", "app"], text))).await.unwrap();
        assert!(page.iter().all(|(key, _)| key.component(2).starts_with(text)), "{text}");
        let found = store.get_many(&[key(text), key("nobody")]).await.unwrap();
        assert_eq!(found.iter().flatten().count(), 1);
    }
    assert_eq!(value(&*store, "ann").await.as_deref(), Some("hers"));
    let all = store.scan(Scan::of(Prefix::new(&["user", "app"]))).await.unwrap();
    assert_eq!(all.len(), hostile.len() + 1);
}

async fn what_is_too_large_is_refused_and_what_is_just_small_enough_is_kept(store: Arc<dyn Store>) {
    let long = key(&"k".repeat(MAX_KEY - "user/app/".len()));
    assert_eq!(long.as_str().len(), MAX_KEY);
    let large = Commit::new().put(long.clone(), vec![7; MAX_VALUE]);
    store.commit(large).await.unwrap();
    assert_eq!(store.get(&long).await.unwrap().unwrap().value.len(), MAX_VALUE);
    let longer = key(&"k".repeat(MAX_KEY));
    let wholly = (0..=COMMIT_BYTES / MAX_VALUE)
        .fold(Commit::new(), |commit, n| commit.put(key(&n.to_string()), vec![0; MAX_VALUE]));
    let many = (0..=COMMIT_KEYS).fold(Commit::new(), |commit, n| commit.put(key(&n.to_string()), ""));
    for refused in [
        Commit::new().put(key("ann"), vec![0; MAX_VALUE + 1]),
        Commit::new().put(longer.clone(), ""),
        Commit::new().expect(longer.clone(), None).put(key("ann"), ""),
        Commit::new().put(Key::new(&[]), ""),
        wholly,
        many,
    ] {
        let answer = store.commit(refused).await;
        assert!(matches!(answer, Err(CommitError::Store(StoreError::TooLarge(_)))), "{answer:?}");
    }
    assert_eq!(store.get(&longer).await, Ok(None));
    assert_eq!(store.get(&Key::new(&[])).await, Ok(None));
    assert_eq!(store.scan(Scan::of(Prefix::new(&["user"]))).await.unwrap().len(), 1);
}

async fn as_many_entries_as_a_commit_may_have_are_written_at_once(store: Arc<dyn Store>) {
    let name = |n: usize| format!("{n:04}");
    let written = (0..COMMIT_KEYS).fold(Commit::new(), |commit, n| commit.put(key(&name(n)), "x"));
    store.commit(written).await.unwrap();
    let page = store.scan(Scan::of(Prefix::new(&["user", "app"]))).await.unwrap();
    assert_eq!(page.len(), SCAN_LIMIT);
    let first = (0..COMMIT_KEYS / 2).map(name);
    let half = page.iter().zip(first).fold(Commit::new(), |commit, ((key, entry), _)| {
        commit.expect(key.clone(), Some(entry.version)).delete(key.clone())
    });
    store.commit(half).await.unwrap();
    let left = store.scan(Scan::of(Prefix::new(&["user", "app"]))).await.unwrap();
    assert_eq!(names(&left[..1]), [name(COMMIT_KEYS / 2)]);
}
