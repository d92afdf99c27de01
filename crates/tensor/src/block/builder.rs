//! Writing a model block: places first, then bytes.

use std::collections::BTreeSet;

use super::{BlockError, ENTRY_BYTES, HEADER_BYTES, MAGIC, VERSION};
use crate::{ALIGNMENT, TensorView};

/// Writes a model block. The same input gives the same bytes; tensors keep the order in which
/// they were added.
#[derive(Debug)]
pub struct BlockBuilder<'a> {
    graph: &'a str,
    spec: &'a str,
    labels: String,
    tensors: Vec<(&'a str, TensorView<'a>)>,
}

impl<'a> BlockBuilder<'a> {
    /// Starts a block with graph.json and the spec's JSON.
    pub fn new(graph: &'a str, spec: &'a str) -> Self {
        BlockBuilder { graph, spec, labels: String::new(), tensors: Vec::new() }
    }

    /// Sets the labels, in the order of the model's classes.
    ///
    /// # Errors
    /// [`BlockError::Label`] for a label with a line break in it.
    pub fn labels<L: AsRef<str>>(mut self, labels: &[L]) -> Result<Self, BlockError> {
        self.labels.clear();
        for (index, label) in labels.iter().map(AsRef::as_ref).enumerate() {
            if label.contains(['\n', '\r']) {
                return Err(BlockError::Label { index });
            }
            self.labels.push_str(label);
            self.labels.push('\n');
        }
        Ok(self)
    }

    /// Adds one tensor.
    #[must_use]
    pub fn tensor(mut self, name: &'a str, tensor: TensorView<'a>) -> Self {
        self.tensors.push((name, tensor));
        self
    }

    /// The block's bytes; place them at a multiple of [`super::BLOCK_ALIGNMENT`].
    ///
    /// # Errors
    /// [`BlockError::DuplicateTensor`], or [`BlockError::TooLarge`] from 4 GiB on.
    pub fn build(self) -> Result<Vec<u8>, BlockError> {
        let mut names = BTreeSet::new();
        if let Some((name, _)) = self.tensors.iter().find(|(name, _)| !names.insert(*name)) {
            return Err(BlockError::DuplicateTensor((*name).to_owned()));
        }

        let mut layout = Layout { end: HEADER_BYTES };
        let index = layout.place(self.tensors.len().saturating_mul(ENTRY_BYTES), 4)?;
        let mut places = Vec::with_capacity(self.tensors.len());
        for (_, tensor) in &self.tensors {
            places.push(layout.place(tensor.shape().rank() * 8, 8)?);
        }
        let mut name_places = Vec::with_capacity(self.tensors.len());
        for (name, _) in &self.tensors {
            name_places.push(layout.place(name.len(), 1)?);
        }
        let texts = [self.graph, self.spec, &self.labels];
        let mut text_places = [0; 3];
        for (place, text) in text_places.iter_mut().zip(texts) {
            *place = layout.place(text.len(), 1)?;
        }
        let mut data_places = Vec::with_capacity(self.tensors.len());
        for (_, tensor) in &self.tensors {
            data_places.push(layout.place(tensor.as_bytes().len(), ALIGNMENT)?);
        }

        // Every place and length below is at most `layout.end`, which fits in 32 bits.
        let mut out = vec![0; layout.end];
        let mut header = Writer { out: &mut out, at: 0 };
        header.bytes(&MAGIC);
        header.u32(VERSION as usize);
        header.u32(layout.end);
        for (place, text) in text_places.iter().zip(texts) {
            header.u32(*place);
            header.u32(text.len());
        }
        header.u32(index);
        header.u32(self.tensors.len());

        for (i, (name, tensor)) in self.tensors.iter().enumerate() {
            let dtype = tensor.dtype();
            let mut entry = Writer { out: &mut out, at: index + i * ENTRY_BYTES };
            entry.u32(name_places[i]);
            entry.u32(name.len());
            entry.bytes(&[dtype.code() as u8, dtype.bits()]);
            entry.bytes(&dtype.lanes().to_le_bytes());
            entry.u32(tensor.shape().rank());
            entry.u32(places[i]);
            entry.u32(data_places[i]);
            entry.u32(tensor.as_bytes().len());

            let mut extents = Writer { out: &mut out, at: places[i] };
            for &extent in tensor.shape().extents() {
                extents.bytes(&(extent as u64).to_le_bytes());
            }
            Writer { out: &mut out, at: name_places[i] }.bytes(name.as_bytes());
            Writer { out: &mut out, at: data_places[i] }.bytes(tensor.as_bytes());
        }
        for (place, text) in text_places.iter().zip(texts) {
            Writer { out: &mut out, at: *place }.bytes(text.as_bytes());
        }
        Ok(out)
    }
}

/// Where the next part goes.
struct Layout {
    end: usize,
}

impl Layout {
    fn place(&mut self, len: usize, alignment: usize) -> Result<usize, BlockError> {
        let start = self.end.checked_next_multiple_of(alignment).ok_or(BlockError::TooLarge)?;
        self.end = start.checked_add(len).ok_or(BlockError::TooLarge)?;
        u32::try_from(self.end).map_err(|_| BlockError::TooLarge)?;
        Ok(start)
    }
}

/// Writes at places that `Layout` has given out.
struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn u32(&mut self, value: usize) {
        self.bytes(&(value as u32).to_le_bytes());
    }
}
