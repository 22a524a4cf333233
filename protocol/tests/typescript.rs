#![cfg(feature = "typescript")]
//! client-js is built on the declarations that the Rust types give.

#[test]
fn the_committed_typescript_is_what_the_rust_types_give() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../client-js/src/wire.ts");
    let declarations = xpush_protocol::typescript::declarations();
    if std::env::var_os("XPUSH_BLESS").is_some() {
        std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
        std::fs::write(path, &declarations).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == declarations,
        "client-js/src/wire.ts is stale: run XPUSH_BLESS=1 cargo test -p xpush-protocol --features typescript"
    );
}
