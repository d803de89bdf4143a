//! What the binaries have in common.

use std::path::Path;
use std::{env, fs};

pub use libfuzzer_sys;
pub use stampede_fuzzing::Target;

/// Where the inputs that a target begins from are written, if it is named.
const SEEDS: &str = "STAMPEDE_FUZZ_SEEDS";

/// Writes what a target begins from, before libFuzzer reads its corpora.
///
/// # Panics
/// If that can't be written.
pub fn begin(name: &str) -> &'static Target {
    let target = Target::named(name).expect("tools/fuzzing has it");
    if let Some(folder) = env::var_os(SEEDS) {
        fs::create_dir_all(&folder).expect("its folder can be made");
        for (number, seed) in (target.seeds)().iter().enumerate() {
            let file = Path::new(&folder).join(format!("seed-{number}"));
            fs::write(file, seed).expect("seeds can be written");
        }
    }
    // What is made once, such as keys and clips, is not of an input.
    (target.run)(&(target.seeds)()[0]);
    target
}

/// The binary of the target of this name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        static TARGET: std::sync::OnceLock<&'static $crate::Target> = std::sync::OnceLock::new();

        $crate::libfuzzer_sys::fuzz_target!(
            init: {
                TARGET.get_or_init(|| $crate::begin($name));
            },
            |input: &[u8]| -> () {
                TARGET.get_or_init(|| $crate::begin($name)).check(input);
            }
        );
    };
}
