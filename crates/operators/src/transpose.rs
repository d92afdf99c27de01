//! The two middle axes of a tensor exchanged.

use crate::gather::copy;
use crate::variant::F32x4;
use crate::vector::Vector;

/// Writes `[outer][a][b][run]` as `[outer][b][a][run]`.
///
/// # Safety
/// `x` and `y` hold as many values.
pub(crate) unsafe fn transpose(x: *const f32, y: *mut f32, [outer, a, b, run]: [usize; 4]) {
    for o in 0..outer {
        // SAFETY: every index is below its extent.
        unsafe {
            let (x, y) = (x.add(o * a * b * run), y.add(o * a * b * run));
            if run == 1 {
                matrix(x, b, a, b, y, a);
                continue;
            }
            for j in 0..b {
                for i in 0..a {
                    copy(x.add((i * b + j) * run), y.add((j * a + i) * run), run);
                }
            }
        }
    }
}

/// Transposes a matrix, four rows and columns at a time: `to[c * to_row + r]` is
/// `from[r * from_row + c]`.
///
/// # Safety
/// `from` points to `rows` rows of `columns` values, `from_row` apart; `to` to `columns` rows of
/// `rows` places, `to_row` apart.
#[inline(never)]
pub(crate) unsafe fn matrix(
    from: *const f32,
    from_row: usize,
    rows: usize,
    columns: usize,
    to: *mut f32,
    to_row: usize,
) {
    let (whole_rows, whole_columns) = (rows / 4 * 4, columns / 4 * 4);
    // SAFETY: rows and columns stay below their extents.
    unsafe {
        for row in (0..whole_rows).step_by(4) {
            let from = from.add(row * from_row);
            let to = to.add(row);
            for column in (0..whole_columns).step_by(4) {
                let rows = std::array::from_fn(|i| F32x4::load(from.add(i * from_row + column)));
                for (i, vector) in F32x4::transpose(rows).into_iter().enumerate() {
                    vector.store(to.add((column + i) * to_row));
                }
            }
            for column in whole_columns..columns {
                for i in 0..4 {
                    *to.add(column * to_row + i) = *from.add(i * from_row + column);
                }
            }
        }
        for row in whole_rows..rows {
            for column in 0..columns {
                *to.add(column * to_row + row) = *from.add(row * from_row + column);
            }
        }
    }
}
