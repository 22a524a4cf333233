//! Users, logins, devices, API keys and apps, on every store.

use std::{sync::Arc, time::SystemTime};

use serde_json::json;
use xpush_protocol::{AppId, DeviceId, UserId};

use super::{
    AppPolicy, Change, ChangeFeed, DeviceChange, DeviceSaid, Directory, DirectoryError, NewKey, NewUser,
    PageQuery, ProfileChange, SearchField, Tokens,
    store::{Store, contract::on_every_store},
};
use crate::auth::{Account, Rights};

on_every_store!(
    a_user_registers_and_logs_in
    what_is_wrong_with_a_login_is_not_said
    a_refresh_token_that_is_used_twice_ends_its_login
    a_made_up_refresh_token_ends_nobodys_login
    a_login_that_ended_takes_its_tokens_along
    a_new_password_ends_the_other_logins
    the_login_mode_says_which_logins_a_new_one_ends
    a_device_that_is_revoked_takes_its_logins_along
    a_user_has_no_more_devices_than_the_policy_says
    a_deactivated_user_is_nobody_until_activated
    tokens_of_the_application_are_taken_back_by_their_age
    a_user_of_whom_there_is_no_record_is_taken_back_too
    a_deleted_users_id_is_nobodys_again
    a_user_whose_deletion_broke_off_is_deleted_again
    a_deleted_user_leaves_nothing_behind
    an_export_has_everything_but_secrets
    users_are_found_by_the_beginning_of_name_or_id
    an_api_key_is_of_one_app_and_ends_when_it_is_deleted
    two_nodes_have_the_same_signing_key
    an_app_takes_everything_of_it_along
    nothing_of_one_app_is_seen_in_another
    a_stale_version_changes_nothing
);

fn directory(store: &Arc<dyn Store>) -> Directory {
    Directory::new(Arc::clone(store)).with_open_registration(true)
}

fn id(name: &str) -> UserId {
    name.parse().unwrap()
}

fn with_password(password: &str) -> NewUser {
    NewUser { password: Some(password.into()), ..NewUser::default() }
}

fn on(device: &str) -> DeviceSaid {
    DeviceSaid { device: Some(device.parse().unwrap()), is: DeviceChange::default() }
}

const PASSWORD: &str = "correct horse";

async fn ann(directory: &Directory) -> UserId {
    let ann = id("ann");
    directory.register(&ann, &with_password(PASSWORD), false).await.unwrap();
    ann
}

/// What an access token gives, as long as it stands.
async fn rights(directory: &Directory, token: &str) -> Result<Rights, DirectoryError> {
    let rights = directory.verify_access_token(token, SystemTime::now()).await?.unwrap();
    directory.check_account(rights.app(), rights.user().unwrap(), rights.account().unwrap()).await?;
    Ok(rights)
}

async fn stands(directory: &Directory, tokens: &Tokens) -> bool {
    match rights(directory, &tokens.access_token).await {
        Ok(_) => true,
        Err(DirectoryError::InvalidToken(_)) => false,
        Err(other) => panic!("{other}"),
    }
}

async fn set_policy(directory: &Directory, app: &AppId, policy: serde_json::Value) {
    directory.update_app(app, None, None, Some(policy.as_object().unwrap().clone())).await.unwrap();
}

fn is_invalid_token<T: std::fmt::Debug>(result: &Result<T, DirectoryError>) -> bool {
    matches!(result, Err(DirectoryError::InvalidToken(_)))
}

async fn a_user_registers_and_logs_in(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let ann = ann(&directory).await;
    let again = directory.register(&ann, &with_password(PASSWORD), false).await;
    assert_eq!(again, Err(DirectoryError::AlreadyExists("user")));

    let tokens = directory.login(&ann, PASSWORD, Some(&on("phone"))).await.unwrap();
    let rights = rights(&directory, &tokens.access_token).await.unwrap();
    assert_eq!((rights.user(), rights.app()), (Some(&ann), &AppId::default()));
    let account = rights.account().unwrap();
    assert_eq!(account.device, Some("phone".parse().unwrap()));
    assert!(account.login.is_some() && account.issued.is_some() && rights.expires().is_some());
    assert!(!rights.is_everything());

    let refreshed = directory.refresh(&tokens.refresh_token).await.unwrap();
    assert_ne!(refreshed.refresh_token, tokens.refresh_token);
    assert!(stands(&directory, &refreshed).await);
    let devices = directory.devices(&ann, PageQuery::default()).await.unwrap().items;
    assert_eq!(devices.len(), 1);
}

