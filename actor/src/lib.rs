//! The waSCC actor that every model is linked with.
