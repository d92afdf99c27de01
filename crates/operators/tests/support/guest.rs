//! Builds this crate for wasm32 with one of its vector variants and calls it under wasmtime.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::path::{Path, PathBuf};

use guest_toolchain::GuestToolchain;
use wasmtime::{Config, Engine, Func, Instance, Memory, Module, Store, Val};

use crate::support::{Call, Epilogue};

/// The vectors a guest is built with.
#[derive(Debug, Clone, Copy)]
pub enum Variant {
    Relaxed,
    Simd128,
    Scalar,
}

impl Variant {
    fn name(self) -> &'static str {
        match self {
            Self::Relaxed => "relaxed",
            Self::Simd128 => "simd128",
            Self::Scalar => "scalar",
        }
    }

    fn target_features(self) -> &'static str {
        match self {
            Self::Relaxed => "+simd128,+relaxed-simd",
            Self::Simd128 => "+simd128,-relaxed-simd",
            Self::Scalar => "-simd128,-relaxed-simd",
        }
    }
}

const TARGET: &str = "wasm32-unknown-unknown";

/// Builds a guest and returns its file, or none when no toolchain can.
pub fn build(variant: Variant) -> Option<PathBuf> {
    let toolchain = GuestToolchain::find(TARGET)?;
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest").join(variant.name());
    let flags = [
        format!("-Ctarget-feature={}", variant.target_features()),
        format!("-Clinker={}", toolchain.linker().display()),
    ];
    let status = toolchain
        .cargo("rustc", TARGET, &flags)
        .args(["--quiet", "--package", "operators", "--lib", "--crate-type", "cdylib"])
        .args(["--profile", "guest", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo starts");
    assert!(status.success(), "the {} guest does not build: {status}", variant.name());
    Some(target.join(TARGET).join("guest/operators.wasm"))
}

/// A compiled guest.
pub struct Guest {
    engine: Engine,
    module: Module,
}

impl Guest {
    pub fn load(file: &Path) -> Self {
        let engine = Engine::new(&Config::new()).expect("an engine for this machine");
        let module = Module::from_file(&engine, file).expect("a valid module");
        Self { engine, module }
    }

    /// A fresh instance.
    pub fn start(&self) -> Running {
        let mut store = Store::new(&self.engine, ());
        let instance = Instance::new(&mut store, &self.module, &[]).expect("no imports");
        let memory = instance.get_memory(&mut store, "memory").expect("a memory");
        Running { store, instance, memory, placed: 0 }
    }
}

/// Where a buffer is placed in the pages that it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At the beginning, aligned to 64 bytes.
    Aligned,
    /// At the end, so that reading behind it leaves the memory if nothing is placed later.
    End,
}

/// An instance and its memory.
pub struct Running {
    store: Store<()>,
    instance: Instance,
    memory: Memory,
    placed: usize,
}

/// A call whose buffers lie in a guest's memory.
#[derive(Clone)]
pub struct Placed {
    function: Func,
    arguments: Vec<Val>,
    output: usize,
    length: usize,
}

impl Running {
    /// Writes values into pages of their own.
    fn place(&mut self, values: &[f32], place: Place) -> i32 {
        const PAGE: usize = 1 << 16;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        // Buffers at equal offsets in their pages would evict each other from the cache.
        self.placed += 1;
        let offset = self.placed % 16 * 576;
        let pages = (bytes.len() + offset).div_ceil(PAGE);
        let first = self.memory.grow(&mut self.store, pages as u64).expect("memory") as usize;
        let at = match place {
            Place::Aligned => first * PAGE + offset,
            Place::End => (first + pages) * PAGE - bytes.len(),
        };
        self.memory.write(&mut self.store, at, &bytes).expect("inside the memory");
        at as i32
    }

    /// Places a call's buffers; with [`Place::End`], the one with index `last` behind all others:
    /// x, weights, bias, residual, y.
    pub fn prepare(&mut self, call: &Call, place: Place, last: usize) -> Placed {
        let output = vec![f32::NAN; call.want.len()];
        let residual = call.residual.as_deref().unwrap_or_default();
        let buffers = [&call.x[..], &call.weights, &call.bias, residual, &output];
        let mut at = [0; 5];
        for i in (0..5).filter(|i| *i != last).chain([last]) {
            if !buffers[i].is_empty() {
                at[i] = self.place(buffers[i], place);
            }
        }
        let [x, weights, bias, residual, y] = at;
        let mut arguments = vec![Val::I32(x)];
        if !call.weights.is_empty() {
            arguments.push(Val::I32(weights));
        }
        if !call.bias.is_empty() {
            arguments.push(Val::I32(bias));
        }
        if call.residual.is_some() {
            arguments.push(Val::I32(residual));
        }
        arguments.push(Val::I32(y));
        arguments.extend(call.extents.iter().copied().map(Val::I32));
        if let Some(Epilogue { code, low, high }) = call.epilogue {
            arguments.extend([Val::I32(code), Val::F32(low.to_bits()), Val::F32(high.to_bits())]);
        }
        arguments.extend(call.last.map(|number| Val::F32(number.to_bits())));
        let function = self.instance.get_func(&mut self.store, call.symbol).expect("an export");
        Placed { function, arguments, output: y as usize, length: call.want.len() }
    }

    /// The same call with a copy of its weights.
    pub fn with_other_weights(&mut self, placed: &Placed, call: &Call) -> Placed {
        let mut placed = placed.clone();
        placed.arguments[1] = Val::I32(self.place(&call.weights, Place::Aligned));
        placed
    }

    /// Calls the kernel; the answer is its code, or the trap.
    pub fn call(&mut self, placed: &Placed) -> Result<i32, String> {
        let mut answer = [Val::I32(i32::MIN)];
        let called = placed.function.call(&mut self.store, &placed.arguments, &mut answer);
        called.map_err(|trap| format!("{trap:?}"))?;
        answer[0].i32().ok_or_else(|| "no code".to_owned())
    }

    /// What the kernel wrote.
    pub fn output(&self, placed: &Placed) -> Vec<f32> {
        let bytes = &self.memory.data(&self.store)[placed.output..][..placed.length * 4];
        let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        bytes.chunks_exact(4).map(value).collect()
    }
}
