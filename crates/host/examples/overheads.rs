//! What the host costs: the ways of stopping a guest compared on a kernel, a further instance, a
//! call from queue to answer.
//!
//! `cargo run --release -p host --example overheads [MODULE]`; with a signed module of yours its
//! code and instances are timed as well. Quote ratios: the runs are interleaved, the machine is
//! whatever it is.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench may panic, and prints")]

use std::time::{Duration, Instant};

use claims::{IssuerKeyPair, Policy, Seed, Statement, VerifiedModule, sign, verify};
use engine::{Engine, EngineOptions, Guest, Limits, Sandbox, wasmtime::Linker};
use host::{Host, Interruption, LoadOptions, provider::ActorService};
use zeroize::Zeroizing;

const WAYS: [(&str, Interruption); 3] = [
    ("never stopped", Interruption::Never),
    ("poll page", Interruption::PollPage),
    ("epoch", Interruption::Epoch),
];

/// The inner loop of a 1x1 convolution: one vector of pixels, two of weights, eight accumulators,
/// three reduction steps a turn with an exit after each, as our kernels have them.
fn kernel() -> String {
    let lanes = |lane: u32| {
        let bytes = (0..4).flat_map(|_| (0..4).map(move |byte| (lane * 4 + byte).to_string()));
        bytes.collect::<Vec<_>>().join(" ")
    };
    let mut locals = String::new();
    let mut step = r#"(local.set $x (v128.load (local.get $p)))
        (local.set $v (v128.load (local.get $q)))
        (local.set $w (v128.load offset=16 (local.get $q)))"#
        .to_owned();
    for lane in 0..4 {
        locals.push_str(&format!("(local $a{lane} v128) (local $b{lane} v128)"));
        step.push_str(&format!(
            "(local.set $s (i8x16.shuffle {} (local.get $x) (local.get $x)))",
            lanes(lane)
        ));
        for (accumulator, weights) in [("a", "v"), ("b", "w")] {
            step.push_str(&format!(
                "(local.set ${accumulator}{lane} (f32x4.relaxed_madd (local.get ${weights})
                   (local.get $s) (local.get ${accumulator}{lane})))"
            ));
        }
    }
    step.push_str(
        "(local.set $p (i32.add (local.get $p) (i32.const 16)))
         (local.set $q (i32.add (local.get $q) (i32.const 32)))
         (br_if $done (i32.eqz (local.tee $k (i32.sub (local.get $k) (i32.const 1)))))",
    );
    let sum = (0..4).fold("(v128.const i64x2 0 0)".to_owned(), |sum, lane| {
        format!("(f32x4.add {sum} (f32x4.add (local.get $a{lane}) (local.get $b{lane})))")
    });
    format!(
        r#"(module (memory (export "memory") 4)
          (func $tile (param $k i32) (result v128) {locals}
            (local $p i32) (local $q i32) (local $x v128) (local $v v128) (local $w v128)
            (local $s v128)
            (local.set $q (i32.const 65536))
            (block $done (loop $turn {step} {step} {step} br $turn))
            {sum})
          (func (export "run") (result i32) (local $times i32) (local $sum v128)
            (local.set $times (i32.const 1000))
            (loop
              (local.set $sum (f32x4.add (local.get $sum) (call $tile (i32.const 255))))
              (br_if 0 (local.tee $times (i32.sub (local.get $times) (i32.const 1)))))
            (i32x4.extract_lane 0 (local.get $sum))))"#
    )
}

/// A loop with nothing in it but its count: the worst case.
const EMPTY_LOOP: &str = r#"(module (memory (export "memory") 1)
    (func (export "run") (result i32) (local $times i32)
      (local.set $times (i32.const 1000000))
      (loop (br_if 0 (local.tee $times (i32.sub (local.get $times) (i32.const 1)))))
      i32.const 0))"#;

const ECHO: &str = r#"(module
    (import "wapc" "__guest_request" (func $request (param i32 i32)))
    (import "wapc" "__guest_response" (func $response (param i32 i32)))
    (memory (export "memory") 4)
    (func (export "__guest_call") (param $op i32) (param $msg i32) (result i32)
      (call $request (i32.const 1024) (i32.const 65536))
      (call $response (i32.const 65536) (local.get $msg)) i32.const 1))"#;

fn far() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

