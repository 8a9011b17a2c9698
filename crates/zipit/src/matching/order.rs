//! Random orders that a seed determines, on every machine and with every version of every crate.

/// Permutations from `SplitMix64` (Steele, Lea & Flood 2014), whose whole state is one number.
pub(super) struct Orders(u64);

impl Orders {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next order of 0…n−1 (Fisher–Yates; the remainder's bias is below n·2⁻⁶⁴).
    pub(super) fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for last in (1..n).rev() {
            let other = self.number() % (last as u64 + 1);
            order.swap(last, other as usize);
        }
        order
    }

    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_splitmix64s_and_orders_are_permutations() {
        // The reference implementation's first number from state 0.
        assert_eq!(Orders::new(0).number(), 0xe220_a839_7b1d_cdaf);
        let mut orders = Orders::new(7);
        let (a, b) = (orders.permutation(50), orders.permutation(50));
        assert_ne!(a, b);
        assert_eq!(a, Orders::new(7).permutation(50));
        let mut sorted = a;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }
}
