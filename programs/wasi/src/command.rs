//! The WASI side: the entry that wasi-libc's `crt1-command.o` calls, and the linked classifier.

use std::{
    env,
    io::{self, Write},
};

use classifier::Classifier;

use crate::{Answer, FAILED, run};

/// What `_start` calls once the constructors have run.
///
/// rustc gives this name to the `main` of a program that it links itself; this library is linked
/// by rust-lld, with another model each time.
#[expect(unsafe_code, reason = "crt1-command.o finds its entry by this symbol")]
// SAFETY: nothing else in the module defines `__main_void`; wasi-libc's own definition lies in an
// archive, from which it is not taken when the symbol is defined already.
#[unsafe(no_mangle)]
extern "C" fn __main_void() -> i32 {
    let arguments: Vec<_> =
        env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let code = run(&arguments, &mut out, &mut err, classify);
    match code.and_then(|code| out.flush().map(|()| code)) {
        Ok(code) => code,
        // Nobody reads any more.
        Err(_) => FAILED,
    }
}
