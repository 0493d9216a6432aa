//! The kairos-sync binary.
fn main() {}
