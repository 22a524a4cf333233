//! Runs a command beside one Redis, one MongoDB and one ZooKeeper, which end with it: tests that start the program
//! alone start it as a node of a cluster then.
//!
//!     xpush-test-servers cargo test --test server
//!
//! How is told in the environment: a variable that begins with `XPUSH_TEST_NODE_` is one of the node's own, under
//! `XPUSH_`; `XPUSH_TEST_KEYS` names the keys in its `auth`, in the form of development keys. What keeps one test's
//! node from another's (`redis.prefix`, `mongodb.database`, `zookeeper.root`) is for who starts it to choose.

use std::{
    env, fs,
    path::Path,
    process::{Command, ExitCode},
};

use xpush_test_servers::{Mongo, Redis, ZooKeeper};

const TOKEN_SECRET: &str = "what signs tokens in tests with shared stores";
const STATE_SECRET: &str = "what seals state in tests with shared stores";
const API_KEY: &str = "xpk_dev_of-tests-with-shared-stores";
/// Its SHA-256.
const API_KEY_HASH: &str = "38973759deb19dac9d0b35f20f75704995bd55dd080d818f0dc2a1f3d16f3708";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut words = env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!("xpush-test-servers: name the command that the servers are started for");
        return ExitCode::from(2);
    };
    let (redis, mongo, zookeeper) = tokio::join!(Redis::start(), Mongo::start(1), ZooKeeper::start(1));
    let folder = tempfile::tempdir().expect("a folder for the keys");
    let keys = folder.path().join("dev-keys.toml");
    write_keys(&keys);
    // Whoever kills this process ends the command too: its servers are gone.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "TERM"])
        .arg(&program)
        .args(words)
        .env("XPUSH_TEST_KEYS", &keys)
        .env("XPUSH_TEST_NODE_NODE__NAME", "n1")
        .env("XPUSH_TEST_NODE_REDIS__URL", redis.url())
        .env("XPUSH_TEST_NODE_MONGODB__URL", mongo.url())
        .env("XPUSH_TEST_NODE_ZOOKEEPER__SERVERS", zookeeper.connect_string())
        .env("XPUSH_TEST_NODE_AUTH__ANONYMOUS", "true")
        .env("XPUSH_TEST_NODE_AUTH__STATE_SECRET", STATE_SECRET)
        .env(
            "XPUSH_TEST_NODE_AUTH__KEYS",
            format!(r#"[{{ algorithm = "HS256", secret = "{TOKEN_SECRET}" }}]"#),
        )
        .env("XPUSH_TEST_NODE_AUTH__API_KEYS", format!(r#"[{{ id = "dev", sha256 = "{API_KEY_HASH}" }}]"#))
        .status();
    match status {
        // What a signal ended has no code.
        Ok(status) => status.code().map_or(ExitCode::FAILURE, |code| ExitCode::from(code as u8)),
        Err(error) => {
            eprintln!("xpush-test-servers: can't run {}: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}

fn write_keys(file: &Path) {
    let keys = [("token_secret", TOKEN_SECRET), ("state_secret", STATE_SECRET), ("api_key", API_KEY)];
    let text: String = keys.iter().map(|(name, text)| format!("{name} = \"{text}\"\n")).collect();
    fs::write(file, text).expect("the keys are written");
}
