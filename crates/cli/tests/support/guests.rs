//! Modules written by hand: one that is only there to be signed, and an actor that does what the
//! request's last byte says.

use wire::Response;

/// A module with an import, an export, a memory, and the instructions asked for.
pub fn tiny_module(code: &[u8], card: Option<&str>) -> Vec<u8> {
    let section = |id: u8, body: &[u8]| [&[id], &leb(body.len())[..], body].concat();
    let body = [&[0], code, &[0x0b]].concat();
    let code = [&[1], &leb(body.len())[..], &body].concat();
    let mut module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, b"\x02\x60\x02\x7f\x7f\x01\x7f\x60\0\0"),
        section(2, b"\x01\x04wapc\x0b__host_call\0\0"),
        section(3, b"\x01\x01"),
        section(5, b"\x01\x01\x02\x10"),
        section(7, b"\x02\x03run\0\x01\x06memory\x02\0"),
        section(10, &code),
    ]
    .concat();
    if let Some(card) = card {
        module.extend(section(0, &[b"\x0egraphlet.model", card.as_bytes()].concat()));
    }
    module
}

fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// What [`scripted_guest`] does for a body that ends so; it answers others with their last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Never comes back.
    Endless = b'E' as isize,
    /// Takes a while, then answers.
    Long = b'L' as isize,
    /// Traps.
    Trap = b'T' as isize,
    /// Takes memory until it gets no more, then traps.
    Hog = b'H' as isize,
    /// Calls itself without end.
    Recurse = b'R' as isize,
}

impl Work {
    pub fn body(self) -> [u8; 1] {
        [self as u8]
    }
}

/// An actor that does what the request's last byte says, and needs no model.
pub fn scripted_guest() -> Vec<u8> {
    scripted_guest_with("")
}

/// As [`scripted_guest`], with something more to do when it starts.
pub fn scripted_guest_with(start: &str) -> Vec<u8> {
    let reply = Response {
        status_code: 200,
        status: "OK".into(),
        body: b"?".to_vec(),
        ..Response::default()
    };
    let reply = wire::encode(&reply).unwrap();
    // The body is a message's last field, here and in requests.
    assert_eq!(reply.last(), Some(&b'?'));
    let data: String = reply.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let [endless, long, trap, hog, recurse] =
        [Work::Endless, Work::Long, Work::Trap, Work::Hog, Work::Recurse].map(|work| work as u8);
    let text = format!(
        r#"(module
  (import "wapc" "__guest_request" (func $guest_request (param i32 i32)))
  (import "wapc" "__guest_response" (func $guest_response (param i32 i32)))
  (memory (export "memory") 32)
  (data (i32.const 2048) "{data}")
  (func $recurse (param $n i32) (result i32)
    (i32.add (call $recurse (i32.add (local.get $n) (i32.const 1))) (local.get $n)))
  (func (export "wapc_init") {start})
  (func (export "__guest_call") (param $op i32) (param $msg i32) (result i32)
    (local $what i32) (local $n i64)
    (call $guest_request (i32.const 1024) (i32.const 65536))
    (local.set $what (i32.load8_u (i32.add (i32.const 65535) (local.get $msg))))
    (if (i32.eq (local.get $what) (i32.const {endless}))
      (then (loop $again (br $again))))
    (if (i32.eq (local.get $what) (i32.const {long}))
      (then (loop $again
        (local.set $n (i64.add (local.get $n) (i64.const 1)))
        (br_if $again (i64.lt_u (local.get $n) (i64.const {LONG_LOOP}))))))
    (if (i32.eq (local.get $what) (i32.const {trap}))
      (then unreachable))
    (if (i32.eq (local.get $what) (i32.const {hog}))
      (then (loop $again
        (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
        unreachable))
    (if (i32.eq (local.get $what) (i32.const {recurse}))
      (then (drop (call $recurse (i32.const 0)))))
    (i32.store8 (i32.const {answer}) (local.get $what))
    (call $guest_response (i32.const 2048) (i32.const {length}))
    i32.const 1)
)"#,
        answer = 2048 + reply.len() - 1,
        length = reply.len(),
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

// A second or two: long enough to be seen at work on any machine, short enough to wait for.
const LONG_LOOP: u64 = 3_000_000_000;
