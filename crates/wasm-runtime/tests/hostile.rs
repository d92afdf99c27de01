//! Requests that no good host sends, and modules that no builder makes.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use engine::wasmtime::{Instance, Memory, Module, Store, TypedFunc};
use support::{built, case, executor};
use tensor::{TensorPlace, read_descriptor, write_descriptor};
use wasm_runtime::{
    DType, Engine, EngineOptions, GraphError, GraphExecutor, GraphOptions, Limits, Shape, Tensor,
};

/// A graph without the loader: a host that writes what it likes.
struct Raw {
    store: Store<()>,
    memory: Memory,
    run: TypedFunc<(u32, u32), i32>,
    message: TypedFunc<(u32, u32), i32>,
    alloc: TypedFunc<u32, u32>,
}

impl Raw {
    fn new(module: &[u8]) -> Self {
        let engine = engine::wasmtime::Engine::default();
        let mut store = Store::new(&engine, ());
        let module = Module::new(&engine, module).unwrap();
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        let run = instance.get_typed_func(&mut store, "run").unwrap();
        let message = instance.get_typed_func(&mut store, "graphlet_message").unwrap();
        let alloc = instance.get_typed_func(&mut store, "graphlet_alloc").unwrap();
        Raw { store, memory, run, message, alloc }
    }

    fn alloc(&mut self, bytes: u32) -> u32 {
        self.alloc.call(&mut self.store, bytes).unwrap()
    }

    fn run(&mut self, address: u32, bytes: u32) -> i32 {
        // A trap fails the test.
        self.run.call(&mut self.store, (address, bytes)).unwrap()
    }

    fn write(&mut self, address: u32, bytes: &[u8]) {
        self.memory.write(&mut self.store, address as usize, bytes).unwrap();
    }

    fn read(&self, address: u32, len: usize) -> Vec<u8> {
        self.memory.data(&self.store)[address as usize..][..len].to_vec()
    }

    /// What the graph says about its last failure.
    fn message(&mut self, buffer: u32, room: u32) -> String {
        let len = self.message.call(&mut self.store, (buffer, room)).unwrap();
        let len = (len as u32).min(room) as usize;
        String::from_utf8(self.read(buffer, len)).unwrap()
    }
}

#[test]
fn no_request_traps_and_every_refusal_has_a_code_and_words() {
    let folder = tempfile::tempdir().unwrap();
    let Some(case) = case("int32", folder.path()) else { return };
    let Some(module) = built(&case.onnx) else { return };
    let mut graph = Raw::new(&module);
    let (request, words) = (graph.alloc(4096), graph.alloc(4096));
    let data = [graph.alloc(24), graph.alloc(24)];
    for (index, at) in data.into_iter().enumerate() {
        graph.write(at, &case.tensor(&format!("input_{index}.bin")));
    }
    let place = |at| TensorPlace::new(DType::INT32, Shape::new([2, 3]).unwrap(), at).unwrap();
    let good = write_descriptor(&data.map(place)).unwrap();
    let expected = case.tensor("output_1.bin");

    // A linear congruential generator: the same requests each time.
    let mut state = 7_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize
    };
    let (mut accepted, mut refused) = (0, [0; 7]);
    let mut memory = None;
    for round in 0..5000 {
        let mut bytes = good.clone();
        for _ in 0..next() % 4 {
            let at = next() % bytes.len();
            // Small changes as well: they are the ones that come close to being right.
            bytes[at] = if next() % 2 == 0 { next() as u8 } else { bytes[at] ^ 1 << (next() % 8) };
        }
        if next() % 8 == 0 {
            bytes.truncate(next() % bytes.len());
        }
        graph.write(request, &bytes);
        let (address, len) = match next() % 16 {
            0 => (next() as u32, bytes.len() as u32),
            1 => (request, next() as u32),
            2 => (request + (next() % 5000) as u32, bytes.len() as u32),
            _ => (request, bytes.len() as u32),
        };
        let answer = graph.run(address, len);
        if answer >= 0 {
            accepted += 1;
            let results = read_descriptor(&graph.read(address, answer as usize)).unwrap();
            assert_eq!(results[1].shape.extents(), [2, 3]);
        } else {
            refused[usize::try_from(-answer).unwrap()] += 1;
            assert!(!graph.message(words, 4096).is_empty(), "no words for {answer}");
        }
        if round % 100 == 0 {
            graph.write(request, &good);
            let answer = graph.run(request, good.len() as u32);
            let results = read_descriptor(&graph.read(request, answer as usize)).unwrap();
            assert_eq!(graph.read(results[1].address, 24), expected, "after {round} requests");
            let now = graph.memory.size(&graph.store);
            assert_eq!(*memory.get_or_insert(now), now, "memory has grown");
        }
    }
    let [_, descriptor, outside, inputs, ..] = refused;
    assert!(accepted > 0 && descriptor > 0 && outside > 0 && inputs > 0, "{accepted} {refused:?}");
}

/// A module that is a graph by its exports, with other bodies for some.
fn imitation(changes: &[(&str, &str)]) -> Vec<u8> {
    let mut bodies = vec![
        ("imports", ""),
        ("run", "(i32.const 0)"),
        ("describe", ""),
        ("message", "(i32.const 0)"),
        ("alloc", "(i32.const 64)"),
        ("json", r#"{\"abi\":1,\"inputs\":[],\"outputs\":[]}"#),
    ];
    for body in &mut bodies {
        if let Some(change) = changes.iter().find(|change| change.0 == body.0) {
            *body = *change;
        }
    }
    let body = |name: &str| bodies.iter().find(|body| body.0 == name).unwrap().1;
    let length = format!("(i32.const {})", body("json").replace('\\', "").len());
    let describe = if body("describe").is_empty() { &length } else { body("describe") };
    let text = format!(
        r#"(module {}
            (memory (export "memory") 1 65536)
            (data (i32.const 64) "{}")
            (func (export "run") (param i32 i32) (result i32) {})
            (func (export "graphlet_describe") (param i32 i32) (result i32) {})
            (func (export "graphlet_message") (param i32 i32) (result i32) {})
            (func (export "graphlet_alloc") (param i32) (result i32) {}))"#,
        body("imports"),
        body("json"),
        body("run"),
        describe,
        body("message"),
        body("alloc"),
    );
    wat::parse_str(text).unwrap()
}

