//! [`PlaceSet`]: a set of places of the TLB that is quickly searched while it is nearly empty.

use super::PLACES;

const WORDS: usize = PLACES / 64;
const _: () = assert!(WORDS == 64, "one bit of `used` a word");

/// A set of places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlaceSet {
    words: [u64; WORDS],
    /// Which words are not 0.
    used: u64,
}

impl Default for PlaceSet {
    fn default() -> Self {
        Self { words: [0; WORDS], used: 0 }
    }
}

impl PlaceSet {
    #[inline]
    pub(super) const fn insert(&mut self, place: usize) {
        self.words[place / 64] |= 1 << (place % 64);
        self.used |= 1 << (place / 64);
    }

    #[inline]
    pub(super) const fn remove(&mut self, place: usize) {
        let word = &mut self.words[place / 64];
        *word &= !(1 << (place % 64));
        if *word == 0 {
            self.used &= !(1 << (place / 64));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The first place of the set at `from` or behind it.
    #[inline]
    pub(super) const fn next(&self, from: usize) -> Option<usize> {
        if from >= PLACES {
            return None;
        }
        let here = self.words[from / 64] >> (from % 64);
        if here != 0 {
            return Some(from + here.trailing_zeros() as usize);
        }
        // Twice by one: a shift by 64 would be by 0.
        let behind = self.used >> (from / 64) >> 1;
        if behind == 0 {
            return None;
        }
        let word = from / 64 + 1 + behind.trailing_zeros() as usize;
        Some(word * 64 + self.words[word].trailing_zeros() as usize)
    }
}

/// Frames of 4 MiB that are told apart, modulo their number.
const FRAMES: usize = 256;
/// Pages up to this size lie in one frame.
const FRAME_SHIFT: u8 = 22;

/// The places of pieces of larger pages, and how many of them there are around an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pieces {
    places: PlaceSet,
    /// Pieces of pages of 2 and 4 MiB, by frame.
    near: [u16; FRAMES],
    /// Pieces of still larger pages.
    anywhere: u16,
}

impl Default for Pieces {
    fn default() -> Self {
        Self { places: PlaceSet::default(), near: [0; FRAMES], anywhere: 0 }
    }
}

impl Pieces {
    /// How often what `page` was split from, of 2^`shift` bytes, is counted.
    const fn count(&mut self, page: u64, shift: u8) -> &mut u16 {
        if shift > FRAME_SHIFT {
            &mut self.anywhere
        } else {
            &mut self.near[(page >> (FRAME_SHIFT - 12)) as usize % FRAMES]
        }
    }

    /// Adds the place of `page`, a piece of a page of 2^`shift` bytes. It is not in the set.
    pub(super) const fn insert(&mut self, place: usize, page: u64, shift: u8) {
        *self.count(page, shift) += 1;
        self.places.insert(place);
    }

    /// Removes a place that [`Self::insert`] added with the same `page` and `shift`.
    pub(super) const fn remove(&mut self, place: usize, page: u64, shift: u8) {
        *self.count(page, shift) -= 1;
        self.places.remove(place);
    }

    /// The first place at `from` or behind it that may hold a piece of a page around `page`.
    pub(super) const fn next(&self, from: usize, page: u64) -> Option<usize> {
        if self.anywhere == 0 && self.near[(page >> (FRAME_SHIFT - 12)) as usize % FRAMES] == 0 {
            return None;
        }
        self.places.next(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_finds_every_place_once_in_order() {
        let places = [0, 1, 63, 64, 200, 4000, 4095];
        let mut set = PlaceSet::default();
        places.into_iter().for_each(|place| set.insert(place));
        let found = |set: &PlaceSet| {
            std::iter::successors(set.next(0), |place| set.next(place + 1)).collect::<Vec<_>>()
        };
        assert_eq!(found(&set), places);
        assert_eq!(set.len(), 7);
        for place in [64, 0, 4095] {
            set.remove(place);
        }
        assert_eq!(found(&set), [1, 63, 200, 4000]);
        assert_eq!(set.next(4001), None);
    }
}
