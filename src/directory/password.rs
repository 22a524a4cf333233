//! Passwords: hashed with argon2id, a few at a time, so that a flood of logins leaves the messages their CPU.
//!
//! The parameters are OWASP's: 19 MiB, two passes, one lane. Hashing has threads of its own, at a lower priority, and
//! a line of bounded length before them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, available_parallelism},
    time::Duration,
};

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher as _, PasswordVerifier as _, Version};
use tokio::{sync::oneshot, time::sleep};

use super::{DirectoryError, Result};

/// KiB of memory, passes, lanes.
const MEMORY: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Bytes of a password.
const LENGTH: std::ops::RangeInclusive<usize> = 8..=256;

/// Logins that wait for a thread: at some 30 ms each the last of them waits for two seconds, and who comes then is
/// better told to come again.
const WAITING: usize = 64;

/// After this is told to come again who found no place in the line. Told at once, a flood comes again at once: 128 clients
/// made 12,000 requests a second of it, which took both cores from the messages (measured). So it comes as often as it has
/// connections, and those are counted.
const TURNED_AWAY_AFTER: Duration = Duration::from_secs(1);

/// Nice value of the threads: messages come first wherever both want a core.
const NICE: i32 = 19;

/// What hashes, from its first use on.
#[derive(Default)]
pub(super) struct Passwords {
    line: OnceLock<SyncSender<Work>>,
}

type Work = Box<dyn FnOnce(&Hasher) + Send>;

/// How a password was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Wrong,
    Right,
    /// It is right, and was hashed with parameters that are no longer these: what to keep instead.
    Renewed(String),
}

impl Passwords {
    pub(super) async fn hash(&self, password: &str) -> Result<String> {
        if !LENGTH.contains(&password.len()) {
            let (least, most) = (LENGTH.start(), LENGTH.end());
            return Err(DirectoryError::Invalid(format!("a password has {least} to {most} bytes")));
        }
        let password = password.to_owned();
        self.run(move |hasher| hasher.hash(&password)).await?.ok_or_else(failed)
    }

    /// Checks a password. Without a hash to check against it takes as long, and is wrong.
    pub(super) async fn verify(&self, password: &str, hash: Option<&str>) -> Result<Verdict> {
        // One that can't be is as wrong as any other, and takes as long, whatever its length.
        let end =
            password.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= *LENGTH.end());
        let cut = password[..end.last().unwrap_or(0)].to_owned();
        let is_possible = LENGTH.contains(&password.len());
        let hash = hash.map(str::to_owned);
        self.run(move |hasher| {
            let verdict = hasher.verify(&cut, hash.as_deref());
            if is_possible { verdict } else { Verdict::Wrong }
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Hasher) -> T + Send + 'static) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |hasher| {
            // Who asked may have gone meanwhile; then the work is not done at all.
            if !answer.is_closed() {
                let _ = answer.send(work(hasher));
            }
        });
        match self.line.get_or_init(start).try_send(work) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                sleep(TURNED_AWAY_AFTER).await;
                return Err(DirectoryError::Busy("too many are logging in; try again".into()));
            }
            Err(TrySendError::Disconnected(_)) => return Err(failed()),
        }
        answered.await.map_err(|_| failed())
    }
}

fn failed() -> DirectoryError {
    DirectoryError::Busy("the password could not be hashed; try again".into())
}

/// Half of the cores, one at least. The threads end when the line is dropped.
fn start() -> SyncSender<Work> {
    let threads = (available_parallelism().map_or(1, std::num::NonZero::get) / 2).max(1);
    let (line, waiting) = sync_channel(WAITING);
    let waiting = Arc::new(Mutex::new(waiting));
    for at in 0..threads {
        let waiting = Arc::clone(&waiting);
        let started = thread::Builder::new().name(format!("password-{at}")).spawn(move || serve(&waiting));
        if let Err(error) = started {
            tracing::error!(%error, "a thread for passwords could not be started");
        }
    }
    line
}

