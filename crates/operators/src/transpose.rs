//! The two middle axes of a tensor exchanged.

use crate::gather::copy;

/// Writes `[outer][a][b][run]` as `[outer][b][a][run]`.
///
/// # Safety
/// `x` and `y` hold as many values.
pub(crate) unsafe fn transpose(x: *const f32, y: *mut f32, [outer, a, b, run]: [usize; 4]) {
    for o in 0..outer {
        for j in 0..b {
            for i in 0..a {
                // SAFETY: every index is below its extent.
                unsafe {
                    let from = x.add(((o * a + i) * b + j) * run);
                    copy(from, y.add(((o * b + j) * a + i) * run), run);
                }
            }
        }
    }
}
