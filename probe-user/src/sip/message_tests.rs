use super::*;

const INVITE: &[u8] = b"INVITE sip:bob@b.example SIP/2.0\r\n\
    Via: SIP/2.0/UDP proxy.example;branch=z9hG4bKp1, SIP/2.0/UDP a.example;branch=z9hG4bKa1\r\n\
    v: SIP/2.0/UDP first.example;branch=z9hG4bKf\r\n\
    f: \"Ann, \\\"the\\\" <one>\" <sip:ann@a.example;transport=udp>;tag=ann1\r\n\
    TO:\r\n  sip:bob@b.example;tag=b\r\n\
    i: call-1@a.example\r\n\
    CSeq: 7\r\n\tINVITE\r\n\
    c: application/sdp\r\n\
    l: 4\r\n\r\nv=0\n trailing";

#[test]
fn compact_folded_and_mixed_case_headers_are_read() {
    let message = Message::parse(INVITE).unwrap();
    assert_eq!(message.start, StartLine::Request { method: "INVITE", uri: b"sip:bob@b.example" });
    assert_eq!(message.call_id, b"call-1@a.example");
    assert_eq!(message.cseq, Some(CSeq { number: 7, method: "INVITE" }));
    assert_eq!(message.vias, 3);
    assert_eq!(message.branch(), Some(&b"z9hG4bKp1"[..]));
    assert_eq!(
        message.from(),
        Address {
            display: b"Ann, \\\"the\\\" <one>",
            uri: b"sip:ann@a.example;transport=udp",
            tag: Some(b"ann1")
        }
    );
    assert_eq!(message.to(), Address { display: b"", uri: b"sip:bob@b.example", tag: Some(b"b") });
    assert_eq!((message.content_type, message.body), (&b"application/sdp"[..], &b"v=0\n"[..]));
    assert_eq!(message.defects.names().collect::<Vec<_>>(), ["trailing"]);
}

#[test]
fn response_names_the_method_it_answers() {
    let message = Message::parse(b"SIP/2.0 180\nCSeq: 1 INVITE\nX: y").unwrap();
    assert_eq!(message.start, StartLine::Response { code: 180, reason: b"" });
    assert_eq!((message.method(), message.status()), ("INVITE", Some(180)));
    let defects: Vec<_> = message.defects.names().collect();
    assert_eq!(defects, ["missing_header", "no_empty_line"]);
}

#[test]
fn junk_and_line_ends_before_the_start_line_are_skipped() {
    let junk = [b"\r\n\r\n\0\xff\xfe junk\r\n".as_slice(), INVITE].concat();
    let message = Message::parse(&junk).unwrap();
    assert_eq!(message.call_id, b"call-1@a.example");
    assert!(message.defects.has(Defects::JUNK_BEFORE));
    let blank = [b"\r\n\r\n".as_slice(), INVITE].concat();
    assert!(!Message::parse(&blank).unwrap().defects.has(Defects::JUNK_BEFORE));
}

#[test]
fn what_is_not_sip_is_refused_with_its_reason() {
    let table: [(&[u8], Malformed); 6] = [
        (b"\r\n\r\n", Malformed::KeepAlive),
        (b"", Malformed::KeepAlive),
        (b"GET / HTTP/1.1\r\n\r\n", Malformed::NoStartLine { searched: 18 }),
        (b"OPTIONS sip:x SIP/7.0\r\n\r\n", Malformed::Version { offset: 0 }),
        (b"SIP/2.0 4294967301 odd\r\n\r\n", Malformed::StatusCode { offset: 0 }),
        (b"\r\nSIP/2.0 099 odd\r\n\r\n", Malformed::StatusCode { offset: 2 }),
    ];
    for (bytes, refusal) in table {
        assert_eq!(Message::parse(bytes).unwrap_err(), refusal, "{}", bytes.escape_ascii());
    }
}

#[test]
fn start_line_tells_sip_on_any_port() {
    for (bytes, is_sip) in [
        (INVITE, true),
        (b"SIP/2.0 200 OK\r\n", true),
        (b"HTTP/1.1 200 OK\r\n", false),
        (b"GET / HTTP/1.1\r\n", false),
        (b"SIP/2.0", false),
        (b"\x80\x00SIP/2.0 200 OK\r\n", false),
        (b"", false),
    ] {
        assert_eq!(begins_like_sip(bytes), is_sip, "{}", bytes.escape_ascii());
    }
}

#[test]
fn content_length_that_lies_is_noted_and_the_body_kept() {
    for (length, defect) in [
        ("9999", Defects::BODY_CUT),
        ("-5", Defects::BAD_CONTENT_LENGTH),
        ("+3", Defects::BAD_CONTENT_LENGTH),
    ] {
        let text = format!("BYE sip:a SIP/2.0\r\nContent-Length: {length}\r\n\r\nabc");
        let message = Message::parse(text.as_bytes()).unwrap();
        assert_eq!(message.body, b"abc", "{length}");
        assert!(message.defects.has(defect), "{length}");
    }
}

#[test]
fn stream_is_split_by_content_length() {
    let two = b"BYE sip:a SIP/2.0\r\nl: 3\r\n\r\nabc\r\n\r\nSIP/2.0 200 OK\r\nContent-Len".as_slice();
    let Front::Message(message, length) = split(two) else { panic!("first message") };
    assert_eq!((message.body, length), (&b"abc"[..], 30));
    let rest = &two[length..];
    assert!(matches!(split(rest), Front::KeepAlive(4)));
    assert!(matches!(split(&rest[4..]), Front::Incomplete(_)));
    assert!(matches!(split(b"SIP/2.0 20"), Front::Incomplete(_)));
    assert!(matches!(split(b"\x16\x03\x01\x02\n"), Front::Malformed(_)));
}

mod properties {
    use proptest::prelude::*;

    use super::super::*;

    /// Touches every accessor.
    fn walk(bytes: &[u8]) {
        if let Ok(message) = Message::parse(bytes) {
            let _ = (message.from(), message.to(), message.branch(), message.expires(), message.sender_tag());
            assert!(message.body.len() <= bytes.len());
            assert!(message.headers().count() <= bytes.len());
        }
        if let Front::Message(_, length) | Front::KeepAlive(length) = split(bytes) {
            assert!(0 < length && length <= bytes.len());
        }
        let _ = crate::sip::sdp::describe(b"multipart/mixed;boundary=x", bytes);
        let _ = crate::sip::sdp::Description::parse(bytes);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            walk(&bytes);
        }

        #[test]
        fn mutated_messages_are_read_without_panic(
            edits in proptest::collection::vec((0..super::INVITE.len(), any::<u8>()), 0..12),
            cut in 0..super::INVITE.len(),
        ) {
            let mut bytes = super::INVITE.to_vec();
            for (at, byte) in edits {
                bytes[at] = byte;
            }
            walk(&bytes);
            walk(&bytes[..cut]);
            walk(&bytes[cut..]);
        }
    }
}
