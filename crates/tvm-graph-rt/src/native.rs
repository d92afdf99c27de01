//! Kernels written in Rust, for tests and for hosts without TVM's object.
//!
//! Unsafe stands here because their arguments arrive as TVM's descriptors.
#![expect(
    unsafe_code,
    reason = "follows the descriptors of a packed call; each block has its proof"
)]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::slice;
use std::sync::Arc;

use tensor::{DLTensor, Element, TensorError};

use crate::packed::{self, PackedCFunc, TVMFFIAny};
use crate::{Module, PackedFunc};

/// A module of kernels that are Rust closures.
#[derive(Debug, Default, Clone)]
pub struct NativeModule {
    kernels: BTreeMap<String, PackedFunc>,
}

type Body = dyn Fn(&mut KernelArgs<'_>) -> Result<(), Box<dyn std::error::Error>> + Send + Sync;

/// A closure behind a packed function.
pub(crate) struct NativeKernel {
    outputs: usize,
    body: Box<Body>,
}

/// The tensors that a kernel reads and writes.
pub struct KernelArgs<'a> {
    inputs: &'a [TVMFFIAny],
    outputs: &'a [TVMFFIAny],
}

/// A kernel asked for an argument that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// No such argument, or it is no tensor.
    #[error("there is no {kind} tensor {index}")]
    NoTensor {
        /// `input` or `output`.
        kind: &'static str,
        /// Which one was asked for.
        index: usize,
    },
    /// The tensor holds another element type.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl NativeModule {
    /// Adds a kernel that writes its last `outputs` arguments. What it answers with as an error
    /// becomes the error of the run; a panic in it ends the process, as in any C function.
    pub fn register(
        &mut self,
        name: impl Into<String>,
        outputs: usize,
        body: impl Fn(&mut KernelArgs<'_>) -> Result<(), Box<dyn std::error::Error>>
        + Send
        + Sync
        + 'static,
    ) {
        let kernel = NativeKernel { outputs, body: Box::new(body) };
        self.kernels.insert(name.into(), PackedFunc::from_native(Arc::new(kernel)));
    }
}

impl Module for NativeModule {
    fn get_function(&self, name: &str) -> Option<PackedFunc> {
        self.kernels.get(name).cloned()
    }
}

impl NativeKernel {
    pub(crate) const ENTRY: PackedCFunc = call_native;

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }
}

/// # Safety
/// `handle` is a live [`NativeKernel`], and the arguments are as [`PackedFunc::call_raw`] wants
/// them with that kernel's number of outputs at the end.
unsafe extern "C" fn call_native(
    handle: *mut c_void,
    args: *const TVMFFIAny,
    num_args: i32,
    _result: *mut TVMFFIAny,
) -> i32 {
    // SAFETY: `PackedFunc` passes the kernel that it holds a count of.
    let kernel = unsafe { &*handle.cast::<NativeKernel>() };
    // SAFETY: the caller passes `num_args` values at `args`.
    let args = unsafe { slice::from_raw_parts(args, usize::try_from(num_args).unwrap_or(0)) };
    let outcome = match args.len().checked_sub(kernel.outputs) {
        Some(inputs) => {
            let (inputs, outputs) = args.split_at(inputs);
            (kernel.body)(&mut KernelArgs { inputs, outputs })
        }
        None => Err("too few arguments".into()),
    };
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            packed::raise(error.to_string());
            -1
        }
    }
}

impl<'a> KernelArgs<'a> {
    /// The elements of an input, row-major.
    ///
    /// # Errors
    /// [`KernelError`] when there is no such input, or when it holds another type.
    pub fn input<T: Element>(&self, index: usize) -> Result<&'a [T], KernelError> {
        let (data, len) = elements::<T>(self.inputs, index, "input")?;
        // SAFETY: the descriptor is that of a whole, compact, aligned tensor of `len` elements of
        // type `T`, alive for the call, and no output overlaps it (`call_raw`'s contract).
        Ok(unsafe { slice::from_raw_parts(data, len) })
    }

    /// The elements of an output, row-major.
    ///
    /// # Errors
    /// [`KernelError`] when there is no such output, or when it holds another type.
    pub fn output<T: Element>(&mut self, index: usize) -> Result<&mut [T], KernelError> {
        let (data, len) = elements::<T>(self.outputs, index, "output")?;
        // SAFETY: as for inputs; outputs are writable and apart from all other arguments, and
        // `&mut self` keeps a second borrow of this one away.
        Ok(unsafe { slice::from_raw_parts_mut(data, len) })
    }

    /// The extents of an input.
    ///
    /// # Errors
    /// [`KernelError::NoTensor`] when there is no such input.
    pub fn input_shape(&self, index: usize) -> Result<&'a [i64], KernelError> {
        Ok(extents(descriptor(self.inputs, index, "input")?))
    }

    /// The extents of an output.
    ///
    /// # Errors
    /// [`KernelError::NoTensor`] when there is no such output.
    pub fn output_shape(&self, index: usize) -> Result<&'a [i64], KernelError> {
        Ok(extents(descriptor(self.outputs, index, "output")?))
    }
}

fn descriptor<'a>(
    args: &'a [TVMFFIAny],
    index: usize,
    kind: &'static str,
) -> Result<&'a DLTensor, KernelError> {
    let tensor = args.get(index).and_then(|arg| arg.as_tensor());
    // SAFETY: an argument that says it is a tensor points to a descriptor that lives for the
    // call (`call_raw`'s contract), and `args` lives no longer.
    tensor.map(|tensor| unsafe { &*tensor }).ok_or(KernelError::NoTensor { kind, index })
}

fn extents(tensor: &DLTensor) -> &[i64] {
    match usize::try_from(tensor.ndim) {
        // SAFETY: a descriptor has `ndim` extents, alive as long as itself.
        Ok(rank @ 1..) => unsafe { slice::from_raw_parts(tensor.shape, rank) },
        _ => &[],
    }
}

fn elements<T: Element>(
    args: &[TVMFFIAny],
    index: usize,
    kind: &'static str,
) -> Result<(*mut T, usize), KernelError> {
    let tensor = descriptor(args, index, kind)?;
    if tensor.dtype != T::DTYPE {
        return Err(TensorError::WrongDType { wanted: T::DTYPE, actual: tensor.dtype }.into());
    }
    // The tensor exists, so its extents are not negative and their product fits.
    let len = extents(tensor).iter().product::<i64>() as usize;
    Ok((tensor.data.wrapping_byte_add(tensor.byte_offset as usize).cast(), len))
}
