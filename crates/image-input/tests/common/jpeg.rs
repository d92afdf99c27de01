//! A small JPEG encoder, for files that Pillow does not write: any sampling, any restart interval.
//!
//! Its Huffman codes all have one length, which spares the tables of T.81's annex K.

use std::f64::consts::PI;

use super::Random;

/// What is written.
pub struct Jpeg {
    pub width: usize,
    pub height: usize,
    /// Sampling factors of each component, across and down.
    pub sampling: Vec<(usize, usize)>,
    /// Units between restart markers; 0 for none.
    pub restart_interval: usize,
    /// Step of all coefficients.
    pub step: i32,
}

/// Slow waves, an edge and some noise, as photographs have most in what is large:
/// `0.0..=255.0` for each component and place.
pub fn scene(random: &mut Random) -> impl Fn(usize, usize, usize) -> f64 + use<> {
    let mut next =
        |least: f64, most: f64| least + (most - least) * (random.next() % 10_000) as f64 / 10_000.0;
    let waves: Vec<[f64; 4]> = (0..5)
        .map(|_| [next(-0.06, 0.06), next(-0.06, 0.06), next(0.0, 6.3), next(5.0, 30.0)])
        .collect();
    let (edge, tilt) = (next(20.0, 90.0), next(-0.5, 0.5));
    move |component, x, y| {
        let (at, down) = (x as f64, y as f64);
        let mut value = 128.0 + if at + tilt * down > edge { 40.0 } else { -40.0 };
        value += ((x * 7919 + y * 104_729 + component * 31) % 17) as f64 - 8.0;
        for [across, along, phase, height] in &waves {
            value += height * (across * at + along * down + phase + component as f64).sin();
        }
        value.clamp(0.0, 255.0)
    }
}

