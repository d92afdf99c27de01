//! Pools: maximum over windows, and the mean of a plane.
//!
//! A maximum is taken first down the columns into one padded row in scratch, then along that
//! row, both in vectors; so any window costs its height plus its width and not their product.

use std::ops::Range;

use crate::KernelError;
use crate::geometry::{Axis, Pool2d};
use crate::rows;
use crate::scratch;
use crate::variant::F32x4;
use crate::vector::Vector;

/// Computes a maximum pool.
///
/// # Errors
/// [`KernelError::Scratch`].
///
/// # Safety
/// `x` and `y` have the extents that [`crate::graphlet_max_pool2d_f32`] gives for `pool`.
pub(crate) unsafe fn max_pool2d(
    pool: &Pool2d,
    x: *const f32,
    y: *mut f32,
) -> Result<(), KernelError> {
    let (rows, columns) = (pool.rows, pool.columns);
    if reads_in_place(pool) {
        for plane in 0..pool.planes {
            // SAFETY: the caller's promise for this plane.
            unsafe {
                let x = x.add(plane * rows.input * columns.input);
                let y = y.add(plane * rows.output * columns.output);
                match columns.kernel {
                    2 => in_place_2(pool, x, y),
                    _ => in_place_3(pool, x, y),
                }
            }
        }
        return Ok(());
    }
    // Vectors of four outputs may read this far behind the last window.
    let slack = 8 * columns.stride.min(2);
    let length = (columns.before + columns.input).max(columns.reach(columns.output)) + slack;
    scratch::with(length, |scratch| {
        let line = &mut scratch[..length];
        // The padding is never written again.
        line.fill(f32::NEG_INFINITY);
        for plane in 0..pool.planes {
            for row in 0..rows.output {
                let start = rows.start(row);
                let first = start.clamp(0, rows.input as isize) as usize;
                let end = start + rows.window() as isize;
                let end = end.clamp(first as isize, rows.input as isize) as usize;
                // SAFETY: `first..end` are rows of the plane, `row` is one of its output.
                unsafe {
                    let x = x.add((plane * rows.input + first) * columns.input);
                    let inside = &mut line[columns.before..][..columns.input];
                    down(x, end - first, inside);
                    let y = y.add((plane * rows.output + row) * columns.output);
                    along(line, &columns, y);
                }
            }
        }
    })
}

/// Whether windows can be taken where the input lies: two or three columns at stride 2, at least
/// four of them, of which only the first and the last may see padding, and one column of it.
fn reads_in_place(pool: &Pool2d) -> bool {
    let (rows, columns) = (pool.rows, pool.columns);
    let inside = |row| {
        let (start, end) = (rows.start(row), rows.start(row) + rows.window() as isize);
        start < rows.input as isize && end > 0
    };
    rows.kernel == columns.kernel
        && [2, 3].contains(&columns.kernel)
        && columns.stride == 2
        && columns.before <= 1
        && columns.after() <= 1
        && columns.output >= 5
        && columns.input >= 8
        && inside(0)
        && inside(rows.output - 1)
}

// Functions of their own: one loop's registers are the other's spills.
/// # Safety
/// `x` and `y` point to a plane of input and of output, and [`reads_in_place`] holds for windows of
/// two.
#[inline(never)]
unsafe fn in_place_2(pool: &Pool2d, x: *const f32, y: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe { in_place::<2>(pool, x, y) }
}

/// # Safety
/// As [`in_place_2`], for windows of three.
#[inline(never)]
unsafe fn in_place_3(pool: &Pool2d, x: *const f32, y: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe { in_place::<3>(pool, x, y) }
}

