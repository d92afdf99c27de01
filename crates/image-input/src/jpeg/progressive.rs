//! Progressive JPEGs (ITU-T T.81, annex G): scan by scan the coefficients become more, and more
//! exact; when all are there, blocks are transformed as those of one scan, whole or reduced.
//!
//! A picture that is reduced needs few coefficients of each block. Of the others a scan that refines
//! them asks no more than whether they are zero: a bit each is kept, not a number, so that 12
//! megapixels which are shown at a quarter take 9 MB instead of 36. Every code of every scan is read,
//! so that a damaged file is as broken at each size.

use crate::{ImageError, Limits, Picture};

use super::{
    absent,
    bits::Bits,
    broken,
    huffman::{Block, PLACES, Steps, Table, in_block_order},
    planes::{Layout, Plane},
};

/// The coefficients of a picture, as far as its scans have told them.
pub(super) struct Coefficients<'a> {
    layout: &'a Layout,
    shift: u32,
    planes: Vec<Plane>,
    components: Vec<Component>,
}

/// The blocks of one component.
struct Component {
    /// Blocks of a unit, across and down, and of a row of units.
    unit: (usize, usize),
    stride: usize,
    /// Blocks that show something, across and down: those which a scan of it alone holds.
    shown: (usize, usize),
    /// Coefficients of a block that are kept as numbers, the first ones in the file's order.
    kept: usize,
    values: Vec<i16>,
    /// For each block, which coefficients but the first are not zero: bit `k` for number `k`.
    known: Vec<u64>,
    /// As they were at the first scan of this component.
    steps: Option<Steps>,
}

/// One scan of a progressive file.
pub(super) struct Pass<'a> {
    /// Components by number, the steps that hold now, and where they are needed the codes: of first
    /// coefficients, or of all others.
    pub components: Vec<(usize, &'a Steps, Option<&'a Table>)>,
    /// First and last coefficient of the band, in the file's order.
    pub band: (u8, u8),
    /// The bit that earlier scans told last (0: there was none), and the one that this scan tells.
    pub bits: (u8, u8),
    /// Units between restart markers; 0 for none.
    pub restart_interval: usize,
    /// What follows the scan's header.
    pub data: &'a [u8],
}

impl<'a> Coefficients<'a> {
    /// Zeros for the picture at `1 / 2^shift` of its size, `shift` at most 3.
    ///
    /// # Errors
    /// When that takes more memory than `limits` has.
    pub(super) fn new(layout: &'a Layout, shift: u32, limits: &Limits) -> Result<Self, ImageError> {
        let planes = layout.planes(shift);
        let units = layout.units();
        let most = layout.most();
        let blocks = |plane: &Plane| units.0 * plane.across * units.1 * plane.down;
        let each = |plane: &Plane| (plane.last() + 1) * size_of::<i16>() + size_of::<u64>();
        let held: usize = planes.iter().map(|plane| blocks(plane) * each(plane)).sum();
        limits.check_memory((layout.bytes(shift, &planes) + held) as u64)?;
        let needed = held as u64;
        let refused = |_| ImageError::OutOfMemory { needed };
        let components = planes.iter().zip(&layout.factors).map(|(plane, factors)| {
            let kept = plane.last() + 1;
            let (mut values, mut known) = (Vec::new(), Vec::new());
            values.try_reserve_exact(blocks(plane) * kept).map_err(refused)?;
            values.resize(blocks(plane) * kept, 0);
            known.try_reserve_exact(blocks(plane)).map_err(refused)?;
            known.resize(blocks(plane), 0);
            let samples = |pixels: usize, own: usize, most: usize| (pixels * own).div_ceil(most);
            let width = samples(layout.width, factors.0, most.0);
            let height = samples(layout.height, factors.1, most.1);
            Ok(Component {
                unit: (plane.across, plane.down),
                stride: units.0 * plane.across,
                shown: (width.div_ceil(8), height.div_ceil(8)),
                kept,
                values,
                known,
                steps: None,
            })
        });
        let components = components.collect::<Result<_, _>>()?;
        Ok(Self { layout, shift, planes, components })
    }

