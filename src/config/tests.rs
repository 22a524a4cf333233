use std::fs;

use tempfile::NamedTempFile;
use xpush_protocol::AppId;

use super::*;
use crate::{
    auth::{ApiKey, Claims, Permission},
    log::Keep,
    namespace::{Policy, Retention},
};

fn written(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The error of a file; its path is written as FILE.
fn file_error(text: &str) -> String {
    let file = written(text);
    let error = Config::load(Some(file.path()), [], []).unwrap_err();
    error.to_string().replace(&file.path().display().to_string(), "FILE")
}

fn environment_error(variable: &str, value: &str) -> String {
    Config::load(None, pairs(&[(variable, value)]), []).unwrap_err().to_string()
}

fn flag_error(key: &str, value: &str) -> String {
    Config::load(None, [], pairs(&[(key, value)])).unwrap_err().to_string()
}

#[test]
fn without_a_word_everything_has_a_default() {
    let config = Config::load(None, [], []).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.listen.http.to_string(), "127.0.0.1:8080");
    assert_eq!(config.listen.tls.to_string(), "127.0.0.1:8443");
    assert!(config.is_development() && config.is_anonymous());
    let settings = config.transport_settings();
    assert_eq!((settings.frame_limit, settings.idle_deadline.as_secs()), (65_536, 45));
    let namespaces = config.namespaces();
    let policy = |channel: &str| namespaces.get(&channel.parse().unwrap()).copied();
    let durable = Retention::Durable { keep: Keep::default() };
    assert_eq!(
        policy("room:a"),
        Some(Policy { retention: durable, presence: true, history: true, ..Policy::default() })
    );
    let recent = Retention::Recent { size: 256, ttl: std::time::Duration::from_secs(300) };
    assert_eq!(policy("live:a"), Some(Policy { retention: recent, history: true, ..Policy::default() }));
    let none = Policy::default();
    assert_eq!(policy("typing:a"), Some(none));
    assert_eq!(policy("news:a"), None);
}

