//! Prints how fast each class of layer runs under wasmtime, beside the core's own 128-bit FMA
//! loop: `cargo bench -p operators --bench kernels [-- relaxed|simd128|scalar [name part]]`.
//!
//! Times are minima of many runs; on a shared machine only the ratios mean anything. Every output
//! is compared with the reference once.
#![expect(clippy::print_stdout, reason = "a report is this program's purpose")]
#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "FMA instructions"))]

#[path = "../tests/support/guest.rs"]
mod guest;
#[path = "../tests/support/mod.rs"]
mod support;

use std::env;
use std::time::{Duration, Instant};

use guest::{Guest, Place, Variant};
use support::{Case, Window};

/// Layer classes with layers of the three models.
fn classes() -> Vec<(&'static str, Vec<Case>)> {
    let valid = |side, kernel, stride| Window::padded(side, kernel, stride, 1, 0, 0);
    let stem = Case::Conv {
        batch: 1,
        inputs: 3,
        outputs: 96,
        groups: 1,
        rows: valid(224, 7, 2),
        columns: valid(224, 7, 2),
        residual: false,
        end: support::NO_CLAMP,
    };
    vec![
        (
            "1x1",
            vec![
                Case::conv(16, 96, 112, 1, 1),
                Case::conv(32, 16, 112, 1, 1),
                Case::conv(24, 144, 56, 1, 1),
                Case::conv(144, 24, 56, 1, 1),
                Case::conv(64, 256, 56, 1, 1),
                Case::conv(256, 64, 56, 1, 1),
                Case::conv(128, 512, 28, 1, 1),
                Case::conv(192, 32, 28, 1, 1),
                Case::conv(384, 64, 14, 1, 1),
                Case::conv(1024, 256, 14, 1, 1),
                Case::conv(160, 960, 7, 1, 1),
                Case::conv(512, 2048, 7, 1, 1),
                Case::conv(512, 1000, 13, 1, 1),
            ],
        ),
        (
            "1x1 stride 2",
            vec![
                Case::conv(256, 512, 56, 1, 2),
                Case::conv(512, 1024, 28, 1, 2),
                Case::conv(1024, 2048, 14, 1, 2),
            ],
        ),
        (
            "3x3",
            vec![
                Case::conv(64, 64, 56, 3, 1),
                Case::conv(128, 128, 28, 3, 1),
                Case::conv(256, 256, 14, 3, 1),
                Case::conv(512, 512, 7, 3, 1),
                Case::conv(16, 64, 54, 3, 1),
                Case::conv(32, 128, 27, 3, 1),
                Case::conv(64, 256, 13, 3, 1),
            ],
        ),
        (
            "winograd",
            vec![
                Case::winograd(64, 64, 56),
                Case::winograd(128, 128, 28),
                Case::winograd(256, 256, 14),
                Case::winograd(16, 64, 54),
                Case::winograd(32, 128, 27),
                Case::winograd(64, 256, 13),
            ],
        ),
        (
            "3x3 stride 2",
            vec![
                Case::conv(3, 32, 224, 3, 2),
                Case::conv(128, 128, 56, 3, 2),
                Case::conv(256, 256, 28, 3, 2),
                Case::conv(512, 512, 14, 3, 2),
            ],
        ),
        ("stem 7x7", vec![Case::conv(3, 64, 224, 7, 2), stem]),
        (
            "depthwise",
            vec![
                Case::depthwise(32, 112, 3, 1),
                Case::depthwise(144, 56, 3, 1),
                Case::depthwise(192, 28, 3, 1),
                Case::depthwise(384, 14, 3, 1),
                Case::depthwise(960, 7, 3, 1),
            ],
        ),
        (
            "depthwise stride 2",
            vec![
                Case::depthwise(96, 112, 3, 2),
                Case::depthwise(144, 56, 3, 2),
                Case::depthwise(192, 28, 3, 2),
                Case::depthwise(576, 14, 3, 2),
            ],
        ),
        (
            "depthwise 5x5",
            vec![
                Case::depthwise(72, 56, 5, 2),
                Case::depthwise(120, 28, 5, 1),
                Case::depthwise(672, 14, 5, 2),
                Case::depthwise(960, 7, 5, 1),
            ],
        ),
        (
            "dense",
            vec![Case::dense(1, 1280, 1000), Case::dense(1, 2048, 1000), Case::dense(8, 512, 1000)],
        ),
        (
            "max pool",
            vec![
                Case::max_pool(96, 109, 3, 2, 0),
                Case::max_pool(256, 54, 3, 2, 0),
                Case::max_pool(64, 112, 3, 2, 1),
            ],
        ),
        (
            "mean pool",
            vec![
                Case::MeanPool { batch: 1, channels: 1280, plane: 49 },
                Case::MeanPool { batch: 1, channels: 1000, plane: 169 },
            ],
        ),
    ]
}

