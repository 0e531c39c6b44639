//! Any bytes as a body.

use voxprobe::sip::sdp::{Description, describe};

/// Reads them alone, and as part of a multipart body.
pub fn run(bytes: &[u8]) {
    check(&Description::parse(bytes));
    for content_type in [
        &b"application/sdp"[..],
        b"",
        b"multipart/mixed;boundary=b",
        b"Multipart/Alternative; boundary=\"b\"",
    ] {
        if let Some(description) = describe(content_type, bytes) {
            check(&description);
        }
    }
    // The first line as the type.
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (content_type, body) = bytes.split_at(end);
    if let Some(description) = describe(content_type, body) {
        check(&description);
    }
}

fn check(description: &Description) {
    assert!(description.lines.len() <= 16, "lines are bounded");
    for line in &description.lines {
        assert!(line.formats.len() <= 128 && line.formats.iter().all(|format| format.payload_type < 128));
        for endpoint in [line.endpoint, line.rtcp].into_iter().flatten() {
            assert!(endpoint.port != 0 && !endpoint.ip().is_unspecified());
        }
        assert!(line.endpoint.is_some() || line.rtcp.is_none(), "RTCP without RTP");
    }
}
