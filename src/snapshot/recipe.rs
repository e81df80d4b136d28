//! Recipes: which chunks a file is made of.
//!
//! A recipe covers at most [`MOST`] chunks; a larger file has several, each with its own history, so that no piece of
//! metadata grows with the file. Its chunks are all of one length, the last aside ([`Lengths::Fixed`]), or each of its
//! own.
//!
//! A patch is a list of steps along an earlier recipe: copy so many chunks, drop so many, insert these.

use crate::codec::{Malformed, Reader, put_varint};
use crate::id::ChunkId;
use crate::store::segment::MAX_PLAIN;

/// The most chunks in one recipe. Pages of 4 KiB: 256 MiB of a database.
pub const MOST: usize = 65_536;
/// So many ids are hashed at a time.
const PART: usize = 1024;

/// How long the chunks are, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lengths {
    /// All of this length; the last may be shorter.
    Fixed(u32),
    /// Each of its own.
    Each(Vec<u32>),
}

/// The chunks of a file, or of a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The bytes that they make.
    pub size: u64,
    /// Their lengths.
    pub lengths: Lengths,
    /// Their ids, in order.
    pub ids: Vec<ChunkId>,
}

impl Recipe {
    /// The length of the `nth` chunk in bytes.
    pub fn length(&self, nth: usize) -> u32 {
        match &self.lengths {
            Lengths::Fixed(unit) => (self.size - nth as u64 * u64::from(*unit)).min(u64::from(*unit)) as u32,
            Lengths::Each(lengths) => lengths[nth],
        }
    }

