//! A replica set of MongoDB with short elections. Also one member is a set, for without one there are neither
//! transactions nor majorities.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, ServerAddress};

use crate::port::Port;
use crate::process::Process;
use crate::until::Wait;

/// Beside the workspace's own files, where `tests/run` installs it. It is under the SSPL, so nothing of it is ours
/// to commit or to ship.
const INSTALLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.mongo/fiftyone/db/bin/mongod");

/// A paused member accepts and stays silent.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

pub struct Mongo {
    members: Vec<Member>,
}

struct Member {
    port: Port,
    process: Process,
}

impl Mongo {
    /// Returns when the set has a primary that takes writes and every other member follows it.
    pub async fn start(members: usize) -> Self {
        let program = mongod();
        let members = (0..members)
            .map(|at| {
                let port = Port::claim();
                Member { process: process(at, &port, &program), port }
            })
            .collect();
        let mut set = Self { members };
        for member in &mut set.members {
            member.process.spawn();
        }
        for member in &mut set.members {
            let starting = member.process.starting();
            while hello(member.port.address()).await.is_none() {
                member.process.not_yet(&starting).await;
            }
        }
        set.initiate().await;
        set.primary().await;
        set.settled().await;
        set
    }

    pub fn url(&self) -> String {
        let addresses: Vec<String> =
            self.members.iter().map(|member| member.port.address().to_string()).collect();
        format!("mongodb://{}/?replicaSet=rs0", addresses.join(","))
    }

    pub fn port(&self, member: usize) -> u16 {
        self.members[member].port.number()
    }

    pub fn address(&self, member: usize) -> SocketAddr {
        self.members[member].port.address()
    }

    /// Waits until there is one.
    pub async fn primary(&self) -> usize {
        let elected = Wait::until("MongoDB to have a primary");
        loop {
            let mut claims = Vec::new();
            for (at, member) in self.members.iter().enumerate() {
                // A paused member would cost the whole limit of an answer.
                if member.process.is_running()
                    && let Some(answer) = hello(member.port.address()).await
                    && says(&answer, "isWritablePrimary")
                {
                    claims.push((answer.get_object_id("electionId").ok(), at));
                }
            }
            // A primary that was paused claims to be one still, until it hears of the later election.
            if let Some((_, at)) = claims.into_iter().max() {
                return at;
            }
            elected.more().await;
        }
    }

    /// Returns when the process is gone.
    pub fn kill(&mut self, member: usize) {
        self.members[member].process.kill();
    }

    /// Returns when it follows or leads, and, where enough members run for that, there is a primary.
    pub async fn restart(&mut self, member: usize) {
        self.members[member].process.spawn();
        self.stands(member).await;
        if self.has_majority() {
            self.primary().await;
        }
    }

    /// Its connections stay open and nobody answers.
    pub fn pause(&self, member: usize) {
        self.members[member].process.pause();
    }

    pub fn resume(&self, member: usize) {
        self.members[member].process.resume();
    }

    pub fn pause_all(&self) {
        for member in &self.members {
            member.process.pause();
        }
    }

    pub fn resume_all(&self) {
        for member in &self.members {
            member.process.resume();
        }
    }

    pub fn kill_all(&mut self) {
        for member in &mut self.members {
            member.process.kill();
        }
    }

    /// Returns when there is a primary and every other member follows it.
    pub async fn restart_all(&mut self) {
        for member in &mut self.members {
            member.process.spawn();
        }
        self.primary().await;
        self.settled().await;
    }

    async fn initiate(&self) {
        let members: Vec<Document> = self
            .members
            .iter()
            .enumerate()
            .map(|(at, member)| doc! { "_id": at as i32, "host": member.port.address().to_string() })
            .collect();
        let settings = doc! { "electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 200 };
        let set = doc! { "_id": "rs0", "members": members, "settings": settings };
        let first = self.members[0].port.address();
        let answer = direct(first).database("admin").run_command(doc! { "replSetInitiate": set }).await;
        answer.unwrap_or_else(|error| panic!("MongoDB at {first} refuses to found a replica set: {error}"));
    }

    async fn settled(&mut self) {
        for member in 0..self.members.len() {
            self.stands(member).await;
        }
    }

    async fn stands(&mut self, member: usize) {
        let address = self.address(member);
        let process = &mut self.members[member].process;
        let starting = process.starting();
        loop {
            if let Some(answer) = hello(address).await
                && (says(&answer, "isWritablePrimary") || says(&answer, "secondary"))
            {
                return;
            }
            process.not_yet(&starting).await;
        }
    }

    fn has_majority(&self) -> bool {
        let running = self.members.iter().filter(|member| member.process.is_running()).count();
        running > self.members.len() / 2
    }
}

fn mongod() -> PathBuf {
    let program = env::var_os("XPUSH_TEST_MONGOD").map_or_else(|| PathBuf::from(INSTALLED), PathBuf::from);
    assert!(
        program.exists(),
        "no mongod at {}: run ./tests/run, which installs it, or name one in XPUSH_TEST_MONGOD",
        program.display()
    );
    program
}

fn process(at: usize, port: &Port, program: &Path) -> Process {
    Process::new(format!("MongoDB {at} on port {}", port.number()), program, |folder| {
        let mut arguments: Vec<String> = [
            "--replSet",
            "rs0",
            "--bind_ip",
            "127.0.0.1",
            // A journal of MongoDB's usual size takes longer to lay out than a test to run.
            "--wiredTigerEngineConfigString",
            "log=(file_max=2MB,prealloc=false)",
            "--setParameter",
            "diagnosticDataCollectionEnabled=false",
            // What has expired goes within a second, where it would take a minute.
            "--setParameter",
            "ttlMonitorSleepSecs=1",
            // It begins to write back at a twentieth of this.
            "--wiredTigerCacheSizeGB",
            "4",
        ]
        .map(str::to_owned)
        .into();
        arguments.extend(["--port".to_owned(), port.number().to_string()]);
        arguments.extend(["--dbpath".to_owned(), folder.display().to_string()]);
        // Otherwise every connection of the tests takes lines of its log.
        arguments.push("--quiet".to_owned());
        // Without this, it leaves a socket in the machine's own folder.
        arguments.push("--nounixsocket".to_owned());
        arguments
    })
}

/// What a member says of itself. Absent while it does not answer.
async fn hello(member: SocketAddr) -> Option<Document> {
    direct(member).database("admin").run_command(doc! { "hello": 1 }).await.ok()
}

fn says(answer: &Document, what: &str) -> bool {
    answer.get_bool(what).unwrap_or(false)
}

/// One member, whatever its place in the set. Made anew for each question: a client belongs to the runtime that
/// it was made in, and a set may serve the tests of several.
fn direct(member: SocketAddr) -> Client {
    let address = ServerAddress::Tcp { host: member.ip().to_string(), port: Some(member.port()) };
    let options = ClientOptions::builder()
        .hosts(vec![address])
        .direct_connection(true)
        .server_selection_timeout(ANSWER_LIMIT)
        .connect_timeout(ANSWER_LIMIT)
        .build();
    Client::with_options(options).expect("the options of a direct connection are valid")
}