impl Jpeg {
    /// Encodes what `sample` says of each component at each pixel.
    pub fn encode(&self, sample: impl Fn(usize, usize, usize) -> f64) -> Vec<u8> {
        let across = self.sampling.iter().map(|factors| factors.0).max().unwrap();
        let down = self.sampling.iter().map(|factors| factors.1).max().unwrap();
        let mut file = vec![0xff, 0xd8];
        let mut segment = |marker: u8, contents: &[u8]| {
            file.extend([0xff, marker]);
            file.extend((contents.len() as u16 + 2).to_be_bytes());
            file.extend(contents);
        };
        let mut steps = vec![0];
        steps.extend([self.step as u8; 64]);
        segment(0xdb, &steps);
        let mut frame = vec![8];
        frame.extend((self.height as u16).to_be_bytes());
        frame.extend((self.width as u16).to_be_bytes());
        frame.push(self.sampling.len() as u8);
        for (id, (h, v)) in (1..).zip(&self.sampling) {
            frame.extend([id, (h << 4 | v) as u8, 0]);
        }
        segment(0xc0, &frame);
        // 12 codes of 4 bits for the steps, 162 of 8 bits for the rest.
        let mut codes = vec![0, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        codes.extend(0..12);
        codes.extend([0x10, 0, 0, 0, 0, 0, 0, 0, 162, 0, 0, 0, 0, 0, 0, 0, 0]);
        codes.extend(ac_symbols());
        segment(0xc4, &codes);
        segment(0xdd, &(self.restart_interval as u16).to_be_bytes());
        let mut scan = vec![self.sampling.len() as u8];
        (1..=self.sampling.len()).for_each(|id| scan.extend([id as u8, 0]));
        scan.extend([0, 63, 0]);
        segment(0xda, &scan);

        let alone = self.sampling.len() == 1;
        let (unit_width, unit_height) = if alone { (8, 8) } else { (8 * across, 8 * down) };
        let mut bits = Bits::default();
        let mut predicted = vec![0; self.sampling.len()];
        let mut units = 0;
        for unit_y in 0..self.height.div_ceil(unit_height) {
            for unit_x in 0..self.width.div_ceil(unit_width) {
                if self.restart_interval > 0 && units > 0 && units % self.restart_interval == 0 {
                    bits.marker(0xd0 + (units / self.restart_interval - 1) as u8 % 8);
                    predicted.fill(0);
                }
                units += 1;
                for (component, &factors) in self.sampling.iter().enumerate() {
                    let (h, v) = if alone { (1, 1) } else { factors };
                    // Pixels of one sample.
                    let (wide, high) = if alone { (1, 1) } else { (across / h, down / v) };
                    for block in 0..h * v {
                        let left = (unit_x * h + block % h) * 8;
                        let top = (unit_y * v + block / h) * 8;
                        let samples: Vec<f64> = (0..64)
                            .map(|at| {
                                let (x, y) = ((left + at % 8) * wide, (top + at / 8) * high);
                                let mut sum = 0.0;
                                for pixel in 0..wide * high {
                                    let x = (x + pixel % wide).min(self.width - 1);
                                    let y = (y + pixel / wide).min(self.height - 1);
                                    sum += sample(component, x, y);
                                }
                                sum / (wide * high) as f64
                            })
                            .collect();
                        self.block(&mut bits, &samples, &mut predicted[component]);
                    }
                }
            }
        }
        bits.flush();
        file.extend(bits.bytes);
        file.extend([0xff, 0xd9]);
        file
    }

    fn block(&self, bits: &mut Bits, samples: &[f64], predicted: &mut i32) {
        let mut coefficients = [0; 64];
        let waves: [[f64; 8]; 8] = std::array::from_fn(|k| {
            let scale = if k == 0 { 0.125_f64.sqrt() } else { 0.5 };
            std::array::from_fn(|n| scale * ((2 * n + 1) as f64 * k as f64 * PI / 16.0).cos())
        });
        for (at, coefficient) in zigzag().zip(&mut coefficients) {
            let (down, across) = (&waves[at / 8], &waves[at % 8]);
            let sum: f64 = (samples.iter().enumerate())
                .map(|(at, sample)| (sample - 128.0) * across[at % 8] * down[at / 8])
                .sum();
            *coefficient = (sum / f64::from(self.step)).round() as i32;
        }
        let step = coefficients[0] - *predicted;
        *predicted = coefficients[0];
        let size = size(step);
        bits.put(size, 4);
        bits.value(step, size);
        let mut run = 0;
        for &coefficient in &coefficients[1..] {
            if coefficient == 0 {
                run += 1;
                continue;
            }
            while run > 15 {
                bits.symbol(0xf0);
                run -= 16;
            }
            let size = self::size(coefficient);
            bits.symbol(run << 4 | size as u8);
            bits.value(coefficient, size);
            run = 0;
        }
        if run > 0 {
            bits.symbol(0);
        }
    }
}

/// End of block, sixteen zeros, and every run before every size.
fn ac_symbols() -> Vec<u8> {
    let pairs = (0..16).flat_map(|run| (1..=10).map(move |size| run << 4 | size));
    [0, 0xf0].into_iter().chain(pairs).collect()
}

fn size(value: i32) -> u32 {
    32 - value.unsigned_abs().leading_zeros()
}

/// Places of a block, row by row, in the file's order.
fn zigzag() -> impl Iterator<Item = usize> {
    (0..15_usize).flat_map(|diagonal| {
        let rows = diagonal.saturating_sub(7)..=diagonal.min(7);
        let mut places: Vec<_> = rows.map(|row| row * 8 + diagonal - row).collect();
        if diagonal % 2 == 0 {
            places.reverse();
        }
        places
    })
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    buffer: u32,
    count: u32,
}

impl Bits {
    fn put(&mut self, bits: u32, count: u32) {
        for at in (0..count).rev() {
            self.buffer = self.buffer << 1 | (bits >> at & 1);
            self.count += 1;
            if self.count == 8 {
                self.bytes.push(self.buffer as u8);
                if self.buffer == 0xff {
                    self.bytes.push(0);
                }
                (self.buffer, self.count) = (0, 0);
            }
        }
    }

    fn symbol(&mut self, symbol: u8) {
        let code = ac_symbols().iter().position(|&known| known == symbol).unwrap();
        self.put(code as u32, 8);
    }

    fn value(&mut self, value: i32, size: u32) {
        let bits = if value < 0 { value + (1 << size) - 1 } else { value };
        self.put(bits as u32, size);
    }

    fn flush(&mut self) {
        while self.count > 0 {
            self.put(1, 1);
        }
    }

    fn marker(&mut self, code: u8) {
        self.flush();
        self.bytes.extend([0xff, code]);
    }
}
