//! Guests that do not want to stop, or want more than they get.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::{Duration, Instant};

use engine::{Engine, EngineOptions, Guest, Interruption, Limits, Sandbox, Stop};
use wasmtime::{Linker, Trap};

/// Upper bound for anything that should happen soon, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(60);

const BOTH: [Interruption; 2] = [Interruption::PollPage, Interruption::Epoch];

fn engine(interruption: Interruption) -> Engine {
    Engine::new(&EngineOptions { interruption: Some(interruption), ..EngineOptions::default() })
        .unwrap()
}

fn sandbox(engine: &Engine, text: &str) -> Result<Sandbox<()>, Stop> {
    sandbox_until(engine, text, Instant::now() + SOON)
}

fn sandbox_until(engine: &Engine, text: &str, deadline: Instant) -> Result<Sandbox<()>, Stop> {
    let wasm = wat::parse_str(text).unwrap();
    let compiled = engine.compile(&wasm, &[0; 32]).unwrap();
    let mut linker: Linker<Guest<()>> = Linker::new(engine.wasmtime());
    linker
        .func_wrap("host", "sleep", |ms: u32| std::thread::sleep(Duration::from_millis(ms.into())))
        .unwrap();
    let pre = linker.instantiate_pre(&compiled.module).unwrap();
    let limits = Limits { memory_bytes: 4 << 20, table_elements: 1000 };
    Sandbox::new(engine, &pre, limits, (), deadline)
}

fn run(sandbox: &mut Sandbox<()>, limit: Duration) -> Result<i32, Stop> {
    sandbox.enter(Instant::now() + limit, |mut store, instance| {
        instance.get_typed_func::<(), i32>(&mut store, "run")?.call(store, ())
    })
}

/// The shortest time that `attempt` gives. A machine that does other things makes each one longer
/// and none shorter, so there are further ones until one is below `wanted`.
fn shortest(wanted: Duration, mut attempt: impl FnMut() -> Duration) -> Duration {
    let begin = Instant::now();
    let mut shortest = attempt();
    while shortest >= wanted && begin.elapsed() < SOON {
        shortest = shortest.min(attempt());
    }
    shortest
}

/// Ways to run for ever.
const ENDLESS: [(&str, &str); 9] = [
    ("an empty loop", "(func (export \"run\") (result i32) (loop br 0) i32.const 0)"),
    (
        "a loop whose work matters",
        r#"(func (export "run") (result i32) (local i32)
             (loop (local.set 0 (i32.add (local.get 0) (i32.const 1)))
                   (i32.store (i32.const 0) (local.get 0)) br 0) local.get 0)"#,
    ),
    (
        "nested loops, the inner one short",
        r#"(func (export "run") (result i32) (local i32)
             (loop (local.set 0 (i32.const 9))
               (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
               br 0) i32.const 0)"#,
    ),
    // Plain loads here would be merged with the poll that was passed before, and the loops spin on.
    (
        "an inner loop, behind the poll of the outer one",
        "(func (export \"run\") (result i32) (loop (loop br 0)) i32.const 0)",
    ),
    (
        "a loop behind the poll of its function",
        r#"(func $leaf) (func (export "run") (result i32)
             (if (i32.load (i32.const 0)) (then (call $leaf))) (loop br 0) i32.const 0)"#,
    ),
    (
        "a loop of long fills",
        r#"(func (export "run") (result i32)
             (loop (memory.fill (i32.const 0) (i32.const 7) (i32.const 1000000)) br 0) i32.const 0)"#,
    ),
    (
        "a tree of calls, never deep",
        r#"(func $tree (param i32) (result i32)
             (if (result i32) (local.get 0)
               (then (i32.add (call $tree (i32.sub (local.get 0) (i32.const 1)))
                              (call $tree (i32.sub (local.get 0) (i32.const 1)))))
               (else (i32.const 1))))
           (func (export "run") (result i32) (call $tree (i32.const 100)))"#,
    ),
    (
        "a tree of indirect calls",
        r#"(table 1 funcref) (elem (i32.const 0) $tree)
           (type $t (func (param i32) (result i32)))
           (func $tree (type $t)
             (if (result i32) (local.get 0)
               (then (i32.add (call_indirect (type $t) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0))
                              (call_indirect (type $t) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0))))
               (else (i32.const 1))))
           (func (export "run") (result i32) (call $tree (i32.const 100)))"#,
    ),
    (
        "a loop of refused growth",
        r#"(func (export "run") (result i32)
             (loop (drop (memory.grow (i32.const 60000))) br 0) i32.const 0)"#,
    ),
];

