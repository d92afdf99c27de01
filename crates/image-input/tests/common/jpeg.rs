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
        let mut file = self.head(0xc0);
        let everything: Vec<usize> = (0..self.sampling.len()).collect();
        let mut predicted = vec![0; self.sampling.len()];
        let components = self.components(sample);
        self.scan(&mut file, &components, &everything, [0, 63, 0], |bits, number, block, fresh| {
            if fresh {
                predicted.fill(0);
            }
            first(bits, block[0], &mut predicted[number]);
            band(bits, &block[1..]);
        });
        file.extend([0xff, 0xd9]);
        file
    }

    /// The same coefficients as [`Self::encode`] writes, in scans that each tell a part: two for the
    /// first ones, and three for the others of each component.
    pub fn encode_progressive(&self, sample: impl Fn(usize, usize, usize) -> f64) -> Vec<u8> {
        let mut file = self.head(0xc2);
        let everything: Vec<usize> = (0..self.sampling.len()).collect();
        let mut predicted = vec![0; self.sampling.len()];
        let components = self.components(sample);
        self.scan(&mut file, &components, &everything, [0, 0, 1], |bits, number, block, fresh| {
            if fresh {
                predicted.fill(0);
            }
            first(bits, block[0] >> 1, &mut predicted[number]);
        });
        for number in 0..components.len() {
            for header in [[1, 5, 1], [6, 63, 1]] {
                self.scan(&mut file, &components, &[number], header, |bits, _, block, _| {
                    let whole = &block[header[0] as usize..=header[1] as usize];
                    // Towards zero.
                    band(bits, &whole.iter().map(|value| value / 2).collect::<Vec<_>>());
                });
            }
        }
        self.scan(&mut file, &components, &everything, [0, 0, 0x10], |bits, _, block, _| {
            bits.put(block[0] as u32 & 1, 1);
        });
        for number in (0..components.len()).rev() {
            self.scan(&mut file, &components, &[number], [1, 63, 0x10], |bits, _, block, _| {
                last_bit(bits, &block[1..]);
            });
        }
        file.extend([0xff, 0xd9]);
        file
    }

    /// Pixels of a unit in blocks, across and down.
    fn most(&self) -> (usize, usize) {
        let across = self.sampling.iter().map(|factors| factors.0).max().unwrap();
        let down = self.sampling.iter().map(|factors| factors.1).max().unwrap();
        if self.sampling.len() == 1 { (1, 1) } else { (across, down) }
    }

    /// Units of all components, across and down.
    fn units(&self) -> (usize, usize) {
        let (across, down) = self.most();
        (self.width.div_ceil(8 * across), self.height.div_ceil(8 * down))
    }

    /// Blocks of a unit, across and down.
    fn factors(&self, component: usize) -> (usize, usize) {
        if self.sampling.len() == 1 { (1, 1) } else { self.sampling[component] }
    }

    /// What comes before the first scan.
    fn head(&self, kind: u8) -> Vec<u8> {
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
        segment(kind, &frame);
        // 12 codes of 4 bits for the steps, 162 of 8 bits for the rest.
        let mut codes = vec![0, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        codes.extend(0..12);
        codes.extend([0x10, 0, 0, 0, 0, 0, 0, 0, 162, 0, 0, 0, 0, 0, 0, 0, 0]);
        codes.extend(ac_symbols());
        segment(0xc4, &codes);
        segment(0xdd, &(self.restart_interval as u16).to_be_bytes());
        file
    }

    /// The coefficients of each component's blocks, row by row of whole units.
    fn components(&self, sample: impl Fn(usize, usize, usize) -> f64) -> Vec<Vec<[i32; 64]>> {
        let (most, units) = (self.most(), self.units());
        let of_component = |component: usize| {
            let (h, v) = self.factors(component);
            // Pixels of one sample.
            let (wide, high) = (most.0 / h, most.1 / v);
            let places = (0..units.1 * v).flat_map(|y| (0..units.0 * h).map(move |x| (x, y)));
            let block = |(x, y): (usize, usize)| {
                let samples: Vec<f64> = (0..64)
                    .map(|at| {
                        let (x, y) = ((x * 8 + at % 8) * wide, (y * 8 + at / 8) * high);
                        let mut sum = 0.0;
                        for pixel in 0..wide * high {
                            let x = (x + pixel % wide).min(self.width - 1);
                            let y = (y + pixel / wide).min(self.height - 1);
                            sum += sample(component, x, y);
                        }
                        sum / (wide * high) as f64
                    })
                    .collect();
                self.coefficients(&samples)
            };
            places.map(block).collect()
        };
        (0..self.sampling.len()).map(of_component).collect()
    }

    /// One scan of the components named by `numbers`; `header` ends its header, and `write` writes
    /// a block of a component, the first one of an interval or not.
    fn scan(
        &self,
        file: &mut Vec<u8>,
        components: &[Vec<[i32; 64]>],
        numbers: &[usize],
        header: [u8; 3],
        mut write: impl FnMut(&mut Bits, usize, &[i32; 64], bool),
    ) {
        file.extend([0xff, 0xda, 0, 6 + 2 * numbers.len() as u8, numbers.len() as u8]);
        numbers.iter().for_each(|&number| file.extend([number as u8 + 1, 0]));
        file.extend(header);
        let (most, units) = (self.most(), self.units());
        let alone = numbers.len() == 1;
        // A component that is alone comes block by block, without those that only fill up units.
        let (across, down) = if let &[number] = numbers {
            let (h, v) = self.factors(number);
            let blocks = |pixels: usize, own: usize, most: usize| (pixels * own).div_ceil(8 * most);
            (blocks(self.width, h, most.0), blocks(self.height, v, most.1))
        } else {
            units
        };
        let mut bits = Bits::default();
        for unit in 0..across * down {
            let restarts = self.restart_interval > 0 && unit % self.restart_interval == 0;
            if restarts && unit > 0 {
                bits.marker(0xd0 + (unit / self.restart_interval - 1) as u8 % 8);
            }
            let mut fresh = restarts;
            for &number in numbers {
                let (h, v) = self.factors(number);
                let (wide, high) = if alone { (1, 1) } else { (h, v) };
                for block in 0..wide * high {
                    let x = unit % across * wide + block % wide;
                    let y = unit / across * high + block / wide;
                    write(&mut bits, number, &components[number][y * units.0 * h + x], fresh);
                    fresh = false;
                }
            }
        }
        bits.flush();
        file.extend(bits.bytes);
    }

    /// Quantised coefficients in the file's order.
    fn coefficients(&self, samples: &[f64]) -> [i32; 64] {
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
        coefficients
    }
}

