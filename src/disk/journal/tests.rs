//! How a journal is gone on with, and what the stores' tests ask of theirs.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    path::Path,
};

use fjall::{Database, KeyspaceCreateOptions, PersistMode};

use super::{end, journals, mend};
use crate::disk::open_database;

/// What was written to the newest journal.
pub(crate) fn written(database: &Path) -> Vec<u8> {
    let mut file = File::open(journals(database).unwrap().pop().unwrap()).unwrap();
    let end = end(&mut file).unwrap();
    file.rewind().unwrap();
    let mut written = Vec::new();
    file.take(end).read_to_end(&mut written).unwrap();
    written
}

/// Copies a folder to where a server may find it after a crash. The zeros at a file's end stay on no disk: a journal copied
/// whole is 64 MiB to write, and other tests wait for the disk.
pub(crate) fn crash(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            crash(&entry.path(), &target);
            continue;
        }
        let (mut file, mut copy) = (File::open(entry.path()).unwrap(), File::create(target).unwrap());
        let (len, end) = (file.metadata().unwrap().len(), end(&mut file).unwrap());
        file.rewind().unwrap();
        io::copy(&mut file.take(end), &mut copy).unwrap();
        copy.set_len(len).unwrap();
    }
}

#[test]
fn what_is_appended_and_what_is_written_over_stand_in_one_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut before = Vec::new();
    for start in 0..6_u8 {
        assert_eq!(mend(path).unwrap(), 0);
        // Every other time as where there is no way but to append.
        let appends = start % 2 == 1;
        let db =
            if appends { Database::builder(path).open() } else { open_database(path, 1 << 20, 1) }.unwrap();
        let keyspace = db.keyspace("kept", KeyspaceCreateOptions::default).unwrap();
        for n in 0..3 {
            keyspace.insert([start, n], [n; 100]).unwrap();
            db.persist(PersistMode::SyncData).unwrap();
        }
        let now = written(path);
        assert!(now.len() > before.len() && now.starts_with(&before), "it goes on behind what is there");
        before = now;
        drop((keyspace, db));
        assert_eq!(journals(path).unwrap().len(), 1);
    }
    let db = Database::builder(path).open().unwrap();
    let keyspace = db.keyspace("kept", KeyspaceCreateOptions::default).unwrap();
    let kept: Vec<_> = keyspace.iter().map(|entry| entry.key().unwrap().to_vec()).collect();
    let expected: Vec<_> = (0..6).flat_map(|start| (0..3).map(move |n| vec![start, n])).collect();
    assert_eq!(kept, expected);
}
