//! From a picture to the numbers that a network reads.

use crate::{
    Picture, TransformError,
    geometry::{self, Axis},
    resample::{Columns, Kernel, Rows},
};

/// Longest side of a tensor, and largest shorter side: as [`Limits::max_side`](crate::Limits).
const MAX_SIDE: u32 = 16_384;

/// How a picture meets the tensor's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// Stretch to the tensor's size, whatever the aspect ratio.
    Exact,
    /// Resize the shorter side to this many pixels, keep the aspect ratio (the longer side is
    /// cut to an integer), and take the centre, as torchvision's `Resize` and `CenterCrop`. Where
    /// the tensor is larger than the resized picture, the rest is black.
    ShorterSide(u32),
    /// Fit inside the tensor, keep the aspect ratio, centre, and fill the rest with
    /// [`Options::pad`].
    Letterbox,
}

/// Interpolation of the resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Filter {
    /// Triangle, widened when shrinking: Pillow's `BILINEAR`, bit for bit.
    #[default]
    Bilinear,
    /// Cubic with a = -0.5, widened when shrinking: Pillow's `BICUBIC`, bit for bit.
    Bicubic,
    /// The source pixel under the centre of the result pixel.
    Nearest,
}

/// Channels of the tensor, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Channels {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// Luma before the resize, as Pillow's `convert("L")`: ITU-R 601-2.
    Grey,
}

impl Channels {
    /// How many there are.
    pub fn count(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Grey => 1,
        }
    }
}

/// Order of the tensor's extents; the batch has one picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Channel, row, column.
    #[default]
    Nchw,
    /// Row, column, channel.
    Nhwc,
}

/// What a [`Transform`] does. `scale`, `mean` and `std` have one value, or one per channel in
/// the tensor's order; a channel's value is `(pixel * scale - mean) / std`, pixels from 0 to 255.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Rows of the tensor.
    pub height: usize,
    /// Columns of the tensor.
    pub width: usize,
    /// How the picture meets them.
    pub resize: Resize,
    /// Interpolation.
    pub filter: Filter,
    /// Which channels, in which order.
    pub channels: Channels,
    /// Order of the extents.
    pub layout: Layout,
    /// Factor on the pixel.
    pub scale: Vec<f32>,
    /// Subtracted after the factor.
    pub mean: Vec<f32>,
    /// Divided by, last.
    pub std: Vec<f32>,
    /// Red, green and blue of a letterbox's border, 0 to 255.
    pub pad: [u8; 3],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            height: 224,
            width: 224,
            // Torchvision's and timm's usual ratio of 0.875.
            resize: Resize::ShorterSide(256),
            filter: Filter::default(),
            channels: Channels::default(),
            layout: Layout::default(),
            scale: vec![1.0 / 255.0],
            mean: vec![0.0],
            std: vec![1.0],
            // The grey of Ultralytics and most detectors.
            pad: [114; 3],
        }
    }
}

/// A checked [`Options`], ready for pictures of any size.
#[derive(Debug, Clone)]
pub struct Transform {
    options: Options,
    /// `factor * pixel + offset` for each channel of the tensor.
    normalise: Vec<(f32, f32)>,
}

