//! Whether the functions that `build.rs` writes know the structures that they are given.

/// Whether fields lie where a generator thought that they do.
pub(crate) const fn agree(fields: &[usize], written: &[usize]) -> bool {
    let mut i = 0;
    while i < fields.len() {
        if i >= written.len() || fields[i] != written[i] {
            return false;
        }
        i += 1;
    }
    i == written.len()
}
