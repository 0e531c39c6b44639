//! What a message got wrong without becoming unreadable.

use std::fmt;

use serde::{Serialize, Serializer};

/// What was wrong with a message that could be read all the same. As JSON, a list of names.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Defects(u16);

impl Defects {
    /// Bytes other than line ends and NUL before the start line.
    pub const JUNK_BEFORE: Self = Self(1 << 0);
    /// Call-ID, CSeq, From, To or Via is missing.
    pub const MISSING_HEADER: Self = Self(1 << 1);
    /// A header that may occur once occurs again with another value.
    pub const REPEATED_HEADER: Self = Self(1 << 2);
    /// CSeq is not a 32-bit number and a method.
    pub const BAD_CSEQ: Self = Self(1 << 3);
    /// The request's method is not CSeq's.
    pub const METHOD_MISMATCH: Self = Self(1 << 4);
    /// Content-Length is not a number.
    pub const BAD_CONTENT_LENGTH: Self = Self(1 << 5);
    /// The body is shorter than Content-Length says.
    pub const BODY_CUT: Self = Self(1 << 6);
    /// The head ends with the datagram, not with an empty line.
    pub const NO_EMPTY_LINE: Self = Self(1 << 7);
    /// A line of the head has no colon.
    pub const NOT_A_HEADER: Self = Self(1 << 8);
    /// White space where the start line may have none, or its URI in angle brackets.
    pub const ODD_START_LINE: Self = Self(1 << 9);
    /// More bytes in the datagram than Content-Length takes.
    pub const TRAILING: Self = Self(1 << 10);

    const NAMES: [&'static str; 11] = [
        "junk_before",
        "missing_header",
        "repeated_header",
        "bad_cseq",
        "method_mismatch",
        "bad_content_length",
        "body_cut",
        "no_empty_line",
        "not_a_header",
        "odd_start_line",
        "trailing",
    ];

    /// Is there any?
    pub fn any(self) -> bool {
        self.0 != 0
    }

    /// Is `defect` among them?
    pub fn has(self, defect: Self) -> bool {
        self.0 & defect.0 != 0
    }

    /// Their names, in a fixed order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 & (1 << bit) != 0)
            .map(|(_, name)| name)
    }

    pub(super) fn note(&mut self, defect: Self) {
        self.0 |= defect.0;
    }
}

impl Serialize for Defects {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

impl fmt::Debug for Defects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
