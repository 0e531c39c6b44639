//! Numbers that look random and repeat with their seed: a failing run can be run again.

/// SplitMix64: one addition and three mixing steps a number; every seed is a good seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A sequence for the `index`-th thing that `seed` governs, unrelated to its neighbours'.
    pub fn derived(seed: u64, index: u64) -> Self {
        Self(Self(seed ^ index.wrapping_mul(0xd134_2543_de82_ef95)).next_u64())
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Any number of half the width.
    pub fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// From 0 to just below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next_u64() % bound as u64).unwrap_or(0)
    }

    /// From 0 to just below 1.
    pub fn unit(&mut self) -> f64 {
        f64::from(self.next_u32()) / 4_294_967_296.0
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_sequence_again_and_another_seed_another() {
        let draw = |mut random: Random| [random.next_u64(), random.next_u64()];
        assert_eq!(draw(Random::new(7)), draw(Random::new(7)));
        assert_ne!(draw(Random::derived(7, 0)), draw(Random::derived(7, 1)));
    }

    #[test]
    fn all_below_a_bound_are_drawn_and_nothing_else() {
        let mut random = Random::new(1);
        let mut drawn = [0; 7];
        (0..1_000).for_each(|_| drawn[random.below(7)] += 1);
        assert!(drawn.iter().all(|count| (90..200).contains(count)), "{drawn:?}");
    }

    #[test]
    fn chances_come_true_about_as_often_as_they_say() {
        let mut random = Random::new(1);
        let hits = (0..100_000).filter(|_| random.chance(0.01)).count();
        assert!((900..1100).contains(&hits), "{hits} of 100,000 at 1 %");
    }
}