    /// The whole form: what the id is the hash of.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.ids.len() * 16);
        self.parts().for_each(|part| out.extend_from_slice(&part));
        out
    }

    /// The whole form, in parts that are small beside it.
    pub fn parts(&self) -> impl Iterator<Item = Vec<u8>> {
        let mut head = Vec::new();
        match &self.lengths {
            Lengths::Fixed(unit) => {
                head.push(0);
                put_varint(&mut head, u64::from(*unit));
            }
            Lengths::Each(_) => head.push(1),
        }
        put_varint(&mut head, self.size);
        put_varint(&mut head, self.ids.len() as u64);
        if let Lengths::Each(lengths) = &self.lengths {
            for length in lengths {
                put_varint(&mut head, u64::from(*length));
            }
        }
        let joined = |ids: &[ChunkId]| {
            let mut part = Vec::with_capacity(ids.len() * 16);
            for id in ids {
                part.extend_from_slice(&id.0);
            }
            part
        };
        let ids = self.ids.chunks(PART).map(joined);
        std::iter::once(head).chain(ids)
    }

    /// Reads the whole form.
    pub fn decode(bytes: &[u8]) -> Result<Recipe, Malformed> {
        let mut reader = Reader::new(bytes);
        let unit = match reader.u8()? {
            0 => Some(reader.varint_up_to(MAX_PLAIN as u64, "a chunk length is out of range")? as u32),
            1 => None,
            _ => return Err(Malformed("the recipe is of an unknown kind")),
        };
        let size = reader.varint()?;
        let count = reader.count(16)?;
        let lengths = match unit {
            Some(unit) => Lengths::Fixed(unit),
            None => Lengths::Each((0..count).map(|_| length(&mut reader)).collect::<Result<_, _>>()?),
        };
        let ids = (0..count).map(|_| reader.array().map(ChunkId)).collect::<Result<_, _>>()?;
        reader.end()?;
        Recipe { size, lengths, ids }.validated()
    }

    fn validated(self) -> Result<Recipe, Malformed> {
        let fits = match &self.lengths {
            Lengths::Fixed(unit) => *unit > 0 && self.size.div_ceil(u64::from(*unit)) == self.ids.len() as u64,
            Lengths::Each(lengths) => {
                lengths.len() == self.ids.len() && lengths.iter().map(|l| u64::from(*l)).sum::<u64>() == self.size
            }
        };
        if !fits || self.ids.len() > MOST {
            return Err(Malformed("the recipe's chunks do not make its size"));
        }
        Ok(self)
    }

    /// The steps that lead from `base` to this recipe, or nothing if the two are not alike enough to say it shorter.
    pub fn patch(&self, base: &Recipe) -> Option<Vec<u8>> {
        let steps = match (&self.lengths, &base.lengths) {
            (Lengths::Fixed(a), Lengths::Fixed(b)) if a == b => by_position(&self.ids, &base.ids),
            (Lengths::Each(new), Lengths::Each(old)) => by_ends((&self.ids, new), (&base.ids, old)),
            _ => return None,
        };
        let mut out = Vec::new();
        put_varint(&mut out, self.size);
        put_varint(&mut out, steps.len() as u64);
        for step in &steps {
            put_varint(&mut out, step.copy as u64);
            put_varint(&mut out, step.drop as u64);
            put_varint(&mut out, step.insert.len() as u64);
        }
        for step in &steps {
            if let Lengths::Each(lengths) = &self.lengths {
                lengths[step.insert.clone()].iter().for_each(|length| put_varint(&mut out, u64::from(*length)));
            }
            self.ids[step.insert.clone()].iter().for_each(|id| out.extend_from_slice(&id.0));
        }
        (out.len() < 8 * self.ids.len()).then_some(out)
    }

    /// The recipe that `patch` makes of this one.
    pub fn apply(self, patch: &[u8]) -> Result<Recipe, Malformed> {
        let mut reader = Reader::new(patch);
        let size = reader.varint()?;
        let count = reader.count(3)?;
        // A step inserts something, but for the last: more of them are there to fill memory.
        if count > MOST + 1 {
            return Err(Malformed("a patch has more steps than a recipe has chunks"));
        }
        let mut steps = Vec::with_capacity(count);
        let (mut at, mut total, mut inserted) = (0usize, 0usize, 0usize);
        for _ in 0..count {
            let mut number = || reader.varint_up_to(MOST as u64, "a patch step is too long").map(|n| n as usize);
            let (copy, drop, insert) = (number()?, number()?, number()?);
            at += copy + drop;
            total += copy + insert;
            inserted += insert;
            if at > self.ids.len() || total > MOST {
                return Err(Malformed("a patch goes beyond the recipe it is for"));
            }
            steps.push((copy, drop, insert));
        }
        if inserted > reader.remaining() / 16 {
            return Err(Malformed("a patch inserts more than it holds"));
        }
        // Pages that changed in place, and what was added behind the last: the ids stay where they are.
        let others = steps.split_last().map_or(&[][..], |(_, others)| others);
        if matches!(self.lengths, Lengths::Fixed(_)) && others.iter().all(|(_, drop, insert)| drop == insert) {
            return self.apply_in_place(size, &steps, reader);
        }
        let mut ids = Vec::with_capacity(total);
        let mut each = Vec::new();
        let mut at = 0;
        for (copy, drop, insert) in steps {
            ids.extend_from_slice(&self.ids[at..at + copy]);
            if let Lengths::Each(lengths) = &self.lengths {
                each.extend_from_slice(&lengths[at..at + copy]);
                for _ in 0..insert {
                    each.push(length(&mut reader)?);
                }
            }
            for _ in 0..insert {
                ids.push(ChunkId(reader.array()?));
            }
            at += copy + drop;
        }
        reader.end()?;
        let lengths = match self.lengths {
            Lengths::Fixed(unit) => Lengths::Fixed(unit),
            Lengths::Each(_) => Lengths::Each(each),
        };
        Recipe { size, lengths, ids }.validated()
    }

    /// What steps make of this one that move nothing but what the last of them drops.
    fn apply_in_place(
        mut self,
        size: u64,
        steps: &[(usize, usize, usize)],
        mut reader: Reader<'_>,
    ) -> Result<Recipe, Malformed> {
        let total: usize = steps.iter().map(|(copy, _, insert)| copy + insert).sum();
        // What is kept for long is no larger than it is.
        self.ids.reserve_exact(total.saturating_sub(self.ids.len()));
        let mut at = 0;
        for (copy, _, insert) in steps {
            at += copy;
            for _ in 0..*insert {
                let id = ChunkId(reader.array()?);
                match self.ids.get_mut(at) {
                    Some(old) => *old = id,
                    None => self.ids.push(id),
                }
                at += 1;
            }
        }
        self.ids.truncate(at);
        reader.end()?;
        Recipe { size, ..self }.validated()
    }
}

fn length(reader: &mut Reader<'_>) -> Result<u32, Malformed> {
    Ok(reader.varint_up_to(MAX_PLAIN as u64, "a chunk length is out of range")? as u32)
}

#[derive(Debug, Default)]
struct Step {
    copy: usize,
    drop: usize,
    insert: std::ops::Range<usize>,
}

