//! Any bytes as a message, and as a stream of them.

use voxprobe::sip::message::{
    Beginning, Front, Message, begins_like_sip, could_be_first, find_beginning, split,
};

/// Reads them in every way there is.
pub fn run(bytes: &[u8]) {
    if let Ok(message) = Message::parse(bytes) {
        check(&message, bytes);
        assert_eq!(
            message.status().is_some(),
            message.status().is_some_and(|code| (100..700).contains(&code))
        );
    }
    if begins_like_sip(bytes) {
        assert!(Message::parse(bytes).is_ok(), "what begins like SIP can be read");
    }
    let mut rest = bytes;
    while let Front::Message(_, length) | Front::KeepAlive(length) = split(rest) {
        assert!((1..=rest.len()).contains(&length));
        let (taken, behind) = rest.split_at(length);
        match (split(rest), split(taken)) {
            (Front::Message(long, _), Front::Message(alone, _)) => {
                check(&alone, taken);
                assert_eq!((long.call_id, long.body), (alone.call_id, alone.body), "by what is behind it");
            }
            (Front::KeepAlive(_), Front::KeepAlive(alone)) => assert_eq!(alone, length),
            other => panic!("the same bytes alone are something else: {other:?}"),
        }
        rest = behind;
    }
    let (Beginning::At(at) | Beginning::NotBefore(at)) = find_beginning(bytes);
    assert!(at <= bytes.len());
    if let Beginning::At(at) = find_beginning(bytes) {
        assert!(!matches!(split(&bytes[at..]), Front::Malformed(_)), "a message was found where none is");
    }
    could_be_first(bytes);
}

fn check(message: &Message<'_>, bytes: &[u8]) {
    let within = |part: &[u8]| part.is_empty() || bytes.as_ptr_range().contains(&part.as_ptr());
    let (from, to) = (message.from(), message.to());
    for part in [from.uri, from.display, to.uri, to.tag.unwrap_or_default(), message.call_id, message.body] {
        assert!(within(part), "nothing is copied");
    }
    assert!(message.branch().is_none_or(within) && within(message.sender_tag()));
    let headers = message.headers();
    assert!(headers.map(|header| header.name.len() + header.value.len()).sum::<usize>() <= bytes.len());
    if let Some(length) = message.content_length {
        assert!(message.body.len() <= length);
    }
    assert_eq!(message.defects.any(), message.defects.names().next().is_some());
    let _ = (message.expires(), message.method(), message.vias);
}
