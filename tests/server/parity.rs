//! `docs/PARITY.md` names the test of every feature: it must be there, and run on both kinds of stores.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Rows of the table of what XPUSH could.
const ROWS: usize = 26;

/// Where tests are.
const ROOTS: [&str; 6] = ["src", "protocol", "transports", "tests", "client-js/test", "client-js/src"];

/// Starts the servers that its nodes share itself.
const HAS_A_CLUSTER: &str = "moves";

/// What `tests/run` runs on shared stores, of `tests/server`.
fn on_shared_stores(root: &Path) -> Vec<String> {
    let script = fs::read_to_string(root.join("tests/run")).unwrap();
    let list = script.lines().find_map(|line| line.strip_prefix("over_http=(")).unwrap();
    list.trim_end_matches(')').split_whitespace().map(|word| word.trim_end_matches(':').to_owned()).collect()
}

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
    let shared = on_shared_stores(root);
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
            let over_http =
                fs::read_dir(root.join("tests/server")).unwrap().map(|entry| entry.unwrap().path());
            for file in over_http {
                let module = file.file_stem().unwrap().to_str().unwrap();
                let has_it = fs::read_to_string(&file).unwrap().contains(&format!("fn {test}("));
                let runs = module == HAS_A_CLUSTER || shared.iter().any(|shared| shared == module);
                assert!(!has_it || runs, "{feature}: `{test}` does not run on shared stores");
            }
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
