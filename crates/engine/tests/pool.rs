//! Instances that take each other's places: each finds its own as the module says it is.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::{Duration, Instant};

use engine::{Engine, EngineOptions, Guest, Limits, Pool, Sandbox, Stop};
use wasmtime::{InstancePre, Linker};

const SOON: Duration = Duration::from_secs(30);

/// `sum` adds up data, zeros, and memory that it grows, then writes over all of it.
const DIRTY: &str = r#"(module (memory (export "memory") 4 60)
    (data (i32.const 70000) "\05") (data (i32.const 150000) "\07")
    (func (export "sum") (result i32) (local $sum i32)
      (drop (memory.grow (i32.const 2)))
      (local.set $sum (i32.add (i32.load8_u (i32.const 70000)) (i32.load8_u (i32.const 150000))))
      (local.set $sum (i32.add (local.get $sum) (i32.load8_u (i32.const 100))))
      (local.set $sum (i32.add (local.get $sum) (i32.load8_u (i32.const 390000))))
      (memory.fill (i32.const 0) (i32.const 99) (i32.const 393216))
      (i32.add (local.get $sum) (i32.mul (i32.const 1000) (memory.size))))
    (func (export "spin") (loop (br 0))))"#;

fn pooled(instances: u32, limits: Limits) -> Option<(Engine, InstancePre<Guest<()>>)> {
    let pool = Some(Pool { instances, limits });
    let engine = Engine::new(&EngineOptions { pool, ..EngineOptions::default() }).unwrap();
    if !engine.is_pooled() {
        eprintln!("skipped: this system cannot tell which pages were written (Linux before 6.7)");
        return None;
    }
    let compiled = engine.compile(&wat::parse_str(DIRTY).unwrap(), &[7; 32]).unwrap();
    let pre = Linker::<Guest<()>>::new(engine.wasmtime()).instantiate_pre(&compiled.module);
    Some((engine, pre.unwrap()))
}

fn start(
    engine: &Engine,
    pre: &InstancePre<Guest<()>>,
    limits: Limits,
) -> Result<Sandbox<()>, Stop> {
    Sandbox::new(engine, pre, limits, (), Instant::now() + SOON)
}

fn sum(sandbox: &mut Sandbox<()>) -> i32 {
    let sum = sandbox.enter(Instant::now() + SOON, |mut store, instance| {
        instance.get_typed_func::<(), i32>(&mut store, "sum")?.call(store, ())
    });
    sum.unwrap()
}

#[test]
fn a_place_is_as_new_whatever_was_written_there() {
    let limits = Limits::default();
    let Some((engine, pre)) = pooled(1, limits) else { return };
    for _ in 0..20 {
        let mut sandbox = start(&engine, &pre, limits).unwrap();
        assert_eq!(sum(&mut sandbox), 6 * 1000 + 12, "six pages, and 5 and 7 in zeros");
    }
}

#[test]
fn a_place_is_as_new_after_a_guest_was_stopped_there() {
    let limits = Limits::default();
    let Some((engine, pre)) = pooled(1, limits) else { return };
    for _ in 0..3 {
        let mut sandbox = start(&engine, &pre, limits).unwrap();
        let spun =
            sandbox.enter(Instant::now() + Duration::from_millis(20), |mut store, instance| {
                instance.get_typed_func::<(), ()>(&mut store, "spin")?.call(store, ())
            });
        assert!(matches!(spun, Err(Stop::Deadline)), "{spun:?}");
        drop(sandbox);
        assert_eq!(sum(&mut start(&engine, &pre, limits).unwrap()), 6 * 1000 + 12);
    }
}

#[test]
fn one_more_than_there_are_places_is_refused_until_one_is_free() {
    let limits = Limits::default();
    let Some((engine, pre)) = pooled(2, limits) else { return };
    let first = start(&engine, &pre, limits).unwrap();
    let second = start(&engine, &pre, limits).unwrap();
    assert!(matches!(start(&engine, &pre, limits), Err(Stop::Host(_))));
    drop(first);
    let mut third = start(&engine, &pre, limits).unwrap();
    assert_eq!(sum(&mut third), 6 * 1000 + 12);
    drop(second);
}

#[test]
fn limits_hold_in_a_pool() {
    let limits = Limits { memory_bytes: 5 << 16, ..Limits::default() };
    let Some((engine, pre)) = pooled(1, limits) else { return };
    let mut sandbox = start(&engine, &pre, limits).unwrap();
    // Growing fails, and filling what is not there traps.
    let grown = sandbox.enter(Instant::now() + SOON, |mut store, instance| {
        instance.get_typed_func::<(), i32>(&mut store, "sum")?.call(store, ())
    });
    assert!(matches!(grown, Err(Stop::OutOfMemory)), "{grown:?}");
    drop(sandbox);
    let small = Limits { memory_bytes: 3 << 16, ..limits };
    assert!(matches!(start(&engine, &pre, small), Err(Stop::OutOfMemory)));
}