/// Computes a plane: down the columns of two vectors of input and along them in one go.
///
/// # Safety
/// As [`in_place_2`].
#[inline(always)]
unsafe fn in_place<const KERNEL: usize>(pool: &Pool2d, x: *const f32, y: *mut f32) {
    let (rows, columns) = (pool.rows, pool.columns);
    let (input, width) = (columns.input, columns.output);
    let nothing = F32x4::splat(f32::NEG_INFINITY);
    for row in 0..rows.output {
        let window = covered(&rows, row);
        // A window that padding cuts short reads one of its rows twice.
        // SAFETY: these are rows of the plane.
        let lines: [*const f32; KERNEL] = std::array::from_fn(|i| unsafe {
            x.add((window.start + i).min(window.end - 1) * input)
        });
        let down = |at: usize| {
            // SAFETY: the callers below stay inside the rows.
            let vectors = lines.map(|line| unsafe { F32x4::load(line.wrapping_add(at)) });
            let most = nothing.larger(vectors[0]).larger(vectors[1]);
            if KERNEL == 3 { most.larger(vectors[KERNEL - 1]) } else { most }
        };
        // The windows' first two columns of two vectors of input.
        let pairs = |low: F32x4, high: F32x4| (low.evens(high), low.odds(high));
        let (before, right) = (columns.before, columns.after() == 1);
        // SAFETY: every window of a row but the first and the last lies inside it. A vector of four
        // windows begins at `2 * column - before`; those before the last four have at least four
        // more windows behind them, hence eight more values of input.
        unsafe {
            let y = y.add(row * width);
            let mut column = 0;
            if before == 1 {
                // The first column is padding.
                let (second, third) = pairs(down(0), down(4));
                let most = nothing.last_then(third).larger(second);
                let most = if KERNEL == 3 { most.larger(third) } else { most };
                most.store(y);
                column = 4;
            }
            let mut from = 2 * column - before;
            if column + 4 < width {
                let mut low = down(from);
                while column + 4 < width {
                    let (first, second) = pairs(low, down(from + 4));
                    let mut most = first.larger(second);
                    if from + 12 <= input {
                        low = down(from + 8);
                        if KERNEL == 3 {
                            most = most.larger(first.rest_then(low));
                        }
                    } else if KERNEL == 3 {
                        // Only before the last four windows.
                        most = most.larger(down(from + 2).evens_odds(down(from + 5)));
                    }
                    most.store(y.add(column));
                    column += 4;
                    from += 8;
                }
            }
            let from = 2 * (width - 4) - before;
            let low = down(from);
            let most = match (KERNEL, right) {
                (2, true) => {
                    let (first, second) = pairs(low, down(from + 3).rest_then(nothing));
                    first.larger(second)
                }
                (2, false) => {
                    let (first, second) = pairs(low, down(from + 4));
                    first.larger(second)
                }
                (_, true) => {
                    let (first, second) = pairs(low, down(from + 4));
                    first.larger(second).larger(first.rest_then(nothing))
                }
                _ => {
                    let (first, second) = pairs(low, down(from + 4));
                    let third = down(from + 2).evens_odds(down(from + 5));
                    first.larger(second).larger(third)
                }
            };
            most.store(y.add(width - 4));
        }
    }
}

/// Maximum of `rows` rows, column by column.
///
/// # Safety
/// `x` points to `rows` rows as long as `to`.
#[inline(never)]
unsafe fn down(x: *const f32, rows: usize, to: &mut [f32]) {
    let columns = to.len();
    let nothing = F32x4::splat(f32::NEG_INFINITY);
    if columns < 4 {
        for (column, to) in to.iter_mut().enumerate() {
            // SAFETY: row and column are inside the caller's extents.
            let values = (0..rows).map(|row| unsafe { *x.add(row * columns + column) });
            *to = values
                .fold(f32::NEG_INFINITY, |most, value| if most < value { value } else { most });
        }
        return;
    }
    let to = to.as_mut_ptr();
    let mut column = 0;
    while column < columns {
        let at = column.min(columns - 4);
        // SAFETY: four columns from `at` on exist; rows are the caller's promise.
        unsafe {
            let mut from = x.add(at);
            let mut most = nothing;
            let mut left = rows;
            // Three rows are what nearly every model has.
            while left >= 3 {
                most = most.larger(F32x4::load(from));
                most = most.larger(F32x4::load(from.add(columns)));
                most = most.larger(F32x4::load(from.add(2 * columns)));
                from = from.wrapping_add(3 * columns);
                left -= 3;
            }
            while left > 0 {
                most = most.larger(F32x4::load(from));
                from = from.wrapping_add(columns);
                left -= 1;
            }
            most.store(to.add(at));
        }
        column += 4;
    }
}

