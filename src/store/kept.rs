//! A memory of bounded size for what can be read again: footers, outlines, versions of trees and recipes.
//!
//! What was put in first goes first, whether it was of use or not: whoever goes through a store does so in an order in
//! which what was read last is wanted next, and what was read long ago is not wanted again.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Keeps values by key, up to a cost.
pub struct Kept<K, V> {
    values: HashMap<K, (V, usize)>,
    order: VecDeque<K>,
    cost: usize,
    most: usize,
}

impl<K: Copy + Eq + Hash, V: Clone> Kept<K, V> {
    /// Keeps values of at most `most` cost together, in whatever unit they are put in with.
    pub fn up_to(most: usize) -> Self {
        Kept { values: HashMap::new(), order: VecDeque::new(), cost: 0, most }
    }

    /// The value of `key`, if it is still there.
    pub fn get(&self, key: K) -> Option<V> {
        self.values.get(&key).map(|(value, _)| value.clone())
    }

    /// Keeps `value`, and lets go of as many older ones as that takes. One that costs more than all is not kept.
    pub fn put(&mut self, key: K, value: V, cost: usize) {
        if cost > self.most {
            return;
        }
        match self.values.insert(key, (value, cost)) {
            Some((_, before)) => self.cost -= before,
            None => self.order.push_back(key),
        }
        self.cost += cost;
        while self.cost > self.most {
            let Some(oldest) = self.order.pop_front() else { return };
            self.cost -= self.values.remove(&oldest).map_or(0, |(_, cost)| cost);
        }
    }

    /// Lets go of everything.
    pub fn clear(&mut self) {
        self.values.clear();
        self.order.clear();
        self.cost = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_holds_more_than_it_may() {
        let mut kept = Kept::up_to(10);
        for key in 0..100 {
            kept.put(key, key, 3);
            assert!(kept.cost <= 10 && kept.values.len() <= 3 && kept.order.len() <= 3);
        }
        assert_eq!((kept.get(99), kept.get(1)), (Some(99), None));
        kept.put(99, 7, 1);
        assert_eq!((kept.get(99), kept.cost), (Some(7), 7));
        kept.put(1, 1, 11);
        assert_eq!(kept.get(1), None);
        kept.clear();
        assert_eq!((kept.get(99), kept.cost), (None, 0));
    }
}
