//! One planned kernel call: which tensors, where they lie, and the call itself.
//!
//! Unsafe stands here because TVM's kernels take bare pointers. All that a kernel may touch is
//! decided and checked in [`CallPlan::new`]; the rest of the crate is safe.
#![expect(unsafe_code, reason = "gives bare pointers to kernels; each block has its proof")]

use std::ops::Range;

use tensor::{ALIGNMENT, DLDevice, DLTensor, DType};

use crate::graph::Entry;
use crate::packed::TVMFFIAny;
use crate::{CallError, PackedFunc, RetValue};

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// These bytes of the arena.
    Arena(Range<usize>),
    /// The tensor that is bound to this input or parameter.
    Bound(usize),
}

/// A kernel with its arguments.
#[derive(Debug)]
pub(crate) struct CallPlan {
    func: PackedFunc,
    args: Box<[Argument]>,
    /// The end of the last arena range.
    arena_len: usize,
}

#[derive(Debug)]
struct Argument {
    place: Place,
    bytes: usize,
    dtype: DType,
    extents: Box<[i64]>,
    strides: Box<[i64]>,
}

/// Room for the arguments of one call, kept from call to call so that calls allocate nothing.
#[derive(Debug, Default)]
pub(crate) struct CallFrame {
    tensors: Vec<DLTensor>,
    args: Vec<TVMFFIAny>,
}

// SAFETY: no pointer in it is ever followed after `run`, which clears the frame before it fills it.
unsafe impl Send for CallFrame {}
// SAFETY: a shared frame gives nothing out.
unsafe impl Sync for CallFrame {}

impl CallFrame {
    /// Room for calls of at most `arguments` arguments.
    pub(crate) fn with_capacity(arguments: usize) -> Self {
        CallFrame { tensors: Vec::with_capacity(arguments), args: Vec::with_capacity(arguments) }
    }
}

impl CallPlan {
    /// Plans the call of `func` that reads `inputs` and writes `outputs`.
    ///
    /// `None` when an output is not in the arena or not aligned there, when it overlaps another
    /// argument, or when a range does not have the bytes of its tensor.
    pub(crate) fn new(
        func: PackedFunc,
        inputs: &[(Place, &Entry)],
        outputs: &[(Place, &Entry)],
    ) -> Option<Self> {
        if !func.has_outputs(outputs.len()) {
            return None;
        }
        let mut arena_len = 0;
        let mut args = Vec::with_capacity(inputs.len() + outputs.len());
        for (place, entry) in inputs.iter().chain(outputs) {
            if let Place::Arena(range) = place {
                if range.len() != entry.bytes || range.start % ALIGNMENT != 0 {
                    return None;
                }
                arena_len = arena_len.max(range.end);
            }
            args.push(Argument {
                place: place.clone(),
                bytes: entry.bytes,
                dtype: entry.dtype,
                extents: entry.shape.signed_extents().into(),
                strides: entry.shape.compact_strides().into(),
            });
        }
        for (i, (output, _)) in outputs.iter().enumerate() {
            let Place::Arena(output) = output else { return None };
            let others = inputs.iter().chain(&outputs[..i]);
            if others.into_iter().any(|(place, _)| overlaps(output, place)) {
                return None;
            }
        }
        Some(CallPlan { func, args: args.into(), arena_len })
    }

    pub(crate) fn argument_count(&self) -> usize {
        self.args.len()
    }

