//! TVM's packed calls: arguments, results, functions, as TVM 0.27 lays them out (tvm-ffi's
//! `c_api.h`).
//!
//! Unsafe stands here because a packed function is a C function behind a pointer.
#![expect(unsafe_code, reason = "calls C functions; each block has its proof")]

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::ptr;
use std::sync::Arc;

use tensor::{DLDevice, DLTensor};

use crate::native::NativeKernel;

/// `TVMFFIAny`: one argument or result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct TVMFFIAny {
    /// `TVMFFITypeIndex`.
    pub type_index: i32,
    /// Zero for every kind of value used here.
    pub zero_padding: u32,
    /// A union in C: integers, the bits of floats, addresses.
    pub value: u64,
}

const NONE: i32 = 0;
const INT: i32 = 1;
const BOOL: i32 = 2;
const FLOAT: i32 = 3;
const OPAQUE_POINTER: i32 = 4;
const DEVICE: i32 = 6;
const DL_TENSOR: i32 = 7;
const RAW_STRING: i32 = 8;

impl TVMFFIAny {
    /// No value; what a result is before the call.
    pub const NONE: Self = Self::new(NONE, 0);

    const fn new(type_index: i32, value: u64) -> Self {
        TVMFFIAny { type_index, zero_padding: 0, value }
    }

    pub(crate) fn tensor(tensor: *const DLTensor) -> Self {
        Self::new(DL_TENSOR, tensor.expose_provenance() as u64)
    }

    pub(crate) fn as_tensor(self) -> Option<*const DLTensor> {
        (self.type_index == DL_TENSOR).then(|| ptr::with_exposed_provenance(self.value as usize))
    }
}

/// `TVMFFISafeCallType`: every kernel that TVM compiles has this signature.
pub type PackedCFunc = unsafe extern "C" fn(
    handle: *mut c_void,
    args: *const TVMFFIAny,
    num_args: i32,
    result: *mut TVMFFIAny,
) -> i32;

/// One argument of a packed call.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum ArgValue<'a> {
    /// No value.
    None,
    /// An integer.
    Int(i64),
    /// A truth value.
    Bool(bool),
    /// A floating-point number.
    Float(f64),
    /// An address that only the callee understands.
    Pointer(*mut c_void),
    /// A device.
    Device(DLDevice),
    /// A text.
    Str(&'a CStr),
    /// A tensor.
    Tensor(&'a DLTensor),
}

macro_rules! arguments {
    ($($from:ty => |$value:ident| $arg:expr),* $(,)?) => {$(
        impl<'a> From<$from> for ArgValue<'a> {
            fn from($value: $from) -> Self {
                $arg
            }
        }
    )*};
}

arguments! {
    () => |_value| ArgValue::None,
    i64 => |value| ArgValue::Int(value),
    i32 => |value| ArgValue::Int(value.into()),
    bool => |value| ArgValue::Bool(value),
    f64 => |value| ArgValue::Float(value),
    f32 => |value| ArgValue::Float(value.into()),
    DLDevice => |value| ArgValue::Device(value),
    *mut c_void => |value| ArgValue::Pointer(value),
    &'a CStr => |value| ArgValue::Str(value),
    &'a DLTensor => |value| ArgValue::Tensor(value),
}

impl From<ArgValue<'_>> for TVMFFIAny {
    fn from(value: ArgValue<'_>) -> Self {
        match value {
            ArgValue::None => Self::NONE,
            ArgValue::Int(value) => Self::new(INT, value.cast_unsigned()),
            ArgValue::Bool(value) => Self::new(BOOL, value.into()),
            ArgValue::Float(value) => Self::new(FLOAT, value.to_bits()),
            ArgValue::Pointer(value) => Self::new(OPAQUE_POINTER, value.expose_provenance() as u64),
            ArgValue::Device(DLDevice { device_type, device_id }) => {
                let (low, high) = (device_type.cast_unsigned(), device_id.cast_unsigned());
                Self::new(DEVICE, u64::from(high) << 32 | u64::from(low))
            }
            ArgValue::Str(text) => Self::new(RAW_STRING, text.as_ptr().expose_provenance() as u64),
            ArgValue::Tensor(tensor) => Self::tensor(tensor),
        }
    }
}

/// What a packed call gave back.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum RetValue {
    /// No value; what kernels give back.
    None,
    /// An integer.
    Int(i64),
    /// A truth value.
    Bool(bool),
    /// A floating-point number.
    Float(f64),
    /// An address that only the callee understands.
    Pointer(*mut c_void),
}

impl TryFrom<TVMFFIAny> for RetValue {
    type Error = CallError;