#[test]
fn the_file_yields_to_the_environment_and_that_to_the_flags() {
    let file = written(
        "origins = [\"https://a.example\"]\n[limits]\nframe = \"32KiB\"\ndata = 1000\nin_flight = 1\n\
         [namespaces.chat]\nretention = \"durable\"\nkeep_age = \"30d\"\n[namespaces.room]\npresence = false",
    );
    let config = Config::load(
        Some(file.path()),
        pairs(&[
            ("XPUSH_LIMITS__IN_FLIGHT", "2"),
            ("XPUSH_LIMITS__CONNECTIONS_PER_ADDRESS", "30_000"),
            ("XPUSH_LIMITS__FRAME", "48KiB"),
            ("XPUSH_NODE__NAME", "7"),
            ("XPUSH_CONFIG", "/etc/xpush.toml"),
            ("XPUSH_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("XPUSH_SERVICE_HOST", "10.0.0.1"),
            ("PATH", "/bin"),
        ]),
        pairs(&[("limits.in_flight", "3"), ("namespaces.chat.keep_count", "10")]),
    )
    .unwrap();
    assert_eq!(config.limits.in_flight, 3);
    assert_eq!(config.limits.connections_per_address, 30_000);
    assert_eq!((config.limits.frame, config.limits.data), (Size::kibibytes(48), Size(1000)));
    assert_eq!(config.node.name, "7");
    assert_eq!(config.origins, Origins::List(vec!["https://a.example".into()]));
    // What a file says of a namespace joins what is said of it by default, and of the others.
    let namespaces = config.namespaces();
    assert!(!namespaces.get(&"room:a".parse().unwrap()).unwrap().presence);
    let keep = Keep { count: Some(10), age: Some(std::time::Duration::from_secs(30 * 86_400)) };
    assert_eq!(namespaces.get(&"chat:a".parse().unwrap()).unwrap().retention, Retention::Durable { keep });
    assert!(namespaces.get(&"live:a".parse().unwrap()).is_some());
}

#[test]
fn lists_and_tables_are_written_as_toml_in_the_environment() {
    let secret = "x".repeat(32);
    let keys = format!("[{{ algorithm = \"HS256\", secret = \"{secret}\", issuer = \"shop\" }}]");
    let config = Config::load(
        None,
        pairs(&[
            ("XPUSH_AUTH__KEYS", &keys),
            ("XPUSH_ORIGINS", "https://a.example, http://b.example:81"),
            ("XPUSH_LISTEN__HTTP", "0.0.0.0:80"),
            ("XPUSH_AUTH__ANONYMOUS", "false"),
        ]),
        [],
    )
    .unwrap();
    assert_eq!(config.auth.keys[0].issuer.as_deref(), Some("shop"));
    let origins = vec!["https://a.example".to_owned(), "http://b.example:81".to_owned()];
    assert_eq!(config.origins, Origins::List(origins));
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_what_was_meant() {
    assert_eq!(
        file_error("[limits]\nframe = 65536\n\n[listen]\nhtpp = \"127.0.0.1:80\"\n"),
        "unknown key `listen.htpp` in FILE, line 5; did you mean `listen.http`?"
    );
    assert_eq!(
        file_error("[limit]\nframe = 1\n"),
        "unknown key `limit` in FILE, line 1; did you mean `limits`?"
    );
    assert_eq!(
        file_error("idle_deadline = \"30s\"\n"),
        "unknown key `idle_deadline` in FILE, line 1; did you mean `limits.idle_deadline`?"
    );
    assert_eq!(
        file_error("[namespaces.chat]\nretention = \"none\"\nprecense = true\n"),
        "unknown key `namespaces.chat.precense` in FILE, line 3; did you mean `namespaces.chat.presence`?"
    );
    assert_eq!(
        file_error("[[auth.keys]]\nalgorithm = \"EdDSA\"\n[[auth.keys]]\nalgoritm = \"EdDSA\"\n"),
        "unknown key `auth.keys.algoritm` in FILE, line 4; did you mean `auth.keys.algorithm`?"
    );
    assert_eq!(
        environment_error("XPUSH_LISTEN__HTPP", "127.0.0.1:80"),
        "unknown key `listen.htpp` in the environment variable XPUSH_LISTEN__HTPP; did you mean `listen.http`?"
    );
    assert_eq!(
        environment_error("XPUSH_LISTEN_HTTP", "127.0.0.1:80"),
        "unknown key `listen_http` in the environment variable XPUSH_LISTEN_HTTP; did you mean `listen.http`?"
    );
    assert_eq!(environment_error("XPUSH_", ""), "unknown key `` in the environment variable XPUSH_");
    assert_eq!(
        flag_error("log.levl", "info"),
        "unknown key `log.levl` in the flag for log.levl; did you mean `log.level`?"
    );
    assert_eq!(flag_error("zzz", ""), "unknown key `zzz` in the flag for zzz");
}

#[test]
fn a_wrong_value_is_named_with_its_key_and_place() {
    assert_eq!(
        file_error("[limits]\nin_flight = \"many\"\n"),
        "FILE, line 2, `in_flight`: invalid type: string \"many\", expected u32"
    );
    assert_eq!(
        file_error("[limits]\nping_interval = 15\n"),
        "FILE, line 2, `ping_interval`: invalid type: integer `15`, expected a duration with its unit, as in \"30s\""
    );
    assert!(file_error("[limits\nx").starts_with("FILE, line 1"));
    assert_eq!(
        file_error("[namespaces.Chat]\nretention = \"none\"\n"),
        "FILE, line 1: namespace has the character 'C' at byte 0; expected 1 to 32 of a-z, 0-9, '-', '_', beginning with a letter"
    );
    assert_eq!(
        environment_error("XPUSH_LIMITS__FRAME", "64KB"),
        "the environment variable XPUSH_LIMITS__FRAME, `limits.frame`: \"64KB\" is no size: expected a number and B, KiB, MiB or GiB, as in \"64KiB\""
    );
    assert_eq!(
        environment_error("XPUSH_AUTH__ANONYMOUS", "yes"),
        "the environment variable XPUSH_AUTH__ANONYMOUS, `auth.anonymous`: expected true or false, found \"yes\""
    );
    assert_eq!(
        flag_error("listen.http", "localhost"),
        "the flag for listen.http, `listen.http`: invalid socket address syntax"
    );
    let missing = Config::load(Some(Path::new("/nowhere/xpush.toml")), [], []).unwrap_err().to_string();
    assert!(missing.starts_with("the configuration file /nowhere/xpush.toml can't be read: "), "{missing}");
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (key, value, error) in [
        (
            "limits.data",
            "64KiB",
            "`limits.data` is 64KiB; it must be more than 0 and less than `limits.frame` (64KiB)",
        ),
        ("limits.frame", "1GiB", "`limits.frame` is 1GiB; 16KiB to 16MiB are possible"),
        ("limits.subscriptions", "20000", "`limits.subscriptions` is 20000; 10000 at most are possible"),
        ("limits.in_flight", "0", "`limits.in_flight` is 0, and then nobody can do anything"),
        (
            "limits.idle_deadline",
            "44s",
            "`limits.idle_deadline` is 44s; it must be 3 times `limits.ping_interval` (15s) at least",
        ),
        (
            "namespaces.news.presence",
            "true",
            "`namespaces.news.retention` is missing: \"durable\", \"recent\" or \"none\"",
        ),
        ("namespaces.room.size", "5", "`namespaces.room.size` goes with retention = \"recent\" only"),
        ("namespaces.live.size", "0", "`namespaces.live.size` must be 1 to 100000"),
        (
            "namespaces.typing.history",
            "true",
            "`namespaces.typing.history` is not possible with retention = \"none\"",
        ),
        (
            "origins",
            "app.example",
            "`origins` has \"app.example\"; an origin is a scheme and a host, as in \"https://app.example\"",
        ),
        ("tls.cert", "/nowhere/cert.pem", "`tls.key` is missing; `tls.cert` needs its private key"),
        ("auth.state_secret", "short", "`auth.state_secret` has fewer than 32 characters"),
        (
            "auth.keys",
            r#"[{ algorithm = "HS256", secret = "short" }]"#,
            "`auth.keys` can't be used: an HS256 secret needs 32 bytes, and this one has 5",
        ),
        (
            "auth.keys",
            r#"[{ algorithm = "RS256", secret = "short" }]"#,
            "`auth.keys` need one of `public_key` and `public_key_file`, and no `secret`, unless for HS256",
        ),
        (
            "auth.api_keys",
            r#"[{ id = "shop", sha256 = "abc" }]"#,
            "`auth.api_keys` can't be used: an API key's hash is 64 hexadecimal digits, as `printf %s \"$KEY\" | sha256sum` prints them",
        ),
    ] {
        assert_eq!(flag_error(key, value), error);
    }
}

#[test]
fn development_keys_are_not_for_the_public() {
    let load = |flags: &[(&str, &str)]| Config::load(None, [], pairs(flags)).map(|_| ());
    assert_eq!(
        load(&[("listen.http", "0.0.0.0:8080")]).unwrap_err().to_string(),
        "`listen.http` is 0.0.0.0:8080, which other machines can reach, but no keys are configured, so that the \
         development keys are in use: configure `auth.keys`, listen on 127.0.0.1, or ask for it with \
         --insecure-public-development (`development.allow_public = true`)"
    );
    let keys = format!("[{{ algorithm = \"HS256\", secret = \"{}\" }}]", "x".repeat(32));
    let anonymous = load(&[("listen.tls", "[::]:8443"), ("auth.keys", &keys), ("auth.anonymous", "true")]);
    let anonymous = anonymous.unwrap_err().to_string();
    assert!(anonymous.starts_with(
        "`listen.tls` is [::]:8443, which other machines can reach, but `auth.anonymous` lets clients in without a token:"
    ), "{anonymous}");
    assert_eq!(load(&[("listen.tls", "[::1]:8443"), ("listen.http", "127.0.0.2:1")]), Ok(()));
    assert_eq!(load(&[("listen.http", "0.0.0.0:80"), ("auth.keys", &keys)]), Ok(()));
    assert_eq!(load(&[("listen.http", "0.0.0.0:80"), ("development.allow_public", "true")]), Ok(()));
}

#[test]
fn what_is_shown_has_no_secret_and_can_be_read_again() {
    let secret = "a secret of thirty-two bytes or more";
    let keys = format!("[{{ algorithm = \"HS256\", secret = \"{secret}\" }}]");
    let flags = pairs(&[
        ("auth.keys", &keys),
        ("auth.state_secret", secret),
        ("namespaces.chat.retention", "recent"),
    ]);
    let config = Config::load(None, [], flags).unwrap();
    let shown = config.show();
    assert!(!shown.contains("thirty-two") && !format!("{config:?}").contains("thirty-two"), "{shown}");
    for line in ["http = \"127.0.0.1:8080\"", "secret = \"[redacted]\"", "[namespaces.chat]", "ttl = \"5m\""]
    {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
    let again: Config = toml::from_str(&shown).unwrap();
    assert_eq!((&again.limits, again.namespaces()), (&config.limits, config.namespaces()));
}

#[test]
fn every_key_that_is_shown_is_a_known_one() {
    // The specimen must have what the defaults have, or a default could not be written down.
    let shown = written(&Config::default().show());
    assert!(Config::load(Some(shown.path()), [], []).is_ok());
}

#[test]
fn in_development_the_kept_keys_let_in() {
    let above = tempfile::tempdir().unwrap();
    let directory = above.path().join("data");
    let path = directory.display().to_string();
    let load = |more: &[(&str, &str)]| {
        Config::load(None, [], pairs(&[&[("store.path", &*path)], more].concat())).unwrap()
    };
    let config = load(&[]);
    assert!(!directory.exists(), "loading has written something");
    let access = config.access().unwrap();
    let token = config
        .signer(&AppId::default())
        .unwrap()
        .sign(&Claims { sub: Some("ann".parse().unwrap()), ..Claims::default() });
    let now = std::time::SystemTime::now();
    assert!(access.auth.verifier.verify(&token.unwrap(), now).is_ok());
    let backend = access.auth.api_keys.check(access.dev_keys.unwrap().api_key()).unwrap();
    assert!(backend.rights.allows(Permission::Publish, &"room:a".parse().unwrap()));
    assert!(access.auth.anonymous([127, 0, 0, 1].into()).is_some());

    let keys = format!("[{{ algorithm = \"HS256\", secret = \"{}\" }}]", "x".repeat(32));
    let production = load(&[("auth.keys", &keys)]).access().unwrap();
    assert!(production.dev_keys.is_none() && production.auth.anonymous([127, 0, 0, 1].into()).is_none());
}

#[test]
fn a_key_speaks_for_the_app_that_it_is_configured_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(&format!(
        r#"
        [store]
        path = "{path}"
        [auth]
        state_secret = "{secret}"
        [[auth.keys]]
        algorithm = "HS256"
        secret = "{secret}"
        [[auth.keys]]
        algorithm = "HS256"
        secret = "{other}"
        app = "shop"
        [[auth.api_keys]]
        id = "root"
        sha256 = "{hash}"
        [[auth.api_keys]]
        id = "shop"
        sha256 = "{hash_of_shop}"
        app = "shop"
        "#,
        path = directory.path().display(),
        secret = "x".repeat(32),
        other = "y".repeat(32),
        hash = ApiKey::hash("xpk_root_a"),
        hash_of_shop = ApiKey::hash("xpk_shop_a"),
    ));
    let config = Config::load(Some(file.path()), [], []).unwrap();
    let auth = config.access().unwrap().auth;
    let (shop, game): (AppId, AppId) = ("shop".parse().unwrap(), "game".parse().unwrap());
    for app in [AppId::default(), shop.clone()] {
        let claims = Claims { sub: Some("ann".parse().unwrap()), ..Claims::default() };
        let token = config.signer(&app).unwrap().sign(&claims).unwrap();
        let rights = auth.verifier.verify(&token, std::time::SystemTime::now()).unwrap();
        assert_eq!((rights.app(), rights.user().unwrap().app()), (&app, app.clone()));
    }
    assert!(config.signer(&game).unwrap_err().to_string().contains("no key of the app game"));
    assert!(auth.api_keys.check("xpk_root_a").unwrap().rights.app().is_default());
    assert_eq!(auth.api_keys.check("xpk_shop_a").unwrap().rights.app(), &shop);
    let wrong = r#"[{ algorithm = "HS256", secret = "x", app = "Shop" }]"#;
    assert!(flag_error("auth.keys", wrong).contains("1 to 32 of a-z, 0-9, '-'"));
}
