//! What a kernel is asked to compute, validated: extents, windows, clamp.
//!
//! The constructors are the only way to these values. Whoever holds one knows that every
//! extent is at least 1, that every tensor's size in bytes and every position inside a padded
//! plane fits `i32`, hence `usize` and `isize` on wasm32 too, and that the arithmetic of the
//! drivers cannot overflow.

use crate::KernelError;
use crate::activation::Activation;

/// Largest size of one tensor in bytes: what one wasm32 allocation can hold.
const MAX_BYTES: u64 = i32::MAX as u64;

/// Checks that an extent is at least 1.
///
/// # Errors
/// [`KernelError::Geometry`] otherwise.
pub fn extent(value: i32) -> Result<usize, KernelError> {
    match usize::try_from(value) {
        Ok(extent) if extent > 0 => Ok(extent),
        _ => Err(KernelError::Geometry("an extent is not positive")),
    }
}

/// Multiplies extents to a number of `f32` values.
///
/// # Errors
/// [`KernelError::Geometry`] when so many values exceed 2 GiB.
pub fn floats(extents: &[usize]) -> Result<usize, KernelError> {
    elements::<f32>(extents)
}

/// The same for values of another type.
///
/// # Errors
/// [`KernelError::Geometry`] when so many values exceed 2 GiB.
pub fn elements<T>(extents: &[usize]) -> Result<usize, KernelError> {
    let too_large = KernelError::Geometry("a tensor exceeds 2 GiB");
    let count = extents.iter().try_fold(1usize, |count, extent| count.checked_mul(*extent));
    let count = count.ok_or(too_large)?;
    match (count as u64).checked_mul(size_of::<T>() as u64) {
        Some(bytes) if bytes <= MAX_BYTES => Ok(count),
        _ => Err(too_large),
    }
}

/// One axis of a sliding window: rows or columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Extent of the input.
    pub input: usize,
    /// Extent of the output.
    pub output: usize,
    /// Taps of the window.
    pub kernel: usize,
    /// Input positions between neighbouring outputs.
    pub stride: usize,
    /// Input positions between neighbouring taps.
    pub dilation: usize,
    /// Padding before the first input position.
    pub before: usize,
}

impl Axis {
    /// Validates one axis.
    ///
    /// # Errors
    /// [`KernelError::Geometry`] when an extent is not positive, the padding is negative, a
    /// size overflows, or the last window ends further behind the input than the input, its
    /// padding and one window are long together: such an output belongs to another input.
    pub fn new(
        input: i32,
        output: i32,
        kernel: i32,
        stride: i32,
        dilation: i32,
        before: i32,
    ) -> Result<Self, KernelError> {
        let axis = Self {
            input: extent(input)?,
            output: extent(output)?,
            kernel: extent(kernel)?,
            stride: extent(stride)?,
            dilation: extent(dilation)?,
            before: usize::try_from(before)
                .map_err(|_| KernelError::Geometry("the padding is negative"))?,
        };
        // Every factor is below 2^31, so these cannot overflow.
        let window = (axis.kernel as u64 - 1) * axis.dilation as u64 + 1;
        let reach = (axis.output as u64 - 1) * axis.stride as u64 + window;
        let padded = axis.input as u64 + axis.before as u64;
        if window > MAX_BYTES || reach > MAX_BYTES || padded > MAX_BYTES {
            return Err(KernelError::Geometry("a window overflows"));
        }
        if reach > padded + padded + window {
            return Err(KernelError::Geometry("the output does not fit the input"));
        }
        Ok(axis)
    }

    /// Input positions that one window covers.
    #[must_use]
    pub fn window(&self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }

    /// Input positions, padding included, that `outputs` neighbouring windows cover.
    #[must_use]
    pub fn reach(&self, outputs: usize) -> usize {
        (outputs - 1) * self.stride + self.window()
    }

    /// Padding behind the input that the last window covers.
    #[must_use]
    pub fn after(&self) -> usize {
        self.reach(self.output).saturating_sub(self.input + self.before)
    }

