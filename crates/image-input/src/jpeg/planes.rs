//! Components as planes of samples, and the picture made of them; whole or at a reduced size.
//!
//! Made row of blocks by row of blocks: three such rows of samples are kept, so that a row of
//! pixels finds the chroma above and below it. A component with fewer samples is brought to full
//! size as libjpeg does; at a reduced size its blocks are reduced less, so that most often nothing
//! is left to bring up.

use crate::{ImageError, Limits, Picture};

use super::{colour, huffman::Block, idct};

/// Extents of a picture and sampling of its components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Pixels across and down.
    pub width: usize,
    pub height: usize,
    /// Sampling factors of each component, across and down: one (grey) or three (YCbCr).
    pub factors: Vec<(usize, usize)>,
}

impl Layout {
    /// Whether the first component has all samples, and each other one a whole part of them.
    pub(super) fn is_regular(&self) -> bool {
        let (across, down) = self.most();
        let regular = |most: usize, own: usize| own > 0 && most.is_multiple_of(own);
        self.factors.first() == Some(&(across, down))
            && self.factors.iter().all(|&(h, v)| regular(across, h) && regular(down, v))
    }

    /// Whether the picture can be decoded at a reduced size: where a component has a third of the
    /// samples, it would lose too many of them.
    pub(super) fn is_reducible(&self) -> bool {
        let (across, down) = self.most();
        let halved = |&(h, v): &(usize, usize)| {
            (across / h).is_power_of_two() && (down / v).is_power_of_two()
        };
        self.factors.iter().all(halved)
    }

    /// The largest sampling factors. A component that is alone comes block by block, whatever its
    /// factors.
    pub(super) fn most(&self) -> (usize, usize) {
        let across = self.factors.iter().map(|factors| factors.0).max();
        let down = self.factors.iter().map(|factors| factors.1).max();
        (across.unwrap_or(1), down.unwrap_or(1))
    }

    /// The same, with the factors of a component that is alone left out.
    fn in_blocks(&self) -> Self {
        let factors = if self.factors.len() == 1 { vec![(1, 1)] } else { self.factors.clone() };
        Self { factors, ..*self }
    }

    /// Units across and down: the fewest blocks of all components that cover the same pixels.
    pub(super) fn units(&self) -> (usize, usize) {
        let (across, down) = self.in_blocks().most();
        (self.width.div_ceil(8 * across), self.height.div_ceil(8 * down))
    }

    /// The planes for a picture at `1 / 2^shift` of its size, `shift` at most 3; an extent that
    /// does not divide is rounded up.
    pub(super) fn planes(&self, shift: u32) -> Vec<Plane> {
        let layout = self.in_blocks();
        let most = layout.most();
        let pixels = (reduced(self.width, shift), reduced(self.height, shift));
        let units_across = layout.units().0;
        (layout.factors.iter())
            .map(|&factors| {
                let ratio = (most.0 / factors.0, most.1 / factors.1);
                Plane::new(factors, ratio, shift, pixels, units_across)
            })
            .collect()
    }

    /// Makes the picture of `planes`, which [`Layout::planes`] made for the same `shift`; `fill`
    /// puts the blocks of one row of units into them, from the top to the bottom.
    pub(super) fn paint<'s>(
        &self,
        shift: u32,
        planes: &mut [Plane],
        limits: &Limits,
        scratch: &'s mut [u8],
        mut fill: impl FnMut(&mut [Plane], usize) -> Result<(), ImageError>,
    ) -> Result<Picture<'s>, ImageError> {
        let (width, height) = (reduced(self.width, shift), reduced(self.height, shift));
        let channels = planes.len();
        let unit_rows = (8 * self.in_blocks().most().1) >> shift;
        let mut pixels = limits.allocate_in(width * height * channels, scratch)?;
        let mut rows = pixels.chunks_exact_mut(width * channels);
        let mut painter = Painter::new(width);
        let units_down = self.units().1;
        for unit_y in 0..units_down {
            fill(planes, unit_y)?;
            // A row of units is painted when the one below it is there.
            if unit_y > 0 {
                painter.paint(planes, (unit_y - 1) * unit_rows, unit_rows, &mut rows);
            }
        }
        painter.paint(planes, (units_down - 1) * unit_rows, unit_rows, &mut rows);
        Ok(Picture::new(width as u32, height as u32, channels, pixels)
            .expect("the buffer was sized from these extents, which are not zero"))
    }

    /// Bytes of the pixels at `1 / 2^shift` of the size, and of the planes.
    pub(super) fn bytes(&self, shift: u32, planes: &[Plane]) -> usize {
        let pixels = reduced(self.width, shift) * reduced(self.height, shift) * planes.len();
        pixels + planes.iter().map(|plane| plane.samples.len()).sum::<usize>()
    }
}

