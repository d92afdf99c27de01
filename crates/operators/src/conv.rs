//! Convolution: which micro-kernel sweeps which arrangement of the input.
//!
//! | window | arrangement | micro-kernel |
//! |---|---|---|
//! | 1x1, stride 1, no padding | the input where it lies | [`tile::pointwise`] |
//! | 1x1 otherwise, with many channels, or on colliding planes | panels | [`tile::pointwise`] |
//! | others on small maps with many output channels, unless their width suits tiles | panels | [`tile::pointwise`] |
//! | three columns at stride 1 | padded rows | [`tile::rows_of_three`] |
//! | three, five, seven columns at stride 2 | padded rows, even and odd columns apart | [`tile::split_rows`] |
//! | anything else | padded rows, split by the stride | [`tile::table`] |
//!
//! Groups are convolutions of their own. The input passes in chunks that fit the second-level
//! cache; arranged chunks take scratch one at a time.

use crate::KernelError;
use crate::gather::{CHUNK_BYTES, Padded, collides};
use crate::geometry::Conv2d;
use crate::panels::Panels;
use crate::scratch::{self, LINE};
use crate::strip;
use crate::tile::{self, PIXELS, Sweep};

/// From this many input channels on, planes that collide in the first-level cache are worth a
/// copy: at 144 channels it costs as much as it saves, at 256 it makes the sweep 12 % faster.
const COLLISION_CHANNELS: usize = 160;

/// Fewest input and output channels with which a 1x1 convolution that could read its input in place
/// is faster from panels: 5 to 20 % on ResNet50's layers. With fewer the copy costs what it saves.
const PANEL_CHANNELS: usize = 128;

/// Widest map, and fewest output channels, for which a window's input may be copied to panels: rows
/// of a few pixels leave tiles half empty, and each value is copied once for each tap.
const SMALL_WIDTH: usize = 14;
const PANEL_OUTPUTS: usize = 64;

/// Output channels that take as long as the copy. It pays where the empty places of tiles take
/// longer: panels are a fifth slower than padded rows with 64 channels on maps of 14x14, as fast with
/// 192, and a tenth faster with 256.
const COPY_OUTPUTS: usize = 20;

/// The buffers of a convolution, as the C symbols describe them.
#[derive(Clone, Copy)]
pub(crate) struct ConvBuffers {
    pub(crate) x: *const f32,
    pub(crate) weights: *const f32,
    pub(crate) bias: *const f32,
    /// Null when nothing is added.
    pub(crate) residual: *const f32,
    pub(crate) y: *mut f32,
}

/// How the input is arranged for the micro-kernel.
enum Plan {
    /// It is read where it lies, `chunk` pixels at a time.
    InPlace { chunk: usize },
    /// Panels of tiles.
    Panels(Panels),
    /// Padded planes whose window rows are three neighbouring columns.
    RowsOfThree(Padded),
    /// Padded planes, even and odd columns apart.
    SplitRows(Padded),
    /// Padded planes.
    Table(Padded),
}

impl Plan {
    fn new(conv: &Conv2d) -> Result<Self, KernelError> {
        let (rows, columns, channels) = (conv.rows, conv.columns, conv.group_inputs);
        if rows.kernel == 1 && columns.kernel == 1 {
            let plane = conv.input_plane();
            let panels = channels.min(conv.group_outputs) >= PANEL_CHANNELS
                || collides(plane) && channels >= COLLISION_CHANNELS;
            if rows.is_identity() && columns.is_identity() && plane >= PIXELS && !panels {
                let pixels = CHUNK_BYTES / 4 / channels / LINE * LINE;
                return Ok(Self::InPlace { chunk: pixels.max(LINE) });
            }
            return Ok(Self::Panels(Panels::plan(conv)?));
        }
        let empty = columns.output.next_multiple_of(PIXELS) - columns.output;
        if columns.output <= SMALL_WIDTH
            && conv.group_outputs >= PANEL_OUTPUTS
            && empty * conv.group_outputs > COPY_OUTPUTS * columns.output
        {
            return Ok(Self::Panels(Panels::plan(conv)?));
        }
        let padded = Padded::plan(channels, rows, columns)?;
        if columns.kernel == 3 && columns.stride == 1 && columns.dilation == 1 {
            Ok(Self::RowsOfThree(padded))
        } else if [3, 5, 7].contains(&columns.kernel)
            && columns.stride == 2
            && columns.dilation == 1
        {
            Ok(Self::SplitRows(padded))
        } else {
            Ok(Self::Table(padded))
        }
    }

    /// Values of scratch for offsets and for input.
    fn scratch(&self, conv: &Conv2d) -> (usize, usize) {
        let (offsets, input) = match self {
            Self::InPlace { .. } => (0, 0),
            Self::Panels(panels) => (0, panels.len(conv)),
            Self::RowsOfThree(padded) | Self::SplitRows(padded) | Self::Table(padded) => {
                (conv.steps(), padded.len())
            }
        };
        (offsets.next_multiple_of(LINE), input)
    }
}

