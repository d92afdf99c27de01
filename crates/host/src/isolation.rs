//! How long an instance lives: what requests to one actor can know of each other.

use std::{fmt, str::FromStr};

/// What an instance outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Instances answer one request after the other until one traps. What a request leaves in
    /// memory is there for the next: nothing of it reaches an answer unless the actor is at fault.
    #[default]
    Pooled,
    /// Each request has an instance of its own, made before it and gone after it. Nothing of a
    /// request is left, whatever the actor does.
    Request,
}

impl Isolation {
    /// Both, for help and error texts.
    pub const ALL: [Self; 2] = [Self::Pooled, Self::Request];

    /// The word that command line and manifest use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pooled => "pooled",
            Self::Request => "request",
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no [`Isolation`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither `pooled` nor `request`")]
pub struct ParseIsolationError(String);

impl FromStr for Isolation {
    type Err = ParseIsolationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|isolation| isolation.as_str() == text);
        found.ok_or_else(|| ParseIsolationError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_isolation_is_read_as_it_is_written_and_nothing_else_is() {
        for isolation in Isolation::ALL {
            assert_eq!(isolation.to_string().parse(), Ok(isolation));
        }
        for text in ["", "Request", "pool", "request "] {
            let error = text.parse::<Isolation>().unwrap_err().to_string();
            assert!(error.contains("neither `pooled` nor `request`"), "{error}");
        }
    }
}