#[test]
fn an_endless_guest_is_stopped_within_100_ms_of_its_deadline() {
    for interruption in BOTH {
        let engine = engine(interruption);
        for (name, text) in ENDLESS {
            let module = format!(r#"(module (memory (export "memory") 16) {text})"#);
            let limit = Duration::from_millis(50);
            let late = shortest(Duration::from_millis(100), || {
                let mut sandbox = sandbox(&engine, &module).unwrap();
                let begin = Instant::now();
                let stop = run(&mut sandbox, limit).unwrap_err();
                let took = begin.elapsed();
                assert!(matches!(stop, Stop::Deadline), "{interruption:?}, {name}: {stop}");
                assert!(took >= limit, "{interruption:?}, {name}: stopped early, after {took:?}");
                assert!(matches!(run(&mut sandbox, limit), Err(Stop::Spent)), "{name}");
                took - limit
            });
            assert!(late < Duration::from_millis(100), "{interruption:?}, {name}: {late:?} late");
        }
    }
}

#[test]
fn a_start_function_that_never_ends_is_stopped_too() {
    for interruption in BOTH {
        let engine = engine(interruption);
        let text = r#"(module (memory (export "memory") 1) (func $s (loop br 0)) (start $s))"#;
        let limit = Duration::from_millis(50);
        let late = shortest(Duration::from_millis(100), || {
            let begin = Instant::now();
            let stop = sandbox_until(&engine, text, begin + limit).err().unwrap();
            let took = begin.elapsed();
            assert!(matches!(stop, Stop::Deadline), "{interruption:?}: {stop}");
            took - limit
        });
        assert!(late < Duration::from_millis(100), "{interruption:?}: {late:?} late");
    }
}

#[test]
fn a_start_function_runs_once_and_before_the_first_call() {
    for interruption in BOTH {
        let text = r#"(module (memory (export "memory") 1) (global $n (mut i32) (i32.const 0))
            (func $s (global.set $n (i32.add (global.get $n) (i32.const 1)))) (start $s)
            (func (export "run") (result i32) global.get $n))"#;
        let mut sandbox = sandbox(&engine(interruption), text).unwrap();
        assert_eq!(run(&mut sandbox, SOON).unwrap(), 1);
    }
}

#[test]
fn a_call_that_ends_late_in_the_host_leaves_a_usable_instance() {
    // The page is forbidden while the guest sleeps in a host call. It passes no poll after that,
    // so it returns; the next call must find the page readable. The time is long enough to get
    // into the host call on a busy machine.
    let text = r#"(module (import "host" "sleep" (func $sleep (param i32)))
        (memory (export "memory") 1)
        (func (export "run") (result i32) (local i32)
          (local.set 0 (i32.const 1000))
          (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
          (call $sleep (i32.const 300)) i32.const 42))"#;
    for interruption in BOTH {
        let mut sandbox = sandbox(&engine(interruption), text).unwrap();
        for _ in 0..2 {
            let limit = Duration::from_millis(250);
            assert_eq!(run(&mut sandbox, limit).unwrap(), 42, "{interruption:?}");
            assert_eq!(run(&mut sandbox, SOON).unwrap(), 42, "{interruption:?}");
        }
    }
}

#[test]
fn one_guest_is_stopped_and_its_neighbours_run_on() {
    let counting = r#"(module (memory (export "memory") 1)
        (func (export "run") (result i32) (local i32)
          (local.set 0 (i32.const 100000000))
          (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))) i32.const 7))"#;
    let endless = r#"(module (memory (export "memory") 1)
        (func (export "run") (result i32) (loop br 0) i32.const 0))"#;
    for interruption in BOTH {
        let engine = engine(interruption);
        std::thread::scope(|scope| {
            let engine = &engine;
            let counter = scope.spawn(move || {
                let mut sandbox = sandbox(engine, counting).unwrap();
                (0..3).map(|_| run(&mut sandbox, SOON).unwrap()).sum::<i32>()
            });
            for _ in 0..10 {
                let mut sandbox = sandbox(engine, endless).unwrap();
                let stop = run(&mut sandbox, Duration::from_millis(5)).unwrap_err();
                assert!(matches!(stop, Stop::Deadline), "{interruption:?}: {stop}");
            }
            assert_eq!(counter.join().unwrap(), 21, "{interruption:?}");
        });
    }
}

#[test]
fn instances_come_and_go_while_deadlines_strike() {
    // Pages are forbidden, permitted, unmapped and mapped again at the same addresses by several
    // threads: a watchdog that touched a page after its instance would end this process.
    let engine = engine(Interruption::PollPage);
    let text = r#"(module (memory (export "memory") 1)
        (func (export "run") (result i32) (local i32)
          (local.set 0 (i32.const 200000))
          (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))) i32.const 7))"#;
    let wasm = wat::parse_str(text).unwrap();
    let compiled = engine.compile(&wasm, &[0; 32]).unwrap();
    let pre =
        Linker::<Guest<()>>::new(engine.wasmtime()).instantiate_pre(&compiled.module).unwrap();
    let (mut in_time, mut late) = (0, 0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4u64)
            .map(|seed| {
                let (engine, pre) = (&engine, &pre);
                scope.spawn(move || {
                    let (mut in_time, mut late) = (0, 0);
                    for round in 0..300 {
                        let far = Instant::now() + SOON;
                        let mut sandbox =
                            Sandbox::new(engine, pre, Limits::default(), (), far).unwrap();
                        let limit = Duration::from_micros((seed * 37 + round * 7) % 200);
                        match run(&mut sandbox, limit) {
                            Ok(7) => in_time += 1,
                            Err(Stop::Deadline) => late += 1,
                            other => panic!("{other:?}"),
                        }
                    }
                    (in_time, late)
                })
            })
            .collect();
        for thread in threads {
            let counts = thread.join().unwrap();
            in_time += counts.0;
            late += counts.1;
        }
    });
    assert_eq!(in_time + late, 1200);
    assert!(late > 0, "no deadline struck");
}

