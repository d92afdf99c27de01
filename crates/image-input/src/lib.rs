//! Image bytes to a normalised input tensor.
