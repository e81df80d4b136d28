//! Which of several data directories of the same path a backup was made of.
//!
//! A manifest names a path, and in a container that is the same each time. So nbak notes which directory it was as it
//! does with a snapshot ([`crate::snapshot::instance`]), and who removes old backups leaves those of others alone: of
//! another that shares the folder, and of what this one was before it was moved or made anew, until a person says that
//! it was this one. The application's own backups say a path alone.

use std::collections::BTreeSet;

use crate::id::InstanceId;

/// Of a backup that is to be restored it does not matter when it was made.
pub const WHENEVER: Option<i64> = Some(i64::MAX);

/// Which directory a backup was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// The application made it, which knows of none.
    Unsaid,
    /// Of this one, if its file system said.
    Of(Option<InstanceId>),
}

/// A data directory, as far as it is known which one it is.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Which one it is, if its file system says.
    pub own: Option<InstanceId>,
    /// Those that a person said it was before.
    pub ones: BTreeSet<Option<InstanceId>>,
    /// When it was made, in milliseconds since 1970, if its file system says.
    pub made_ms: Option<i64>,
    /// The store knows of no other with its path.
    pub is_alone: bool,
}

impl Known {
    /// Whether it is this one, or one that this one was before.
    pub fn is_it(&self, it: Option<InstanceId>) -> bool {
        it == self.own || self.ones.contains(&it)
    }

    /// Which of those is its own that name its path, which are `all`, by what a backup says and when that was made.
    pub fn owns(self, all: &[Whose]) -> impl Fn(Whose, Option<i64>) -> bool + use<> {
        // What says nothing may be of any that is known.
        let is_alone = self.is_alone
            && all.iter().all(|one| matches!(one, Whose::Of(it) if self.is_it(*it)) || *one == Whose::Unsaid);
        move |one, made| match one {
            // And what is older than the directory is of one that nobody knows: of what this one was, if it was any.
            Whose::Unsaid => is_alone && (!self.ones.is_empty() || made >= self.made_ms),
            Whose::Of(it) => self.is_it(it),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_so_is_ones_own_where_there_are_others() {
        let [one, other] = [1, 2].map(|which| Some(InstanceId([which; 16])));
        let known = |own| Known { own, is_alone: true, ..Known::default() };
        let by = |known: Known, all: &[Whose]| {
            let owns = known.owns(all);
            all.iter().map(|whose| owns(*whose, Some(5))).collect::<Vec<_>>()
        };
        let of = |own, all: &[Whose]| by(known(own), all);
        assert_eq!(of(one, &[Whose::Unsaid, Whose::Of(one)]), [true, true]);
        assert_eq!(of(one, &[Whose::Unsaid, Whose::Of(one), Whose::Of(other)]), [false, true, false]);
        assert_eq!(of(one, &[Whose::Unsaid]), [true]);
        assert_eq!(of(one, &[Whose::Of(None)]), [false]);
        assert_eq!(of(None, &[Whose::Of(None), Whose::Unsaid]), [true, true]);
        assert_eq!(of(None, &[Whose::Of(one), Whose::Of(None), Whose::Unsaid]), [false, true, false]);
        let said = Known { ones: [other].into(), ..known(one) };
        assert_eq!(by(said, &[Whose::Unsaid, Whose::Of(one), Whose::Of(other)]), [true; 3]);
        let young = |ones: &[_]| Known { made_ms: Some(6), ones: ones.iter().copied().collect(), ..known(one) };
        assert_eq!(by(young(&[]), &[Whose::Unsaid, Whose::Of(one)]), [false, true], "it is older than the directory");
        assert_eq!(by(young(&[other]), &[Whose::Unsaid, Whose::Of(one)]), [true; 2], "it was another before");
        let beside = Known { is_alone: false, ..known(one) };
        assert_eq!(by(beside, &[Whose::Unsaid, Whose::Of(one)]), [false, true], "the store knows of another");
    }
}
