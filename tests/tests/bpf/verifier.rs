//! What the verifier has to walk.

use probe_ebpf::Config;
use probe_ebpf::config::MediaRule;
use voxlab::privileges::root_for;

use crate::bench::{Bench, Mirror};

/// Instructions that the verifier walked on Linux 6.18 for the program as rustc 1.96 compiles it, with the defaults and
/// with every port slot in use. Its limit is a million, and what it walks moves with kernel and compiler: the same object
/// may take several times as many on another one.
const BUDGET: [(&str, [u32; 2]); 2] =
    [("voxprobe_xdp", [100_637, 100_371]), ("voxprobe_egress", [140_184, 133_230])];
/// What any kernel may take: a quarter of the limit.
const BUDGET_ANYWHERE: u32 = 250_000;

#[test]
fn the_verifier_walks_no_more_than_its_budget() {
    if !root_for("the_verifier_walks_no_more_than_its_budget") {
        return;
    }
    let full = Config {
        sip_ports: [5060, 5080, 5062, 5064, 5066, 5068, 5070, 5072],
        tls_ports: [5061, 5081, 5063, 5065],
        tunnel_ports: [4789, 8472, 6081, 2152, 37_008, 1701, 3544, 9060, 2002, 4790, 4791, 4792],
        carrier_ports: [2002, 9060, 2003, 2004],
        media_rule: MediaRule::Announced as u8,
        ..Config::DEFAULT
    };
    let is_6_18 = std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .is_ok_and(|release| release.starts_with("6.18."));
    let (mirror, _) = Mirror::rule(MediaRule::Range).capture.verified_instructions().unwrap();
    eprintln!("voxprobe_mirror: {mirror} instructions verified");
    assert!(mirror > 0 && mirror <= BUDGET_ANYWHERE, "{mirror} instructions verified");
    for (index, config) in [Config::DEFAULT, full].into_iter().enumerate() {
        let (ingress, egress) = Bench::new(config, &[]).capture.verified_instructions().unwrap();
        for ((program, budget), walked) in BUDGET.into_iter().zip([ingress, egress.unwrap()]) {
            eprintln!("{program}: {walked} instructions verified, {} budgeted", budget[index]);
            assert!(walked > 0, "{program}: the kernel does not say");
            assert!(
                walked <= BUDGET_ANYWHERE,
                "{program}: {walked} instructions verified, a quarter of the limit is {BUDGET_ANYWHERE}; find the \
                 state that multiplies the rest (kernel/opaque.rs says how to make it one)"
            );
            let most = budget[index] + budget[index] / 4;
            assert!(
                !is_6_18 || walked <= most,
                "{program}: {walked} instructions verified, more than {} + 25 %: find the state that multiplies the \
                 rest (kernel/opaque.rs says how to make it one), or raise the budget and say why in the commit",
                budget[index]
            );
        }
    }
}