    /// Takes in one scan.
    ///
    /// # Errors
    /// When the scan is not as a progressive file has them, or its data is damaged.
    pub(super) fn read(&mut self, pass: &Pass<'_>) -> Result<(), ImageError> {
        for &(number, steps, _) in &pass.components {
            let component = self.components.get_mut(number).ok_or_else(malformed)?;
            component.steps.get_or_insert(*steps);
        }
        let ((first, last), (before, bit)) = (pass.band, pass.bits);
        let sound = first <= last && last <= 63 && bit <= 13 && (before == 0 || before == bit + 1);
        if !sound || (first == 0) != (last == 0) || (first > 0 && pass.components.len() != 1) {
            return Err(malformed());
        }
        let mut reading = Reading {
            bits: Bits::new(pass.data),
            until_restart: pass.restart_interval,
            restart_interval: pass.restart_interval,
            restarts: 0,
            predicted: [0; 3],
            zeros: 0,
        };
        match *pass.components {
            // A component that is alone comes block by block, without those that fill up units.
            [(number, _, table)] => {
                let component = &mut self.components[number];
                let table = || table.ok_or_else(absent);
                let band = Band { first: first.into(), last: last.into(), bit: bit.into() };
                match (first, before) {
                    (0, 0) => {
                        let table = table()?;
                        component.each(&mut reading, |reading, values, _| {
                            reading.step(0, table, band.bit, values)
                        })
                    }
                    (0, _) => component.each(&mut reading, |reading, values, _| {
                        reading.refine_step(band.bit, values);
                        Ok(())
                    }),
                    (_, 0) => {
                        let table = table()?;
                        component.each(&mut reading, |reading, values, known| {
                            reading.begin(table, band, values, known)
                        })
                    }
                    _ => {
                        let table = table()?;
                        component.each(&mut reading, |reading, values, known| {
                            reading.refine(table, band, values, known)
                        })
                    }
                }
            }
            _ => self.units(&mut reading, pass),
        }
    }

    /// First coefficients of several components, unit by unit.
    fn units(&mut self, reading: &mut Reading<'_>, pass: &Pass<'_>) -> Result<(), ImageError> {
        let (across, down) = self.layout.units();
        let (before, bit) = (pass.bits.0, pass.bits.1.into());
        for unit_y in 0..down {
            for unit_x in 0..across {
                reading.restart()?;
                for &(number, _, table) in &pass.components {
                    let component = &mut self.components[number];
                    let (wide, high) = component.unit;
                    for at in 0..wide * high {
                        let (x, y) = (unit_x * wide + at % wide, unit_y * high + at / wide);
                        let block = y * component.stride + x;
                        let values = &mut component.values[block * component.kept..];
                        reading.bits.refill();
                        match table {
                            _ if before > 0 => reading.refine_step(bit, values),
                            Some(table) => reading.step(number, table, bit, values)?,
                            None => return Err(absent()),
                        }
                    }
                }
            }
            reading.bits.check()?;
        }
        Ok(())
    }

    /// Transforms what the scans have told.
    ///
    /// # Errors
    /// When there was no scan of some component, or the picture takes too much memory.
    pub(super) fn picture<'s>(
        mut self,
        limits: &Limits,
        scratch: &'s mut [u8],
    ) -> Result<Picture<'s>, ImageError> {
        let components: Vec<(&Component, Block)> = (self.components.iter())
            .map(|component| Some((component, in_block_order(component.steps.as_ref()?))))
            .collect::<Option<_>>()
            .ok_or_else(|| broken("there is no scan of one of its components"))?;
        let units_across = self.layout.units().0;
        let mut block: Block = [0; 64];
        let paint = |planes: &mut [Plane], unit_y: usize| {
            for (plane, (component, steps)) in planes.iter_mut().zip(&components) {
                for unit_x in 0..units_across {
                    plane.put_unit(&mut block, steps, unit_x, unit_y, |block, (h, v)| {
                        let (x, y) = (unit_x * component.unit.0 + h, unit_y * component.unit.1 + v);
                        Ok(component.write(y * component.stride + x, block))
                    })?;
                }
            }
            Ok(())
        };
        self.layout.paint(self.shift, &mut self.planes, limits, scratch, paint)
    }
}

