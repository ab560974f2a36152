//! Wrong settings end a command with a sentence that names them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use crate::world::{Dev, Folder, Said};

#[test]
fn variables_that_can_not_be_used_are_named() {
    let folder = Folder::new();
    let bad = || OsString::from_vec(b"x\xff".to_vec());
    let with = |name: &str, value: OsString, arguments: &[&str]| {
        Said::of(
            folder
                .command(arguments)
                .env(name, value)
                .output()
                .expect("started"),
        )
    };
    for name in ["HODEI_SERVER", "HODEI_TOKEN", "HODEI_NAMESPACE"] {
        with(name, bad(), &["job", "list"]).fails(2, &[name, "not UTF-8"]);
        with(name, bad(), &["run", "--", "true"]).fails(125, &[name, "not UTF-8"]);
    }
    for value in ["bogus===".into(), bad()] {
        let said = with("HODEI_LOG", value, &["run", "--local", "--", "true"]);
        said.fails(125, &["HODEI_LOG: `", "write info, debug"]);
    }
    let said = with(
        "HODEI_CONFIG",
        "/nowhere.toml".into(),
        &["run", "--local", "--", "true"],
    );
    said.fails(125, &["/nowhere.toml", "can not be read"]);
}

#[test]
fn a_token_file_that_was_removed_is_named() {
    let dev = Dev::start();
    dev.hodei(&["job", "list"]).ok();
    let file = dev.folder.path().join("admin.token");
    std::fs::remove_file(&file).expect("there");
    dev.hodei(&["job", "list"])
        .fails(1, &[&file.to_string_lossy(), "is missing", "HODEI_TOKEN"]);
}

#[test]
fn without_a_server_the_ways_out_are_named() {
    Folder::new()
        .hodei(&["run", "--", "true"])
        .fails(125, &["--local", "hodei dev", "HODEI_SERVER"]);
}

#[test]
fn empty_values_are_refused_with_flag_value_and_rule() {
    let folder = Folder::new();
    for flag in [
        "--name",
        "--image",
        "--workdir",
        "--provider",
        "--env",
        "--label",
        "--constraint",
    ] {
        let said = folder.hodei(&["job", "submit", flag, "", "--", "true"]);
        assert!(
            said.stderr.contains("``") || said.stderr.contains("''"),
            "{said:?}"
        );
        said.fails(2, &[flag]);
    }
}