/// A first coefficient, as the difference from the one before.
fn first(bits: &mut Bits, value: i32, predicted: &mut i32) {
    let step = value - *predicted;
    *predicted = value;
    bits.put(size(step), 4);
    bits.value(step, size(step));
}

/// Other coefficients, told for the first time.
fn band(bits: &mut Bits, coefficients: &[i32]) {
    let mut run = 0;
    for &coefficient in coefficients {
        if coefficient == 0 {
            run += 1;
            continue;
        }
        while run > 15 {
            bits.symbol(0xf0);
            run -= 16;
        }
        let size = size(coefficient);
        bits.symbol(run << 4 | size as u8);
        bits.value(coefficient, size);
        run = 0;
    }
    if run > 0 {
        bits.symbol(0);
    }
}

/// The last bit of coefficients of which all others are told (T.81, G.1.2.3).
fn last_bit(bits: &mut Bits, coefficients: &[i32]) {
    let (mut run, mut corrections) = (0, Vec::new());
    let newest = coefficients.iter().rposition(|value| value.abs() == 1);
    for (at, &value) in coefficients.iter().enumerate() {
        if value.abs() > 1 {
            corrections.push(value.unsigned_abs() & 1);
            continue;
        }
        if value == 0 {
            run += 1;
        }
        // Sixteen zeros are only told where something new follows.
        if run > 15 && Some(at) <= newest {
            bits.symbol(0xf0);
            corrections.drain(..).for_each(|bit| bits.put(bit, 1));
            run = 0;
        }
        if value.abs() == 1 {
            bits.symbol(run << 4 | 1);
            bits.put(u32::from(value > 0), 1);
            corrections.drain(..).for_each(|bit| bits.put(bit, 1));
            run = 0;
        }
    }
    if run > 0 || !corrections.is_empty() {
        bits.symbol(0);
        corrections.drain(..).for_each(|bit| bits.put(bit, 1));
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