/// The last coefficient, in the file's order, that a transform of `side` points a side takes.
const fn last(side: usize) -> usize {
    match side {
        8 => 63,
        // The last of the lowest 4 x 4 and 2 x 2.
        4 => 24,
        2 => 4,
        _ => 0,
    }
}

/// `extent / 2^shift`, rounded up.
fn reduced(extent: usize, shift: u32) -> usize {
    extent.div_ceil(1 << shift)
}

/// Where a component's samples go.
pub(super) struct Plane {
    /// Blocks of one unit, across and down.
    pub across: usize,
    pub down: usize,
    /// Samples of a block as it is transformed, a side: 8, 4, 2 or 1.
    side: usize,
    /// Samples of a block as it is kept, across and down: as many, or fewer in one direction, where
    /// a component that has few samples in the other would lose too many.
    kept: (usize, usize),
    /// Pixels that one sample covers, across and down: from 1 to 4.
    spread: (usize, usize),
    /// Samples that show something, across and down.
    width: usize,
    height: usize,
    /// Three rows of units, one after the other.
    samples: Vec<u8>,
    stride: usize,
}

impl Plane {
    /// `ratio` says how many times more samples the largest component has, and `pixels` how large
    /// the reduced picture is.
    fn new(
        (across, down): (usize, usize),
        ratio: (usize, usize),
        shift: u32,
        pixels: (usize, usize),
        units_across: usize,
    ) -> Self {
        // What the others are reduced by and this one has not, it need not be. A side of a block
        // is a power of two.
        let keep = |ratio: usize| ((8 >> shift) << ratio.trailing_zeros()).min(8);
        let kept = (keep(ratio.0), keep(ratio.1));
        let side = kept.0.max(kept.1);
        let spread = (((ratio.0 * 8) >> shift) / kept.0, ((ratio.1 * 8) >> shift) / kept.1);
        let stride = units_across * across * kept.0;
        Self {
            across,
            down,
            side,
            kept,
            spread,
            width: pixels.0.div_ceil(spread.0),
            height: pixels.1.div_ceil(spread.1),
            samples: vec![0; 3 * down * kept.1 * stride],
            stride,
        }
    }

    /// The last coefficient of a block, in the file's order, that its samples are made of.
    pub(super) fn last(&self) -> usize {
        last(self.side)
    }

    /// Puts the blocks of one unit. `next` writes the coefficients of each, up to [`Plane::last`],
    /// into a block of zeros, for a block at a place in the unit (across and down); it says which
    /// the last one is that is not zero. They are multiplied by `steps` here.
    #[inline]
    pub(super) fn put_unit(
        &mut self,
        block: &mut Block,
        steps: &Block,
        unit_x: usize,
        unit_y: usize,
        next: impl FnMut(&mut Block, (usize, usize)) -> Result<usize, ImageError>,
    ) -> Result<(), ImageError> {
        match self.side {
            8 => self.put_blocks::<8>(block, steps, unit_x, unit_y, next),
            4 => self.put_blocks::<4>(block, steps, unit_x, unit_y, next),
            2 => self.put_blocks::<2>(block, steps, unit_x, unit_y, next),
            _ => self.put_blocks::<1>(block, steps, unit_x, unit_y, next),
        }
    }

