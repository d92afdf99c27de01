//! Mistakes in a `model.toml`, gathered so that an author sees all of them at once.

use std::fmt;

/// One thing that is wrong, where, and what would mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line in `model.toml`, from 1; `None` when the key is absent or no file was read.
    pub line: Option<usize>,
    /// Dotted key, such as `preprocess.mean`.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would mend it.
    pub hint: Option<String>,
}

impl Mistake {
    /// A mistake at a key; the line is filled in by whoever knows the file.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Mistake { line: None, key: key.into(), message: message.into(), hint: None }
    }

    /// Adds what would mend it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n    hint: {hint}")?;
        }
        Ok(())
    }
}

/// All mistakes found, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    /// `Ok(())` when there is none.
    ///
    /// # Errors
    /// Itself, sorted by line, when there is one.
    pub fn into_result(mut self) -> Result<(), Mistakes> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.sort_by_key(|mistake| mistake.line.unwrap_or(usize::MAX));
        Err(self)
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{count} mistake{} in model.toml", if count == 1 { "" } else { "s" })?;
        for mistake in &self.0 {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}