/// Computes a convolution.
///
/// # Errors
/// [`KernelError::Scratch`], or [`KernelError::Geometry`] when one row of input exceeds 2 GiB.
///
/// # Safety
/// The buffers have the extents that [`crate::graphlet_conv2d_f32`] gives for `conv`.
pub(crate) unsafe fn conv2d(conv: &Conv2d, buffers: ConvBuffers) -> Result<(), KernelError> {
    let plan = Plan::new(conv)?;
    let (offsets, len) = plan.scratch(conv);
    scratch::with(offsets + len, |scratch| {
        let (offsets, input) = scratch.split_at_mut(offsets);
        match &plan {
            Plan::InPlace { .. } | Plan::Panels(_) => {}
            Plan::RowsOfThree(padded) | Plan::SplitRows(padded) | Plan::Table(padded) => {
                padded.write_offsets(offsets);
                // The padding, which nothing else writes.
                input[..len].fill(0.0);
            }
        }
        for group in 0..conv.batch * conv.groups {
            // SAFETY: the caller's promise; a group's weights repeat for every image.
            let buffers = unsafe {
                let weights = group % conv.groups * conv.blocks();
                let output = group * conv.group_outputs * conv.output_plane();
                ConvBuffers {
                    x: buffers.x.add(group * conv.group_inputs * conv.input_plane()),
                    weights: buffers.weights.add(weights * conv.steps() * 8),
                    bias: buffers.bias.add(weights * 8),
                    residual: at(buffers.residual, output),
                    y: buffers.y.add(output),
                }
            };
            // SAFETY: the buffers are those of this group; scratch has the plan's sizes.
            unsafe { one_group(&plan, conv, buffers, offsets.as_ptr().cast(), input) };
        }
    })
}

/// `pointer` moved by `offset` values, or still null.
///
/// # Safety
/// A pointer that is not null leads to a buffer of at least `offset` values.
pub(crate) unsafe fn at(pointer: *const f32, offset: usize) -> *const f32 {
    // SAFETY: the caller's promise.
    if pointer.is_null() { pointer } else { unsafe { pointer.add(offset) } }
}