fn serve(waiting: &Mutex<Receiver<Work>>) {
    // On Linux a thread has a priority of its own. Where it can't be had, hashing is only limited in number.
    let _ = rustix::process::setpriority_process(None, NICE);
    let Some(hasher) = Hasher::new() else { return };
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(work) = next else { return };
        // The one who waits sees that there is no answer; the others still get theirs.
        let _ = catch_unwind(AssertUnwindSafe(|| work(&hasher)));
    }
}

struct Hasher {
    argon2: Argon2<'static>,
    /// What a password is compared with where there is none.
    dummy: String,
}

impl Hasher {
    fn new() -> Option<Self> {
        let params = Params::new(MEMORY, PASSES, LANES, None).ok()?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let dummy = argon2.hash_password(b"nobody's password").ok()?.to_string();
        Some(Self { argon2, dummy })
    }

    fn hash(&self, password: &str) -> Option<String> {
        Some(self.argon2.hash_password(password.as_bytes()).ok()?.to_string())
    }

    fn verify(&self, password: &str, hash: Option<&str>) -> Verdict {
        let parsed = PasswordHash::new(hash.unwrap_or(&self.dummy));
        let Ok(parsed) = parsed else { return Verdict::Wrong };
        let matches = self.argon2.verify_password(password.as_bytes(), &parsed).is_ok();
        if !matches || hash.is_none() {
            return Verdict::Wrong;
        }
        let wanted = (MEMORY, PASSES, LANES);
        let is_current = parsed.algorithm.as_str() == "argon2id"
            && Params::try_from(&parsed)
                .is_ok_and(|params| (params.m_cost(), params.t_cost(), params.p_cost()) == wanted);
        match is_current.then_some(()).map_or_else(|| self.hash(password), |()| None) {
            Some(renewed) => Verdict::Renewed(renewed),
            None => Verdict::Right,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_right_or_wrong() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_eq!(passwords.verify("correct horse", Some(&hash)).await, Ok(Verdict::Right));
        for wrong in ["correct hors", "", "correct horsf", &"x".repeat(100_000), "ä".repeat(300).as_str()] {
            assert_eq!(passwords.verify(wrong, Some(&hash)).await, Ok(Verdict::Wrong), "{wrong:.20}");
        }
        assert_eq!(passwords.verify("nobody's password", None).await, Ok(Verdict::Wrong));
        assert_eq!(passwords.verify("correct horse", Some("nonsense")).await, Ok(Verdict::Wrong));
        assert!(passwords.hash("short").await.is_err() && passwords.hash(&"x".repeat(257)).await.is_err());
        assert!(passwords.hash(&"x".repeat(256)).await.is_ok());
    }

    #[tokio::test]
    async fn a_hash_of_weaker_parameters_is_renewed() {
        let params = Params::new(8 * 1024, 1, 1, None).unwrap();
        let weaker = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash = weaker.hash_password(b"correct horse").unwrap().to_string();
        let passwords = Passwords::default();
        let Ok(Verdict::Renewed(renewed)) = passwords.verify("correct horse", Some(&hash)).await else {
            panic!("not renewed");
        };
        assert_eq!(passwords.verify("correct horse", Some(&renewed)).await, Ok(Verdict::Right));
        assert_eq!(passwords.verify("correct hors!", Some(&hash)).await, Ok(Verdict::Wrong));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_flood_is_told_to_come_again() {
        let passwords = Arc::new(Passwords::default());
        let tries = (0..WAITING * 3).map(|_| {
            let passwords = Arc::clone(&passwords);
            tokio::spawn(async move { passwords.verify("correct horse", None).await })
        });
        let mut busy = 0;
        for tried in tries.collect::<Vec<_>>() {
            match tried.await.unwrap() {
                Ok(verdict) => assert_eq!(verdict, Verdict::Wrong),
                Err(error) => {
                    assert!(matches!(error, DirectoryError::Busy(_)), "{error}");
                    busy += 1;
                }
            }
        }
        assert!(busy > 0, "all of them were let wait");
    }
}