    #[inline]
    fn put_blocks<const SIDE: usize>(
        &mut self,
        block: &mut Block,
        steps: &Block,
        unit_x: usize,
        unit_y: usize,
        mut next: impl FnMut(&mut Block, (usize, usize)) -> Result<usize, ImageError>,
    ) -> Result<(), ImageError> {
        for v in 0..self.down {
            for h in 0..self.across {
                let found = next(block, (h, v))?;
                let row = (unit_y % 3 * self.down + v) * self.kept.1;
                let at = row * self.stride + (unit_x * self.across + h) * self.kept.0;
                if self.kept == (SIDE, SIDE) {
                    idct::write::<SIDE>(block, steps, found, &mut self.samples, at, self.stride);
                } else {
                    let mut samples = [0; 64];
                    idct::write::<SIDE>(block, steps, found, &mut samples, 0, SIDE);
                    self.keep::<SIDE>(&samples, at);
                }
                // Where one coefficient is wanted, more may have been written.
                if found > 0 || last(SIDE) == 0 {
                    block.fill(0);
                }
            }
        }
        Ok(())
    }

    /// Keeps the means of the samples that are one.
    fn keep<const SIDE: usize>(&mut self, samples: &[u8; 64], at: usize) {
        let (wide, high) = (SIDE / self.kept.0, SIDE / self.kept.1);
        let count = (wide * high) as u32;
        for y in 0..self.kept.1 {
            let start = at + y * self.stride;
            for (x, kept) in self.samples[start..start + self.kept.0].iter_mut().enumerate() {
                let cell =
                    (0..high).flat_map(|v| &samples[(y * high + v) * SIDE + x * wide..][..wide]);
                let sum: u32 = cell.map(|&sample| u32::from(sample)).sum();
                *kept = ((sum + count / 2) / count) as u8;
            }
        }
    }

    /// A row of samples that show something; `y` is held at the edges.
    fn row(&self, y: usize) -> &[u8] {
        let y = y.min(self.height - 1) % (3 * self.down * self.kept.1);
        &self.samples[y * self.stride..][..self.width]
    }
}

/// Turns rows of samples into rows of pixels.
struct Painter {
    chroma: [Vec<u8>; 2],
    between: Vec<u16>,
}

impl Painter {
    fn new(width: usize) -> Self {
        // Samples come in pairs or fours: a row may be three longer than the picture's.
        let row = || vec![0; width + 3];
        Self { chroma: [row(), row()], between: vec![0; width + 3] }
    }

    /// Paints `count` rows from `first` on, or as many as `rows` has.
    fn paint<'p>(
        &mut self,
        planes: &[Plane],
        first: usize,
        count: usize,
        rows: &mut impl Iterator<Item = &'p mut [u8]>,
    ) {
        for (y, target) in (first..first + count).zip(rows) {
            match planes {
                [grey] => target.copy_from_slice(grey.row(y)),
                [luma, blue, red] => {
                    let width = target.len() / 3;
                    let [blue_row, red_row] = &mut self.chroma;
                    let blue = spread(blue, y, blue_row, &mut self.between, width);
                    let red = spread(red, y, red_row, &mut self.between, width);
                    colour::rgb(luma.row(y), blue, red, target);
                }
                _ => {}
            }
        }
    }
}

/// Row `y` of a component at the size of the picture, in `room` where samples are put between.
fn spread<'r>(
    plane: &'r Plane,
    y: usize,
    room: &'r mut [u8],
    between: &mut [u16],
    width: usize,
) -> &'r [u8] {
    let (across, down) = plane.spread;
    let near = y / down;
    let nearest = plane.row(near);
    // The neighbour that is the closer one of the two.
    let far = if down > 1 && y % down < down / 2 { near.saturating_sub(1) } else { near + 1 };
    match (across, down) {
        (1, 1) => return nearest,
        // Too narrow for libjpeg to smooth.
        (2, _) if plane.width <= 2 => colour::repeat(nearest, 2, room),
        (2, 1) => colour::between(nearest, between, room),
        (1, 2) => colour::below(nearest, plane.row(far), y.is_multiple_of(2), room),
        (2, 2) => colour::around(nearest, plane.row(far), between, room),
        _ => colour::repeat(nearest, across, room),
    }
    &room[..width]
}
