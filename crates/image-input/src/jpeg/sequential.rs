//! Most JPEGs there are: one scan of Huffman codes, grey or YCbCr; whole or at a reduced size.
//!
//! Decoded row of blocks by row of blocks: three such rows of samples are kept, so that a row of
//! pixels finds the chroma above and below it. A component with fewer samples is brought to full
//! size as libjpeg does; at a reduced size its blocks are reduced less, so that most often nothing
//! is left to bring up.

use crate::{ImageError, Limits, Picture};

use super::{
    colour,
    huffman::{Bits, Block, Coding, Steps, Table, read_block},
    idct,
};

/// What a scan needs of the segments before it.
pub(super) struct Scan<'a> {
    /// Pixels across and down.
    pub width: usize,
    pub height: usize,
    /// One component (grey) or three (YCbCr).
    pub components: Vec<Component<'a>>,
    /// Units between restart markers; 0 for none.
    pub restart_interval: usize,
    /// What follows the scan's header.
    pub data: &'a [u8],
}

/// One component of a scan.
pub(super) struct Component<'a> {
    /// Sampling factors, across and down.
    pub across: usize,
    pub down: usize,
    pub dc: &'a Table,
    pub ac: &'a Table,
    pub steps: &'a Steps,
}

/// Where a component's samples go.
struct Plane<'a> {
    coding: Coding<'a>,
    /// Blocks of one unit, across and down.
    across: usize,
    down: usize,
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
    predicted: i32,
}

impl Scan<'_> {
    /// Whether the first component has all samples, and each other one a whole part of them.
    pub(super) fn is_regular(&self) -> bool {
        let (across, down) = self.most();
        let regular = |most: usize, own: usize| own > 0 && most.is_multiple_of(own);
        let first = self.components.first().map(|luma| (luma.across, luma.down));
        first == Some((across, down))
            && self.components.iter().all(|c| regular(across, c.across) && regular(down, c.down))
    }

    /// Whether the picture can be decoded at a reduced size: where a component has a third of the
    /// samples, it would lose too many of them.
    pub(super) fn is_reducible(&self) -> bool {
        let (across, down) = self.most();
        let halved = |c: &Component<'_>| {
            (across / c.across).is_power_of_two() && (down / c.down).is_power_of_two()
        };
        self.components.iter().all(halved)
    }

    /// The largest sampling factors.
    fn most(&self) -> (usize, usize) {
        let across = self.components.iter().map(|c| c.across).max();
        let down = self.components.iter().map(|c| c.down).max();
        (across.unwrap_or(1), down.unwrap_or(1))
    }

    /// Decodes the picture at `1 / 2^shift` of its size, `shift` at most 3; an extent that does
    /// not divide is rounded up.
    pub(super) fn decode<'s>(
        &self,
        shift: u32,
        limits: &Limits,
        scratch: &'s mut [u8],
    ) -> Result<Picture<'s>, ImageError> {
        let (width, height) = (reduced(self.width, shift), reduced(self.height, shift));
        let channels = self.components.len();
        // A component that is alone comes block by block, whatever its factors.
        let (most_across, most_down) = if channels == 1 { (1, 1) } else { self.most() };
        let units_across = self.width.div_ceil(8 * most_across);
        let units_down = self.height.div_ceil(8 * most_down);
        let unit_rows = (8 * most_down) >> shift;
        let mut planes: Vec<Plane<'_>> = (self.components.iter())
            .map(|component| {
                let factors =
                    if channels == 1 { (1, 1) } else { (component.across, component.down) };
                let ratio = (most_across / factors.0, most_down / factors.1);
                Plane::new(component, factors, ratio, shift, (width, height), units_across)
            })
            .collect();
        let pixels_len = width * height * channels;
        let held: usize = planes.iter().map(|plane| plane.samples.len()).sum();
        limits.check_memory((pixels_len + held) as u64)?;
        let mut pixels = limits.allocate_in(pixels_len, scratch)?;
        let mut rows = pixels.chunks_exact_mut(width * channels);
        let mut painter = Painter::new(width);

        let mut bits = Bits::new(self.data);
        let mut until_restart = self.restart_interval;
        let mut restarts = 0_u8;
        let mut block: Block = [0; 64];
        for unit_y in 0..units_down {
            for unit_x in 0..units_across {
                if self.restart_interval > 0 {
                    if until_restart == 0 {
                        bits.restart(restarts)?;
                        restarts = (restarts + 1) % 8;
                        until_restart = self.restart_interval;
                        planes.iter_mut().for_each(|plane| plane.predicted = 0);
                    }
                    until_restart -= 1;
                }
                for plane in &mut planes {
                    plane.read_unit(&mut bits, &mut block, unit_x, unit_y)?;
                }
            }
            bits.check()?;
            // A row of units is painted when the one below it is there.
            if unit_y > 0 {
                painter.paint(&planes, (unit_y - 1) * unit_rows, unit_rows, &mut rows);
            }
        }
        painter.paint(&planes, (units_down - 1) * unit_rows, unit_rows, &mut rows);
        Ok(Picture::new(width as u32, height as u32, channels, pixels)
            .expect("the buffer was sized from these extents, which are not zero"))
    }
}

/// `extent / 2^shift`, rounded up.
pub(super) fn reduced(extent: usize, shift: u32) -> usize {
    extent.div_ceil(1 << shift)
}

impl<'a> Plane<'a> {
    /// `ratio` says how many times more samples the largest component has, and `pixels` how large
    /// the reduced picture is.
    fn new(
        component: &Component<'a>,
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
            coding: Coding { dc: component.dc, ac: component.ac, steps: component.steps },
            across,
            down,
            side,
            kept,
            spread,
            width: pixels.0.div_ceil(spread.0),
            height: pixels.1.div_ceil(spread.1),
            samples: vec![0; 3 * down * kept.1 * stride],
            stride,
            predicted: 0,
        }
    }

    fn read_unit(
        &mut self,
        bits: &mut Bits<'_>,
        block: &mut Block,
        unit_x: usize,
        unit_y: usize,
    ) -> Result<(), ImageError> {
        match self.side {
            8 => self.read_blocks::<8>(63, bits, block, unit_x, unit_y),
            // The last coefficient, in the file's order, of the lowest 4 x 4 and 2 x 2.
            4 => self.read_blocks::<4>(24, bits, block, unit_x, unit_y),
            2 => self.read_blocks::<2>(4, bits, block, unit_x, unit_y),
            _ => self.read_blocks::<1>(0, bits, block, unit_x, unit_y),
        }
    }

    #[inline]
    fn read_blocks<const SIDE: usize>(
        &mut self,
        last: usize,
        bits: &mut Bits<'_>,
        block: &mut Block,
        unit_x: usize,
        unit_y: usize,
    ) -> Result<(), ImageError> {
        for v in 0..self.down {
            for h in 0..self.across {
                let found = read_block(bits, &self.coding, &mut self.predicted, last, block)?;
                let row = (unit_y % 3 * self.down + v) * self.kept.1;
                let at = row * self.stride + (unit_x * self.across + h) * self.kept.0;
                if self.kept == (SIDE, SIDE) {
                    idct::write::<SIDE>(block, found, &mut self.samples, at, self.stride);
                } else {
                    let mut samples = [0; 64];
                    idct::write::<SIDE>(block, found, &mut samples, 0, SIDE);
                    self.keep::<SIDE>(&samples, at);
                }
                if found > 0 {
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
        planes: &[Plane<'_>],
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
    plane: &'r Plane<'_>,
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
