//! What requests leave behind in an instance, whose memory grows and never shrinks.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{fs, thread, time::Instant};

use claims::{Policy, Timestamp, verify};
use host::{Host, Instance, LoadOptions};
use support::{SOON, mobilenet, pictures, shared};
use wire::{OP_HANDLE_REQUEST, Request, Response};

fn message(body: Vec<u8>) -> Vec<u8> {
    let (method, path) = ("PUT".to_owned(), "/".to_owned());
    wire::encode(&Request { method, path, body, ..Request::default() }).unwrap()
}

fn answer(instance: &mut Instance, body: Vec<u8>) -> usize {
    let reply = instance.call(OP_HANDLE_REQUEST, message(body), Instant::now() + SOON).unwrap();
    let response: Response = wire::decode(&reply.body).unwrap();
    assert_eq!(response.status_code, 200, "{response:?}");
    instance.memory_bytes()
}

/// Starts an instance as `graphlet run` does, and lets it answer photographs, the smallest first:
/// its memory before and after.
fn grown() -> Option<(usize, usize)> {
    let built = mobilenet()?;
    let mut policy = Policy::at(Timestamp(1_700_000_000));
    policy.trusted_issuers.insert(built.issuer.parse().unwrap());
    let module = verify(built.bytes(), &policy).unwrap();
    let warm_up = message(pictures::testdata("one_pixel.bmp"));
    let warm_up = Some((OP_HANDLE_REQUEST.to_owned(), warm_up));
    let options = LoadOptions { warm_up, ..LoadOptions::default() };
    let mut instance = Host::builder().build().unwrap().instance(&module, &options).unwrap();
    let before = instance.memory_bytes();
    let mut photographs: Vec<Vec<u8>> = fs::read_dir(shared()?.join("images"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "jpg"))
        .map(|path| fs::read(path).unwrap())
        .collect();
    photographs.sort_by_key(Vec::len);
    let after = photographs.into_iter().map(|body| answer(&mut instance, body)).max();
    Some((before, after.unwrap()))
}

#[test]
fn photographs_leave_their_bytes_behind_but_not_their_pixels() {
    // Guests want a stack of their own size below them.
    let worker = thread::Builder::new().stack_size(8 << 20).spawn(grown).unwrap();
    let Some((before, after)) = worker.join().unwrap() else { return };
    let grown = after - before;
    eprintln!("an instance grows by {} KiB to {} KiB", grown >> 10, after >> 10);
    // The largest of them has 188 kB, and 562 kB of pixels, which lie where the activations do.
    assert!(grown <= 320 << 10, "{grown} bytes");
}
