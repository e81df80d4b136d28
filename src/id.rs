//! Identifiers: fixed-size, typed, printed as lower-case hexadecimal.
//!
//! All are 16 bytes. Content ids ([`ChunkId`], [`RecipeId`], [`TreeId`]) are keyed BLAKE3 cut to 128 bits: nobody
//! without the key can search for a collision, so the birthday bound is about accidents only (2^32
//! chunks, 16 TiB of pages, give odds of 2^-65), and a shorter id is a third of all metadata saved. An
//! [`InstanceId`] is a plain hash. The others are random.

use std::fmt;

/// A string that is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnId;

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// A fresh random one.
            pub fn random() -> Self {
                $name(crate::id::random_bytes())
            }

            /// Reads the 32 hexadecimal digits that `Display` writes.
            pub fn parse(text: &str) -> Result<Self, NotAnId> {
                unhex(text).map($name)
            }

            /// The first eight digits, for people.
            pub fn short(&self) -> String {
                self.to_string()[..8].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

id_type! {
    /// A stored piece of data, by the keyed hash of its plaintext; or the slot that a tree or recipe takes in a pack.
    ChunkId
}
id_type! {
    /// A recipe, by the keyed hash of its *whole* form, however it is stored.
    RecipeId
}
id_type! {
    /// A directory, by the keyed hash of its *whole* form, however it is stored.
    TreeId
}
id_type! {
    /// One immutable pack.
    PackId
}
id_type! {
    /// One store; part of everything that is sealed in it.
    StoreId
}
id_type! {
    /// One snapshot.
    SnapshotId
}
id_type! {
    /// One key slot.
    SlotId
}
id_type! {
    /// One data directory, whatever its path is: by its inode and the moment that it was made.
    InstanceId
}

impl From<RecipeId> for ChunkId {
    fn from(id: RecipeId) -> Self {
        ChunkId(id.0)
    }
}

impl From<TreeId> for ChunkId {
    fn from(id: TreeId) -> Self {
        ChunkId(id.0)
    }
}

impl ChunkId {
    /// Stands for a chunk of zeros of whatever length: nothing is stored for it, and a restore leaves a hole.
    pub const ZEROS: ChunkId = ChunkId([0; 16]);
}

/// `N` bytes from the operating system's generator.
///
/// # Panics
/// When the operating system has no randomness to give: nothing secret can be made then.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system's random generator works");
    bytes
}

fn unhex(text: &str) -> Result<[u8; 16], NotAnId> {
    let digits = text.as_bytes();
    if digits.len() != 32 {
        return Err(NotAnId);
    }
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(NotAnId),
    };
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse() {
        let id = PackId::random();
        assert_eq!(PackId::parse(&id.to_string()), Ok(id));
        assert_eq!(PackId::parse("xyz"), Err(NotAnId));
        assert_eq!(id.short().len(), 8);
    }
}
