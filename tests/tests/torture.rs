//! The torture messages of RFC 4475, as a tolerant monitor reads them.
//!
//! The RFC tells elements what to refuse. A monitor decides nothing: what has a start line of SIP/2.0 is read, and
//! what an element would answer with 400 is noted as a defect. Values that only concern an element (a Require that it
//! does not know, a Date without GMT) are none of its business.

use std::path::PathBuf;

use voxprobe::sip::message::{Malformed, Message};
use voxprobe::sip::sdp;

/// What becomes of a message.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// Read, with these defects.
    Read(Vec<&'static str>),
    /// No SIP message.
    Refused(Malformed),
}

fn table() -> Vec<(&'static str, Outcome, &'static str)> {
    let read = |defects: &[&'static str]| Outcome::Read(defects.to_vec());
    let refused = Outcome::Refused;
    vec![
        // 3.1.1: valid, however odd.
        ("wsinv", read(&[]), "3.1.1.1: folding, white space around colons, compact forms, mixed case"),
        ("intmeth", read(&[]), "3.1.1.2: every character of a token in the method"),
        ("esc01", read(&[]), "3.1.1.3: escaped characters in the user part"),
        ("escnull", read(&[]), "3.1.1.4: escaped NUL"),
        ("esc02", read(&[]), "3.1.1.5: % in a method escapes nothing, so this is not REGISTER"),
        ("lwsdisp", read(&[]), "3.1.1.6: no white space between display name and <"),
        ("longreq", read(&[]), "3.1.1.7: long values, 34 Via"),
        ("dblreq", read(&["trailing"]), "3.1.1.8: a second request in the datagram is nobody's"),
        ("semiuri", read(&[]), "3.1.1.9: semicolon in the user part of the URI"),
        ("transports", read(&[]), "3.1.1.10: five transports in Via"),
        ("mpart01", read(&[]), "3.1.1.11: multipart body with binary"),
        ("unreason", read(&[]), "3.1.1.12: reason phrase in UTF-8"),
        ("noreason", read(&[]), "3.1.1.13: empty reason phrase"),
        // 3.1.2: invalid.
        ("badinv01", read(&[]), "3.1.2.1: stray separators in Via and Contact, which are not interpreted"),
        ("clerr", read(&["body_cut"]), "3.1.2.2: Content-Length beyond the datagram"),
        ("ncl", read(&["bad_content_length"]), "3.1.2.3: negative Content-Length"),
        ("scalar02", read(&["bad_cseq"]), "3.1.2.4: CSeq beyond 32 bits; Expires is not needed"),
        ("scalarlg", read(&["bad_cseq"]), "3.1.2.5: the same in a response"),
        ("quotbal", read(&[]), "3.1.2.6: a quote that is never closed; the URI is found all the same"),
        ("ltgtruri", read(&["odd_start_line"]), "3.1.2.7: Request-URI in angle brackets"),
        ("lwsruri", read(&["odd_start_line"]), "3.1.2.8: white space inside the Request-URI"),
        ("lwsstart", read(&["odd_start_line"]), "3.1.2.9: several blanks in the start line"),
        ("trws", read(&["odd_start_line"]), "3.1.2.10: blanks after the start line"),
        ("escruri", read(&[]), "3.1.2.11: escaped headers in the Request-URI"),
        ("baddate", read(&[]), "3.1.2.12: Date in another time zone"),
        ("regbadct", read(&[]), "3.1.2.13: Contact URI without brackets"),
        ("badaspec", read(&[]), "3.1.2.14: blanks inside the brackets of To"),
        ("baddn", read(&["no_empty_line"]), "3.1.2.15: comma in a display name; the file ends with the head"),
        ("badvers", refused(Malformed::Version { offset: 0 }), "3.1.2.16: SIP/7.0 may mean anything"),
        ("mismatch01", read(&["method_mismatch"]), "3.1.2.17: start line and CSeq disagree"),
        ("mismatch02", read(&["method_mismatch"]), "3.1.2.18: the same with an unknown method"),
        ("bigcode", refused(Malformed::StatusCode { offset: 0 }), "3.1.2.19: status code beyond 699"),
        // 3.2 to 3.4: transactions, application layer, older elements.
        ("badbranch", read(&[]), "3.2.1: branch of the magic cookie only"),
        ("insuf", read(&["missing_header"]), "3.3.1: no Call-ID, From or To"),
        ("unkscm", read(&[]), "3.3.2: unknown URI scheme"),
        ("novelsc", read(&[]), "3.3.3: known URI scheme of no use here"),
        ("unksm2", read(&[]), "3.3.4: unknown schemes in To and Contact"),
        ("bext01", read(&[]), "3.3.5: Require and Proxy-Require of unknown extensions"),
        ("invut", read(&[]), "3.3.6: unknown content type"),
        ("regaut01", read(&[]), "3.3.7: unknown authorization scheme"),
        (
            "multi01",
            read(&["repeated_header"]),
            "3.3.8: several Call-ID, To, From, CSeq; the first of each is taken",
        ),
        ("mcl01", read(&["repeated_header", "trailing"]), "3.3.9: two Content-Length; the first is taken"),
        ("bcast", read(&[]), "3.3.10: broadcast address in Via"),
        ("zeromf", read(&[]), "3.3.11: Max-Forwards 0"),
        ("cparam01", read(&[]), "3.3.12: parameter of Contact that is unknown"),
        ("cparam02", read(&[]), "3.3.13: parameter of the URI in Contact that is unknown"),
        ("regescrt", read(&[]), "3.3.14: escaped Route in Contact"),
        ("sdp01", read(&[]), "3.3.15: Accept without SDP"),
        ("inv2543", read(&[]), "3.4.1: RFC 2543 request: no branch, no tag"),
        // Not in the RFC's text.
        ("test", refused(Malformed::NoStartLine { searched: 318 }), "not a message of the RFC"),
    ]
}

#[test]
fn torture_messages_are_read_or_refused_with_their_reason() {
    let Some(folder) = folder() else { return };
    let table = table();
    for (name, expected, reason) in &table {
        let bytes = std::fs::read(folder.join(name).with_extension("dat")).unwrap();
        let outcome = match Message::parse(&bytes) {
            Ok(message) => Outcome::Read(message.defects.names().collect()),
            Err(malformed) => Outcome::Refused(malformed),
        };
        assert_eq!(outcome, *expected, "{name}: {reason}");
    }
    let files = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(files, table.len(), "every file of the folder is in the table");
}

#[test]
fn what_correlation_needs_survives_the_torture() {
    let Some(folder) = folder() else { return };
    let read = |name: &str| std::fs::read(folder.join(name).with_extension("dat")).unwrap();

    let bytes = read("wsinv");
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.from().tag, Some(&b"98asjd8"[..]));
    assert_eq!(message.to().tag, Some(&b"1918181833n"[..]));
    assert_eq!(message.to().uri, b"sip:vivekg@chair-dnrc.example.com");
    assert_eq!((message.method(), message.cseq.unwrap().number, message.vias), ("INVITE", 9, 3));
    assert_eq!(message.branch(), Some(&b"390skdjuw"[..]));
    assert_eq!(sdp::describe(message.content_type, message.body).unwrap().lines.len(), 2);

    let bytes = read("quotbal");
    assert_eq!(Message::parse(&bytes).unwrap().to().uri, b"sip:j.user@example.com");

    let bytes = read("semiuri");
    assert_eq!(Message::parse(&bytes).unwrap().to().uri, b"sip:j_user@example.com");

    let bytes = read("longreq");
    assert_eq!(Message::parse(&bytes).unwrap().vias, 34);
}

/// The folder of torture messages, beside that of the captures.
fn folder() -> Option<PathBuf> {
    let folder = voxlab::shared_captures()?.parent()?.join("torture");
    assert!(folder.is_dir(), "{} is missing", folder.display());
    Some(folder)
}
