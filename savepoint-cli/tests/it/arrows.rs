//! A broken engine must leave a readable savepoint, so the command never imports it, nor a connector.

#[test]
fn the_command_imports_neither_engine_nor_connectors() {
    let manifest = include_str!("../../Cargo.toml");
    let imports = |name: &str| manifest.lines().any(|line| line.trim_start().starts_with(name));
    assert!(imports("statebackend"), "the search finds what is there");
    for foreign in ["engine", "connectors", "tidegate ", "tidegate.", "chaos-tests", "benches"] {
        assert!(!imports(foreign), "Cargo.toml imports {foreign}");
    }
}
