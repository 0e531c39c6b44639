//! Ports whose UDP Wireshark 4.0 gives to another dissector, so that its RTP heuristic is never asked.
//!
//! Measured, not read: of every port in `tshark -G decodes` (4.0.17), those where fourteen RTP packets of different
//! payload types and lengths, from the port and to it, were never taken for RTP. Port 88, 161 and 162 are not among
//! them: those dissectors look at what they get, and give RTP back.
//!
//! Only the raw ledger of `--rtp any` follows this, because it has to equal tshark's. It is no knowledge about media:
//! some of these ports lie in the middle of what gateways use.

/// Ascending.
const TAKEN: [u16; 177] = [
    7, 13, 19, 37, 49, 53, 67, 68, 69, 111, 123, 137, 138, 173, 213, 269, 319, 320, 389, 427, 434, 464, 496,
    513, 514, 520, 521, 524, 525, 546, 547, 664, 701, 853, 854, 910, 921, 925, 1001, 1153, 1194, 1293, 1628,
    1629, 1718, 1719, 1745, 1755, 1900, 2099, 2157, 2221, 2222, 2246, 2268, 2269, 2313, 2345, 2887, 2944,
    2945, 2948, 2949, 3000, 3130, 3250, 3343, 3357, 3389, 3452, 3455, 3544, 3567, 3671, 3784, 3785, 3804,
    3863, 4305, 4306, 4307, 4341, 4342, 4500, 4551, 4555, 4569, 4729, 4754, 4784, 4789, 4790, 4791, 4991,
    5031, 5072, 5246, 5247, 5353, 5355, 5404, 5405, 5436, 5567, 5683, 5684, 5868, 6073, 6081, 6118, 6160,
    6635, 6784, 6970, 7074, 7075, 7255, 7275, 7784, 8200, 8600, 8767, 8805, 8848, 9200, 9201, 9202, 9203,
    9214, 9875, 9877, 9899, 9901, 9956, 10253, 11211, 11273, 12000, 12001, 12002, 12003, 12004, 12220, 12222,
    12223, 13400, 17220, 17500, 17755, 17756, 19132, 19948, 19999, 23272, 24576, 24577, 25826, 26000, 27500,
    27910, 27950, 27951, 27952, 27953, 27960, 27961, 27962, 27963, 32000, 32512, 34962, 34980, 37008, 41170,
    44818, 47000, 54328,
];
/// The same, one bit a port: every frame asks twice.
static IS_TAKEN: [u64; 1024] = {
    let mut bits = [0; 1024];
    let mut at = 0;
    while at < TAKEN.len() {
        bits[(TAKEN[at] >> 6) as usize] |= 1 << (TAKEN[at] & 63);
        at += 1;
    }
    bits
};
/// BACnet's port and its first octet, which is also that of an RTP packet with one contributing source.
const BACNET: (u16, u8) = (47_808, 0x81);

/// Does another dissector keep what begins with `first`, whatever follows?
pub(super) fn is_taken(src_port: u16, dst_port: u16, first: u8) -> bool {
    let is_listed =
        |port: u16| IS_TAKEN.get(usize::from(port >> 6)).is_some_and(|word| word >> (port & 63) & 1 != 0);
    [src_port, dst_port].into_iter().any(|port| is_listed(port) || (port, first) == BACNET)
        // By destination alone: HSRP, and by source alone: a game's server.
        || matches!(dst_port, 1985 | 2029)
        || src_port == 8755
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_of_the_list_are_taken_and_no_others() {
        let taken: Vec<u16> = (0..=u16::MAX).filter(|port| is_taken(61_000, *port, 0)).collect();
        let others = taken.iter().filter(|port| TAKEN.binary_search(port).is_err());
        assert_eq!(others.copied().collect::<Vec<_>>(), [1985, 2029]);
        assert_eq!(taken.len(), TAKEN.len() + 2);
        assert!(is_taken(61_000, 3000, 0x80) && is_taken(3000, 61_000, 0x80));
        assert!(is_taken(61_000, 1985, 0x80) && !is_taken(1985, 61_000, 0x80));
        assert!(is_taken(47_808, 47_808, 0x81) && !is_taken(47_808, 47_808, 0x80));
    }
}
