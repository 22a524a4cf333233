use fjall::{Database, KeyspaceCreateOptions, PersistMode};

use super::{journals, mend, written};
use crate::disk::open_database;

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