    /// First input position of the window of `output`; negative inside the padding.
    #[must_use]
    pub fn start(&self, output: usize) -> isize {
        (output * self.stride) as isize - self.before as isize
    }

    /// Whether every output reads exactly the input at its own position.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.before == 0 && self.input == self.output
    }
}

/// Bounds of an output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clamp {
    /// Smallest output.
    pub low: f32,
    /// Largest output.
    pub high: f32,
}

impl Clamp {
    /// No bounds.
    pub const NONE: Self = Self { low: f32::NEG_INFINITY, high: f32::INFINITY };

    /// Validates bounds; those at the ends of `f32` become infinite.
    ///
    /// # Errors
    /// [`KernelError::Geometry`] unless `low <= high`.
    pub fn new(low: f32, high: f32) -> Result<Self, KernelError> {
        if low <= high {
            let low = if low <= f32::MIN { f32::NEG_INFINITY } else { low };
            let high = if high >= f32::MAX { f32::INFINITY } else { high };
            Ok(Self { low, high })
        } else {
            Err(KernelError::Geometry("the clamp is empty"))
        }
    }

    /// The bounded value; NaN stays.
    #[must_use]
    pub fn apply(&self, value: f32) -> f32 {
        let value = if value < self.low { self.low } else { value };
        if self.high < value { self.high } else { value }
    }
}

/// A convolution, depthwise ones included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conv2d {
    /// Images.
    pub batch: usize,
    /// Groups that see only their own channels.
    pub groups: usize,
    /// Input channels of one group.
    pub group_inputs: usize,
    /// Output channels of one group.
    pub group_outputs: usize,
    /// The window along rows.
    pub rows: Axis,
    /// The window along columns.
    pub columns: Axis,
    /// What follows the sum.
    pub activation: Activation,
}

impl Conv2d {
    /// Validates a convolution of `inputs` to `outputs` channels.
    ///
    /// # Errors
    /// [`KernelError::Geometry`] when an extent is not positive, `groups` does not divide the
    /// channels, or a tensor exceeds 2 GiB.
    pub fn new(
        batch: i32,
        inputs: i32,
        outputs: i32,
        groups: i32,
        rows: Axis,
        columns: Axis,
        activation: Activation,
    ) -> Result<Self, KernelError> {
        let (batch, groups) = (extent(batch)?, extent(groups)?);
        let (inputs, outputs) = (extent(inputs)?, extent(outputs)?);
        if inputs % groups != 0 || outputs % groups != 0 {
            return Err(KernelError::Geometry("the groups do not divide the channels"));
        }
        let conv = Self {
            batch,
            groups,
            group_inputs: inputs / groups,
            group_outputs: outputs / groups,
            rows,
            columns,
            activation,
        };
        floats(&[batch, inputs, rows.input, columns.input])?;
        floats(&[batch, outputs, rows.output, columns.output])?;
        let taps = floats(&[rows.kernel, columns.kernel, conv.group_inputs])?;
        floats(&[groups, conv.blocks() * 8, taps])?;
        Ok(conv)
    }

    /// Blocks of eight output channels in one group.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.group_outputs.div_ceil(8)
    }

    /// Reduction steps of one output: input channels times taps.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.group_inputs * self.rows.kernel * self.columns.kernel
    }

    /// Values in one input plane.
    #[must_use]
    pub fn input_plane(&self) -> usize {
        self.rows.input * self.columns.input
    }

    /// Values in one output plane.
    #[must_use]
    pub fn output_plane(&self) -> usize {
        self.rows.output * self.columns.output
    }
}

/// A dense layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dense {
    /// Rows of the input and the output.
    pub batch: usize,
    /// Values in one row of the input.
    pub inputs: usize,
    /// Values in one row of the output.
    pub outputs: usize,
    /// What follows the sum.
    pub activation: Activation,
}

