//! What a fan-out's sends would cost if io_uring took many of them at once, beside one system call for each.
//!
//!     cargo run --release -p xpush-bench-peers --example sends
//!
//! One message for each of 1,000 sockets on loopback, 50 times a second; the sender on one core, who reads on the other.
//! XPUSH makes one call a connection: what this prints has to be worth a second way to write, with its own errors and
//! partial writes, and memory that the kernel reads while nobody may touch it.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use io_uring::{IoUring, opcode, types::Fd};
use rustix::{
    event::epoll::{self, EventData, EventFlags},
    thread::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

const SOCKETS: usize = 1000;
const ROUNDS: u32 = 250;
const EVERY: Duration = Duration::from_millis(20);
/// A publication of 128 bytes, as a frame.
const MESSAGE: [u8; 220] = [7; 220];
/// Sends of one submission.
const BATCHES: [usize; 3] = [32, 128, 512];

fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    // It reads for as long as the process lives.
    thread::spawn(move || read_all(address));
    pin(0)?;
    let sockets = (0..SOCKETS)
        .map(|_| {
            let (socket, _) = listener.accept()?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    println!("µs a send, of the sender's core:");
    for _ in 0..2 {
        measure("one call each", || {
            for mut socket in &sockets {
                socket.write_all(&MESSAGE)?;
            }
            Ok(())
        })?;
        for batch in BATCHES {
            let mut ring: IoUring = IoUring::builder()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .build(batch as u32)
                .context("the kernel gives no io_uring")?;
            measure(&format!("{batch} a submission"), || {
                sockets.chunks(batch).try_for_each(|sockets| submit(&mut ring, sockets))
            })?;
        }
    }
    Ok(())
}

fn submit(ring: &mut IoUring, sockets: &[TcpStream]) -> anyhow::Result<()> {
    for socket in sockets {
        let send = opcode::Send::new(Fd(socket.as_raw_fd()), MESSAGE.as_ptr(), MESSAGE.len() as u32).build();
        // SAFETY: the message is a constant, and each socket outlives the submission, which is awaited below.
        #[expect(unsafe_code, reason = "io_uring has no safe way to submit")]
        unsafe {
            ring.submission().push(&send)?;
        }
    }
    ring.submit_and_wait(sockets.len())?;
    for done in ring.completion() {
        anyhow::ensure!(done.result() == MESSAGE.len() as i32, "a send gave {}", done.result());
    }
    Ok(())
}

fn measure(what: &str, mut round: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime));
    let (before, began) = (used()?, Instant::now());
    for number in 1..=ROUNDS {
        round()?;
        // Open loop: a slow round is not made up for by a later next one.
        thread::sleep((EVERY * number).saturating_sub(began.elapsed()));
    }
    let cpu = used()? - before;
    println!("{what:>18}: {:.2}", cpu.as_secs_f64() * 1e6 / (SOCKETS as f64 * f64::from(ROUNDS)));
    Ok(())
}

fn read_all(address: SocketAddr) -> anyhow::Result<()> {
    pin(1)?;
    let sockets = (0..SOCKETS).map(|_| TcpStream::connect(address)).collect::<Result<Vec<_>, _>>()?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (number, socket) in sockets.iter().enumerate() {
        epoll::add(&poll, socket, EventData::new_u64(number as u64), EventFlags::IN)?;
    }
    let (mut events, mut buffer) = (Vec::with_capacity(256), vec![0; 64 * 1024]);
    loop {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            if (&sockets[event.data.u64() as usize]).read(&mut buffer)? == 0 {
                return Ok(());
            }
        }
    }
}

fn pin(core: usize) -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}
