//! What fjall doesn't say or do about its journals, where every commit stands before it is acknowledged.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// How much of a file is looked at at once.
const CHUNK: usize = 64 * 1024;

/// How far each journal is written. A new one is made of zeros, and no commit ends with one.
pub(super) struct Written(BTreeMap<PathBuf, u64>);

impl Written {
    /// Before fjall opens the database: at that time it cuts off what doesn't belong to a whole commit, silently.
    pub(super) fn measure(database: &Path) -> io::Result<Self> {
        let mut ends = BTreeMap::new();
        for path in journals(database)? {
            let end = end(&mut File::open(&path)?)?;
            ends.insert(path, end);
        }
        Ok(Self(ends))
    }

    /// After that: how many bytes were cut off.
    pub(super) fn cut_off(&self) -> io::Result<u64> {
        let mut cut = 0;
        for (path, end) in &self.0 {
            match fs::metadata(path) {
                Ok(metadata) => cut += end.saturating_sub(metadata.len()),
                // All of it is in tables by now, so it was whole.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(cut)
    }
}

/// Makes durable what can be read, after a sync that failed.
///
/// The kernel tells of a failed write-back once, and then holds the pages for clean: the next sync would succeed
/// and yet leave them unwritten. (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC
/// 2020.) So every byte is written again, in its place, for which no space is needed.
pub(super) fn rewrite(database: &Path) -> io::Result<()> {
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

fn journals(database: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Behind the last byte that isn't zero.
fn end(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut chunk = vec![0; CHUNK];
    while end > 0 {
        let len = usize::try_from(end).unwrap_or(CHUNK).min(CHUNK);
        file.seek(SeekFrom::Start(end - len as u64))?;
        file.read_exact(&mut chunk[..len])?;
        if let Some(last) = chunk[..len].iter().rposition(|byte| *byte != 0) {
            return Ok(end - len as u64 + last as u64 + 1);
        }
        end -= len as u64;
    }
    Ok(0)
}
