//! The small grammar that all headers share: lists, parameters, quotes, numbers (RFC 3261, 25.1).

/// The values of a header that are separated by commas, outside quotes and angle brackets.
pub(super) fn values(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = Quoted::default();
    let mut bracket = false;
    value
        .split(move |&b| {
            if quoted.step(b) {
                return false;
            }
            match b {
                b'<' => bracket = true,
                b'>' => bracket = false,
                _ => {}
            }
            b == b',' && !bracket
        })
        .map(trim)
        .filter(|value| !value.is_empty())
}

/// The value of a `;name=value` parameter, without quotes. `name` in lower case.
pub(super) fn parameter<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut quoted = Quoted::default();
    value.split(move |&b| !quoted.step(b) && b == b';').skip(1).find_map(|parameter| {
        let equals = parameter.iter().position(|&b| b == b'=')?;
        let (key, value) = parameter.split_at_checked(equals)?;
        let value = trim(value.get(1..)?);
        let value = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
        trim(key).eq_ignore_ascii_case(name).then_some(value)
    })
}

/// Are we inside a quoted string? Fed byte by byte.
#[derive(Clone, Copy, Default)]
pub(super) struct Quoted {
    pub(super) inside: bool,
    escaped: bool,
}

impl Quoted {
    /// Is this byte part of a quoted string, its quotes included?
    pub(super) fn step(&mut self, byte: u8) -> bool {
        if self.escaped {
            self.escaped = false;
            return true;
        }
        match byte {
            b'\\' if self.inside => self.escaped = true,
            b'"' => {
                self.inside = !self.inside;
                return true;
            }
            _ => {}
        }
        self.inside
    }
}

/// Without white space at both ends; folding makes line ends white space.
pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}

pub(super) fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    // Rust takes a sign, SIP does not.
    digits.first()?.is_ascii_digit().then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

/// `token` of RFC 3261, 25.1: as such it is ASCII.
pub(super) fn token(bytes: &[u8]) -> Option<&str> {
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(b);
    (!bytes.is_empty() && bytes.iter().all(is_token)).then(|| std::str::from_utf8(bytes).ok())?
}

pub(super) fn prefix_matches(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
