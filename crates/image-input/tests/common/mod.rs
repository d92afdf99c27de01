//! What the tests of this crate share: the committed pictures and their expected values.

#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses a part, in tests")]

pub mod jpeg;
pub mod reductions;
pub mod resizes;

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use flate2::read::ZlibDecoder;

/// Pixels as `testdata/make.py` wrote them.
pub struct Expected {
    pub width: u32,
    pub height: u32,
    pub channels: usize,
    pub pixels: Vec<u8>,
}

pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

pub fn read(name: &str) -> Vec<u8> {
    fs::read(testdata().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Reads a file of named pictures: a line `NAME WIDTH HEIGHT CHANNELS`, then the pixels.
pub fn expected(file: &str) -> BTreeMap<String, Expected> {
    let mut data = Vec::new();
    ZlibDecoder::new(&read(file)[..]).read_to_end(&mut data).unwrap();
    let mut rest = &data[..];
    let mut values = BTreeMap::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap();
        let line = str::from_utf8(&rest[..end]).unwrap();
        let [name, width, height, channels] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("malformed line {line:?}");
        };
        let (width, height, channels) = (
            width.parse::<u32>().unwrap(),
            height.parse::<u32>().unwrap(),
            channels.parse::<usize>().unwrap(),
        );
        let len = width as usize * height as usize * channels;
        let (pixels, next) = rest[end + 1..].split_at(len);
        rest = next;
        let value = Expected { width, height, channels, pixels: pixels.to_vec() };
        values.insert(name.to_owned(), value);
    }
    values
}

/// The committed pictures by name.
pub fn pictures() -> BTreeMap<String, Vec<u8>> {
    let names = expected("expected.zlib").into_keys();
    names.map(|name| (name.clone(), read(&name))).collect()
}

/// The folder of photographs that are not part of the repository, or a message.
pub fn photographs() -> Option<PathBuf> {
    let shared = std::env::var_os("GRAPHLET_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let folder = shared.join("images");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no photographs at {}", folder.display());
    None
}

/// CRC-32 of PNG and zlib.
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Numbers without order but always the same: xorshift64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