/// Chunks that stand at the same place are kept: pages are changed in place.
fn by_position(new: &[ChunkId], old: &[ChunkId]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = 0;
    while at < new.len() {
        let copy = new[at..].iter().zip(&old[at.min(old.len())..]).take_while(|(a, b)| a == b).count();
        let start = at + copy;
        let rest = new[start..].iter().enumerate();
        let insert = rest.take_while(|(n, id)| old.get(start + n) != Some(id)).count();
        let drop = insert.min(old.len().saturating_sub(start));
        steps.push(Step { copy, drop, insert: start..start + insert });
        at = start + insert;
    }
    steps
}

/// What is alike at both ends is kept: content-defined chunks shift. The ids alone do not tell: all chunks of zeros
/// have one, however long they are.
fn by_ends(new: (&[ChunkId], &[u32]), old: (&[ChunkId], &[u32])) -> Vec<Step> {
    let pairs = |(ids, lengths): (&[ChunkId], &[u32])| -> Vec<(ChunkId, u32)> {
        ids.iter().copied().zip(lengths.iter().copied()).collect()
    };
    let (new, old) = (pairs(new), pairs(old));
    let head = new.iter().zip(&old).take_while(|(a, b)| a == b).count();
    let tail = new[head..].iter().rev().zip(old[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let first = Step { copy: head, drop: old.len() - head - tail, insert: head..new.len() - tail };
    let second = Step { copy: tail, drop: 0, insert: new.len()..new.len() };
    [first, second].into_iter().filter(|step| step.copy + step.drop + step.insert.len() > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(numbers: &[u8]) -> Vec<ChunkId> {
        numbers.iter().map(|n| ChunkId([*n; 16])).collect()
    }

    fn pages(numbers: &[u8]) -> Recipe {
        Recipe { size: numbers.len() as u64 * 4096, lengths: Lengths::Fixed(4096), ids: ids(numbers) }
    }

    /// Chunks of zeros, and one that is not.
    fn zeros(numbers: &[u8]) -> Recipe {
        let ids = numbers.iter().map(|n| if *n == 3 { ChunkId([9; 16]) } else { ChunkId::ZEROS }).collect();
        Recipe { ids, ..cuts(numbers) }
    }

    fn cuts(numbers: &[u8]) -> Recipe {
        let lengths: Vec<u32> = numbers.iter().map(|n| u32::from(*n) + 1).collect();
        Recipe { size: lengths.iter().map(|l| u64::from(*l)).sum(), lengths: Lengths::Each(lengths), ids: ids(numbers) }
    }

    #[test]
    fn whole_forms_round_trip() {
        for recipe in [pages(&[1, 2, 3]), pages(&[]), cuts(&[9, 8]), cuts(&[])] {
            assert_eq!(Recipe::decode(&recipe.encode()), Ok(recipe));
        }
        let mut short = pages(&[1, 2]);
        short.size = 5000;
        assert_eq!(Recipe::decode(&short.encode()), Ok(short.clone()), "a short last page");
        assert_eq!((short.length(0), short.length(1)), (4096, 904));
        short.size = 4096;
        assert!(Recipe::decode(&short.encode()).is_err(), "a chunk too many");
    }

    #[test]
    fn a_patch_is_in_the_size_of_the_change() {
        let old: Vec<u8> = (0..200).collect();
        let mut new = old.clone();
        (new[50], new[51], new[150]) = (250, 251, 252);
        new.push(253);
        let patch = pages(&new).patch(&pages(&old)).expect("alike");
        assert!(patch.len() < 4 * 16 + 20, "{}", patch.len());
        assert_eq!(pages(&old).apply(&patch), Ok(pages(&new)));
        assert!(pages(&[1, 2]).patch(&cuts(&[1, 2])).is_none());
    }

    proptest! {
        #[test]
        fn patches_lead_from_one_to_the_other(
            old in prop::collection::vec(0u8..6, 0..60),
            new in prop::collection::vec(0u8..6, 0..60),
        ) {
            let all = [(pages(&old), pages(&new)), (cuts(&old), cuts(&new)), (zeros(&old), zeros(&new))];
            for (old, new) in all {
                if let Some(patch) = new.patch(&old) {
                    prop_assert_eq!(old.apply(&patch), Ok(new));
                }
            }
        }

        #[test]
        fn hostile_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Recipe::decode(&bytes);
            let _ = pages(&[1, 2, 3]).apply(&bytes);
            let _ = cuts(&[1, 2, 3]).apply(&bytes);
        }
    }
}