fn malformed() -> ImageError {
    broken("its scans are not those of a progressive picture")
}

impl Component {
    /// Calls `read` with each block that shows something: its values, and which are known.
    #[inline]
    fn each(
        &mut self,
        reading: &mut Reading<'_>,
        mut read: impl FnMut(&mut Reading<'_>, &mut [i16], &mut u64) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        for y in 0..self.shown.1 {
            let blocks = y * self.stride..y * self.stride + self.shown.0;
            let values = self.values[blocks.start * self.kept..].chunks_exact_mut(self.kept);
            for (values, known) in values.zip(&mut self.known[blocks]) {
                reading.restart()?;
                reading.bits.refill();
                read(reading, values, known)?;
            }
            reading.bits.check()?;
        }
        Ok(())
    }

    /// Writes a block's coefficients; gives the last one that is not zero, or the last one that is
    /// kept where that comes before.
    fn write(&self, at: usize, block: &mut Block) -> usize {
        let values = &self.values[at * self.kept..][..self.kept];
        let mut left = self.known[at] & below(self.kept);
        block[0] = values[0];
        let last = 63_u32.saturating_sub(self.known[at].leading_zeros()) as usize;
        while left != 0 {
            let k = left.trailing_zeros() as usize;
            left &= left - 1;
            block[usize::from(PLACES[k & 63])] = values[k];
        }
        last.min(self.kept - 1)
    }
}

/// Bits for the coefficients below number `k`, at most 64.
fn below(k: usize) -> u64 {
    if k < 64 { (1 << k) - 1 } else { u64::MAX }
}

/// What of a block a scan tells.
#[derive(Clone, Copy)]
struct Band {
    /// First and last coefficient, from 1 to 63.
    first: usize,
    last: usize,
    /// The lowest bit that is told of them.
    bit: u32,
}

/// Where the reading of a scan is.
struct Reading<'a> {
    bits: Bits<'a>,
    until_restart: usize,
    restart_interval: usize,
    restarts: u8,
    predicted: [i32; 3],
    /// How many blocks, the next one first, have nothing more in the band.
    zeros: u32,
}