    fn try_from(any: TVMFFIAny) -> Result<Self, CallError> {
        Ok(match any.type_index {
            NONE => RetValue::None,
            INT => RetValue::Int(any.value.cast_signed()),
            BOOL => RetValue::Bool(any.value != 0),
            FLOAT => RetValue::Float(f64::from_bits(any.value)),
            OPAQUE_POINTER => {
                RetValue::Pointer(ptr::with_exposed_provenance_mut(any.value as usize))
            }
            // Objects are counted references of a runtime that is not here.
            type_index => return Err(CallError::Result { type_index }),
        })
    }
}

/// A packed call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The function said so; the text is what it raised.
    #[error("{message} (code {code})")]
    Raised {
        /// What it returned.
        code: i32,
        /// `Kind: message` as TVM raised it.
        message: String,
    },
    /// The function said so and raised nothing.
    #[error("the kernel returned code {code} without a message")]
    Code {
        /// What it returned.
        code: i32,
    },
    /// The result is of a kind that needs TVM's own runtime.
    #[error("the result is an object of TVM's runtime (type index {type_index})")]
    Result {
        /// `TVMFFITypeIndex` of the result.
        type_index: i32,
    },
}

/// A function that can be called through TVM's packed ABI.
#[derive(Clone)]
pub struct PackedFunc {
    entry: PackedCFunc,
    /// What a native kernel's entry gets as its handle; kernels of TVM have none.
    native: Option<Arc<NativeKernel>>,
}

impl PackedFunc {
    /// A function that TVM, or somebody who keeps its ABI, compiled.
    ///
    /// # Safety
    /// `entry` keeps TVM's packed ABI and may be called at any time with a null handle. It reads
    /// its inputs, writes its outputs, and touches no other memory of ours, whatever tensors the
    /// graphs that name it give it: it compares their number, types and extents with what it was
    /// compiled for, or it is only ever named by the graph that was compiled with it.
    pub unsafe fn from_c(entry: PackedCFunc) -> Self {
        PackedFunc { entry, native: None }
    }

    pub(crate) fn from_native(kernel: Arc<NativeKernel>) -> Self {
        PackedFunc { entry: NativeKernel::ENTRY, native: Some(kernel) }
    }

    /// Whether a node with so many outputs may call this function; kernels of TVM see to it
    /// themselves.
    pub(crate) fn has_outputs(&self, count: usize) -> bool {
        self.native.as_ref().is_none_or(|kernel| kernel.outputs() == count)
    }

    /// Calls the function.
    ///
    /// # Errors
    /// [`CallError`] when it fails.
    ///
    /// # Safety
    /// As [`PackedFunc::call_raw`].
    pub unsafe fn call(&self, args: &[ArgValue<'_>]) -> Result<RetValue, CallError> {
        let args: Vec<TVMFFIAny> = args.iter().map(|&arg| arg.into()).collect();
        // SAFETY: the same contract.
        unsafe { self.call_raw(&args) }
    }

    /// Calls the function with arguments that are already in its form; allocates nothing.
    ///
    /// # Errors
    /// [`CallError`] when it fails.
    ///
    /// # Safety
    /// Every pointer among the arguments must be valid during the call: each tensor's data,
    /// extents and strides as its descriptor says, and the outputs (the last arguments) writable
    /// and apart from all other arguments.
    pub unsafe fn call_raw(&self, args: &[TVMFFIAny]) -> Result<RetValue, CallError> {
        let handle = self
            .native
            .as_ref()
            .map_or(ptr::null_mut(), |kernel| Arc::as_ptr(kernel).cast_mut().cast());
        let count = i32::try_from(args.len()).map_err(|_| CallError::Code { code: -1 })?;
        let mut result = TVMFFIAny::NONE;
        // SAFETY: `entry` keeps the ABI (`from_c`'s contract; ours does): it reads `count` values
        // from `args` and writes at most `result`, both alive here. The handle is the one that
        // `entry` was made with. What the pointers in `args` lead to is the caller's promise.
        let code = unsafe { (self.entry)(handle, args.as_ptr(), count, &raw mut result) };
        match (code, take_raised()) {
            (0, _) => result.try_into(),
            (code, Some(message)) => Err(CallError::Raised { code, message }),
            (code, None) => Err(CallError::Code { code }),
        }
    }
}

impl fmt::Debug for PackedFunc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.native.is_some() { "PackedFunc(native)" } else { "PackedFunc(C)" })
    }
}

/// Calls a [`PackedFunc`] with values of any type that is an [`ArgValue`]:
/// `unsafe { call_packed!(func, 1, 2.5, &tensor) }`, under the contract of [`PackedFunc::call`].
#[macro_export]
macro_rules! call_packed {
    ($func:expr $(, $arg:expr)* $(,)?) => {
        $func.call(&[$($crate::ArgValue::from($arg)),*])
    };
}

