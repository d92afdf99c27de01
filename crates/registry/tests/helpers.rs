//! Credential helpers as docker runs them: programs on PATH. A process of its own, as it changes
//! PATH.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    env, fs,
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use registry::Credentials;

fn helper(folder: &Path, name: &str, script: &str) {
    let path = folder.join(format!("docker-credential-{name}"));
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
}

/// Runs a test of this file again, alone and with that PATH.
fn again(test: &str, path: PathBuf) {
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("PATH", env::join_paths([path, "/usr/bin".into(), "/bin".into()]).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn helpers_are_asked_as_docker_asks_them() {
    let folder = tempfile::tempdir().unwrap();
    // What it was asked stands in the user's name.
    let script =
        r#"read server; echo "{\"ServerURL\":\"x\",\"Username\":\"$1 $server\",\"Secret\":\"s\"}""#;
    helper(folder.path(), "echo", script);
    helper(folder.path(), "empty", "echo credentials not found in native keychain; exit 1");
    helper(folder.path(), "broken", "echo SECRET; exit 3");
    helper(folder.path(), "babble", "echo SECRET");
    again("with_helpers_on_path", folder.path().to_owned());
}

#[test]
#[ignore = "run by helpers_are_asked_as_docker_asks_them"]
fn with_helpers_on_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let json = r#"{"credsStore": "empty", "credHelpers": {
        "a.example:5000": "echo", "https://index.docker.io/v1/": "echo",
        "broken.example": "broken", "babble.example": "babble"}}"#;
    fs::write(&path, json).unwrap();
    let of = |registry: &str| Credentials::of_docker_user(&path, registry);
    assert!(of("other.example").unwrap().is_empty());
    for registry in ["a.example:5000", "docker.io"] {
        assert!(!of(registry).unwrap().is_empty(), "{registry}");
    }
    for registry in ["broken.example", "babble.example"] {
        let error = of(registry).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
        assert!(error.to_string().contains(&format!("{registry} needs")), "{error}");
    }
}
