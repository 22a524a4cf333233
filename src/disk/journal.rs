//! fjall's journals, where every commit stands before it is acknowledged.
//!
//! fjall cuts a journal off at the first thing in it that it can't read, and doesn't say so; if only a value is
//! wrong, it doesn't open at all. But a commit that a crash cut short, which nobody was promised, is one thing, and
//! a bad byte before commits that were acknowledged is another. So we look before fjall does. Every commit is
//! synced before the next one begins: only the last can be torn, and whatever is whole behind a bad place tells
//! that it isn't the last.
//!
//! The layout is that of fjall's format 3 (`journal/entry.rs` there), in little endian:
//! `1, items: u32, sequence number: u64`, then for each item `2, type: u8, compression: u8, keyspace: u64,
//! key length: u16, value length: u32, stored length: u32, key, stored value` or `4, keyspace: u64`, then
//! `3, xxh3 of the items: u64, "FJL", 3`. A new journal is made of zeros, to be written over.

#[cfg(test)]
pub(crate) mod tests;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3;

use super::{DiskError, handle};

/// As large as fjall makes a new journal.
const NEW_JOURNAL: u64 = 64 * 1024 * 1024;

/// How much of a file is looked at at once.
const CHUNK: usize = 64 * 1024;

/// More than the largest commit: what is unreadable for longer is not a commit that was cut short.
const MAX_TORN: u64 = 256 * 1024 * 1024;

/// Sequence numbers that may follow a commit's. fjall takes some for itself.
const NEXT_SEQUENCE_NUMBERS: u64 = 1 << 20;

/// Cuts off a last commit that isn't whole. Gives how many bytes that were.
pub(crate) fn mend(database: &Path) -> Result<u64, DiskError> {
    let failed = |error: io::Error| DiskError::Open {
        path: database.to_owned(),
        reason: format!("its journal can't be read: {error}"),
    };
    let mut cut = 0;
    let journals = journals(database).map_err(failed)?;
    for (n, path) in journals.iter().enumerate() {
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        let end = end(&mut file).map_err(failed)?;
        let (whole, last) = whole(&mut file, end).map_err(failed)?;
        if whole == end {
            continue;
        }
        let is_torn = n + 1 == journals.len() && !is_followed(&mut file, whole, end, last).map_err(failed)?;
        if !is_torn {
            let path = path.display();
            let reason = format!(
                "{path} can't be read at byte {whole}, though what was written after it is there. Put a backup back. To go on without everything behind that byte, run `truncate -s {whole} {path}`"
            );
            return Err(DiskError::Damaged { reason });
        }
        file.set_len(whole).and_then(|()| file.sync_all()).map_err(failed)?;
        cut += end - whole;
    }
    Ok(cut)
}

/// Makes durable what can be read, after a sync that failed.
///
/// The kernel tells of a failed write-back once, and then holds the pages for clean: the next sync would succeed
/// and yet leave them unwritten. (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC
/// 2020.) So every byte is written again, in its place, for which no space is needed.
pub(crate) fn rewrite(database: &Path) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    for path in journals(database)? {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let end = end(&mut file)?;
        let mut at = 0;
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut chunk[..len])?;
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&chunk[..len])?;
            at += len as u64;
        }
        file.sync_all()?;
    }
    Ok(())
}

/// Makes the journal that fjall goes on with as large as fjall makes a new one, to be written over: where a file grows,
/// each sync writes its size as well, which takes the disk half as long again. fjall does so for new journals only,
/// and a server that has little to write may never come to one.
///
/// fjall appends to a journal that it found, and there is no way to have that otherwise but through a handle of the file
/// that it opened. Nothing may be written meanwhile. Where there is no such handle to be had, fjall goes on appending.
pub(crate) fn preallocate(database: &Path) -> io::Result<()> {
    let Some(path) = journals(database)?.pop() else { return Ok(()) };
    let Some(mut file) = handle::appender(&path)? else { return Ok(()) };
    let len = file.metadata()?.len();
    if len >= NEW_JOURNAL {
        return Ok(());
    }
    // The next write goes to the same place before each of these and after it.
    file.seek(SeekFrom::Start(len))?;
    handle::write_in_place(&file)?;
    file.set_len(NEW_JOURNAL)
}

/// Oldest first; the last is the one that is written to.
pub(crate) fn journals(database: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        let number =
            path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse::<u64>().ok());
        if let Some(number) = number {
            paths.push((number, path));
        }
    }
    paths.sort();
    Ok(paths.into_iter().map(|(_, path)| path).collect())
}

