//! Every frame is judged as on the host, and gives the record that it must.

use probe_ebpf::config::MediaRule;
use voxlab::captures::files_below;
use voxlab::privileges::root_for;
use voxlab::random::Random;
use voxprobe::capture::file::{Frames, LinkType};

use crate::bench::{Bench, Mirror};
use crate::frames::{ETHERNET_HEADER, table};

#[test]
fn every_kind_of_frame_gets_its_verdict_and_its_record() {
    if !root_for("every_kind_of_frame_gets_its_verdict_and_its_record") {
        return;
    }
    let mut bench = Bench::rule(MediaRule::Range);
    for (name, frame, verdict) in table() {
        assert_eq!(bench.check(name, &frame), verdict, "{name}");
    }
}

#[test]
fn the_mirror_program_judges_alike_and_passes_untouched_what_has_no_socket() {
    if !root_for("the_mirror_program_judges_alike_and_passes_untouched_what_has_no_socket") {
        return;
    }
    let mut mirror = Mirror::rule(MediaRule::Range);
    for (name, frame, verdict) in table() {
        assert_eq!(mirror.check(name, &frame), verdict, "{name}");
    }
}

#[test]
fn every_truncation_is_judged_as_on_the_host() {
    if !root_for("every_truncation_is_judged_as_on_the_host") {
        return;
    }
    let mut bench = Bench::rule(MediaRule::Anything);
    for (name, frame, _) in table().into_iter().filter(|(_, frame, _)| frame.len() < 400) {
        // The kernel itself refuses to run less than an Ethernet header.
        for len in ETHERNET_HEADER..frame.len() {
            bench.check(name, &frame[..len]);
        }
    }
}

#[test]
fn thousands_of_mutated_frames_are_judged_as_on_the_host() {
    if !root_for("thousands_of_mutated_frames_are_judged_as_on_the_host") {
        return;
    }
    let seeds: Vec<_> = table().into_iter().filter(|(_, frame, _)| frame.len() < 400).collect();
    let mut random = Random::new(1);
    for rule in [MediaRule::Announced, MediaRule::Range, MediaRule::Anything] {
        let (mut bench, mut mirror) = (Bench::rule(rule), Mirror::rule(rule));
        let mut seen = [0_u32; probe_ebpf::classify::VERDICTS];
        for _ in 0..2_000 {
            let (name, frame, _) = &seeds[random.below(seeds.len())];
            let mut frame = frame.clone();
            for _ in 0..=random.below(4) {
                // Headers are what a mutation should hit.
                let at = random.below(frame.len().min(100));
                frame[at] = random.next_u64().to_le_bytes()[3];
            }
            if random.below(4) == 0 {
                frame.truncate(ETHERNET_HEADER + random.below(frame.len() - ETHERNET_HEADER + 1));
            }
            seen[bench.check(name, &frame) as usize] += 1;
            mirror.check(name, &frame);
        }
        assert!(seen.iter().filter(|&&count| count > 0).count() >= 9, "too uniform: {seen:?}");
    }
}

#[test]
fn frames_of_real_captures_are_judged_as_on_the_host() {
    if !root_for("frames_of_real_captures_are_judged_as_on_the_host") {
        return;
    }
    let Some(folder) = voxlab::shared_captures() else { return };
    let mut bench = Bench::rule(MediaRule::Anything);
    let mut judged = 0;
    for file in files_below(&folder) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(mut frames) = Frames::open(&file) else { continue };
        let mut of_this_file = 0;
        while let Some(frame) = frames.next_frame()
            && of_this_file < 3_000
        {
            let runs = (ETHERNET_HEADER..=60_000).contains(&frame.bytes.len());
            if frame.link == LinkType::Ethernet && runs {
                bench.check(&name, frame.bytes);
                of_this_file += 1;
            }
        }
        judged += of_this_file;
    }
    assert!(judged > 1_000, "only {judged} Ethernet frames in the captures");
    eprintln!("{judged} frames of captures judged alike");
}
