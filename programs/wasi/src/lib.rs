//! The classifier as a WASI command.
