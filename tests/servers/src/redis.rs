//! One Redis server. It keeps nothing on disk unless the arguments say so.

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
        let port = Port::claim();
        let process = Process::new(format!("Redis on port {}", port.number()), "redis-server", |_| {
            let own = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"];
            let mut all: Vec<String> = own.iter().map(|word| word.to_string()).collect();
            all.push(port.number().to_string());
            all.extend(arguments.iter().map(|word| word.to_string()));
            all
        });
        let mut redis = Self { port, process };
        redis.restart().await;
        redis
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

    /// On the same port, with the same arguments and folder. Returns when it answers.
    pub async fn restart(&mut self) {
        self.process.spawn();
        let address = self.address();
        self.process.answers(async || resp::ask(address, &["PING"]).await.is_ok()).await;
    }

    /// Arrays come back as lines, nil as an empty text. Panics when the server refuses or does not answer.
    pub async fn command(&self, words: &[&str]) -> String {
        match resp::ask(self.address(), words).await {
            Ok(reply) => reply,
            Err(error) => panic!("Redis at {} on {words:?}: {error}", self.address()),
        }
    }
}
