//! One Redis server. It keeps nothing on disk unless the arguments say so.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;

use crate::port::Port;
use crate::process::Process;
use crate::resp;

pub struct Redis {
    port: Port,
    process: Process,
}

impl Redis {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With further arguments of `redis-server`, which win over the tests' own: `&["--appendonly", "yes"]`.
    pub async fn with(arguments: &[&str]) -> Self {
        let mut redis = Self::configured("Redis", "", arguments);
        redis.restart().await;
        redis
    }

    /// Not started yet. What stands in the lines, a server may rewrite: Sentinel tells it whom to follow, and it
    /// has to remember that when restarted. An argument would say the old again.
    pub(crate) fn configured(name: &str, lines: &str, arguments: &[&str]) -> Self {
        let port = Port::claim();
        let number = port.number();
        let process = Process::new(format!("{name} on port {number}"), "redis-server", |folder| {
            let file = folder.join("redis.conf");
            let own = format!("port {number}\nbind 127.0.0.1\nsave \"\"\nappendonly no\n{lines}");
            fs::write(&file, own).expect("Redis's configuration is written");
            let arguments = arguments.iter().map(OsString::from);
            [file.into_os_string()].into_iter().chain(arguments).collect()
        });
        Self { port, process }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its connections stay open and nobody answers.
    pub fn pause(&self) {
        self.process.pause();
    }

    pub fn resume(&self) {
        self.process.resume();
    }

    /// Returns when the process is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Neither killed nor paused.
    pub(crate) fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Perhaps paused, not killed.
    pub(crate) fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// On the same port, with the same arguments and folder. Returns when it answers.
    pub async fn restart(&mut self) {
        self.process.spawn();
        self.answers().await;
    }

    /// A cluster's nodes and a set's members start side by side.
    pub(crate) fn spawn(&mut self) {
        self.process.spawn();
    }

    pub(crate) async fn answers(&mut self) {
        let address = self.address();
        let starting = self.process.starting();
        while resp::ask(address, &["PING"]).await.is_err() {
            self.process.not_yet(&starting).await;
        }
    }

    /// Arrays come back as lines, nil as an empty text. Panics when the server refuses or does not answer.
    pub async fn command(&self, words: &[&str]) -> String {
        match resp::ask(self.address(), words).await {
            Ok(reply) => reply,
            Err(error) => panic!("Redis at {} on {words:?}: {error}", self.address()),
        }
    }
}
