//! The second run allocates nothing, kernels' scratch included.
#![allow(unsafe_code, reason = "a counting allocator, and a kernel behind C's interface")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{c_int, c_void};

use support::{executor, graph, kernels, row};
use tvm_graph_rt::{GraphExecutor, Module, PackedFunc, TVMFFIAny};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the same contract.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

unsafe extern "C" {
    fn TVMBackendAllocWorkspace(d: c_int, i: c_int, bytes: u64, c: c_int, b: c_int) -> *mut c_void;
    fn TVMBackendFreeWorkspace(d: c_int, i: c_int, place: *mut c_void) -> c_int;
}

/// Takes scratch as a kernel of TVM does, and fills it.
unsafe extern "C" fn with_scratch(
    _: *mut c_void,
    _: *const TVMFFIAny,
    _: i32,
    _: *mut TVMFFIAny,
) -> i32 {
    // SAFETY: the scratch is written within its bytes and given back.
    unsafe {
        let outer = TVMBackendAllocWorkspace(1, 0, 100_000, 2, 32);
        let inner = TVMBackendAllocWorkspace(1, 0, 5_000, 2, 32);
        if outer.is_null() || inner.is_null() {
            return -1;
        }
        outer.cast::<u8>().write_bytes(1, 100_000);
        inner.cast::<u8>().write_bytes(2, 5_000);
        TVMBackendFreeWorkspace(1, 0, inner) + TVMBackendFreeWorkspace(1, 0, outer)
    }
}

struct WithScratch;

impl Module for WithScratch {
    fn get_function(&self, name: &str) -> Option<PackedFunc> {
        match name {
            // SAFETY: touches none of its arguments.
            "double" => Some(unsafe { PackedFunc::from_c(with_scratch) }),
            _ => kernels().get_function(name),
        }
    }
}

#[test]
fn the_allocator_is_counted() {
    assert!(allocations(|| drop(std::hint::black_box(vec![1u8]))) > 0);
}

#[test]
fn the_second_run_allocates_nothing() {
    let mut executor = executor();
    let input = row([1.0; 4]);
    let mut run = || {
        executor.set_input("x", &input).expect("an input");
        executor.input_mut::<f32>("x").expect("an input")[0] = 2.0;
        executor.run().expect("all set");
        std::hint::black_box(executor.get_output(0).expect("an output"));
    };
    assert!(allocations(&mut run) > 0, "the input's memory is made on its first use");
    for _ in 0..3 {
        assert_eq!(allocations(&mut run), 0);
    }
}

#[test]
fn scratch_of_kernels_is_kept_from_run_to_run() {
    let mut executor = GraphExecutor::new(graph(), &WithScratch).expect("all kernels are there");
    executor.load_params([("p0".to_owned(), row([0.0; 4]))].into()).expect("the graph's own");
    executor.set_input("x", &row([1.0; 4])).expect("an input");
    let mut run = || executor.run().expect("all set");
    assert!(allocations(&mut run) > 0);
    for _ in 0..3 {
        assert_eq!(allocations(&mut run), 0);
    }
}

/// Takes scratch and fails without giving it back.
unsafe extern "C" fn fails_with_scratch(
    _: *mut c_void,
    _: *const TVMFFIAny,
    _: i32,
    _: *mut TVMFFIAny,
) -> i32 {
    // SAFETY: the scratch is not touched.
    let scratch = unsafe { TVMBackendAllocWorkspace(1, 0, 70_000, 2, 32) };
    if scratch.is_null() { -2 } else { -1 }
}

struct Failing;

impl Module for Failing {
    fn get_function(&self, name: &str) -> Option<PackedFunc> {
        match name {
            // SAFETY: touches none of its arguments.
            "double" => Some(unsafe { PackedFunc::from_c(fails_with_scratch) }),
            _ => kernels().get_function(name),
        }
    }
}

#[test]
fn scratch_of_a_kernel_that_failed_is_not_lost() {
    let mut executor = GraphExecutor::new(graph(), &Failing).expect("all kernels are there");
    executor.load_params([("p0".to_owned(), row([0.0; 4]))].into()).expect("the graph's own");
    executor.set_input("x", &row([1.0; 4])).expect("an input");
    let mut run = || {
        let error = executor.run().expect_err("fails");
        assert_eq!(error.to_string(), "node `double_1` failed in kernel `double`");
    };
    let first = allocations(&mut run);
    for _ in 0..3 {
        // The names in the error, but no new scratch (a block and its place in the pool).
        assert_eq!(allocations(&mut run), first - 2);
    }
}