impl Reading<'_> {
    /// Before each unit: goes on behind a restart marker where one is due.
    #[inline]
    fn restart(&mut self) -> Result<(), ImageError> {
        if self.restart_interval == 0 {
            return Ok(());
        }
        if self.until_restart == 0 {
            self.bits.restart(self.restarts)?;
            self.restarts = (self.restarts + 1) % 8;
            self.until_restart = self.restart_interval;
            self.predicted = [0; 3];
            self.zeros = 0;
        }
        self.until_restart -= 1;
        Ok(())
    }

    /// A first coefficient, for the first time.
    fn step(
        &mut self,
        component: usize,
        table: &Table,
        bit: u32,
        values: &mut [i16],
    ) -> Result<(), ImageError> {
        let size = self.bits.ahead.symbol(table)?;
        if size > 15 {
            return Err(broken("its data has a step of more than 15 bits"));
        }
        if size > 0 {
            let predicted = &mut self.predicted[component % 3];
            *predicted = predicted.wrapping_add(self.bits.ahead.value(size));
        }
        values[0] = (self.predicted[component % 3] << bit) as i16;
        Ok(())
    }

    /// One bit more of a first coefficient.
    fn refine_step(&mut self, bit: u32, values: &mut [i16]) {
        values[0] |= (self.bits.ahead.take(1) << bit) as i16;
    }

    /// A block's band, for the first time (G.1.2.2).
    #[inline]
    fn begin(
        &mut self,
        table: &Table,
        Band { first, last, bit }: Band,
        values: &mut [i16],
        known: &mut u64,
    ) -> Result<(), ImageError> {
        if self.zeros > 0 {
            self.zeros -= 1;
            return Ok(());
        }
        // A copy that stays in registers; on an error nobody goes on with the other.
        let mut bits = self.bits.ahead;
        let mut k = first;
        while k <= last {
            bits.refill(&mut self.bits.window);
            let (run, value) = match bits.pair(table) {
                Some(pair) => pair,
                None => {
                    let symbol = bits.symbol(table)?;
                    let (run, size) = (symbol >> 4, symbol & 15);
                    if size == 0 {
                        if run < 15 {
                            self.zeros = (1 << run) - 1 + bits.take(run);
                            break;
                        }
                        k += 16;
                        continue;
                    }
                    (run as usize, bits.value(size))
                }
            };
            k += run;
            if k > last {
                return Err(broken("a block has coefficients beyond its band"));
            }
            *known |= 1 << k;
            if let Some(place) = values.get_mut(k) {
                *place = (value << bit) as i16;
            }
            k += 1;
        }
        self.bits.ahead = bits;
        if k > last + 1 { Err(broken("a block has coefficients beyond its band")) } else { Ok(()) }
    }

    /// One bit more of a block's band (G.1.2.3).
    fn refine(
        &mut self,
        table: &Table,
        Band { first, last, bit }: Band,
        values: &mut [i16],
        known: &mut u64,
    ) -> Result<(), ImageError> {
        let mut k = first;
        let in_band = below(last + 1);
        while self.zeros == 0 && k <= last {
            self.bits.refill();
            let symbol = self.bits.ahead.symbol(table)?;
            let (run, size) = (symbol >> 4, symbol & 15);
            let mut value = 0;
            match size {
                0 if run < 15 => {
                    self.zeros = (1 << run) + self.bits.ahead.take(run);
                    break;
                }
                0 => {}
                1 => {
                    value =
                        if self.bits.ahead.take(1) == 1 { 1_i32 << bit } else { -(1_i32 << bit) }
                }
                _ => return Err(broken("its data refines a coefficient by more than a bit")),
            }
            // The value stands behind `run` zeros; what is known already lies between them.
            let mut zeros = !*known & in_band & !below(k);
            for _ in 0..run {
                zeros &= zeros.wrapping_sub(1);
            }
            let at = if zeros == 0 { last + 1 } else { zeros.trailing_zeros() as usize };
            self.correct(*known & below(at) & !below(k), bit, values);
            if value != 0 {
                if at > last {
                    return Err(broken("a block has coefficients beyond its band"));
                }
                *known |= 1 << at;
                if let Some(place) = values.get_mut(at) {
                    *place = value as i16;
                }
            }
            k = at + 1;
        }
        if self.zeros > 0 {
            self.zeros -= 1;
            self.correct(*known & in_band & !below(k), bit, values);
        }
        Ok(())
    }

    /// Reads one bit for each of these coefficients: those for which it is set grow by `2^bit`.
    #[inline]
    fn correct(&mut self, mut which: u64, bit: u32, values: &mut [i16]) {
        while which != 0 {
            // As many as surely are there.
            self.bits.refill();
            let count = which.count_ones().min(32);
            let corrections = self.bits.ahead.take(count);
            for place in (0..count).rev() {
                let k = which.trailing_zeros() as usize;
                which &= which - 1;
                let Some(value) = values.get_mut(k) else {
                    continue;
                };
                // Told once: a scan that repeats another one changes nothing.
                if corrections >> place & 1 == 1 && i32::from(*value) & 1 << bit == 0 {
                    let more = (1_i32 << bit) as i16;
                    *value = if *value < 0 {
                        value.wrapping_sub(more)
                    } else {
                        value.wrapping_add(more)
                    };
                }
            }
        }
    }
}
