//! nbak
pub mod codec;
pub mod crypto;
pub mod error;
pub mod id;
pub mod index;
pub mod store;