    /// Calls the kernel.
    ///
    /// # Errors
    /// What the kernel raised. `None` in place of a result when the arena is too short, or when
    /// the bytes of a bound tensor are missing or not as many as were planned.
    pub(crate) fn run<'b>(
        &self,
        frame: &mut CallFrame,
        arena: &mut [u8],
        bound: impl Fn(usize) -> Option<&'b [u8]>,
    ) -> Option<Result<RetValue, CallError>> {
        if arena.len() < self.arena_len {
            return None;
        }
        let base = arena.as_mut_ptr();
        frame.tensors.clear();
        frame.args.clear();
        for arg in &self.args {
            let data = match &arg.place {
                // Within the arena: checked above.
                Place::Arena(range) => base.wrapping_add(range.start),
                Place::Bound(index) => {
                    let bytes = bound(*index).filter(|bytes| bytes.len() == arg.bytes)?;
                    // Inputs only, and kernels do not write to those.
                    bytes.as_ptr().cast_mut()
                }
            };
            frame.tensors.push(DLTensor {
                data: data.cast(),
                device: DLDevice::CPU,
                // A rank is at most `MAX_RANK`.
                ndim: arg.extents.len() as i32,
                dtype: arg.dtype,
                shape: arg.extents.as_ptr(),
                strides: arg.strides.as_ptr(),
                byte_offset: 0,
            });
        }
        // Only now: a push may have moved the descriptors.
        frame.args.extend(frame.tensors.iter().map(|tensor| TVMFFIAny::tensor(tensor)));
        // SAFETY: each descriptor stands in `frame`, its extents and strides in `self`, its data
        // in `arena` or `bound`, all borrowed for the call, with exactly the bytes that extents
        // and type take (`new` for arena ranges, the comparison above for bound tensors).
        // Outputs lie in the arena, which is borrowed mutably, and overlap no other argument
        // (`new`); `base` is the one pointer into it.
        let result = unsafe { self.func.call_raw(&frame.args) };
        frame.tensors.clear();
        frame.args.clear();
        Some(result)
    }
}

fn overlaps(output: &Range<usize>, other: &Place) -> bool {
    match other {
        Place::Arena(other) => output.start < other.end && other.start < output.end,
        Place::Bound(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensor::Shape;

    use crate::{Module, NativeModule};

    #[test]
    fn calls_that_could_break_aliasing_are_not_planned() {
        let mut module = NativeModule::default();
        module.register("f", 1, |_| Ok(()));
        module.register("g", 2, |_| Ok(()));
        let entry = Entry {
            dtype: DType::FLOAT32,
            shape: Shape::new([32]).expect("small"),
            bytes: 128,
            storage: 0,
            offset: 0,
            consumed: false,
        };
        let arena = |start| (Place::Arena(start..start + 128), &entry);
        let plan = |name: &str, inputs: &[_], outputs: &[_]| {
            let func = module.get_function(name).expect("registered above");
            CallPlan::new(func, inputs, outputs).is_some()
        };
        assert!(plan("f", &[arena(0), (Place::Bound(0), &entry)], &[arena(128)]));
        assert!(plan("g", &[arena(0)], &[arena(128), arena(256)]));
        assert!(!plan("f", &[arena(64)], &[arena(0)]), "an output over an input");
        assert!(!plan("g", &[], &[arena(0), arena(64)]), "an output over an output");
        assert!(!plan("f", &[], &[(Place::Bound(0), &entry)]), "an output outside the arena");
        assert!(!plan("f", &[], &[arena(4)]), "a misaligned output");
        assert!(!plan("f", &[], &[(Place::Arena(0..64), &entry)]), "a range too short");
        assert!(!plan("g", &[arena(0)], &[arena(128)]), "another number of outputs");
    }

    #[test]
    fn a_call_without_its_tensors_is_not_made() {
        let mut module = NativeModule::default();
        module.register("f", 1, |_| panic!("must not be called"));
        let entry = |extents: [usize; 1]| Entry {
            dtype: DType::UINT8,
            shape: Shape::new(extents).expect("small"),
            bytes: extents[0],
            storage: 0,
            offset: 0,
            consumed: false,
        };
        let (input, output) = (entry([2]), entry([64]));
        let func = module.get_function("f").expect("registered above");
        let inputs = [(Place::Bound(0), &input)];
        let plan = CallPlan::new(func, &inputs, &[(Place::Arena(0..64), &output)]).expect("fits");
        let mut frame = CallFrame::default();
        assert!(plan.run(&mut frame, &mut [0; 63], |_| Some(&[0; 2])).is_none());
        assert!(plan.run(&mut frame, &mut [0; 64], |_| Some(&[0; 3])).is_none());
        assert!(plan.run(&mut frame, &mut [0; 64], |_| None).is_none());
    }
}
