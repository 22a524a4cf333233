//! What a WebSocket's own buffers would do, for all connections of a thread at once: a buffer in each has to be small, or
//! ten thousand idle connections pay for it, and then a large frame takes a hundred system calls.
//!
//! The stream is read in large pieces by whoever asks for small ones. Frames are joined to one write; of what the stream
//! does not take at once, nothing else can come in between.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use xpush_protocol::Codec;

use super::stream::Stream;
use crate::Outgoing;

/// Read at once. It bounds what one connection has read and not taken.
const AHEAD: usize = 16 * 1024;

/// Frames of one write are joined up to this size: fewer calls, and what one slow connection can hold beside its largest
/// frame.
const JOINED: usize = 32 * 1024;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; AHEAD].into());
    static WRITTEN: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(JOINED));
}

#[derive(Debug)]
pub(super) struct Buffered {
    stream: Stream,
    /// What was read and not asked for yet; mostly nothing.
    ahead: Option<Box<Bytes>>,
    /// What was accepted and not written yet; mostly nothing. Empty: the stream itself keeps something back.
    behind: Option<Box<Bytes>>,
}

impl Buffered {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, ahead: None, behind: None }
    }

    /// Whether something that was accepted waits for `poll_flush`.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// Writes as many of these frames as go together, at least one, each as a whole message of a server (RFC 6455, 5.2:
    /// not masked), and gives how many. This must not be behind, and is afterwards if the stream did not take all of it.
    pub(super) fn write_frames(&mut self, frames: &[Outgoing]) -> io::Result<usize> {
        WRITTEN.with_borrow_mut(|joined| {
            joined.clear();
            let mut count = 0;
            for Outgoing { bytes, .. } in frames {
                if count > 0 && joined.len() + bytes.len() > JOINED {
                    break;
                }
                put_header(joined, opcode(bytes), bytes.len());
                joined.extend_from_slice(bytes);
                count += 1;
            }
            let written = self.write_now(joined);
            if joined.capacity() > 2 * JOINED {
                *joined = Vec::with_capacity(JOINED);
            }
            written.map(|()| count)
        })
    }

    /// Writes all of it as far as the stream takes it at once; the rest waits for `poll_flush`.
    fn write_now(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        debug_assert!(self.behind.is_none(), "it was flushed");
        let would_block = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        while !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if would_block(&error) => {
                    self.behind = Some(Box::new(Bytes::copy_from_slice(bytes)));
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        match self.stream.try_flush() {
            Err(error) if would_block(&error) => {
                self.behind = Some(Box::default());
                Ok(())
            }
            flushed => flushed,
        }
    }

    pub(super) fn poll_behind(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(behind) = &mut self.behind else { return Poll::Ready(Ok(())) };
        while !behind.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, behind))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            behind.advance(written);
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.behind = None;
        Poll::Ready(Ok(()))
    }
}

/// Of a message.
#[derive(Debug, Clone, Copy)]
enum Opcode {
    Text = 1,
    Binary = 2,
}

/// The frame's own first byte tells what kind of message it is. Text is not checked again: it is our own JSON.
fn opcode(frame: &[u8]) -> Opcode {
    match Codec::detect(frame) {
        Codec::Json => Opcode::Text,
        Codec::MessagePack => Opcode::Binary,
    }
}