/// Computes one group of one image.
///
/// # Safety
/// The buffers hold that group; `offsets` were written for this plan and `scratch` has its size.
unsafe fn one_group(
    plan: &Plan,
    conv: &Conv2d,
    buffers: ConvBuffers,
    offsets: *const u32,
    scratch: &mut [f32],
) {
    let plane = conv.output_plane();
    let width = conv.columns.output;
    let sweep = Sweep {
        input: buffers.x,
        input_row: 0,
        input_plane: conv.input_plane(),
        offsets,
        odd: 0,
        steps: conv.steps(),
        weights: buffers.weights,
        bias: buffers.bias,
        output: buffers.y,
        residual: buffers.residual,
        output_row: 0,
        output_plane: plane,
        channels: conv.group_outputs,
        rows: 1,
        columns: 0,
        clamp: conv.activation.clamp(),
        panel: 0,
        more_weights: 0,
    };
    match plan {
        Plan::InPlace { chunk } => {
            let mut first = 0;
            while first < plane {
                // The last chunk may reach back: a tile needs four pixels.
                let end = (first + chunk).min(plane);
                let from = first.min(plane - PIXELS);
                // SAFETY: input and output planes are equal here and hold `from..end`, at least
                // four pixels (`Plan::new` compared, and chunks are whole lines).
                unsafe {
                    let sweep = Sweep {
                        input: buffers.x.add(from),
                        output: buffers.y.add(from),
                        residual: at(buffers.residual, from),
                        columns: end - from,
                        ..sweep
                    };
                    tile::activated(&sweep, &conv.activation, tile::pointwise);
                }
                first = end;
            }
        }
        Plan::Panels(panels) => {
            for first in (0..plane).step_by(panels.chunk) {
                let end = (first + panels.chunk).min(plane);
                let from = first.min(plane.saturating_sub(strip::PIXELS));
                // SAFETY: `scratch` holds the plan's panels; the output's planes hold `from..end`,
                // eight pixels at least or all that there are.
                unsafe {
                    panels.fill(conv, buffers.x, scratch, from, end);
                    let sweep = Sweep {
                        input: scratch.as_ptr(),
                        input_plane: strip::PIXELS,
                        panel: panels.panel,
                        output: buffers.y.add(from),
                        residual: at(buffers.residual, from),
                        columns: end - from,
                        ..sweep
                    };
                    tile::activated(&sweep, &conv.activation, tile::pointwise);
                }
            }
        }
        Plan::RowsOfThree(padded) | Plan::SplitRows(padded) | Plan::Table(padded) => {
            for first in (0..conv.rows.output).step_by(padded.chunk()) {
                let rows = padded.chunk().min(conv.rows.output - first);
                // SAFETY: `fill` wrote the input of these rows into `scratch`, where every tap's
                // rows hold `max(width, 4)` values from its offset on (`Padded::plan`), and as many
                // more as columns of a phase share an offset; outputs as above.
                unsafe {
                    padded.fill(buffers.x, scratch, first, rows);
                    let sweep = Sweep {
                        input: scratch.as_ptr(),
                        input_row: padded.row(),
                        odd: padded.odd(),
                        output: buffers.y.add(first * width),
                        residual: at(buffers.residual, first * width),
                        output_row: width,
                        rows,
                        columns: width,
                        ..sweep
                    };
                    let function = match plan {
                        Plan::RowsOfThree(_) => tile::rows_of_three,
                        Plan::SplitRows(_) => match conv.columns.kernel {
                            3 => tile::split_rows::<3>,
                            5 => tile::split_rows::<5>,
                            _ => tile::split_rows::<7>,
                        },
                        _ => tile::table,
                    };
                    tile::activated(&sweep, &conv.activation, function);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::geometry::Axis;

    /// A convolution of a square map to `outputs` channels, half its taps as padding.
    fn square(inputs: i32, outputs: i32, side: i32, kernel: i32, stride: i32) -> Conv2d {
        let out = (side - 1) / stride + 1;
        let axis = Axis::new(side, out, kernel, stride, 1, kernel / 2).expect("a valid axis");
        let activation = Activation::HardSwish;
        Conv2d::new(1, inputs, outputs, 1, axis, axis, activation).expect("a valid convolution")
    }

    #[test]
    fn the_layers_of_the_three_models_take_at_most_a_mebibyte_of_scratch() {
        // Larger maps are taken in chunks: all of the last one's input would be 26 MB.
        for (inputs, side, kernel, stride) in [
            (3, 224, 3, 2),
            (3, 224, 7, 2),
            (64, 56, 3, 1),
            (128, 56, 3, 2),
            (128, 28, 3, 1),
            (256, 28, 3, 2),
            (256, 14, 3, 1),
            (512, 14, 3, 2),
            (512, 7, 3, 1),
            (256, 56, 1, 1),
            (256, 56, 1, 2),
            (512, 28, 1, 2),
            (1024, 14, 1, 2),
            (2048, 7, 1, 1),
            (64, 54, 3, 1),
            (64, 27, 3, 1),
            (64, 13, 3, 1),
            (512, 13, 1, 1),
            (144, 56, 1, 1),
            (128, 224, 3, 1),
        ] {
            for outputs in [8, 256] {
                let conv = square(inputs, outputs, side, kernel, stride);
                let plan = Plan::new(&conv).expect("a valid plan");
                let (offsets, input) = plan.scratch(&conv);
                let bytes = (offsets + input) * 4;
                assert!(
                    bytes <= 1 << 20,
                    "{inputs} channels at {side}, {kernel}x{kernel}: {bytes}"
                );
            }
        }
    }

    #[test]
    fn each_window_gets_the_arrangement_it_is_fastest_with() {
        for (inputs, outputs, side, kernel, stride, want) in [
            (64, 256, 56, 1, 1, "in place"),
            (256, 96, 28, 1, 1, "in place"),
            (256, 128, 28, 1, 1, "panels"),
            (256, 64, 56, 1, 1, "panels"),
            (64, 8, 56, 1, 2, "panels"),
            (64, 8, 1, 1, 1, "panels"),
            (64, 32, 14, 3, 1, "rows of three"),
            (64, 64, 14, 3, 1, "rows of three"),
            (64, 192, 14, 3, 1, "panels"),
            (64, 96, 13, 3, 1, "panels"),
            (64, 512, 12, 3, 1, "rows of three"),
            (64, 128, 14, 3, 2, "split rows"),
            (64, 160, 14, 3, 2, "panels"),
            (64, 64, 28, 3, 1, "rows of three"),
            (64, 32, 14, 3, 2, "split rows"),
            (3, 64, 224, 7, 2, "split rows"),
            (64, 32, 14, 5, 1, "table"),
            (64, 64, 14, 5, 1, "table"),
            (64, 256, 14, 5, 1, "panels"),
            (64, 64, 3, 5, 1, "panels"),
        ] {
            let got = match Plan::new(&square(inputs, outputs, side, kernel, stride)) {
                Ok(Plan::InPlace { .. }) => "in place",
                Ok(Plan::Panels(_)) => "panels",
                Ok(Plan::RowsOfThree(_)) => "rows of three",
                Ok(Plan::SplitRows(_)) => "split rows",
                Ok(Plan::Table(_)) => "table",
                Err(_) => "none",
            };
            assert_eq!(got, want, "{inputs} channels at {side}, {kernel}x{kernel} by {stride}");
        }
    }
}
