//! Room in what is remembered: where it is full, those that were seen longest ago make way for somebody new. Whoever fills it pushes
//! out who does not come back, not who does.

use std::collections::HashMap;
use std::hash::Hash;

/// Of so many one makes way at a time: each time costs a look at all of them.
const ONE_OF: usize = 8;

/// Makes room for this one where it is not there yet, and there are as many as there may be. `last_ns` is when one was seen last.
pub(super) fn make_room<K: Eq + Hash, V>(
    all: &mut HashMap<K, V>,
    key: &K,
    capacity: usize,
    last_ns: impl Fn(&V) -> u64,
) {
    if all.len() < capacity || all.contains_key(key) {
        return;
    }
    let left = all.len().div_ceil(ONE_OF);
    let mut seen: Vec<_> = all.values().map(&last_ns).collect();
    let (_, oldest_ns, _) = seen.select_nth_unstable(left - 1);
    let oldest_ns = *oldest_ns;
    let older = seen.iter().filter(|seen_ns| **seen_ns < oldest_ns).count();
    // Of those that are as old as the last of them, as many as it takes.
    let mut as_old = left - older;
    all.retain(|_, value| {
        let seen_ns = last_ns(value);
        let is_as_old = seen_ns == oldest_ns && as_old > 0;
        as_old -= usize::from(is_as_old);
        seen_ns >= oldest_ns && !is_as_old
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_stays_and_somebody_new_finds_room() {
        let mut all: HashMap<u64, u64> = HashMap::new();
        for now_ns in 1..10_000 {
            for key in [0, now_ns] {
                make_room(&mut all, &key, 64, |last_ns| *last_ns);
                all.insert(key, now_ns);
            }
            assert!(all.len() <= 64 && all.contains_key(&0) && all.contains_key(&now_ns), "{now_ns}");
        }
        assert!(all.len() > 32, "no more than has to: {}", all.len());
    }

    #[test]
    fn of_those_as_old_as_each_other_a_part_goes() {
        let mut all: HashMap<u64, u64> = (0..64).map(|key| (key, 7)).collect();
        make_room(&mut all, &64, 65, |last_ns| *last_ns);
        assert_eq!(all.len(), 64, "there is room");
        make_room(&mut all, &64, 64, |last_ns| *last_ns);
        assert_eq!(all.len(), 56);
    }
}