fn put_header(to: &mut Vec<u8>, opcode: Opcode, length: usize) {
    const FIN: u8 = 0x80;
    to.push(FIN | opcode as u8);
    match length {
        0..126 => to.push(length as u8),
        126..0x1_0000 => {
            to.push(126);
            to.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            to.push(127);
            to.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

impl AsyncRead for Buffered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, ahead, .. } = self.get_mut();
        let Some(rest) = ahead else {
            return READ.with_borrow_mut(|shared| {
                let mut read = ReadBuf::new(shared);
                ready!(Pin::new(stream).poll_read(cx, &mut read))?;
                let (wanted, rest) = read.filled().split_at(read.filled().len().min(buf.remaining()));
                buf.put_slice(wanted);
                *ahead = (!rest.is_empty()).then(|| Box::new(Bytes::copy_from_slice(rest)));
                Poll::Ready(Ok(()))
            });
        };
        let wanted = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..wanted]);
        rest.advance(wanted);
        if rest.is_empty() {
            *ahead = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Buffered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_behind(cx))?;
        // All of it: a frame that is cut might have another one in its middle.
        self.write_now(bytes)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_behind(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_behind(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter},
        net::{TcpListener, TcpSocket, TcpStream},
    };

    use super::*;
    use crate::Lane;

    async fn pair(over: fn(TcpStream) -> Stream) -> (TcpStream, Buffered) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpSocket::new_v4().unwrap();
        // Less than the kernel would take by itself.
        near.set_send_buffer_size(16 * 1024).unwrap();
        let near = near.connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, Buffered::new(over(near)))
    }

    /// Keeps bytes back until it is flushed, as TLS may.
    fn reluctant(socket: TcpStream) -> Stream {
        Stream::Other(Box::new(BufWriter::new(socket)))
    }

    #[tokio::test]
    async fn what_is_taken_in_small_pieces_is_what_was_sent_and_nothing_is_kept() {
        let (mut far, mut near) = pair(Stream::tcp).await;
        let sent: Vec<u8> = (0..5 * AHEAD + 3).map(|n| (n % 251) as u8).collect();
        let sending = async {
            far.write_all(&sent).await.unwrap();
            far.shutdown().await.unwrap();
        };
        let receiving = async {
            let (mut received, mut piece) = (Vec::new(), [0; 100]);
            loop {
                match near.read(&mut piece).await.unwrap() {
                    0 => return received,
                    read => received.extend_from_slice(&piece[..read]),
                }
                assert!(near.ahead.as_ref().is_none_or(|ahead| ahead.len() <= AHEAD));
            }
        };
        let ((), received) = tokio::join!(sending, receiving);
        assert!(received == sent);
        assert!(near.ahead.is_none());
    }

    #[tokio::test]
    async fn frames_arrive_whole_and_in_order_however_little_the_peer_takes_at_once() {
        for over in [Stream::tcp, reluctant] {
            frames_arrive(over).await;
        }
    }

    async fn frames_arrive(over: fn(TcpStream) -> Stream) {
        let (mut far, mut near) = pair(over).await;
        let lengths = [2, 1, 125, 126, 65_535, 65_536, 1_000_000, 5, 20_000, 20_000, 3];
        // As MessagePack begins.
        let byte = |n: usize| 0x80 | n as u8;
        let frame = |n: usize| Outgoing { bytes: vec![byte(n); lengths[n]].into(), lane: Lane::Control };
        let sending = async move {
            let frames: Vec<_> = (0..lengths.len()).map(frame).collect();
            let (mut written, mut waited) = (0, false);
            while written < frames.len() {
                written += near.write_frames(&frames[written..]).unwrap();
                waited |= near.is_behind();
                poll_fn(|cx| Pin::new(&mut near).poll_flush(cx)).await.unwrap();
            }
            assert!(waited, "a megabyte went into the kernel at once");
        };
        let receiving = async {
            for (n, length) in lengths.into_iter().enumerate() {
                assert_eq!(far.read_u8().await.unwrap(), 0x82);
                let told = match far.read_u8().await.unwrap() {
                    126 => far.read_u16().await.unwrap() as usize,
                    127 => far.read_u64().await.unwrap() as usize,
                    short => short as usize,
                };
                assert_eq!(told, length);
                let mut frame = vec![0; length];
                far.read_exact(&mut frame).await.unwrap();
                assert!(frame.iter().all(|read| *read == byte(n)));
            }
        };
        tokio::join!(sending, receiving);
    }
}
