//! Which of several data directories of the same path a backup was made of.
//!
//! A manifest names a path, and in a container that is the same each time. So nbak notes which directory it was as it
//! does with a snapshot ([`crate::snapshot::instance`]), and who removes old backups leaves those of others alone: of
//! another that shares the folder, and of what this one was before it was moved or made anew, until a person says that
//! it was this one. The application's own backups say a path alone.
//!
//! A person says that of all at once, and may not know who else has the path. So it never counts for those that live
//! **beside** this one: the store has seen it, or one of their backups was made since this directory was; nor, where
//! two others lived beside each other, for either of them. Then the application's own may be anybody's, too.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::InstanceId;

/// Of a backup that is to be restored it does not matter when it was made. It is no evidence either.
pub const WHENEVER: Option<i64> = Some(i64::MAX);

/// Which directory, as far as its file system says.
type Which = Option<InstanceId>;

/// Which directory a backup was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// The application made it, which knows of none.
    Unsaid,
    /// Of this one, if its file system said.
    Of(Which),
}

impl Whose {
    /// Which it is, to be added to words.
    pub fn in_words(self) -> String {
        match self {
            Whose::Unsaid => ", the application's".to_owned(),
            Whose::Of(None) => String::new(),
            Whose::Of(Some(it)) => format!(", {}", &it.to_string()[..8]),
        }
    }
}

/// A backup: whose it is by what it says, and when it was made, in milliseconds since 1970.
pub type Made = (Whose, Option<i64>);

/// What backups say of which directories there are.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Those that name the path, by the name that this one has, or by none as this one.
    pub here: Vec<Made>,
    /// Those that name the path by another name, or are of another machine.
    pub elsewhere: Vec<Made>,
}

/// A data directory, as far as it is known which one it is.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Which one it is, if its file system says.
    pub own: Which,
    /// Those that a person said it was before, and when, in milliseconds since 1970: what they made later shows that it
    /// was not.
    pub ones: BTreeMap<Which, i64>,
    /// When it was made, in milliseconds since 1970, if its file system says.
    pub made_ms: Option<i64>,
    /// The store knows of no other with its path.
    pub is_alone: bool,
    /// Those of which the store knows that they live beside it.
    pub apart: BTreeSet<Which>,
    /// Another has the path under a name of its own.
    pub is_named_beside: bool,
    /// The time, in milliseconds since 1970.
    pub now_ms: i64,
}

impl Known {
    /// Whether it is this one, or one that this one was before.
    fn is_it(&self, it: Which) -> bool {
        it == self.own || self.ones.contains_key(&it)
    }

    /// Whether what `it` made then is its own.
    fn made_it(&self, it: Which, at: Option<i64>) -> bool {
        let counts = |until: &i64| at == WHENEVER || at.is_some_and(|at| at <= *until);
        it == self.own || self.ones.get(&it).is_some_and(counts)
    }

    /// The same, to whom those are others that went on since a person said that this one was them.
    fn settled(mut self, all: &Evidence) -> Known {
        let goes_on = |it: &Which, until: &i64| {
            let is_later = |at: Option<i64>| at != WHENEVER && at.is_none_or(|at| at > *until);
            all.here.iter().chain(&all.elsewhere).any(|(whose, at)| *whose == Whose::Of(*it) && is_later(*at))
        };
        let gone_on: Vec<Which> =
            self.ones.iter().filter(|(it, until)| goes_on(it, until)).map(|(it, _)| *it).collect();
        self.ones.retain(|it, _| !gone_on.contains(it));
        self.apart.extend(gone_on);
        self
    }

    /// Which is its own, by `all` that name its path.
    pub fn owns(self, all: &Evidence) -> impl Fn(Whose, Option<i64>) -> bool + use<> {
        let this = self.settled(all);
        let is_its = |(one, _): &Made| matches!(one, Whose::Of(it) if this.is_it(*it)) || *one == Whose::Unsaid;
        // What says nothing may be of any that is known.
        let is_alone = this.is_alone && !this.is_named_beside && all.here.iter().all(is_its);
        move |one, made| match one {
            // And what is older than the directory is of one that nobody knows: of what this one was, if it was any.
            Whose::Unsaid => is_alone && (!this.ones.is_empty() || made >= this.made_ms),
            Whose::Of(it) => this.made_it(it, made),
        }
    }

