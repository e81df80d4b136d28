//! Which of several data directories of the same path a backup was made of.
//!
//! A manifest names a path, and in a container that is the same each time. So nbak notes which directory it was as it
//! does with a snapshot ([`crate::snapshot::instance`]), and who removes old backups leaves those of others alone: of
//! another that shares the folder, and of what this one was before it was moved or made anew, until a person says that
//! it was this one. The application's own backups say a path alone.

use crate::id::InstanceId;

/// Which directory a backup was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// The application made it, which knows of none.
    Unsaid,
    /// Of this one, if its file system said.
    Of(Option<InstanceId>),
}

/// Whether what says whose it is is of `own`, among `all` that name its path.
pub fn is_own(all: &[Whose], own: Option<InstanceId>) -> impl Fn(Whose) -> bool + use<> {
    // What says nothing may be of any that is known.
    let is_alone = all.iter().all(|one| matches!(one, Whose::Unsaid) || *one == Whose::Of(own));
    move |one| match one {
        Whose::Unsaid => is_alone,
        Whose::Of(it) => it == own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_so_is_ones_own_where_there_are_others() {
        let [one, other] = [1, 2].map(|which| Some(InstanceId([which; 16])));
        let of = |own, all: &[Whose]| all.iter().map(|whose| is_own(all, own)(*whose)).collect::<Vec<_>>();
        assert_eq!(of(one, &[Whose::Unsaid, Whose::Of(one)]), [true, true]);
        assert_eq!(of(one, &[Whose::Unsaid, Whose::Of(one), Whose::Of(other)]), [false, true, false]);
        assert_eq!(of(one, &[Whose::Unsaid]), [true]);
        assert_eq!(of(one, &[Whose::Of(None)]), [false]);
        assert_eq!(of(None, &[Whose::Of(None), Whose::Unsaid]), [true, true]);
        assert_eq!(of(None, &[Whose::Of(one), Whose::Of(None), Whose::Unsaid]), [false, true, false]);
    }
}
