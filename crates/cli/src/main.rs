//! The `graphlet` command.
fn main() {}
