//! Modules whose files are hashed while their code, compiled earlier, is at work: nothing of an
//! altered file is believed, and nothing of damaged code.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use claims::{Digest, SignedModule, VerifyError, sign};
use common::{ECHO, LONG, call, guest_with, issuer, policy, statement};
use host::{
    Host, Instance, LoadError, LoadOptions,
    provider::{ActorService as _, CallError},
};

// 6 KB, which is found again in the file of compiled code.
const WEIGHTS: &str = "the weights of a model, ";

/// Echoes, and carries weights.
fn module() -> Vec<u8> {
    let data = format!("(data (i32.const 200000) \"{}\")", WEIGHTS.repeat(256));
    let wasm = wat::parse_str(guest_with(&data, ECHO)).unwrap();
    sign(&wasm, &issuer(), &statement(&["wascc:logging"])).unwrap()
}

fn open(module: &[u8]) -> SignedModule {
    claims::open(module.to_vec(), &policy()).unwrap()
}

fn host(cache: &Path) -> Host {
    Host::builder().cache_dir(cache).build().unwrap()
}

fn instance(cache: &Path, module: &[u8]) -> Result<Instance, LoadError> {
    host(cache).instance_ahead(open(module), &LoadOptions::default())
}

fn echo(instance: &mut Instance) -> Result<Vec<u8>, CallError> {
    let soon = Instant::now() + Duration::from_secs(30);
    Ok(instance.call("A", b"hello".to_vec(), soon)?.body)
}

/// Fills the cache.
fn compiled(cache: &Path, module: &[u8]) {
    assert_eq!(echo(&mut instance(cache, module).unwrap()).unwrap(), b"hello");
    assert_eq!(fs::read_dir(cache).unwrap().count(), 1);
}

fn position(bytes: &[u8], wanted: &str) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted.as_bytes()).unwrap()
}

#[tokio::test]
async fn code_that_was_compiled_before_answers_for_the_same_module_and_one_signed_again() {
    let cache = tempfile::tempdir().unwrap();
    let module = module();
    compiled(cache.path(), &module);
    let mut other = statement(&["wascc:logging"]);
    other.name = "renamed".into();
    let again = sign(&module, &issuer(), &other).unwrap();
    for (file, name) in [(&module, "guest"), (&again, "renamed")] {
        let host = host(cache.path());
        let actor = host.load_ahead(open(file), &LoadOptions::default()).unwrap();
        actor.wait_ready(LONG).unwrap();
        assert_eq!(call(&actor, "A", b"hello", LONG).await.unwrap().body, b"hello");
        assert_eq!(actor.identity().digest.as_str(), Digest::of(file).to_string());
        assert_eq!(actor.identity().name, name);
        assert_eq!(echo(&mut instance(cache.path(), file).unwrap()).unwrap(), b"hello");
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1, "one code for both");
    }
}

#[test]
fn a_file_that_was_altered_is_refused_though_its_tokens_name_code_that_is_there() {
    let cache = tempfile::tempdir().unwrap();
    let module = module();
    let mut altered = module.clone();
    altered[position(&module, WEIGHTS)] ^= 1;
    let refused = |error: LoadError| {
        assert!(matches!(error, LoadError::Refused(VerifyError::Hash { .. })), "{error:?}");
    };
    let load = || {
        let host = host(cache.path());
        let loaded = host.load_ahead(open(&altered), &LoadOptions::default());
        assert!(host.actors().is_empty());
        loaded.err().unwrap()
    };
    refused(load());
    refused(instance(cache.path(), &altered).err().unwrap());
    compiled(cache.path(), &module);
    refused(load());
    let mut begun = instance(cache.path(), &altered).unwrap();
    refused(begun.confirm().unwrap_err());
    assert!(matches!(echo(&mut begun), Err(CallError::Refused(_))));
    // Called first, asked for the reason then.
    let mut begun = instance(cache.path(), &altered).unwrap();
    for _ in 0..2 {
        assert!(matches!(echo(&mut begun), Err(CallError::Refused(_))));
    }
    refused(begun.confirm().unwrap_err());
    assert!(matches!(echo(&mut begun), Err(CallError::Refused(_))));
    compiled(cache.path(), &module);
}

#[tokio::test]
async fn weights_that_are_damaged_in_the_cache_are_made_anew_before_anything_is_answered() {
    let cache = tempfile::tempdir().unwrap();
    let module = module();
    compiled(cache.path(), &module);
    let entry = fs::read_dir(cache.path()).unwrap().next().unwrap().unwrap().path();
    let good = fs::read(&entry).unwrap();
    let damage = || {
        let mut bytes = good.clone();
        bytes[position(&good, WEIGHTS) + 1000] ^= 0x10;
        fs::write(&entry, bytes).unwrap();
    };
    damage();
    let mut begun = instance(cache.path(), &module).unwrap();
    assert_eq!(echo(&mut begun).unwrap(), b"hello");
    begun.confirm().unwrap();
    assert!(fs::read(&entry).unwrap() == good, "the entry is whole again");
    damage();
    let actor = host(cache.path()).load_ahead(open(&module), &LoadOptions::default()).unwrap();
    actor.wait_ready(LONG).unwrap();
    assert_eq!(call(&actor, "A", b"hello", LONG).await.unwrap().body, b"hello");
    assert!(fs::read(&entry).unwrap() == good);
}

#[test]
fn tokens_of_a_module_that_cannot_run_here_do_not_hide_that_the_file_is_another() {
    let cache = tempfile::tempdir().unwrap();
    // Compiles, and is kept; but imports what no actor gets, or does not begin.
    let foreign = r#"(module (import "env" "clock" (func)) (memory (export "memory") 1))"#;
    let trapping = guest_with("(func (export \"wapc_init\") unreachable)", ECHO);
    for (borrowed, own_fault) in [(foreign, "Imports"), (trapping.as_str(), "unreachable")] {
        let claims = statement(&["wascc:logging"]);
        let lender = sign(&wat::parse_str(borrowed).unwrap(), &issuer(), &claims).unwrap();
        let unsigned = wat::parse_str(borrowed).unwrap().len();
        let file = [&wat::parse_str(guest_with("", ECHO)).unwrap()[..], &lender[unsigned..]];
        let file = file.concat();
        // Before there is code to begin with, and after.
        for _ in 0..2 {
            let error = instance(cache.path(), &file).err().unwrap();
            assert!(matches!(error, LoadError::Refused(VerifyError::Hash { .. })), "{error:?}");
            let loaded = host(cache.path()).load_ahead(open(&file), &LoadOptions::default());
            let error = loaded.err().unwrap();
            assert!(matches!(error, LoadError::Refused(VerifyError::Hash { .. })), "{error:?}");
            let error = instance(cache.path(), &lender).err().unwrap();
            assert!(format!("{error:?}").contains(own_fault), "{error:?}");
        }
    }
}