fn refusal(changes: &[(&str, &str)]) -> GraphError {
    let mut graph = executor();
    match graph.instantiate(&imitation(changes)) {
        Ok(_) => graph.run().unwrap_err(),
        Err(error) => error,
    }
}

#[test]
fn a_module_that_only_looks_like_a_graph_is_refused() {
    let one_output = (
        "json",
        r#"{\"abi\":1,\"inputs\":[],\"outputs\":[{\"name\":\"y\",\"dtype\":\"int8\",\"shape\":[9]}]}"#,
    );
    for (changes, expected) in [
        (&[("imports", r#"(import "env" "f" (func))"#)][..], "imports `env.f`"),
        (&[("alloc", "(i32.const 0)")], "cannot hold"),
        (&[("alloc", "(i32.const -1)")], "address"),
        (&[("alloc", "(i32.const 65535)")], "address"),
        (&[("describe", "(i32.const -6)")], "code -6"),
        (&[("describe", "(i32.const 2147483647)")], "text"),
        (&[("describe", "(local.get 1)")], "description cannot be read"),
        (&[("describe", "(i32.const 3)")], "description cannot be read"),
        (&[("json", r#"{\"abi\":9,\"inputs\":[],\"outputs\":[]}"#)], "description"),
        (&[("run", "(i32.const 2147483647)")], "result"),
        (&[("run", "(i32.const -1)")], "code -1"),
        (&[("run", "(i32.const 16)")], "result"),
        (&[("run", "(unreachable)")], "trapped"),
        (&[one_output, ("run", "(i32.const 32)")], "result"),
    ] {
        let error = refusal(changes);
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        assert!(text.contains(expected), "{changes:?}: {text}");
    }
    let mut graph = executor();
    let untyped = r#"(module (memory (export "memory") 1) (func (export "run")))"#;
    for wrong in [r#"(module (memory (export "memory") 1))"#, untyped] {
        let error = graph.instantiate(&wat::parse_str(wrong).unwrap()).unwrap_err();
        assert!(matches!(error, GraphError::Export(_)), "{error}");
    }
    assert!(graph.description().is_err(), "nothing is left of what was refused");
}

#[test]
fn a_graph_that_does_not_return_is_stopped_and_can_be_loaded_again() {
    // Enough to be loaded, on a busy machine too.
    let options = GraphOptions { time_limit: Duration::from_secs(1), ..GraphOptions::default() };
    let engine = Engine::new(&EngineOptions::default()).unwrap();
    let mut graph = GraphExecutor::with_engine(engine, &options);
    let endless = imitation(&[("run", "(loop (br 0)) (i32.const 0)")]);
    for _ in 0..2 {
        graph.instantiate(&endless).unwrap();
        assert!(matches!(graph.run(), Err(GraphError::Stopped(_))));
        assert!(matches!(graph.run(), Err(GraphError::Stopped(_))), "it is spent");
    }
    let error = graph.instantiate(&imitation(&[("alloc", "(loop (br 0)) (i32.const 0)")]));
    assert!(matches!(error, Err(GraphError::Stopped(_))));
}

#[test]
fn a_graph_gets_no_more_memory_than_it_may_have() {
    let options = GraphOptions {
        limits: Limits { memory_bytes: 1 << 20, ..Limits::default() },
        ..GraphOptions::default()
    };
    let mut graph = GraphExecutor::new(&options).unwrap();
    let grows = imitation(&[("run", "(memory.grow (i32.const 1000))")]);
    graph.instantiate(&grows).unwrap();
    // Growth is refused: -1, which reads as a code.
    assert!(matches!(graph.run(), Err(GraphError::Refused { code: -1, .. })));
    assert_eq!(graph.memory_bytes(), 65536);
}

#[test]
fn a_real_graph_that_does_not_fit_its_limits_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let Some(case) = case("int32", folder.path()) else { return };
    let Some(module) = built(&case.onnx) else { return };
    let options = GraphOptions {
        limits: Limits { memory_bytes: 1 << 16, ..Limits::default() },
        ..GraphOptions::default()
    };
    let error = GraphExecutor::new(&options).unwrap().instantiate(&module).map(drop).unwrap_err();
    assert!(matches!(error, GraphError::Stopped(_)), "{error}");
}

#[test]
fn compiled_code_is_kept_where_the_options_say() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        GraphOptions { cache_dir: Some(folder.path().join("code")), ..GraphOptions::default() };
    for _ in 0..2 {
        GraphExecutor::new(&options).unwrap().instantiate(&imitation(&[])).unwrap();
    }
    let kept = std::fs::read_dir(folder.path().join("code")).unwrap().count();
    assert!(kept > 0, "nothing is kept");
}

#[test]
fn a_graph_may_run_on_another_thread() {
    let mut graph = executor();
    graph.instantiate(&imitation(&[])).unwrap();
    let code = std::thread::spawn(move || {
        let scalar = Tensor::zeros(DType::INT8, Shape::new([]).unwrap()).unwrap();
        graph.set_input("x", &scalar).unwrap_err().to_string()
    });
    assert!(code.join().unwrap().contains("no input `x`"));
}
