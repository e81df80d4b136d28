//! nbak
pub mod error;
pub mod source;