    /// The same to who says that this one was all those before.
    pub fn owns_as_one(self, all: &Evidence) -> impl Fn(Whose, Option<i64>) -> bool + use<> {
        let Others { before, beside } = self.others(all);
        let mut this = self.settled(all);
        let is_alone = !this.is_named_beside && this.apart.is_empty() && beside.is_empty();
        this.ones.extend(before.into_iter().map(|it| (it, i64::MAX)));
        move |one, made| match one {
            Whose::Unsaid => is_alone,
            Whose::Of(it) => this.made_it(it, made),
        }
    }

    /// The other directories, by what the backups `all` say.
    pub fn others(&self, all: &Evidence) -> Others {
        let this = self.clone().settled(all);
        let beside = this.beside(all);
        Others { before: this.spans(all).into_keys().filter(|it| !beside.contains(it)).collect(), beside }
    }

    /// Those that live, or lived, beside it, or each beside another.
    fn beside(&self, all: &Evidence) -> BTreeSet<Which> {
        let of_own = |(whose, at): &Made| at.filter(|_| *whose == Whose::Of(self.own));
        // A clock that was ahead when it was made says nothing; then its own first backup does.
        let made = self.made_ms.filter(|made| *made <= self.now_ms);
        let begun = made.or_else(|| all.here.iter().filter_map(of_own).min());
        let others = self.spans(all);
        let overlap = |(one, span): (&Which, &Span), (other, its): (&Which, &Span)| {
            one != other && span.first < its.last && its.first < span.last
        };
        // Who got another name, or another machine's, goes on there.
        let goes_on = |it: &Which, span: &Span| {
            let its = all.elsewhere.iter().filter(|(whose, _)| *whose == Whose::Of(*it));
            its.filter_map(|(_, at)| *at).any(|at| at > span.last)
        };
        let is_beside = |it: &Which, span: &Span| {
            self.apart.contains(it)
                || begun.is_some_and(|begun| span.last >= begun)
                || goes_on(it, span)
                || others.iter().any(|other| overlap((it, span), other))
        };
        others.iter().filter(|(it, span)| is_beside(it, span)).map(|(it, _)| *it).collect()
    }

    /// All that are not this one, and from when to when each made backups.
    fn spans(&self, all: &Evidence) -> BTreeMap<Which, Span> {
        let mut others = BTreeMap::new();
        for (whose, at) in &all.here {
            let Whose::Of(it) = *whose else { continue };
            if self.is_it(it) || *at == WHENEVER {
                continue;
            }
            // One that says no time was made at any.
            let (first, last) = (at.unwrap_or(i64::MIN), at.unwrap_or(i64::MAX));
            let span: &mut Span = others.entry(it).or_insert(Span { first, last });
            *span = Span { first: span.first.min(first), last: span.last.max(last) };
        }
        others
    }
}

/// The other directories with its path.
#[derive(Debug, Default)]
pub struct Others {
    /// Those that it may have been before.
    pub before: BTreeSet<Which>,
    /// Those that live, or lived, beside it, or each beside another.
    pub beside: BTreeSet<Which>,
}

