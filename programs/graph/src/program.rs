//! What the exports do, as one value: buffers, the model, and the last failure's text.

use std::error::Error;

use guest_exports::{Desk, chain};

use crate::{RunError, Session};

/// The state of a module.
#[derive(Debug, Default)]
pub struct Program {
    desk: Desk,
    /// Kept for the module's life, and so is a failure to load: the model is part of the module,
    /// and trying again would read the same bytes.
    session: Option<Result<Session, String>>,
}

impl Program {
    /// Where a host lays requests and finds results.
    pub fn desk(&mut self) -> &mut Desk {
        &mut self.desk
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
        let result = session.and_then(|session| session.run(&mut self.desk, address, bytes));
        result.map_or_else(|error| self.desk.fail(error.code(), &error), |len| len as i32)
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
            .and_then(|session| Ok(self.desk.tell(session.description(), address, bytes)?));
        written.unwrap_or_else(|error| self.desk.fail(error.code(), &error))
    }
}

fn session(
    session: &mut Option<Result<Session, String>>,
    load: impl FnOnce() -> Result<Session, Box<dyn Error>>,
) -> Result<&mut Session, RunError> {
    let session = session.get_or_insert_with(|| load().map_err(|error| chain(&*error)));
    session.as_mut().map_err(|reason| RunError::Model(reason.clone()))
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
        let at = program.desk().allocate(100);
        assert_eq!(program.desk().message(0, 0), 0, "nothing has failed yet");
        assert_eq!(program.run(at, 0, broken), -6);
        // Tried once.
        assert_eq!(program.describe(at, 100, || panic!("again")), -6);
        let len = program.desk().message(at, 100);
        let text = program.desk().bytes(at, len as u32).expect("inside");
        assert_eq!(text, b"the model block cannot be read");
        // Shorter than the text: as much as fits.
        assert_eq!(program.desk().message(at, 3), len);
        assert_eq!(program.desk().message(at, 101), -2);
    }
}
