//! Whether the owner of an endpoint may have changed since it was asked for: so that what was found of a flow can be kept.

use crate::packet::{Endpoint, EndpointWords, FlowWords};

/// Groups of endpoints whose changes are told apart, as a power of two: of a thousand announcements, one concerns a flow
/// that it does not name. 4 KiB.
const GROUPS: u32 = 10;

/// How often an endpoint of each group has changed hands, from 1.
#[derive(Debug)]
pub(super) struct Generations(Box<[u32]>);

impl Default for Generations {
    fn default() -> Self {
        Self(vec![1; 1 << GROUPS].into_boxed_slice())
    }
}

impl Generations {
    /// An endpoint changes hands.
    pub(super) fn change(&mut self, endpoint: Endpoint) {
        if let Some(changes) = self.0.get_mut(group(endpoint.into())) {
            *changes += 1;
        }
    }

    /// The same as long as neither end of a flow has changed hands: both terms only grow. Never 0.
    #[inline]
    pub(super) fn of(&self, flow: &FlowWords) -> u64 {
        let changes = |endpoint| self.0.get(group(endpoint)).copied().map_or(1, u64::from);
        changes(flow.src()) + changes(flow.dst())
    }
}

#[inline]
fn group(endpoint: EndpointWords) -> usize {
    (endpoint.hash() >> (u64::BITS - GROUPS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Flow;

    #[test]
    fn a_change_of_either_end_is_one_of_the_flow() {
        let [a, b, c] = [5_004, 5_006, 5_008].map(|port| Endpoint::v4([192, 0, 2, 1], port));
        let flow = FlowWords::from(Flow { src: a, dst: b });
        let mut generations = Generations::default();
        let mut before = generations.of(&flow);
        for changed in [a, b, a] {
            generations.change(changed);
            assert!(generations.of(&flow) > before, "{changed}");
            before = generations.of(&flow);
        }
        generations.change(c);
        assert_eq!(generations.of(&flow), before);
    }
}
