//! `voxprobe flow` and `voxprobe calls`: the story's call as a ladder, each message once.
//!
//! The capture and what must be in the ladder come from the generator.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use voxlab::story::scene::Plan;
use voxlab::story::taps::Step;
use voxlab::story::{Recording, Story};
use voxprobe::pipeline::offline::{Options, analyze, transcribe};
use voxprobe::report::calls;
use voxprobe::report::ladder::{Charset, Kind, Ladder, Row};

const STORY: Plan =
    Plan { seed: 11, packets: 600, auth: true, transfer: true, retransmissions: true, ..Plan::PLAIN };

/// A story on disk, until the test ends.
struct Written {
    path: PathBuf,
    story: Story,
}

impl Written {
    fn new(name: &str, plan: &Plan, recording: &Recording) -> Self {
        let path = std::env::temp_dir().join(format!("voxprobe-flow-{}-{name}.pcapng", std::process::id()));
        let story = Story::new(plan, recording);
        story.write(&path).unwrap();
        Self { path, story }
    }

    /// The ladder of the call with this Call-ID.
    fn ladder(&self, call_id: &str) -> Ladder {
        let paths = std::slice::from_ref(&self.path);
        let (report, transcript) = transcribe(paths, &Options::default(), [Arc::from(call_id)]).unwrap();
        let call = report.calls.iter().find(|call| *call.call.call_id == *call_id).unwrap();
        Ladder::new(&report, &[call], &transcript)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn messages(ladder: &Ladder) -> impl Iterator<Item = &Row> {
    ladder.rows.iter().filter(|row| row.kind == Kind::Message)
}

#[test]
fn each_message_of_the_story_stands_once_and_says_how_often_it_was_captured() {
    let written = Written::new("story", &STORY, &Recording::by(&[Step::ReEmitted]).and_rpcap());
    for call in &written.story.truth.calls {
        let ladder = written.ladder(&call.call_id);
        let again =
            messages(&ladder).filter(|row| row.notes.iter().any(|note| note.contains("sent again"))).count();
        let copied =
            messages(&ladder).filter(|row| row.copies.as_deref() == Some("x4: 2 taps x rpcap")).count();
        assert_eq!(messages(&ladder).count() as u64, call.messages, "{:#?}", ladder.rows);
        assert_eq!(copied as u64, call.messages);
        assert!(call.retransmissions > 0 && again as u64 >= call.retransmissions, "{:#?}", ladder.rows);
        let text = ladder.render(Charset::Utf8);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}

/// As the README has it. A change that is meant is taken over with `VOXPROBE_BLESS=1`, and read in the difference.
#[test]
fn the_storys_ladder_reads_as_it_did() {
    let written = Written::new("snapshot", &STORY, &Recording::by(&[Step::ReEmitted]).and_rpcap());
    let text = written.ladder(&written.story.truth.calls[0].call_id).render(Charset::Utf8);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/flow.txt");
    if std::env::var_os("VOXPROBE_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(path).unwrap());
}

#[test]
fn the_pause_stands_at_the_refer_and_media_between_answer_and_bye() {
    let written = Written::new("pause", &STORY, &Recording::by(&[]));
    let ladder = written.ladder(&written.story.truth.calls[0].call_id);
    let at = |word: &str| ladder.rows.iter().find(|row| row.label.starts_with(word)).unwrap().at_s;
    let of = |kind: Kind| ladder.rows.iter().filter(move |row| row.kind == kind).collect::<Vec<_>>();
    let (silences, media) = (of(Kind::Silence), of(Kind::Media));
    assert_eq!((silences.len(), media.len()), (2, 2), "{:#?}", ladder.rows);
    for silence in silences {
        assert!((silence.at_s - at("REFER")).abs() < 0.05, "{silence:#?}");
        assert!(silence.notes.iter().any(|note| note.contains("nothing lost")), "{silence:#?}");
    }
    assert!(media.iter().all(|row| (at("200 OK")..at("BYE")).contains(&row.at_s)), "{media:#?}");
}

#[test]
fn the_list_has_a_line_for_each_call_with_the_worst_of_its_media() {
    let plan = Plan { calls: 3, loss_percent: 5.0, ..STORY };
    let written = Written::new("list", &plan, &Recording::by(&[]));
    let report = analyze(std::slice::from_ref(&written.path), &Options::default(), |_, _| ()).unwrap();
    let text = calls::render(&report, calls::Style { is_brief: true, ..calls::Style::default() });
    assert_eq!(text.lines().count(), 1 + written.story.truth.calls.len(), "{text}");
    for call in &written.story.truth.calls {
        let line = text.lines().find(|line| line.contains(&call.call_id[..8])).unwrap();
        let of_call = written
            .story
            .truth
            .streams
            .iter()
            .filter(|stream| stream.call_id.as_ref() == Some(&call.call_id));
        let worst = of_call.map(|stream| stream.lost as f64 * 100.0 / (stream.packets + stream.lost) as f64);
        let worst = worst.fold(0.0, f64::max);
        let columns: Vec<_> = line.split_whitespace().rev().collect();
        assert_eq!(columns[2], format!("{worst:.1}"), "{line}");
    }
}
