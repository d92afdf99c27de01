//! The kernels that are linked into this very module, and the C functions that they call.
//!
//! TVM's object registers its kernels from constructors and expects a few functions of TVM's
//! runtime; those stand here (what a kernel raises is kept by the `packed` module).
//!
//! Unsafe stands here because these are C functions and addresses of C functions.
#![expect(unsafe_code, reason = "the C side of TVM's system library; each block has its proof")]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Module, PackedCFunc, PackedFunc, workspace};

/// What TVM puts before the name of every packed function.
const PREFIX: &str = "__tvm_ffi_";
/// Symbols with the prefix that are data: the module's context and its embedded imports.
const DATA: [&str; 2] = ["_library_ctx", "_library_bin"];

/// The kernels that are linked into this program.
///
/// They trust the graph: TVM can make kernels that compare their tensors with what they were
/// compiled for, but modules of ours leave those comparisons out. Run a graph with the kernels of
/// its own compilation only; `graphlet build` links the two into one module and signs it.
#[derive(Debug)]
#[non_exhaustive]
pub struct SystemLibModule {}

impl SystemLibModule {
    /// The linked kernels; on WebAssembly without an operating system this runs their
    /// constructors, once.
    pub fn new() -> Self {
        run_constructors();
        SystemLibModule {}
    }

    /// The names of all linked kernels, sorted.
    pub fn function_names(&self) -> Vec<String> {
        let symbols = symbols();
        let names = symbols.keys().filter_map(|symbol| symbol.strip_prefix(PREFIX));
        names.filter(|name| !DATA.contains(name)).map(str::to_owned).collect()
    }
}

impl Default for SystemLibModule {
    fn default() -> Self {
        Self::new()
    }
}

impl Module for SystemLibModule {
    fn get_function(&self, name: &str) -> Option<PackedFunc> {
        if DATA.contains(&name) {
            return None;
        }
        let symbol = symbols().get(&format!("{PREFIX}{name}"))?.0;
        // SAFETY: TVM registers symbols with this prefix, but for those in `DATA`, only for its
        // packed functions, so the address is that of a function with this signature.
        let entry = unsafe { std::mem::transmute::<*mut c_void, PackedCFunc>(symbol.as_ptr()) };
        // SAFETY: TVM's packed functions ignore their handle. Graph and kernels come from one
        // compilation and lie in one module, so the tensors are those the kernels know (and a
        // kernel that was built with its checks compares them anyway).
        Some(unsafe { PackedFunc::from_c(entry) })
    }
}

/// The address of a function or of constant data in this program.
struct Symbol(NonNull<c_void>);

// SAFETY: an address that stays valid for the whole program, on any thread.
unsafe impl Send for Symbol {}

static SYMBOLS: Mutex<BTreeMap<String, Symbol>> = Mutex::new(BTreeMap::new());

fn symbols() -> MutexGuard<'static, BTreeMap<String, Symbol>> {
    // A map is whole between any two operations on it.
    SYMBOLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Called by the constructors of TVM's object, for each of its symbols.
///
/// # Safety
/// `name` is a C string; `symbol` is null or stays valid for the whole program, and it is a
/// packed function unless its name says otherwise.
#[unsafe(no_mangle)]
unsafe extern "C" fn TVMFFIEnvModRegisterSystemLibSymbol(
    name: *const c_char,
    symbol: *mut c_void,
) -> c_int {
    let (false, Some(symbol)) = (name.is_null(), NonNull::new(symbol)) else {
        return -1;
    };
    // SAFETY: a C string, which the caller promises.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    symbols().insert(name, Symbol(symbol));
    0
}

/// Scratch for a kernel; null when there is none.
#[unsafe(no_mangle)]
extern "C" fn TVMBackendAllocWorkspace(
    _device_type: c_int,
    _device_id: c_int,
    nbytes: u64,
    _dtype_code_hint: c_int,
    _dtype_bits_hint: c_int,
) -> *mut c_void {
    usize::try_from(nbytes).map_or(ptr::null_mut(), |len| workspace::allocate(len).cast())
}

