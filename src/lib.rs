//! nbak
pub mod error;
