//! A ZooKeeper ensemble with short ticks, so that sessions end and leaders change within seconds.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::port::Port;
use crate::process::Process;
use crate::until::Wait;

/// Debian's; the manifest of the first names the rest. The second makes its log readable.
const CLASS_PATH: &str = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar";

/// A paused server accepts and stays silent.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

pub struct ZooKeeper {
    members: Vec<Member>,
}

struct Member {
    ports: Ports,
    process: Process,
}

struct Ports {
    client: Port,
    quorum: Port,
    election: Port,
}

impl ZooKeeper {
    /// Returns when every member serves.
    pub async fn start(members: usize) -> Self {
        assert!(Path::new("/usr/share/java/zookeeper.jar").exists(), "ZooKeeper is missing: run ./tests/run");
        let ports: Vec<Ports> = (0..members)
            .map(|_| Ports { client: Port::claim(), quorum: Port::claim(), election: Port::claim() })
            .collect();
        let mut ensemble = String::new();
        if members > 1 {
            for (at, ports) in ports.iter().enumerate() {
                let (quorum, election) = (ports.quorum.number(), ports.election.number());
                let _ = writeln!(ensemble, "server.{}=127.0.0.1:{quorum}:{election}", at + 1);
            }
        }
        let members = ports
            .into_iter()
            .enumerate()
            .map(|(at, ports)| Member { process: process(at, &ports, &ensemble), ports })
            .collect();
        let mut zookeeper = Self { members };
        zookeeper.restart_all().await;
        zookeeper
    }

    /// As the clients take it: `127.0.0.1:p1,127.0.0.1:p2`.
    pub fn connect_string(&self) -> String {
        let addresses: Vec<String> = self.members.iter().map(|member| member.address().to_string()).collect();
        addresses.join(",")
    }

    pub fn address(&self, member: usize) -> SocketAddr {
        self.members[member].address()
    }

    /// Waits until there is one.
    pub async fn leader(&self) -> usize {
        let elected = Wait::until("ZooKeeper to have a leader");
        loop {
            for (at, member) in self.members.iter().enumerate() {
                // A paused member would cost the whole limit of an answer.
                if member.process.is_running()
                    && let Some("leader" | "standalone") = mode(member.address()).await.as_deref()
                {
                    return at;
                }
            }
            elected.more().await;
        }
    }

    /// Returns when the process is gone.
    pub fn kill(&mut self, member: usize) {
        self.members[member].process.kill();
    }

    /// Returns when it serves, or, where too few members run for that, when it listens.
    pub async fn restart(&mut self, member: usize) {
        self.members[member].process.spawn();
        self.serves(member).await;
    }

    /// Its connections stay open and nobody answers.
    pub fn pause(&self, member: usize) {
        self.members[member].process.pause();
    }

    pub fn resume(&self, member: usize) {
        self.members[member].process.resume();
    }

    pub fn kill_all(&mut self) {
        for member in &mut self.members {
            member.process.kill();
        }
    }

    /// Returns when every member serves.
    pub async fn restart_all(&mut self) {
        for member in &mut self.members {
            member.process.spawn();
        }
        for member in 0..self.members.len() {
            self.serves(member).await;
        }
    }

    async fn serves(&mut self, member: usize) {
        let running = self.members.iter().filter(|member| member.process.is_running()).count();
        let may_serve = running > self.members.len() / 2;
        let address = self.address(member);
        let process = &mut self.members[member].process;
        let starting = process.starting();
        loop {
            let ready = if may_serve {
                mode(address).await.is_some()
            } else {
                four_letters(address, "srvr").await.is_ok()
            };
            if ready {
                return;
            }
            process.not_yet(&starting).await;
        }
    }
}

impl Member {
    fn address(&self) -> SocketAddr {
        self.ports.client.address()
    }
}

fn process(at: usize, ports: &Ports, ensemble: &str) -> Process {
    let client = ports.client.number();
    Process::new(format!("ZooKeeper {at} on port {client}"), "java", |folder| {
        let data = folder.join("data");
        fs::create_dir(&data).expect("a folder for ZooKeeper's data");
        fs::write(data.join("myid"), (at + 1).to_string()).expect("ZooKeeper's id is written");
        let file = folder.join("zoo.cfg");
        fs::write(&file, configuration(&data, client, ensemble))
            .expect("ZooKeeper's configuration is written");
        [
            "-Xmx96m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dzookeeper.admin.enableServer=false",
            "-Dzookeeper.forceSync=no",
            // An election that met a dead member would otherwise be asked for again after up to a minute.
            "-Dzookeeper.fastleader.maxNotificationInterval=1000",
            "-cp",
            CLASS_PATH,
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        ]
        .into_iter()
        .map(Into::into)
        .chain([file.into_os_string()])
        .collect::<Vec<_>>()
    })
}

/// The limits are counted in ticks: 2 s to follow, 6 s to join, of which a busy machine needs a part.
fn configuration(data: &Path, client: u16, ensemble: &str) -> String {
    format!(
        "tickTime=200\ninitLimit=30\nsyncLimit=10\nminSessionTimeout=400\nmaxSessionTimeout=120000\n\
         maxClientCnxns=0\n4lw.commands.whitelist=*\ndataDir={}\n\
         clientPortAddress=127.0.0.1\nclientPort={client}\n{ensemble}",
        data.display()
    )
}

/// What the server says it is: `leader`, `follower` or `standalone`. Absent while it does not serve.
async fn mode(server: SocketAddr) -> Option<String> {
    let answer = four_letters(server, "srvr").await.ok()?;
    let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "))?;
    Some(mode.trim().to_owned())
}

/// ZooKeeper's administrative commands: four letters in, text out, end of the connection.
async fn four_letters(server: SocketAddr, word: &str) -> io::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(word.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    tokio::time::timeout(ANSWER_LIMIT, exchange).await?
}
