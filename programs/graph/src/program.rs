//! What the exports do, as one value: buffers, the model, and the last failure's text.

use std::{error::Error, iter};

use tensor::Buffers;

use crate::{RunError, Session};

/// The state of a module.
#[derive(Debug, Default)]
pub struct Program {
    buffers: Buffers,
    /// Kept for the module's life, and so is a failure to load: the model is part of the module,
    /// and trying again would read the same bytes.
    session: Option<Result<Session, String>>,
    message: String,
}

impl Program {
    /// A buffer of `bytes` zeros at a multiple of 64; 0 when there is no such memory.
    pub fn allocate(&mut self, bytes: u32) -> u32 {
        self.buffers.allocate(bytes).unwrap_or(0)
    }

    /// Takes a buffer back: 0, or -2 when it was none.
    pub fn free(&mut self, address: u32) -> i32 {
        if self.buffers.free(address) {
            return 0;
        }
        self.fail(&RunError::Outside { what: "graphlet_free", address, bytes: 0 })
    }

    /// Runs the graph on a request: the length of the result's descriptor, or a negative code.
    /// `load` is called once, on first use.
    pub fn run(
        &mut self,
        address: u32,
        bytes: u32,
        load: impl FnOnce() -> Result<Session, Box<dyn Error>>,
    ) -> i32 {
        let session = session(&mut self.session, load);
        let result = session.and_then(|session| session.run(&mut self.buffers, address, bytes));
        // A descriptor has at most 65,535 entries of 528 bytes.
        result.map_or_else(|error| self.fail(&error), |len| len as i32)
    }

    /// Writes the description (JSON) into a buffer, as far as `bytes` go, and gives its whole
    /// length; a negative code when there is none.
    pub fn describe(
        &mut self,
        address: u32,
        bytes: u32,
        load: impl FnOnce() -> Result<Session, Box<dyn Error>>,
    ) -> i32 {
        let session = session(&mut self.session, load);
        let written = session
            .and_then(|session| copy(session.description(), &mut self.buffers, address, bytes));
        written.unwrap_or_else(|error| self.fail(&error))
    }

    /// Writes why the last call failed into a buffer, as far as `bytes` go, and gives the text's
    /// whole length.
    pub fn message(&mut self, address: u32, bytes: u32) -> i32 {
        copy(&self.message, &mut self.buffers, address, bytes).unwrap_or_else(|error| error.code())
    }

    fn fail(&mut self, error: &RunError) -> i32 {
        self.message = chain(error);
        error.code()
    }
}

fn session(
    session: &mut Option<Result<Session, String>>,
    load: impl FnOnce() -> Result<Session, Box<dyn Error>>,
) -> Result<&mut Session, RunError> {
    let session = session.get_or_insert_with(|| load().map_err(|error| chain(&*error)));
    session.as_mut().map_err(|reason| RunError::Model(reason.clone()))
}

fn copy(text: &str, buffers: &mut Buffers, address: u32, bytes: u32) -> Result<i32, RunError> {
    if bytes > 0 {
        let target = buffers.get_mut(address, bytes);
        let target = target.ok_or(RunError::Outside { what: "the text", address, bytes })?;
        let len = text.len().min(target.len());
        target[..len].copy_from_slice(&text.as_bytes()[..len]);
    }
    Ok(i32::try_from(text.len()).unwrap_or(i32::MAX))
}

/// An error with its causes, in one line.
fn chain(error: &dyn Error) -> String {
    iter::successors(error.source(), |&cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> Result<Session, Box<dyn Error>> {
        Err("the model block cannot be read".into())
    }

    #[test]
    fn a_failure_has_a_code_and_a_message() {
        let mut program = Program::default();
        let at = program.allocate(100);
        assert_eq!(program.message(0, 0), 0, "nothing has failed yet");
        assert_eq!(program.run(at, 0, broken), -6);
        // Tried once.
        assert_eq!(program.describe(at, 100, || panic!("again")), -6);
        let len = program.message(at, 100);
        let text = program.buffers.get(at, len as u32).expect("inside");
        assert_eq!(text, b"the model block cannot be read");
        // Shorter than the text: as much as fits.
        assert_eq!(program.message(at, 3), len);
        assert_eq!(program.message(at, 101), -2);
    }

    #[test]
    fn buffers_are_given_back_once() {
        let mut program = Program::default();
        let at = program.allocate(64);
        assert_eq!((program.free(at), program.free(at)), (0, -2));
        assert!(program.message(0, 0) > 0);
    }
}