/// Shortest of many runs, for at most a third of a second.
fn shortest(mut run: impl FnMut()) -> Duration {
    let begin = Instant::now();
    let mut best = Duration::MAX;
    let mut runs = 0;
    while runs < 5 || (runs < 300 && begin.elapsed() < Duration::from_millis(300)) {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed());
        runs += 1;
    }
    best
}

/// Multiply-adds a second, in thousand millions, that the core does in 128-bit FMA.
#[cfg(target_arch = "x86_64")]
fn native_peak() -> Option<f64> {
    use std::arch::x86_64::{_mm_fmadd_ps, _mm_set1_ps};
    use std::hint::black_box;

    const TURNS: u32 = 1 << 20;

    #[target_feature(enable = "fma")]
    fn turns() {
        let factor = black_box(_mm_set1_ps(0.5));
        let mut sums = black_box([_mm_set1_ps(1.0); 12]);
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = _mm_fmadd_ps(factor, factor, *sum);
            }
        }
        black_box(sums);
    }

    if !std::is_x86_feature_detected!("fma") {
        return None;
    }
    // SAFETY: the CPU has FMA, as tested above.
    let time = shortest(|| unsafe { turns() });
    Some(f64::from(TURNS) * 12.0 * 4.0 / time.as_secs_f64() / 1e9)
}

#[cfg(not(target_arch = "x86_64"))]
fn native_peak() -> Option<f64> {
    None
}

fn main() {
    let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let variant = match words.first().map(String::as_str) {
        Some("simd128") => Variant::Simd128,
        Some("scalar") => Variant::Scalar,
        _ => Variant::Relaxed,
    };
    let part = words.get(1).map_or("", String::as_str);
    let Some(file) = guest::build(variant) else {
        println!("skipped: no toolchain here builds for wasm32-unknown-unknown");
        return;
    };
    let guest = Guest::load(&file);
    for (name, cases) in classes().into_iter().filter(|(name, _)| name.contains(part)) {
        let peak = native_peak();
        if let Some(peak) = peak {
            println!("native 128-bit FMA: {peak:.1} GMAC/s");
        }
        let (mut work, mut seconds) = (0.0, 0.0);
        for case in cases {
            let call = case.prepare(1);
            let mut running = guest.start();
            let placed = running.prepare(&call, Place::Aligned, 4);
            assert_eq!(running.call(&placed), Ok(0), "{case:?}");
            call.check(&running.output(&placed)).expect("the reference's result");
            let time = shortest(|| assert_eq!(running.call(&placed), Ok(0)));
            let time = time.as_secs_f64();
            println!(
                "{name:20} {:32} {:8.3} ms {:6.1} G/s",
                format!("{:?}", call.extents),
                time * 1e3,
                case.work() / time / 1e9
            );
            work += case.work();
            seconds += time;
        }
        let rate = work / seconds / 1e9;
        let ratio = peak.map_or(0.0, |peak| rate / peak);
        println!("{name:20} all {:.3} ms {rate:6.1} G/s, {ratio:.2} of native\n", seconds * 1e3);
    }
}