/// Behind the last byte that isn't zero. Most of a journal is zeros, which are on no disk, or are compared chunk by chunk.
fn end(file: &mut File) -> io::Result<u64> {
    let mut end = end_on_disk(file)?;
    let (mut chunk, zeros) = (vec![0; CHUNK], vec![0; CHUNK]);
    while end > 0 {
        let len = usize::try_from(end).unwrap_or(CHUNK).min(CHUNK);
        file.seek(SeekFrom::Start(end - len as u64))?;
        file.read_exact(&mut chunk[..len])?;
        if chunk[..len] != zeros[..len]
            && let Some(last) = chunk[..len].iter().rposition(|byte| *byte != 0)
        {
            return Ok(end - len as u64 + last as u64 + 1);
        }
        end -= len as u64;
    }
    Ok(0)
}

/// Behind the last byte that is on the disk, as far as the file system tells: what is behind that reads as zeros.
#[cfg(target_os = "linux")]
fn end_on_disk(file: &File) -> io::Result<u64> {
    use rustix::{
        fs::{SeekFrom, seek},
        io::Errno,
    };

    let mut end = 0;
    loop {
        match seek(file, SeekFrom::Data(end)) {
            Ok(data) => end = seek(file, SeekFrom::Hole(data))?,
            Err(Errno::NXIO) => return Ok(end),
            Err(Errno::INVAL) => return Ok(file.metadata()?.len()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn end_on_disk(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.len())
}

/// Up to where there are whole commits, numbered upwards, and the number of the last of them.
fn whole(file: &mut File, end: u64) -> io::Result<(u64, Option<u64>)> {
    file.rewind()?;
    let mut input = BufReader::with_capacity(CHUNK, file).take(end);
    let (mut whole, mut last, mut item) = (0, None, Vec::new());
    while let Some(commit) = read_commit(&mut input, &mut item)?
        && follows(&commit, last)
    {
        whole += commit.len;
        last = Some(commit.sequence_number);
    }
    Ok((whole, last))
}

/// Is a later commit whole, though there is none where it should be?
fn is_followed(file: &mut File, whole: u64, end: u64, last: Option<u64>) -> io::Result<bool> {
    if end - whole > MAX_TORN {
        return Ok(true);
    }
    let mut rest = Vec::new();
    file.seek(SeekFrom::Start(whole))?;
    file.take(end - whole).read_to_end(&mut rest)?;
    let mut item = Vec::new();
    if read_commit(&mut &rest[..], &mut item)?.is_some() {
        // It is whole; so its number is wrong, or the one before, which no sum covers.
        return Ok(true);
    }
    for at in (1..rest.len()).filter(|at| rest[*at] == START) {
        // What looks like a commit may stand in a message; then it hasn't the number.
        if read_commit(&mut &rest[at..], &mut item)?.is_some_and(|commit| follows(&commit, last)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn follows(commit: &Commit, last: Option<u64>) -> bool {
    let is_next = |last: u64| commit.sequence_number.wrapping_sub(last + 1) < NEXT_SEQUENCE_NUMBERS;
    last.is_none_or(is_next)
}

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";

struct Commit {
    sequence_number: u64,
    len: u64,
}

/// The commit that begins here; `None` if there is no whole one. `item` is room to read into.
fn read_commit(input: &mut impl Read, item: &mut Vec<u8>) -> io::Result<Option<Commit>> {
    let Some([START, c0, c1, c2, c3, sequence_number @ ..]) = take::<13>(input)? else { return Ok(None) };
    let sequence_number = u64::from_le_bytes(sequence_number);
    let (mut hash, mut len) = (Xxh3::new(), 13);
    for _ in 0..u32::from_le_bytes([c0, c1, c2, c3]) {
        let Some([tag, keyspace @ ..]) = take::<9>(input)? else { return Ok(None) };
        hash.update(&[tag]);
        hash.update(&keyspace);
        len += 9;
        match tag {
            ITEM => {
                // An item's head is longer: what was read so far is the type, the compression, a part of the keyspace.
                let Some(head) = take::<12>(input)? else { return Ok(None) };
                hash.update(&head);
                let [_, _, k0, k1, _, _, _, _, v0, v1, v2, v3] = head;
                let stored =
                    u64::from(u16::from_le_bytes([k0, k1])) + u64::from(u32::from_le_bytes([v0, v1, v2, v3]));
                item.clear();
                // It grows as it is read, so a wrong length costs no memory.
                if input.take(stored).read_to_end(item)? as u64 != stored {
                    return Ok(None);
                }
                hash.update(item);
                len += 12 + stored;
            }
            CLEAR => {}
            _ => return Ok(None),
        }
    }
    let Some([END, sum @ .., t0, t1, t2, t3]) = take::<13>(input)? else { return Ok(None) };
    let is_whole = [t0, t1, t2, t3] == TRAILER && sum == hash.digest().to_le_bytes();
    Ok(is_whole.then_some(Commit { sequence_number, len: len + 13 }))
}

fn take<const N: usize>(input: &mut impl Read) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match input.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
