//! `docs/PARITY.md` names the test of every feature: it must be there.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Rows of the table of what XPUSH could.
const ROWS: usize = 26;

/// Where tests are.
const ROOTS: [&str; 6] = ["src", "protocol", "transports", "tests", "client-js/test", "client-js/src"];

#[test]
fn every_row_of_the_parity_table_names_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources: Vec<String> = ROOTS.iter().flat_map(|folder| texts(root.join(folder))).collect();
    let table = fs::read_to_string(root.join("docs/PARITY.md")).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), ROWS);
    for row in rows {
        let [feature, place, shown] = row[..] else { panic!("three columns: {row:?}") };
        assert!(!feature.is_empty() && !place.is_empty(), "{row:?}");
        let tests: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        if shown.starts_with("later issue") && tests.is_empty() {
            continue;
        }
        assert!(!tests.is_empty(), "{feature}: no test");
        for test in tests {
            let forms = [format!("fn {test}("), format!("test(\"{test}\""), format!("\"\"\"{test}")];
            let is_there = root.join(test).is_file()
                || sources.iter().any(|source| forms.iter().any(|form| source.contains(form)));
            assert!(is_there, "{feature}: there is no test `{test}`");
        }
    }
}

/// Of the sources in a folder and those within it.
pub(crate) fn texts(folder: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            let is_source =
                path.extension().is_some_and(|kind| ["rs", "ts", "mjs"].iter().any(|k| kind == *k));
            match path.is_dir() {
                true => texts(path),
                false if is_source => vec![fs::read_to_string(&path).unwrap()],
                false => vec![],
            }
        })
        .collect()
}