/// Maxima along a row, one for each window.
///
/// # Safety
/// `line` holds all windows and the slack behind them, `y` one row of output.
#[inline(always)]
unsafe fn along(line: &[f32], columns: &Axis, y: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        match (columns.stride, columns.kernel) {
            (1, _) if columns.output >= 4 => along_1(line, columns.kernel, columns.output, y),
            (2, 3) if columns.output >= 4 => along_2::<3>(line, 3, columns.output, y),
            (2, 2) if columns.output >= 4 => along_2::<2>(line, 2, columns.output, y),
            (2, kernel) if columns.output >= 4 => along_2::<0>(line, kernel, columns.output, y),
            _ => {
                for i in 0..columns.output {
                    let window = &line[i * columns.stride..][..columns.kernel];
                    *y.add(i) = window.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                }
            }
        }
    }
}

/// Windows at stride 1.
///
/// # Safety
/// As [`along`]; there are at least four outputs.
#[inline(never)]
unsafe fn along_1(line: &[f32], kernel: usize, outputs: usize, y: *mut f32) {
    let mut i = 0;
    while i < outputs {
        let at = i.min(outputs - 4);
        // SAFETY: the windows of `at..at + 4` end inside `line`.
        unsafe {
            let from = line.as_ptr().add(at);
            let mut most = F32x4::load(from);
            for tap in 1..kernel {
                most = most.larger(F32x4::load(from.add(tap)));
            }
            most.store(y.add(at));
        }
        i += 4;
    }
}

/// Windows at stride 2; `KERNEL` is the window's width if it is known, else 0.
///
/// # Safety
/// As [`along`]; there are at least four outputs.
#[inline(never)]
unsafe fn along_2<const KERNEL: usize>(line: &[f32], kernel: usize, outputs: usize, y: *mut f32) {
    let kernel = if KERNEL > 0 { KERNEL } else { kernel };
    let mut i = 0;
    while i < outputs {
        let at = i.min(outputs - 4);
        // SAFETY: the windows of `at..at + 4` end at `2 * at + 6 + kernel`; vectors read at most
        // two values more, which is less than the slack.
        unsafe {
            let from = line.as_ptr().add(2 * at);
            let (low, high) = (F32x4::load(from), F32x4::load(from.add(4)));
            let mut most = low.evens(high);
            if kernel > 1 {
                most = most.larger(low.odds(high));
            }
            let mut tap = 2;
            while tap < kernel {
                let (low, high) = (F32x4::load(from.add(tap)), F32x4::load(from.add(tap + 4)));
                most = most.larger(low.evens(high));
                if tap + 1 < kernel {
                    most = most.larger(low.odds(high));
                }
                tap += 2;
            }
            most.store(y.add(at));
        }
        i += 4;
    }
}

