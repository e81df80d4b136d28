//! nbak
fn main() {}