#[test]
fn memory_beyond_the_limit_is_refused_and_a_guest_that_dies_of_it_is_told_apart() {
    for (last, expected) in [("drop i32.const 1", None), ("unreachable", Some("out_of_memory"))] {
        // Grows by 1 MiB until refused, counts the grants.
        let text = format!(
            r#"(module (memory (export "memory") 1) (global $n (mut i32) (i32.const 0))
            (func (export "run") (result i32)
              (loop (if (i32.ne (memory.grow (i32.const 16)) (i32.const -1))
                (then (global.set $n (i32.add (global.get $n) (i32.const 1))) (br 1))))
              global.get $n {last}))"#
        );
        let mut sandbox = sandbox(&engine(Interruption::PollPage), &text).unwrap();
        let result = run(&mut sandbox, SOON);
        assert_eq!(result.as_ref().err().map(Stop::reason), expected, "{result:?}");
        assert_eq!(sandbox.memory_bytes("memory"), (3 << 20) + (1 << 16));
    }
}

#[test]
fn a_trap_without_refused_memory_is_not_blamed_on_memory() {
    let text = r#"(module (memory (export "memory") 1) (global $n (mut i32) (i32.const 0))
        (func (export "run") (result i32)
          (if (global.get $n) (then unreachable))
          (global.set $n (i32.const 1)) (drop (memory.grow (i32.const 60000))) i32.const 1))"#;
    let mut sandbox = sandbox(&engine(Interruption::PollPage), text).unwrap();
    assert_eq!(run(&mut sandbox, SOON).unwrap(), 1);
    let stop = run(&mut sandbox, SOON).unwrap_err();
    assert_eq!(stop.reason(), "unreachable");
}

#[test]
fn a_table_beyond_the_limit_is_refused() {
    let text = r#"(module (memory (export "memory") 1) (table 10 funcref)
        (func (export "run") (result i32)
          (drop (table.grow (ref.null func) (i32.const 900)))
          (table.grow (ref.null func) (i32.const 100))))"#;
    let mut sandbox = sandbox(&engine(Interruption::PollPage), text).unwrap();
    assert_eq!(run(&mut sandbox, SOON).unwrap(), -1);
}

#[test]
fn a_module_that_begins_beyond_the_limits_is_not_instantiated() {
    for (part, reason) in
        [("(memory 65)", "out_of_memory"), ("(memory 1) (table 1001 funcref)", "host")]
    {
        let text = format!("(module {part})");
        for interruption in BOTH {
            let stop = sandbox(&engine(interruption), &text).err().unwrap();
            assert_eq!(stop.reason(), reason, "{part}: {stop}");
        }
    }
}

#[test]
fn deep_recursion_traps_and_the_process_lives() {
    for interruption in BOTH {
        let text = r#"(module (memory (export "memory") 1)
            (func $down (param i32) (result i32)
              (i32.add (call $down (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
            (func (export "run") (result i32) (call $down (i32.const 0))))"#;
        let engine = engine(interruption);
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        let stop = thread
            .spawn(move || {
                let mut sandbox = sandbox(&engine, text).unwrap();
                run(&mut sandbox, SOON).unwrap_err()
            })
            .unwrap()
            .join()
            .unwrap();
        assert!(matches!(stop, Stop::Trap(Trap::StackOverflow)), "{interruption:?}: {stop}");
    }
}

#[test]
fn traps_keep_their_kind() {
    for (body, reason) in [
        ("unreachable", "unreachable"),
        ("(i32.load (i32.const 10000000))", "out_of_bounds"),
        ("(i32.div_s (i32.const 1) (i32.const 0))", "arithmetic"),
        ("(call_indirect (result i32) (i32.const 0))", "indirect_call"),
        ("(call_indirect (result i32) (i32.const 5))", "indirect_call"),
    ] {
        let text = format!(
            r#"(module (memory (export "memory") 1) (table 1 funcref)
            (func (export "run") (result i32) {body}))"#
        );
        let mut sandbox = sandbox(&engine(Interruption::PollPage), &text).unwrap();
        let stop = run(&mut sandbox, SOON).unwrap_err();
        assert_eq!(stop.reason(), reason, "{body}: {stop}");
    }
}
