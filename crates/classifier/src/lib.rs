//! Image bytes to labels.