/// Computes an average pool; padding counts as zeros with `padded`, else not at all.
///
/// # Errors
/// [`KernelError::Scratch`].
///
/// # Safety
/// `x` and `y` have the extents that [`crate::graphlet_avg_pool2d_f32`] gives for `pool`.
pub(crate) unsafe fn avg_pool2d(
    pool: &Pool2d,
    padded: bool,
    x: *const f32,
    y: *mut f32,
) -> Result<(), KernelError> {
    let (rows, columns) = (pool.rows, pool.columns);
    // As for the maximum, but padding is zero.
    let slack = 8 * columns.stride.min(2);
    let length = (columns.before + columns.input).max(columns.reach(columns.output)) + slack;
    scratch::with(length + columns.output, |scratch| {
        let (line, counts) = scratch.split_at_mut(length);
        line.fill(0.0);
        // How many columns of a window are not padding.
        for (column, count) in counts.iter_mut().enumerate().take(columns.output) {
            let across = if padded { columns.kernel } else { covered(&columns, column).len() };
            *count = across as f32;
        }
        for plane in 0..pool.planes {
            for row in 0..rows.output {
                let window = covered(&rows, row);
                let height = if padded { rows.kernel } else { window.len() };
                // SAFETY: the window's rows are in the plane, `row` is one of its output; `line`
                // has the slack that vectors need.
                unsafe {
                    let x = x.add((plane * rows.input + window.start) * columns.input);
                    add_rows(x, window.len(), &mut line[columns.before..][..columns.input]);
                    let y = y.add((plane * rows.output + row) * columns.output);
                    average_along(line, &columns, counts, height as f32, y);
                }
            }
        }
    })
}

/// Means along a row of sums: those of one window divided by its count times `height`.
///
/// # Safety
/// `line` holds all windows and the slack behind them, `counts` and `y` one row of output.
#[inline(never)]
unsafe fn average_along(line: &[f32], columns: &Axis, counts: &[f32], height: f32, y: *mut f32) {
    let (stride, width) = (columns.stride, columns.output);
    let height_4 = F32x4::splat(height);
    let mut column = 0;
    // SAFETY: vectors of four windows end at `stride * (column + 3) + kernel`, at stride 2 one value
    // more, which the slack allows; the last four windows reach back.
    unsafe {
        while width >= 4 && stride <= 2 && column < width {
            let first = column.min(width - 4);
            let from = line.as_ptr().add(first * stride);
            let mut sum = F32x4::splat(0.0);
            for tap in 0..columns.kernel {
                let low = F32x4::load(from.add(tap));
                sum = sum.add(match stride {
                    1 => low,
                    _ => low.evens(F32x4::load(from.add(tap + 4))),
                });
            }
            let count = F32x4::load(counts.as_ptr().add(first)).mul(height_4);
            sum.div(count).store(y.add(first));
            column += 4;
        }
        for (i, count) in counts.iter().enumerate().take(width).skip(column) {
            let window = &line[i * stride..][..columns.kernel];
            *y.add(i) = window.iter().sum::<f32>() / (count * height);
        }
    }
}

/// The input positions, without padding, of one window.
fn covered(axis: &Axis, output: usize) -> Range<usize> {
    let start = axis.start(output);
    let first = start.clamp(0, axis.input as isize) as usize;
    let end = start + axis.window() as isize;
    first..end.clamp(first as isize, axis.input as isize) as usize
}

/// Adds up `rows` rows, column by column.
///
/// # Safety
/// `x` points to `rows` rows as long as `to`.
#[inline(never)]
unsafe fn add_rows(x: *const f32, rows: usize, to: &mut [f32]) {
    let columns = to.len();
    let whole = columns / 4 * 4;
    // SAFETY: row and column are inside the caller's extents.
    unsafe {
        for column in (0..whole).step_by(4) {
            let mut sum = F32x4::splat(0.0);
            for row in 0..rows {
                sum = sum.add(F32x4::load(x.add(row * columns + column)));
            }
            sum.store(to.as_mut_ptr().add(column));
        }
        for (column, to) in to.iter_mut().enumerate().skip(whole) {
            *to = (0..rows).map(|row| *x.add(row * columns + column)).sum();
        }
    }
}

/// Computes the mean of each plane: `y[i]` of the `plane` values from `x[i * plane]` on.
///
/// # Safety
/// `x` holds `planes * plane` values, `y` `planes`.
pub(crate) unsafe fn global_avg_pool(planes: usize, plane: usize, x: *const f32, y: *mut f32) {
    for i in 0..planes {
        // SAFETY: the caller's promise.
        unsafe { *y.add(i) = rows::fold(x.add(i * plane), plane, 0.0, F32x4::add) / plane as f32 }
    }
}