thread_local! {
    /// The error that the running kernel has raised, as TVM keeps it: one per thread.
    static RAISED: RefCell<Option<String>> = const { RefCell::new(None) };
}

pub(crate) fn raise(message: String) {
    RAISED.set(Some(message));
}

fn take_raised() -> Option<String> {
    RAISED.take()
}

/// Keeps what a kernel raises, for the error that its call ends with.
///
/// # Safety
/// `kind` is a C string or null, `parts` points to `num_parts` pointers of that sort.
#[unsafe(no_mangle)]
unsafe extern "C" fn TVMFFIErrorSetRaisedFromCStrParts(
    kind: *const c_char,
    parts: *const *const c_char,
    num_parts: i32,
) {
    // SAFETY: a C string or null, which the caller promises.
    let text = |text: *const c_char| match text.is_null() {
        true => String::new(),
        false => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
    };
    let mut message = text(kind);
    message.push_str(": ");
    for i in 0..usize::try_from(num_parts).unwrap_or(0) {
        // SAFETY: `i` is below `num_parts`, and so many pointers are there.
        message.push_str(&text(unsafe { *parts.add(i) }));
    }
    raise(message);
}

/// As [`TVMFFIErrorSetRaisedFromCStrParts`] with one part.
///
/// # Safety
/// Both are C strings or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn TVMFFIErrorSetRaisedFromCStr(kind: *const c_char, message: *const c_char) {
    // SAFETY: one part, as the caller promises.
    unsafe { TVMFFIErrorSetRaisedFromCStrParts(kind, &raw const message, 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn an_argument_is_laid_out_as_tvm_lays_it_out() {
        assert_eq!(size_of::<TVMFFIAny>(), 16);
        assert_eq!(offset_of!(TVMFFIAny, zero_padding), 4);
        assert_eq!(offset_of!(TVMFFIAny, value), 8);
        let any = |arg: ArgValue<'_>| {
            let any = TVMFFIAny::from(arg);
            (any.type_index, any.zero_padding, any.value)
        };
        assert_eq!(any(().into()), (0, 0, 0));
        assert_eq!(any((-1i32).into()), (1, 0, u64::MAX));
        assert_eq!(any(true.into()), (2, 0, 1));
        assert_eq!(any(1.0f32.into()), (3, 0, 0x3ff0_0000_0000_0000));
        assert_eq!(any(DLDevice { device_type: 1, device_id: 2 }.into()), (6, 0, 0x2_0000_0001));
        assert_eq!(any(c"text".into()).0, 8);
    }

    /// Gives its first argument back; a text is raised instead.
    unsafe extern "C" fn echo(
        handle: *mut c_void,
        args: *const TVMFFIAny,
        num_args: i32,
        result: *mut TVMFFIAny,
    ) -> i32 {
        assert!(handle.is_null());
        let parts = [c"echo of ".as_ptr(), ptr::null(), c"nothing".as_ptr()];
        // SAFETY: the tests below pass what `call` builds, and `result` is writable.
        unsafe {
            match num_args {
                0 => {
                    TVMFFIErrorSetRaisedFromCStrParts(c"TypeError".as_ptr(), parts.as_ptr(), 3);
                    -1
                }
                1 => {
                    *result = *args;
                    0
                }
                _ => -7,
            }
        }
    }

    #[test]
    fn values_go_through_a_packed_call_and_come_back() {
        // SAFETY: `echo` keeps the ABI and touches nothing but its arguments and its result.
        let func = unsafe { PackedFunc::from_c(echo) };
        let mut place = 0;
        let pointer: *mut c_void = (&raw mut place).cast();
        // SAFETY: no argument is followed.
        unsafe {
            assert_eq!(call_packed!(func, ()), Ok(RetValue::None));
            assert_eq!(call_packed!(func, i64::MIN), Ok(RetValue::Int(i64::MIN)));
            assert_eq!(call_packed!(func, true), Ok(RetValue::Bool(true)));
            assert_eq!(call_packed!(func, -2.5), Ok(RetValue::Float(-2.5)));
            assert_eq!(call_packed!(func, pointer), Ok(RetValue::Pointer(pointer)));
            assert_eq!(call_packed!(func, c"text"), Err(CallError::Result { type_index: 8 }));
        }
    }

    #[test]
    fn a_failed_call_carries_what_was_raised_and_only_once() {
        // SAFETY: as above.
        let func = unsafe { PackedFunc::from_c(echo) };
        let message = "TypeError: echo of nothing".to_owned();
        // SAFETY: as above.
        unsafe {
            assert_eq!(call_packed!(func), Err(CallError::Raised { code: -1, message }));
            assert_eq!(call_packed!(func, 1, 2), Err(CallError::Code { code: -7 }));
        }
    }
}