async fn what_is_wrong_with_a_login_is_not_said(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let ann = ann(&directory).await;
    directory.ensure_user(&AppId::default(), &id("tokens only")).await.unwrap();
    let other: AppId = "other".parse().unwrap();
    for (user, password) in [
        (&ann, "wrong horse"),
        (&ann, ""),
        (&ann, r#"{"$gt":""}"#),
        (&id("bob"), PASSWORD),
        (&id("tokens only"), PASSWORD),
        (&id(r#"{"$gt":""}"#), PASSWORD),
        (&ann.within(&other), PASSWORD),
    ] {
        let error = directory.login(user, password, None).await.unwrap_err();
        assert_eq!(error, DirectoryError::InvalidCredentials, "{user:?} {password}");
    }
}

async fn a_refresh_token_that_is_used_twice_ends_its_login(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let ann = ann(&directory).await;
    let other = directory.login(&ann, PASSWORD, None).await.unwrap();
    let first = directory.login(&ann, PASSWORD, None).await.unwrap();
    let mut feed = ChangeFeed::default();
    feed.next(&directory).await.unwrap();

    let second = directory.refresh(&first.refresh_token).await.unwrap();
    assert!(stands(&directory, &second).await);
    assert!(is_invalid_token(&directory.refresh(&first.refresh_token).await));
    assert!(!stands(&directory, &second).await);
    assert!(is_invalid_token(&directory.refresh(&second.refresh_token).await));
    let told = feed.next(&directory).await.unwrap();
    assert!(matches!(&told[..], [Change::Login { user, .. }] if *user == ann), "{told:?}");
    assert!(stands(&directory, &other).await);

    // Two at once are a copy, too: one of them at most gets something, and it does not last.
    let both = tokio::join!(directory.refresh(&other.refresh_token), directory.refresh(&other.refresh_token));
    assert!(both.0.is_err() || both.1.is_err());
    for tokens in [both.0, both.1].into_iter().flatten() {
        assert!(!stands(&directory, &tokens).await);
    }
}

async fn a_made_up_refresh_token_ends_nobodys_login(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let ann = ann(&directory).await;
    let tokens = directory.login(&ann, PASSWORD, None).await.unwrap();
    let good = &tokens.refresh_token;
    for at in [4, 20, 60, good.len() - 5] {
        let mut forged = good.clone().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        assert!(is_invalid_token(&directory.refresh(&forged).await), "{at}");
    }
    for text in ["", "xpr_", "xpr_AAAA", "nonsense", &tokens.access_token, &"x".repeat(10_000)] {
        assert!(is_invalid_token(&directory.refresh(text).await), "{text:.20}");
    }
    assert!(stands(&directory, &tokens).await);
    directory.refresh(good).await.unwrap();
}

async fn a_login_that_ended_takes_its_tokens_along(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let ann = ann(&directory).await;
    let one = directory.login(&ann, PASSWORD, None).await.unwrap();
    let two = directory.login(&ann, PASSWORD, None).await.unwrap();
    let three = directory.login(&ann, PASSWORD, None).await.unwrap();
    let login =
        rights(&directory, &one.access_token).await.unwrap().account().unwrap().login.clone().unwrap();
    directory.logout(&ann, &login).await.unwrap();
    directory.logout(&ann, &login).await.unwrap();
    assert!(!stands(&directory, &one).await && stands(&directory, &two).await);
    assert!(is_invalid_token(&directory.refresh(&one.refresh_token).await));
    directory.logout_all(&ann, None).await.unwrap();
    assert!(!stands(&directory, &two).await && !stands(&directory, &three).await);
}

async fn a_new_password_ends_the_other_logins(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let ann = ann(&directory).await;
    let (here, there) = (
        directory.login(&ann, PASSWORD, None).await.unwrap(),
        directory.login(&ann, PASSWORD, None).await.unwrap(),
    );
    let login = rights(&directory, &here.access_token).await.unwrap().account().unwrap().login.clone();
    let new = "a better horse";
    let wrong = directory.set_password(&ann, Some("wrong horse"), new, login.as_deref(), false).await;
    assert_eq!(wrong, Err(DirectoryError::InvalidCredentials));
    assert!(directory.set_password(&ann, None, new, login.as_deref(), false).await.is_err());
    assert!(directory.set_password(&ann, Some(PASSWORD), "short", login.as_deref(), false).await.is_err());
    assert!(stands(&directory, &there).await);

    directory.set_password(&ann, Some(PASSWORD), new, login.as_deref(), false).await.unwrap();
    assert!(stands(&directory, &here).await && !stands(&directory, &there).await);
    assert!(directory.login(&ann, PASSWORD, None).await.is_err());
    directory.login(&ann, new, None).await.unwrap();
    // A backend need not know it, and gives one to who had none.
    directory.ensure_user(&AppId::default(), &id("bob")).await.unwrap();
    assert!(directory.set_password(&id("bob"), None, new, None, false).await.is_err());
    directory.set_password(&id("bob"), None, new, None, true).await.unwrap();
    directory.login(&id("bob"), new, None).await.unwrap();
}

async fn the_login_mode_says_which_logins_a_new_one_ends(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let (ann, app) = (ann(&directory).await, AppId::default());
    for (mode, survivors) in
        [("many", [true, true]), ("per_device", [false, true]), ("per_user", [false, false])]
    {
        set_policy(&directory, &app, json!({ "login": mode })).await;
        directory.logout_all(&ann, None).await.unwrap();
        set_policy(&directory, &app, json!({ "login": "many" })).await;
        let phone = directory.login(&ann, PASSWORD, Some(&on("phone"))).await.unwrap();
        let tablet = directory.login(&ann, PASSWORD, Some(&on("tablet"))).await.unwrap();
        set_policy(&directory, &app, json!({ "login": mode })).await;
        let mut feed = ChangeFeed::default();
        feed.next(&directory).await.unwrap();
        let new = directory.login(&ann, PASSWORD, Some(&on("phone"))).await.unwrap();
        let left = [stands(&directory, &phone).await, stands(&directory, &tablet).await];
        assert_eq!(left, survivors, "{mode}");
        assert!(stands(&directory, &new).await);
        let told = feed.next(&directory).await.unwrap();
        assert_eq!(told.len(), survivors.iter().filter(|survived| !**survived).count(), "{mode} {told:?}");
    }
}

async fn a_device_that_is_revoked_takes_its_logins_along(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let ann = ann(&directory).await;
    let phone = directory.login(&ann, PASSWORD, Some(&on("phone"))).await.unwrap();
    let laptop = directory.login(&ann, PASSWORD, Some(&on("laptop"))).await.unwrap();
    let mut feed = ChangeFeed::default();
    feed.next(&directory).await.unwrap();
    let id: DeviceId = "phone".parse().unwrap();
    directory.revoke_device(&ann, &id, None).await.unwrap();
    assert_eq!(directory.revoke_device(&ann, &id, None).await, Err(DirectoryError::NotFound("device")));
    assert!(!stands(&directory, &phone).await && stands(&directory, &laptop).await);
    assert!(is_invalid_token(&directory.refresh(&phone.refresh_token).await));
    let told = feed.next(&directory).await.unwrap();
    let expected = Change::Device { app: AppId::default(), user: ann.clone(), device: id.clone() };
    assert_eq!(told, [expected]);
    // The same phone may come back, by its password.
    let back = directory.login(&ann, PASSWORD, Some(&on("phone"))).await.unwrap();
    assert!(stands(&directory, &back).await && !stands(&directory, &phone).await);
}

async fn a_user_has_no_more_devices_than_the_policy_says(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let ann = ann(&directory).await;
    set_policy(&directory, &AppId::default(), json!({ "quotas": { "devices_per_user": 2 } })).await;
    for device in ["a", "b", "a"] {
        directory.register_device(&ann, &on(device)).await.unwrap();
    }
    for refused in [
        directory.register_device(&ann, &on("c")).await.map(drop),
        directory.login(&ann, PASSWORD, Some(&on("c"))).await.map(drop),
    ] {
        assert!(matches!(refused, Err(DirectoryError::LimitReached(_))), "{refused:?}");
    }
    directory.login(&ann, PASSWORD, Some(&on("b"))).await.unwrap();
}

async fn a_deactivated_user_is_nobody_until_activated(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let ann = ann(&directory).await;
    let tokens = directory.login(&ann, PASSWORD, None).await.unwrap();
    directory.deactivate(&ann).await.unwrap();
    assert!(!stands(&directory, &tokens).await);
    assert!(is_invalid_token(&directory.refresh(&tokens.refresh_token).await));
    assert!(matches!(directory.login(&ann, PASSWORD, None).await, Err(DirectoryError::Forbidden(_))));
    assert_eq!(directory.login(&ann, "wrong horse", None).await, Err(DirectoryError::InvalidCredentials));
    assert_eq!(directory.profile(&ann).await, Err(DirectoryError::NotFound("user")));
    assert!(!directory.user_exists(&AppId::default(), &ann).await.unwrap());
    directory.activate(&ann).await.unwrap();
    let back = directory.login(&ann, PASSWORD, None).await.unwrap();
    assert!(stands(&directory, &back).await && !stands(&directory, &tokens).await);
}

async fn tokens_of_the_application_are_taken_back_by_their_age(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let (ann, app) = (id("ann"), AppId::default());
    let of_application = |issued| Account { login: None, device: None, issued };
    let now = super::millis(SystemTime::now()) / 1000;
    // A user that the directory does not know.
    directory.check_account(&app, &ann, &of_application(Some(now))).await.unwrap();
    directory.ensure_user(&app, &ann).await.unwrap();
    directory.ensure_user(&app, &ann).await.unwrap();
    directory.revoke(&ann).await.unwrap();
    assert!(is_invalid_token(&directory.check_account(&app, &ann, &of_application(Some(now))).await));
    directory.check_account(&app, &ann, &of_application(Some(now + 2))).await.unwrap();
    // One that does not say when it was made may be of before.
    assert!(is_invalid_token(&directory.check_account(&app, &ann, &of_application(None)).await));
    directory.deactivate(&ann).await.unwrap();
    let later = directory.check_account(&app, &ann, &of_application(Some(now + 60))).await;
    assert!(is_invalid_token(&later));
}

async fn a_user_of_whom_there_is_no_record_is_taken_back_too(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let (ann, bob, app) = (id("ann"), id("bob"), AppId::default());
    let of_application = |issued| Account { login: None, device: None, issued };
    let now = super::millis(SystemTime::now()) / 1000;
    directory.revoke(&ann).await.unwrap();
    assert!(is_invalid_token(&directory.check_account(&app, &ann, &of_application(Some(now))).await));
    directory.check_account(&app, &ann, &of_application(Some(now + 2))).await.unwrap();
    directory.deactivate(&bob).await.unwrap();
    assert!(is_invalid_token(&directory.check_account(&app, &bob, &of_application(Some(now + 60))).await));
    directory.activate(&bob).await.unwrap();
    directory.check_account(&app, &bob, &of_application(Some(now + 60))).await.unwrap();
}

async fn a_deleted_user_leaves_nothing_behind(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let ann = ann(&directory).await;
    let changes: ProfileChange = serde_json::from_value(json!({ "name": "Ann" })).unwrap();
    directory.update_profile(&ann, None, &changes).await.unwrap();
    let tokens = directory.login(&ann, PASSWORD, Some(&on("phone"))).await.unwrap();
    let session = xpush_protocol::SessionId::random();
    directory.saw(&ann, Some((&"phone".parse().unwrap(), &session))).await.unwrap();
    directory.ensure_user(&AppId::default(), &id("bob")).await.unwrap();
    directory.befriend(&ann, &id("bob")).await.unwrap();

    let mut feed = ChangeFeed::default();
    feed.next(&directory).await.unwrap();
    directory.delete_user(&ann, None).await.unwrap();
    assert!(feed.next(&directory).await.unwrap().iter().any(|told| matches!(told, Change::User { .. })));
    assert!(!stands(&directory, &tokens).await);
    for table in ["name", "seen", "device", "login", "friend", "group", "mine"] {
        let prefix = super::store::Prefix::new(&[table]);
        let left = store.scan(super::store::Scan::of(prefix)).await.unwrap();
        let of_ann: Vec<_> =
            left.iter().filter(|(key, _)| (2..5).any(|at| key.component(at) == "ann")).collect();
        assert!(of_ann.is_empty(), "{of_ann:?}");
    }
    assert_eq!(directory.delete_user(&ann, None).await, Err(DirectoryError::NotFound("user")));
    // Of the user itself the id is left.
    let left = store.get(&super::user::User::key(&ann)).await.unwrap().unwrap();
    let left: serde_json::Value = serde_json::from_slice(&left.value).unwrap();
    let fields: Vec<_> = left.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["user", "created", "leaving", "gone"]);
}

async fn a_deleted_users_id_is_nobodys_again(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let (ann, app) = (ann(&directory).await, AppId::default());
    directory.delete_user(&ann, None).await.unwrap();
    for is_backend in [false, true] {
        let again = directory.register(&ann, &with_password("another horse"), is_backend).await;
        assert_eq!(again, Err(DirectoryError::AlreadyExists("user")));
    }
    // Nor by what the application makes, however new.
    let now = super::millis(SystemTime::now()) / 1000;
    let account = Account { login: None, device: None, issued: Some(now + 60) };
    assert!(is_invalid_token(&directory.check_account(&app, &ann, &account).await));
    assert!(directory.ensure_user(&app, &ann).await.is_err());
    assert!(!directory.user_exists(&app, &ann).await.unwrap());
    for outcome in [
        directory.revoke(&ann).await,
        directory.activate(&ann).await,
        directory.deactivate(&ann).await,
        directory.profile(&ann).await.map(drop),
        directory.own_profile(&ann).await.map(drop),
    ] {
        assert_eq!(outcome, Err(DirectoryError::NotFound("user")));
    }
    assert!(directory.users(&app, PageQuery::default()).await.unwrap().items.is_empty());
}

async fn a_user_whose_deletion_broke_off_is_deleted_again(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let ann = ann(&directory).await;
    directory.take_leave(&ann, None).await.unwrap();
    let again = directory.register(&ann, &with_password("another horse"), true).await;
    assert_eq!(again, Err(DirectoryError::AlreadyExists("user")));
    directory.delete_user(&ann, None).await.unwrap();
    assert_eq!(directory.delete_user(&ann, None).await, Err(DirectoryError::NotFound("user")));
}

async fn an_export_has_everything_but_secrets(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let ann = ann(&directory).await;
    let changes = json!({ "name": "Ann", "data": { "$where": "1", "a.b": [1] } });
    directory.update_profile(&ann, None, &serde_json::from_value(changes).unwrap()).await.unwrap();
    directory.login(&ann, PASSWORD, Some(&on("phone"))).await.unwrap();
    let export = directory.export_user(&ann).await.unwrap();
    assert_eq!(export["user"]["name"], "Ann");
    assert_eq!(export["user"]["data"]["a.b"], json!([1]));
    assert_eq!(export["devices"][0]["device"], "phone");
    assert_eq!(export["logins"][0]["device"], "phone");
    let text = export.to_string();
    assert!(
        !text.contains("argon2") && !text.contains("\"hash\"") && !text.contains("\"password\""),
        "{text}"
    );
}

async fn users_are_found_by_the_beginning_of_name_or_id(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let app = AppId::default();
    for (user, name) in [("u1", "Ann Lee"), ("u2", "ANNA"), ("u3", "Bob"), ("u4", "Änne")] {
        let profile = serde_json::from_value(json!({ "name": name, "locale": "de" })).unwrap();
        let new = NewUser { profile, ..NewUser::default() };
        directory.register(&id(user), &new, true).await.unwrap();
    }
    let found = async |field, text: &str, limit| {
        let query = PageQuery { limit, cursor: None };
        directory.search_users(&app, field, text, query).await
    };
    let ids = |page: &super::Page<super::Profile>| -> Vec<String> {
        page.items.iter().map(|profile| profile.user.as_ref().unwrap().to_string()).collect()
    };
    assert_eq!(ids(&found(SearchField::Name, "ann", None).await.unwrap()), ["u1", "u2"]);
    assert_eq!(ids(&found(SearchField::Name, "äNN", None).await.unwrap()), ["u4"]);
    assert_eq!(ids(&found(SearchField::User, "u", None).await.unwrap()), ["u1", "u2", "u3", "u4"]);
    assert!(found(SearchField::User, "U", None).await.unwrap().items.is_empty());
    for text in ["", " ", "\u{1f}", &"x".repeat(1000)] {
        assert!(found(SearchField::Name, text, None).await.is_err());
    }
    for text in [".*", r#"{"$gt":""}"#] {
        assert!(found(SearchField::Name, text, None).await.is_ok_and(|page| page.items.is_empty()), "{text}");
    }
    let first = found(SearchField::Name, "ann", Some(1)).await.unwrap();
    assert_eq!(ids(&first), ["u1"]);
    let query = PageQuery { limit: Some(1), cursor: first.next };
    let second = directory.search_users(&app, SearchField::Name, "ann", query).await.unwrap();
    assert_eq!((ids(&second), &second.next), (vec!["u2".to_owned()], &None));
    // A name that was given up finds nobody.
    let changes = serde_json::from_value(json!({ "name": "Zoe" })).unwrap();
    directory.update_profile(&id("u1"), None, &changes).await.unwrap();
    assert_eq!(ids(&found(SearchField::Name, "ann", None).await.unwrap()), ["u2"]);
    assert_eq!(ids(&found(SearchField::Name, "zoe", None).await.unwrap()), ["u1"]);
}

async fn an_api_key_is_of_one_app_and_ends_when_it_is_deleted(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let (shop, forum): (AppId, AppId) = ("shop".parse().unwrap(), "forum".parse().unwrap());
    for app in [&shop, &forum] {
        directory.create_app(app, "An app", AppPolicy::default()).await.unwrap();
    }
    let (info, text) = directory.create_api_key(&shop, NewKey::default()).await.unwrap();
    let backend = directory.backend(&text).await.unwrap().unwrap();
    assert_eq!((backend.rights.app(), backend.rights.is_everything()), (&shop, true));
    let limited: NewKey =
        serde_json::from_value(json!({ "grants": { "room:*": ["publish"] }, "expires_in": 60 })).unwrap();
    let (_, limited) = directory.create_api_key(&shop, limited).await.unwrap();
    assert!(!directory.backend(&limited).await.unwrap().unwrap().rights.is_everything());
    for wrong in ["", "xpk_", "xpk_nobody_secret", &text.replace("_", "-"), &text[..text.len() - 1]] {
        assert_eq!(directory.backend(wrong).await, Ok(None), "{wrong}");
    }
    let listed = directory.api_keys(&shop, PageQuery::default()).await.unwrap().items;
    assert_eq!(listed.len(), 2);
    assert!(directory.api_keys(&forum, PageQuery::default()).await.unwrap().items.is_empty());
    let foreign = directory.delete_api_key(&forum, &info.id).await;
    assert_eq!(foreign, Err(DirectoryError::NotFound("key")));
    directory.delete_api_key(&shop, &info.id).await.unwrap();
    assert_eq!(directory.backend(&text).await, Ok(None));
}

async fn two_nodes_have_the_same_signing_key(store: Arc<dyn Store>) {
    let (one, two) = (directory(&store), directory(&store));
    let (keys_of_one, keys_of_two) = tokio::join!(one.jwks(), two.jwks());
    assert_eq!(keys_of_one, keys_of_two);
    let ann = ann(&one).await;
    let tokens = one.login(&ann, PASSWORD, None).await.unwrap();
    let third = directory(&store);
    assert!(stands(&two, &tokens).await && stands(&third, &tokens).await);
    assert!(two.refresh(&tokens.refresh_token).await.is_ok());
}

async fn an_app_takes_everything_of_it_along(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let shop: AppId = "shop".parse().unwrap();
    let policy = AppPolicy::default().changed(json!({ "registration": "open" }).as_object().unwrap().clone());
    directory.create_app(&shop, "The shop", policy.unwrap()).await.unwrap();
    let again = directory.create_app(&shop, "The shop", AppPolicy::default()).await;
    assert_eq!(again, Err(DirectoryError::AlreadyExists("app")));
    let ann = id("ann").within(&shop);
    directory.register(&ann, &with_password(PASSWORD), false).await.unwrap();
    let tokens = directory.login(&ann, PASSWORD, Some(&on("phone"))).await.unwrap();
    let (_, key) = directory.create_api_key(&shop, NewKey::default()).await.unwrap();
    let now = super::millis(SystemTime::now()) / 1000;
    let of_application = Account { login: None, device: None, issued: Some(now) };
    directory.check_account(&shop, &id("bob"), &of_application).await.unwrap();
    // Another node that has just looked at the policy.
    let elsewhere = self::directory(&store);
    elsewhere.policy(&shop).await.unwrap();

    directory.delete_app(&shop, None).await.unwrap();
    assert!(!stands(&directory, &tokens).await && !stands(&elsewhere, &tokens).await);
    for node in [&directory, &elsewhere] {
        assert!(is_invalid_token(&node.check_account(&shop, &id("bob"), &of_application).await));
    }
    assert_eq!(directory.delete_app(&shop, None).await, Err(DirectoryError::NotFound("app")));
    let again = directory.create_app(&shop, "Another shop", AppPolicy::default()).await;
    assert_eq!(again, Err(DirectoryError::AlreadyExists("app")));
    assert!(directory.login(&ann, PASSWORD, None).await.is_err());
    assert_eq!(directory.app(&shop).await, Err(DirectoryError::NotFound("app")));
    // Another node has the key at hand for a moment; here it is over at once or after that.
    let held = directory.backend(&key).await;
    assert!(held.as_ref().is_ok_and(Option::is_none) || is_invalid_token(&held), "{held:?}");
    for table in ["user", "device", "login", "key", "app-key"] {
        let left = store.scan(super::store::Scan::of(super::store::Prefix::new(&[table]))).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
    assert!(matches!(directory.delete_app(&AppId::default(), None).await, Err(DirectoryError::Forbidden(_))));
}

async fn nothing_of_one_app_is_seen_in_another(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let shop: AppId = "shop".parse().unwrap();
    let policy = AppPolicy::default().changed(json!({ "registration": "open" }).as_object().unwrap().clone());
    directory.create_app(&shop, "The shop", policy.unwrap()).await.unwrap();
    let (here, there) = (ann(&directory).await, id("ann").within(&shop));
    directory.register(&there, &with_password("another horse"), false).await.unwrap();
    assert!(directory.login(&there, PASSWORD, None).await.is_err());
    let tokens = directory.login(&there, "another horse", Some(&on("phone"))).await.unwrap();
    let rights = rights(&directory, &tokens.access_token).await.unwrap();
    assert_eq!((rights.app(), rights.user()), (&shop, Some(&there)));
    assert_ne!(rights.user(), Some(&here));
    assert!(directory.devices(&here, PageQuery::default()).await.unwrap().items.is_empty());
    directory.deactivate(&here).await.unwrap();
    assert!(stands(&directory, &tokens).await);
    directory.delete_user(&here, None).await.unwrap();
    assert!(stands(&directory, &tokens).await);
}

async fn a_stale_version_changes_nothing(store: Arc<dyn Store>) {
    let directory = directory(&store);
    let ann = ann(&directory).await;
    let seen = directory.own_profile(&ann).await.unwrap().version;
    let changes: ProfileChange = serde_json::from_value(json!({ "name": "Ann" })).unwrap();
    let updated = directory.update_profile(&ann, Some(seen), &changes).await.unwrap();
    assert_ne!(updated.version, seen);
    assert_eq!(directory.update_profile(&ann, Some(seen), &changes).await, Err(DirectoryError::Stale));
    assert_eq!(directory.delete_user(&ann, Some(seen)).await, Err(DirectoryError::Stale));
    // Being seen is no change of the user.
    directory.saw(&ann, None).await.unwrap();
    assert_eq!(directory.own_profile(&ann).await.unwrap().version, updated.version);
    assert!(directory.own_profile(&ann).await.unwrap().value.last_seen.is_some());
}