impl Dense {
    /// Validates a dense layer.
    ///
    /// # Errors
    /// [`KernelError::Geometry`] when an extent is not positive or a tensor exceeds 2 GiB.
    pub fn new(
        batch: i32,
        inputs: i32,
        outputs: i32,
        activation: Activation,
    ) -> Result<Self, KernelError> {
        let (batch, inputs, outputs) = (extent(batch)?, extent(inputs)?, extent(outputs)?);
        floats(&[batch, inputs])?;
        floats(&[batch, outputs])?;
        floats(&[outputs.div_ceil(32) * 32, inputs])?;
        Ok(Self { batch, inputs, outputs, activation })
    }
}

/// A pool over windows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pool2d {
    /// Images times channels.
    pub planes: usize,
    /// The window along rows.
    pub rows: Axis,
    /// The window along columns.
    pub columns: Axis,
}

impl Pool2d {
    /// Validates a pool.
    ///
    /// # Errors
    /// [`KernelError::Geometry`] when an extent is not positive or a tensor exceeds 2 GiB.
    pub fn new(batch: i32, channels: i32, rows: Axis, columns: Axis) -> Result<Self, KernelError> {
        let planes = floats(&[extent(batch)?, extent(channels)?])?;
        floats(&[planes, rows.input, columns.input])?;
        floats(&[planes, rows.output, columns.output])?;
        Ok(Self { planes, rows, columns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_knows_its_padding_behind() {
        for (input, output, kernel, stride, dilation, before, after) in [
            (7, 7, 3, 1, 1, 1, 1),
            (224, 112, 3, 2, 1, 1, 0),
            (224, 112, 3, 2, 1, 0, 1),
            (13, 6, 3, 2, 1, 0, 0),
            (9, 9, 3, 1, 2, 2, 2),
            (5, 2, 2, 2, 1, 0, 0),
        ] {
            let axis = Axis::new(input, output, kernel, stride, dilation, before);
            assert_eq!(axis.map(|axis| axis.after()), Ok(after), "input {input}");
        }
    }

    #[test]
    fn impossible_windows_are_refused() {
        for (input, output, kernel, stride, dilation, before) in [
            (0, 1, 1, 1, 1, 0),
            (8, 0, 1, 1, 1, 0),
            (8, 8, -3, 1, 1, 0),
            (8, 8, 3, 0, 1, 0),
            (8, 8, 3, 1, 0, 0),
            (8, 8, 3, 1, 1, -1),
            (8, 100, 3, 1, 1, 1),
            (i32::MAX, i32::MAX, 3, i32::MAX, 1, 1),
            (8, 8, i32::MAX, 1, i32::MAX, 0),
            (i32::MAX, 1, 1, 1, 1, i32::MAX),
        ] {
            let axis = Axis::new(input, output, kernel, stride, dilation, before);
            assert!(matches!(axis, Err(KernelError::Geometry(_))), "{axis:?}");
        }
    }

    #[test]
    fn tensors_beyond_two_gibibytes_are_refused() {
        assert_eq!(
            floats(&[1 << 15, 1 << 14]),
            Err(KernelError::Geometry("a tensor exceeds 2 GiB"))
        );
        assert_eq!(floats(&[1 << 14, 1 << 14]), Ok(1 << 28));
        assert!(floats(&[usize::MAX, 2]).is_err());
    }

    #[test]
    fn a_clamp_at_the_ends_of_the_range_is_none() {
        let clamp = Clamp::new(f32::MIN, f32::MAX).expect("min is below max");
        assert_eq!(clamp.apply(f32::INFINITY), f32::INFINITY);
        assert_eq!(clamp.apply(f32::NEG_INFINITY), f32::NEG_INFINITY);
        assert!(clamp.apply(f32::NAN).is_nan());
        assert!(Clamp::new(1.0, 0.0).is_err());
        assert!(Clamp::new(f32::NAN, 0.0).is_err());
    }

    #[test]
    fn groups_must_divide_the_channels() {
        let axis = Axis::new(4, 4, 1, 1, 1, 0).expect("a valid axis");
        let activation = Activation::Tanh;
        assert!(Conv2d::new(1, 8, 6, 4, axis, axis, activation).is_err());
        assert!(Conv2d::new(1, 8, 12, 4, axis, axis, activation).is_ok());
    }
}
