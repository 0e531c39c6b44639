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
        if let Some(changes) = self.0.get_mut(usize::from(group(endpoint.into()))) {
            *changes += 1;
        }
    }

    /// The same as long as neither end of a flow has changed hands: both terms only grow. Never 0.
    #[inline]
    pub(super) fn of(&self, Groups(groups): Groups) -> u64 {
        let changes = |group: u16| self.0.get(usize::from(group)).copied().map_or(1, u64::from);
        let [src, dst] = groups;
        changes(src) + changes(dst)
    }
}

/// The groups of a flow's ends. They are asked for with each packet, and told by the flow alone: worth keeping with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Groups([u16; 2]);

impl From<&FlowWords> for Groups {
    #[inline]
    fn from(flow: &FlowWords) -> Self {
        Self([group(flow.src()), group(flow.dst())])
    }
}

#[inline]
fn group(endpoint: EndpointWords) -> u16 {
    (endpoint.hash() >> (u64::BITS - GROUPS)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Flow;

    #[test]
    fn a_change_of_either_end_is_one_of_the_flow() {
        let [a, b, c] = [5_004, 5_006, 5_008].map(|port| Endpoint::v4([192, 0, 2, 1], port));
        let groups = Groups::from(&FlowWords::from(Flow { src: a, dst: b }));
        let mut generations = Generations::default();
        let mut before = generations.of(groups);
        for changed in [a, b, a] {
            generations.change(changed);
            assert!(generations.of(groups) > before, "{changed}");
            before = generations.of(groups);
        }
        generations.change(c);
        assert_eq!(generations.of(groups), before);
    }
}