/// Takes a kernel's scratch back.
#[unsafe(no_mangle)]
extern "C" fn TVMBackendFreeWorkspace(
    _device_type: c_int,
    _device_id: c_int,
    start: *mut c_void,
) -> c_int {
    if workspace::free(start.cast_const().cast()) { 0 } else { -1 }
}

/// `TVMParallelGroupEnv`.
#[repr(C)]
struct ParallelGroup {
    sync_handle: *mut c_void,
    num_task: i32,
}

/// Runs a parallel loop as one task on this thread.
///
/// # Safety
/// `task` may be called with `closure` and a group of one task.
#[unsafe(no_mangle)]
unsafe extern "C" fn TVMBackendParallelLaunch(
    task: unsafe extern "C" fn(c_int, *mut ParallelGroup, *mut c_void) -> c_int,
    closure: *mut c_void,
    _num_task: c_int,
) -> c_int {
    let mut group = ParallelGroup { sync_handle: ptr::null_mut(), num_task: 1 };
    // SAFETY: the caller's promise; a task divides the work by `num_task`, so one does it all.
    unsafe { task(0, &raw mut group, closure) }
}

/// One task never waits for another.
#[unsafe(no_mangle)]
extern "C" fn TVMBackendParallelBarrier(_task_id: c_int, _group: *mut ParallelGroup) -> c_int {
    0
}

/// Without an operating system nothing runs the constructors of TVM's object. A module in which
/// nothing refers to `__wasm_call_ctors` gets a call of it around every export instead, which
/// would register all kernels anew on each request.
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
fn run_constructors() {
    use std::sync::Once;

    static CONSTRUCTORS: Once = Once::new();

    unsafe extern "C" {
        fn __wasm_call_ctors();
    }
    // SAFETY: wasm-ld makes this function for every module; it takes nothing and returns
    // nothing, and `Once` sees to it that it runs once.
    CONSTRUCTORS.call_once(|| unsafe { __wasm_call_ctors() });
}

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
fn run_constructors() {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RetValue, TVMFFIAny};

    unsafe extern "C" fn nothing(
        _: *mut c_void,
        _: *const TVMFFIAny,
        _: i32,
        _: *mut TVMFFIAny,
    ) -> i32 {
        0
    }

    #[test]
    fn registered_kernels_are_found_by_their_graph_name() {
        let symbol = nothing as PackedCFunc as *mut c_void;
        // SAFETY: the names are C strings and the symbol is a packed function.
        let codes = unsafe {
            [c"__tvm_ffi_test_kernel", c"unprefixed", c"__tvm_ffi__library_bin"]
                .map(|name| TVMFFIEnvModRegisterSystemLibSymbol(name.as_ptr(), symbol))
        };
        assert_eq!(codes, [0; 3]);
        let module = SystemLibModule::new();
        let kernel = module.get_function("test_kernel").expect("registered above");
        // SAFETY: `nothing` follows no argument.
        assert_eq!(unsafe { kernel.call(&[]) }, Ok(RetValue::None));
        assert_eq!(module.function_names(), ["test_kernel"]);
        for missing in ["kernel", "unprefixed", "_library_bin", "_library_ctx", ""] {
            assert!(module.get_function(missing).is_none(), "{missing}");
        }
    }

    #[test]
    fn nameless_or_null_symbols_are_refused() {
        // SAFETY: null is allowed for both.
        unsafe {
            assert_eq!(TVMFFIEnvModRegisterSystemLibSymbol(ptr::null(), ptr::null_mut()), -1);
            assert_eq!(TVMFFIEnvModRegisterSystemLibSymbol(c"f".as_ptr(), ptr::null_mut()), -1);
        }
    }

    #[test]
    fn a_parallel_loop_runs_as_one_task() {
        unsafe extern "C" fn task(id: c_int, group: *mut ParallelGroup, sum: *mut c_void) -> c_int {
            // SAFETY: called below with a group and a number.
            unsafe {
                *sum.cast::<i32>() += 10 * (*group).num_task + id;
            }
            0
        }
        let mut sum = 0i32;
        // SAFETY: the closure is the number that the task adds to.
        let code = unsafe { TVMBackendParallelLaunch(task, (&raw mut sum).cast(), 4) };
        assert_eq!((code, sum), (0, 10));
    }
}