impl Transform {
    /// Checks the options.
    ///
    /// # Errors
    /// [`TransformError`] names the first option that cannot be carried out.
    pub fn new(options: Options) -> Result<Self, TransformError> {
        let side = match options.resize {
            Resize::ShorterSide(side) => u64::from(side),
            Resize::Exact | Resize::Letterbox => 1,
        };
        let sizes = [
            ("height", options.height as u64),
            ("width", options.width as u64),
            ("shorter side", side),
        ];
        for (name, value) in sizes {
            if value == 0 || value > u64::from(MAX_SIDE) {
                return Err(TransformError::Size { name, value, limit: MAX_SIDE });
            }
        }
        let channels = options.channels.count();
        for (name, values) in
            [("scale", &options.scale), ("mean", &options.mean), ("std", &options.std)]
        {
            if values.len() != 1 && values.len() != channels {
                return Err(TransformError::Count { name, count: values.len(), channels });
            }
        }
        let normalise = (0..channels)
            .map(|channel| {
                let of = |values: &[f32]| values[if values.len() == 1 { 0 } else { channel }];
                let (scale, mean, std) = (of(&options.scale), of(&options.mean), of(&options.std));
                // In double precision, so that only the product and the sum round in single.
                let factor = (f64::from(scale) / f64::from(std)) as f32;
                let offset = (-f64::from(mean) / f64::from(std)) as f32;
                if (factor * 255.0 + offset).is_finite() {
                    Ok((factor, offset))
                } else {
                    Err(TransformError::NotFinite { channel, scale, mean, std })
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { options, normalise })
    }

    /// What the transform does.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Elements that [`apply`](Self::apply) writes: channels x height x width.
    pub fn tensor_len(&self) -> usize {
        self.options.channels.count() * self.options.height * self.options.width
    }

    /// Extents (height, width) of the whole picture after the resize, before crop or padding.
    pub fn resized_extents(&self, picture: &Picture<'_>) -> (u64, u64) {
        let (rows, columns) = self.place(picture);
        (rows.resized, columns.resized)
    }

    /// Resizes `picture` and writes every element of `tensor`, normalised.
    ///
    /// Pixels are rounded to 8 bits after each axis of the resize, as Pillow does; only the part
    /// of the resized picture that the tensor holds is computed.
    ///
    /// # Errors
    /// [`TransformError::TensorLength`] unless the tensor has [`tensor_len`](Self::tensor_len)
    /// elements.
    pub fn apply(&self, picture: &Picture<'_>, tensor: &mut [f32]) -> Result<(), TransformError> {
        let expected = self.tensor_len();
        if tensor.len() != expected {
            return Err(TransformError::TensorLength { expected, actual: tensor.len() });
        }
        match (picture.channels(), self.options.channels) {
            (1, _) => self.resize::<1, 1, 4>(picture, tensor, |row, target| {
                target[..row.len()].copy_from_slice(row);
            }),
            (_, Channels::Grey) => self.resize::<3, 1, 4>(picture, tensor, luma),
            (_, Channels::Rgb | Channels::Bgr) => {
                self.resize::<3, 3, 12>(picture, tensor, |row, target| {
                    target[..row.len()].copy_from_slice(row);
                });
            }
        }
        Ok(())
    }

    /// How often a file's extents may be halved for this transform: what is left is at least twice
    /// what is needed in both directions, so that the resize still weighs four pixels or more.
    pub(crate) fn reduction(&self, width: u32, height: u32) -> u32 {
        let Options { resize, filter, .. } = self.options;
        if filter == Filter::Nearest {
            // It shows single pixels.
            return 0;
        }
        let tensor = (self.options.height, self.options.width);
        let (rows, columns) = geometry::place(resize, (height, width), tensor);
        let enough = |shift: u32| {
            [&rows, &columns].iter().all(|axis| u64::from(axis.source >> shift) >= 2 * axis.resized)
        };
        (1..=3).take_while(|&shift| enough(shift)).last().unwrap_or(0)
    }

    fn place(&self, picture: &Picture<'_>) -> (Axis, Axis) {
        let Options { resize, height, width, .. } = self.options;
        let file = picture.coverage();
        let (rows, columns) = geometry::place(resize, (file.height, file.width), (height, width));
        (
            rows.reduced(picture.height(), file.top, file.shift),
            columns.reduced(picture.width(), file.left, file.shift),
        )
    }

    /// Resizes a picture of `S` bytes a pixel as one of `C`; `prepare` turns a row of the former
    /// into one of the latter.
    fn resize<const S: usize, const C: usize, const GROUP: usize>(
        &self,
        picture: &Picture<'_>,
        tensor: &mut [f32],
        prepare: impl Fn(&[u8], &mut [u8]),
    ) {
        let (rows, columns) = self.place(picture);
        if rows.visible < self.options.height || columns.visible < self.options.width {
            self.fill(tensor);
        }
        let row_kernel = Kernel::new(self.options.filter, &rows);
        let column_kernel = Kernel::new(self.options.filter, &columns);
        let across = Columns::new::<C>(&column_kernel, &columns);
        let row_len = columns.visible * C;
        let mut down = Rows::new(&row_kernel, &rows, row_len);

        let width = picture.width() as usize;
        let pixels = picture.pixels();
        let padding = across.padding::<C>();
        let mut prepared = vec![0; width * C + padding];
        let mut resized = vec![0; row_len];
        for y in 0..rows.visible {
            down.convolve(y, &mut resized, |row, target| {
                let start = row * width * S;
                // Rows that need no change are read where they lie, while enough follows them.
                match pixels.get(start..start + width * S + padding) {
                    Some(source) if S == C => across.convolve::<C, GROUP>(source, target),
                    _ => {
                        prepare(&pixels[start..start + width * S], &mut prepared);
                        across.convolve::<C, GROUP>(&prepared, target);
                    }
                }
            });
            self.write_row(&resized, C, rows.start + y, columns.start, tensor);
        }
    }

    /// Normalises one resized row, given as planes, into the tensor.
    fn write_row(&self, row: &[u8], planes: usize, y: usize, x: usize, tensor: &mut [f32]) {
        let Options { height, width, layout, channels, .. } = self.options;
        let visible = row.len() / planes;
        let count = channels.count();
        for (channel, &(factor, offset)) in self.normalise.iter().enumerate() {
            let plane = match (planes, channels) {
                (1, _) => 0,
                (_, Channels::Bgr) => 2 - channel,
                _ => channel,
            };
            let samples = &row[plane * visible..][..visible];
            match layout {
                Layout::Nchw => {
                    let target = &mut tensor[(channel * height + y) * width + x..][..visible];
                    for (value, &sample) in target.iter_mut().zip(samples) {
                        *value = f32::from(sample) * factor + offset;
                    }
                }
                Layout::Nhwc => {
                    let target = &mut tensor[(y * width + x) * count..][..visible * count];
                    for (pixel, &sample) in target.chunks_exact_mut(count).zip(samples) {
                        pixel[channel] = f32::from(sample) * factor + offset;
                    }
                }
            }
        }
    }

    /// Fills the tensor with the border's colour.
    fn fill(&self, tensor: &mut [f32]) {
        let [red, green, blue] = match self.options.resize {
            Resize::Letterbox => self.options.pad,
            Resize::Exact | Resize::ShorterSide(_) => [0; 3],
        };
        let colour = match self.options.channels {
            Channels::Rgb => [red, green, blue],
            Channels::Bgr => [blue, green, red],
            Channels::Grey => {
                let mut grey = [0];
                luma(&[red, green, blue], &mut grey);
                [grey[0]; 3]
            }
        };
        let values: Vec<f32> = (self.normalise.iter().zip(colour))
            .map(|(&(factor, offset), sample)| f32::from(sample) * factor + offset)
            .collect();
        match self.options.layout {
            Layout::Nchw => {
                let plane_len = self.options.height * self.options.width;
                for (plane, value) in tensor.chunks_exact_mut(plane_len).zip(values) {
                    plane.fill(value);
                }
            }
            Layout::Nhwc => {
                for pixel in tensor.chunks_exact_mut(values.len()) {
                    pixel.copy_from_slice(&values);
                }
            }
        }
    }
}

/// Pillow's `rgb2l`: ITU-R 601-2 luma in 16-bit fixed point.
fn luma(rgb: &[u8], grey: &mut [u8]) {
    for ([red, green, blue], grey) in rgb.as_chunks::<3>().0.iter().zip(grey) {
        let sum = u32::from(*red) * 19_595 + u32::from(*green) * 38_470 + u32::from(*blue) * 7_471;
        *grey = ((sum + 0x8000) >> 16) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(channels: Channels, layout: Layout) -> Options {
        Options {
            height: 1,
            width: 2,
            resize: Resize::Exact,
            channels,
            layout,
            scale: vec![1.0],
            ..Options::default()
        }
    }

    fn apply(options: Options, picture: &Picture<'_>) -> Vec<f32> {
        let transform = Transform::new(options).unwrap();
        let mut tensor = vec![f32::NAN; transform.tensor_len()];
        transform.apply(picture, &mut tensor).unwrap();
        tensor
    }

    #[test]
    fn channels_and_extents_come_in_the_order_asked_for() {
        let picture = Picture::from_pixels(2, 1, 3, vec![10, 20, 30, 40, 50, 60]).unwrap();
        for (channels, layout, expected) in [
            (Channels::Rgb, Layout::Nchw, vec![10., 40., 20., 50., 30., 60.]),
            (Channels::Bgr, Layout::Nchw, vec![30., 60., 20., 50., 10., 40.]),
            (Channels::Rgb, Layout::Nhwc, vec![10., 20., 30., 40., 50., 60.]),
            (Channels::Bgr, Layout::Nhwc, vec![30., 20., 10., 60., 50., 40.]),
            (Channels::Grey, Layout::Nchw, vec![18., 48.]),
        ] {
            assert_eq!(
                apply(small(channels, layout), &picture),
                expected,
                "{channels:?} {layout:?}"
            );
        }
        let grey = Picture::from_pixels(2, 1, 1, vec![7, 9]).unwrap();
        let tensor = apply(small(Channels::Bgr, Layout::Nchw), &grey);
        assert_eq!(tensor, [7., 9., 7., 9., 7., 9.]);
    }

    #[test]
    fn each_channel_is_normalised_by_its_own_numbers() {
        let picture = Picture::from_pixels(1, 1, 3, vec![0, 100, 255]).unwrap();
        let options = Options {
            width: 1,
            scale: vec![1.0 / 255.0],
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
            ..small(Channels::Rgb, Layout::Nchw)
        };
        let expected = [-0.485 / 0.229, (100.0 / 255.0 - 0.456) / 0.224, (1.0 - 0.406) / 0.225];
        for (value, expected) in apply(options, &picture).into_iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{value} instead of {expected}");
        }
    }

    #[test]
    fn borders_are_pad_in_a_letterbox_and_black_around_a_small_crop() {
        let picture = Picture::from_pixels(1, 1, 3, vec![9, 9, 9]).unwrap();
        let options = Options { width: 3, pad: [1, 2, 3], ..small(Channels::Bgr, Layout::Nhwc) };
        let letterbox = Options { resize: Resize::Letterbox, ..options.clone() };
        assert_eq!(apply(letterbox, &picture), [3., 2., 1., 9., 9., 9., 3., 2., 1.]);
        let crop = Options { resize: Resize::ShorterSide(1), ..options };
        assert_eq!(apply(crop, &picture), [0., 0., 0., 9., 9., 9., 0., 0., 0.]);
    }

    #[test]
    fn options_that_cannot_be_carried_out_are_refused() {
        for (options, expected) in [
            (Options { height: 0, ..Options::default() }, "height is 0; sizes are from 1 to 16384"),
            (Options { width: 16_385, ..Options::default() }, "width is 16385; sizes"),
            (Options { resize: Resize::ShorterSide(0), ..Options::default() }, "shorter side is 0"),
            (
                Options { mean: vec![0.0; 2], ..Options::default() },
                "mean has 2 values; expected 1 or 3",
            ),
            (Options { scale: vec![], ..Options::default() }, "scale has 0 values"),
            (Options { std: vec![1.0, 0.0, 1.0], ..Options::default() }, "channel 1: scale"),
            (Options { mean: vec![f32::NAN], ..Options::default() }, "channel 0: scale"),
        ] {
            let error = Transform::new(options).expect_err(expected).to_string();
            assert!(error.starts_with(expected), "expected {expected:?}, got {error:?}");
        }
        let transform = Transform::new(Options::default()).unwrap();
        let picture = Picture::from_pixels(1, 1, 1, vec![0]).unwrap();
        assert_eq!(
            transform.apply(&picture, &mut [0.0; 5]),
            Err(TransformError::TensorLength { expected: 150_528, actual: 5 })
        );
    }
}