fn timed(name: &str, text: &str) {
    let wasm = wat::parse_str(text).unwrap();
    let mut sandboxes: Vec<_> = WAYS
        .iter()
        .map(|&(_, interruption)| {
            let options =
                EngineOptions { interruption: Some(interruption), ..EngineOptions::default() };
            let engine = Engine::new(&options).unwrap();
            let compiled = engine.compile(&wasm, &[0; 32]).unwrap();
            let linker = Linker::<Guest<()>>::new(engine.wasmtime());
            let pre = linker.instantiate_pre(&compiled.module).unwrap();
            Sandbox::new(&engine, &pre, Limits::default(), (), far()).unwrap()
        })
        .collect();
    let mut best = [Duration::MAX; WAYS.len()];
    // Short runs and many: the best ones were not interrupted.
    for _ in 0..1000 {
        for (sandbox, best) in sandboxes.iter_mut().zip(&mut best) {
            let begin = Instant::now();
            sandbox
                .enter(far(), |mut store, instance| {
                    instance.get_typed_func::<(), i32>(&mut store, "run")?.call(store, ())
                })
                .unwrap();
            *best = begin.elapsed().min(*best);
        }
    }
    for ((way, _), time) in WAYS.iter().zip(best) {
        let ratio = time.as_secs_f64() / best[0].as_secs_f64();
        println!("{name}: {way}: {:.3} ms ({ratio:.3})", time.as_secs_f64() * 1e3);
    }
}

fn signed(text: &str) -> VerifiedModule {
    let issuer = IssuerKeyPair::from_seed(&Seed::issuer(Zeroizing::new([1; 32]))).unwrap();
    let statement = Statement {
        subject: Seed::actor(Zeroizing::new([2; 32])).actor_key().unwrap(),
        name: "echo".into(),
        version: None,
        revision: None,
        tags: vec![],
        capabilities: vec![],
        issued_at: std::time::SystemTime::now().into(),
        valid_for: None,
        not_before: None,
    };
    let module = sign(&wat::parse_str(text).unwrap(), &issuer, &statement).unwrap();
    verified(module)
}

/// Trusts whoever signed it: this is a bench.
fn verified(module: Vec<u8>) -> VerifiedModule {
    let mut policy = Policy::at(std::time::SystemTime::now().into());
    if let Ok(claims) = claims::authentic_claims(&module) {
        policy.trusted_issuers.insert(claims.issuer);
    }
    policy.dangerously_allow_unsigned = true;
    verify(module, &policy).unwrap()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn repeat(times: usize, mut action: impl FnMut()) -> Duration {
    let times = (0..times).map(|_| {
        let begin = Instant::now();
        action();
        begin.elapsed()
    });
    median(times.collect())
}

fn main() {
    timed("kernel", &kernel());
    timed("empty loop", EMPTY_LOOP);

    let dir = tempfile::tempdir().unwrap();
    let host = Host::builder().cache_dir(dir.path()).build().unwrap();
    let echo = signed(ECHO);
    let options = LoadOptions::default();
    let _ = host.instance(&echo, &options).unwrap();
    let load = repeat(200, || drop(host.instance(&echo, &options).unwrap()));
    println!("echo: code from the cache, an instance, ready: {load:?} (median)");

    let mut instance = host.instance(&echo, &options).unwrap();
    for bytes in [100, 100_000] {
        let message = vec![7; bytes];
        let time = repeat(1000, || {
            instance.call("Call", message.clone(), far()).unwrap();
        });
        println!("echo of {bytes} bytes: direct call: {time:?} (median)");
    }
    drop(instance);

    let actor = host.load(echo, &options).unwrap();
    actor.wait_ready(Duration::from_secs(60)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for bytes in [100, 100_000] {
        let message = vec![7; bytes];
        let time = repeat(1000, || {
            runtime.block_on(actor.call("Call", message.clone(), far())).unwrap();
        });
        println!("echo of {bytes} bytes: through the queue: {time:?} (median)");
    }

    if let Some(path) = std::env::args().nth(1) {
        let module = verified(std::fs::read(path).unwrap());
        let begin = Instant::now();
        drop(host.instance(&module, &options).unwrap());
        println!("module: compiled, model loaded: {:?}", begin.elapsed());
        let load = repeat(20, || drop(host.instance(&module, &options).unwrap()));
        println!("module: code from the cache, an instance, model loaded: {load:?} (median)");
        let actor = host.load(module, &LoadOptions { instances: 3, ..options }).unwrap();
        actor.wait_ready(Duration::from_secs(60)).unwrap();
        println!("module: memory of an instance: {:?}", actor.status().instance_memory_bytes);
    }
}
