//! Most JPEGs there are: one scan of Huffman codes, grey or YCbCr.

use crate::{ImageError, Limits, Picture};

use super::{
    bits::Bits,
    huffman::{Block, Coding, Steps, Table, in_block_order, read_block},
    planes::Layout,
};

/// What a scan needs of the segments before it.
pub(super) struct Scan<'a> {
    pub layout: Layout,
    /// What each component is read with.
    pub components: Vec<Component<'a>>,
    /// Units between restart markers; 0 for none.
    pub restart_interval: usize,
    /// What follows the scan's header.
    pub data: &'a [u8],
}

/// One component of a scan.
pub(super) struct Component<'a> {
    pub dc: &'a Table,
    pub ac: &'a Table,
    pub steps: &'a Steps,
}

impl Scan<'_> {
    /// Decodes the picture at `1 / 2^shift` of its size, `shift` at most 3; an extent that does
    /// not divide is rounded up.
    pub(super) fn decode<'s>(
        &self,
        shift: u32,
        limits: &Limits,
        scratch: &'s mut [u8],
    ) -> Result<Picture<'s>, ImageError> {
        let mut planes = self.layout.planes(shift);
        limits.check_memory(self.layout.bytes(shift, &planes) as u64)?;
        let mut components: Vec<(Coding<'_>, Block, i32)> = (self.components.iter().zip(&planes))
            .map(|(&Component { dc, ac, steps }, plane)| {
                (Coding::new(dc, ac, plane.last()), in_block_order(steps), 0)
            })
            .collect();
        let units_across = self.layout.units().0;
        let mut bits = Bits::new(self.data);
        let mut until_restart = self.restart_interval;
        let mut restarts = 0_u8;
        let mut block: Block = [0; 64];
        self.layout.paint(shift, &mut planes, limits, scratch, |planes, unit_y| {
            for unit_x in 0..units_across {
                if self.restart_interval > 0 {
                    if until_restart == 0 {
                        bits.restart(restarts)?;
                        restarts = (restarts + 1) % 8;
                        until_restart = self.restart_interval;
                        components.iter_mut().for_each(|(.., predicted)| *predicted = 0);
                    }
                    until_restart -= 1;
                }
                for (plane, (coding, steps, predicted)) in planes.iter_mut().zip(&mut components) {
                    plane.put_unit(&mut block, steps, unit_x, unit_y, |block, _| {
                        read_block(&mut bits, coding, predicted, block)
                    })?;
                }
            }
            bits.check()
        })
    }
}