/// From when to when, in milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: i64,
    last: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_so_is_ones_own_where_there_are_others() {
        let [one, other] = [1, 2].map(|which| Some(InstanceId([which; 16])));
        let known = |own| Known { own, is_alone: true, ..Known::default() };
        let by = |known: Known, all: &[Whose]| {
            let here = all.iter().map(|whose| (*whose, Some(5))).collect();
            let owns = known.owns(&Evidence { here, ..Evidence::default() });
            all.iter().map(|whose| owns(*whose, Some(5))).collect::<Vec<_>>()
        };
        let of = |own, all: &[Whose]| by(known(own), all);
        assert_eq!(of(one, &[Whose::Unsaid, Whose::Of(one)]), [true, true]);
        assert_eq!(of(one, &[Whose::Unsaid, Whose::Of(one), Whose::Of(other)]), [false, true, false]);
        assert_eq!(of(one, &[Whose::Unsaid]), [true]);
        assert_eq!(of(one, &[Whose::Of(None)]), [false]);
        assert_eq!(of(None, &[Whose::Of(None), Whose::Unsaid]), [true, true]);
        assert_eq!(of(None, &[Whose::Of(one), Whose::Of(None), Whose::Unsaid]), [false, true, false]);
        let said = Known { ones: [(other, 5)].into(), ..known(one) };
        assert_eq!(by(said, &[Whose::Unsaid, Whose::Of(one), Whose::Of(other)]), [true; 3]);
        let young =
            |ones: &[_]| Known { made_ms: Some(6), ones: ones.iter().map(|it| (*it, 5)).collect(), ..known(one) };
        assert_eq!(by(young(&[]), &[Whose::Unsaid, Whose::Of(one)]), [false, true], "it is older than the directory");
        assert_eq!(by(young(&[other]), &[Whose::Unsaid, Whose::Of(one)]), [true; 2], "it was another before");
        let beside = Known { is_alone: false, ..known(one) };
        assert_eq!(by(beside, &[Whose::Unsaid, Whose::Of(one)]), [false, true], "the store knows of another");
    }

    #[test]
    fn who_lives_beside_it_is_never_what_it_was_before() {
        let [own, old, other] = [1, 2, 3].map(|which| Some(InstanceId([which; 16])));
        let known = || Known { own, made_ms: Some(100), now_ms: 800, ..Known::default() };
        let by = |known: Known, all: &[(Whose, i64)]| {
            let made: Vec<Made> = all.iter().map(|(whose, at)| (*whose, Some(*at))).collect();
            let owns = known.owns_as_one(&Evidence { here: made.clone(), ..Evidence::default() });
            made.iter().map(|(whose, at)| owns(*whose, *at)).collect::<Vec<_>>()
        };
        let (app, of) = (Whose::Unsaid, Whose::Of);
        assert_eq!(by(known(), &[(app, 5), (of(old), 50), (of(own), 150)]), [true; 3]);
        assert_eq!(by(known(), &[(app, 5), (of(old), 50), (of(other), 100)]), [false, true, false], "it goes on");
        let one_after_the_other = [(of(old), 10), (of(old), 20), (of(other), 30), (of(other), 40)];
        assert_eq!(by(known(), &one_after_the_other), [true; 4]);
        let at_once = [(of(old), 10), (of(other), 15), (of(old), 20), (of(other), 40), (of(own), 150), (app, 150)];
        assert_eq!(by(known(), &at_once), [false, false, false, false, true, false], "which of them nobody knows");
        let said = |until| Known { ones: [(other, until)].into(), ..known() };
        assert_eq!(by(said(120), &[(of(old), 50), (of(other), 120)]), [true; 2], "said of it by itself");
        assert_eq!(
            by(said(119), &[(app, 5), (of(other), 60), (of(other), 120)]),
            [false; 3],
            "it goes on all the same"
        );
        let apart = Known { apart: [old].into(), ..known() };
        assert_eq!(by(apart.clone(), &[(app, 5), (of(old), 50)]), [false; 2], "the store has seen it");
        assert_eq!(by(apart, &[(app, 5)]), [false], "and no backup of its tells of it");
        let named = Known { is_named_beside: true, ..known() };
        assert_eq!(by(named, &[(app, 5), (of(old), 50)]), [false, true], "one that has a name");
        let unknown = Known { made_ms: None, ..known() };
        assert_eq!(by(unknown, &[(of(own), 30), (of(old), 20), (of(other), 40)]), [true, true, false]);
        let ahead = Known { made_ms: Some(900), ..known() };
        assert_eq!(
            by(ahead, &[(of(own), 130), (of(other), 140)]),
            [true, false],
            "its clock was ahead when it was made"
        );
        // What has another name is not of this one, and shows that who has it by now lives.
        let named = |at: i64| {
            let all = Evidence {
                here: vec![(of(old), Some(50))],
                elsewhere: vec![(of(old), Some(at)), (of(other), Some(120))],
            };
            known().owns_as_one(&all)(of(old), Some(50))
        };
        assert_eq!((named(40), named(60)), (true, false));
        let plain = |until, all: &[(Whose, i64)]| {
            let made: Vec<Made> = all.iter().map(|(whose, at)| (*whose, Some(*at))).collect();
            let all = Evidence { here: made.clone(), ..Evidence::default() };
            let owns = Known { ones: [(other, until)].into(), is_alone: true, ..known() }.owns(&all);
            (made.iter().map(|(whose, at)| owns(*whose, *at)).collect::<Vec<_>>(), owns(of(other), WHENEVER))
        };
        assert_eq!(plain(70, &[(of(other), 60)]), (vec![true], true));
        assert_eq!(plain(70, &[(of(other), 60), (of(other), 71)]), (vec![false; 2], false), "a word ends by that");
    }
}
