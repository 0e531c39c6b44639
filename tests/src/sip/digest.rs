//! Digest authentication as SIP phones do it (RFC 3261, 22.4; RFC 2617 without qop), and the MD5 (RFC 1321) in it.
//!
//! MD5 protects nothing any more; it is here because it is what the phones of the field send.

/// The `response` of a digest.
pub fn response(user: &str, realm: &str, password: &str, method: &str, uri: &str, nonce: &str) -> String {
    let who = hex(md5(format!("{user}:{realm}:{password}").as_bytes()));
    let what = hex(md5(format!("{method}:{uri}").as_bytes()));
    hex(md5(format!("{who}:{nonce}:{what}").as_bytes()))
}

/// A quoted parameter of a challenge or of credentials.
pub fn parameter<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let (_, parameters) = header.split_once(' ')?;
    parameters.split(',').find_map(|parameter| {
        let (have, value) = parameter.trim().split_once('=')?;
        (have == name).then(|| value.trim_matches('"'))
    })
}

fn hex(bytes: [u8; 16]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn md5(message: &[u8]) -> [u8; 16] {
    const ROTATE: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - message.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let length_at = padded.len() - 8;
    padded[length_at..].copy_from_slice(&(message.len() as u64 * 8).to_le_bytes());

    let mut state: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let (blocks, _) = padded.as_chunks::<64>();
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        let [mut a, mut b, mut c, mut d] = state;
        for step in 0..64 {
            let (mixed, word) = match step / 16 {
                0 => ((b & c) | (!b & d), step),
                1 => ((d & b) | (!d & c), (5 * step + 1) % 16),
                2 => (b ^ c ^ d, (3 * step + 5) % 16),
                _ => (c ^ (b | !d), (7 * step) % 16),
            };
            let constant = constant(step);
            let sum =
                a.wrapping_add(mixed).wrapping_add(constant).wrapping_add(u32::from_le_bytes(words[word]));
            (a, d, c) = (d, c, b);
            b = b.wrapping_add(sum.rotate_left(ROTATE[step / 16][step % 4]));
        }
        for (total, part) in state.iter_mut().zip([a, b, c, d]) {
            *total = total.wrapping_add(part);
        }
    }
    let mut digest = [0; 16];
    for (to, word) in digest.chunks_exact_mut(4).zip(state) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    digest
}

/// The standard's table of constants is this function of the step.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to below 2^32")]
fn constant(step: usize) -> u32 {
    ((step as f64 + 1.0).sin().abs() * 4_294_967_296.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_agrees_with_the_test_suite_of_rfc_1321() {
        assert_eq!(hex(md5(b"")), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(hex(md5(b"message digest")), "f96b697d7cb7938d525a2f31aaf161d0");
        let long = b"12345678901234567890123456789012345678901234567890123456789012345678901234567890";
        assert_eq!(hex(md5(long)), "57edf4a22be3c955ac49da2e2107b67a");
    }

    #[test]
    fn parameters_are_found_by_whole_name() {
        let header = r#"Digest realm="lab", nonce="abc""#;
        assert_eq!((parameter(header, "nonce"), parameter(header, "once")), (Some("abc"), None));
    }
}
