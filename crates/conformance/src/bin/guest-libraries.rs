//! Compiles the guest libraries that the tests link. `scripts/test` calls it before them: each is
//! made once while nothing waits, and not by the first of many tests, for which the others wait.

use anyhow::Result;
use builder::{GuestKind, Silent, guest};
use model_spec::SimdLevel;

const LIBRARIES: [(GuestKind, SimdLevel); 7] = [
    (GuestKind::Actor, SimdLevel::Relaxed),
    (GuestKind::Component, SimdLevel::Relaxed),
    (GuestKind::Graph, SimdLevel::Relaxed),
    (GuestKind::Wasi, SimdLevel::Relaxed),
    (GuestKind::Actor, SimdLevel::Simd128),
    (GuestKind::Operators, SimdLevel::Simd128),
    (GuestKind::Actor, SimdLevel::None),
];

fn main() -> Result<()> {
    let home = conformance::home()?;
    for (kind, simd) in LIBRARIES {
        guest::library(&home, &kind.toolchain()?, kind, simd, &mut Silent)?;
    }
    Ok(())
}
