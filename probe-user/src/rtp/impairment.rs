//! What a codec does to speech: equipment impairment Ie and robustness against loss Bpl, each with where the number
//! comes from.
//!
//! No number is invented. A codec without a published one has no row, and its streams have no score but a reason.
//! An operator who has measured his own can [declare](Declared) it; the score then says that it is his.
//!
//! Numbers of G.113 (appendix I, narrowband; appendix IV, wideband) were compared among several who quote it, not
//! with the Recommendation's own text; hence "secondary source", and never "published" where that was not seen.

use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

use super::emodel::Scale;

/// Where a number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// ITU-T G.107 itself has it, and it was verified.
    Published,
    /// ITU-T G.113, as several independent sources quote it.
    SecondarySource,
    /// Ie is as above; Bpl is that of a codec like it, as other tools take it.
    Borrowed,
    /// Whoever runs the probe said so.
    Operator,
}

impl Provenance {
    /// In words for the report.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Published => "published in ITU-T G.107",
            Self::SecondarySource => "ITU-T G.113 by secondary sources",
            Self::Borrowed => "ITU-T G.113 by secondary sources, Bpl borrowed from a codec like it",
            Self::Operator => "declared by the operator",
        }
    }
}

/// One codec's impairment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impairment {
    /// Equipment impairment at zero loss.
    pub ie: f64,
    /// Robustness against loss, in percent; `None` where none is known: then there is no score under loss.
    pub bpl: Option<f64>,
    /// The scale that both stand on.
    pub scale: Scale,
    /// Where they come from.
    pub provenance: Provenance,
    /// What exactly they are for.
    pub condition: &'static str,
}

/// SDP names of one codec, and its impairment.
struct Row(&'static [&'static str], Impairment);

const fn narrowband(
    ie: f64,
    bpl: Option<f64>,
    provenance: Provenance,
    condition: &'static str,
) -> Impairment {
    Impairment { ie, bpl, scale: Scale::Narrowband, provenance, condition }
}

use Provenance::{Borrowed, SecondarySource};

const TABLE: [Row; 11] = [
    Row(
        &["PCMU", "PCMA"],
        narrowband(0.0, Some(25.1), SecondarySource, "G.711 with packet loss concealment (appendix I)"),
    ),
    Row(&["G729"], narrowband(11.0, Some(19.0), SecondarySource, "G.729A with VAD (annex B)")),
    Row(&["G723"], narrowband(15.0, Some(16.1), SecondarySource, "G.723.1 at 6.3 kbit/s with VAD")),
    Row(&["GSM-EFR"], narrowband(5.0, Some(10.0), SecondarySource, "GSM enhanced full rate, 12.2 kbit/s")),
    Row(&["GSM"], narrowband(20.0, Some(10.0), Borrowed, "GSM full rate, 13 kbit/s, Bpl of GSM-EFR")),
    Row(&["GSM-HR", "GSM-HR-08"], narrowband(23.0, None, SecondarySource, "GSM half rate")),
    Row(&["G726-40"], narrowband(2.0, None, SecondarySource, "G.726 at 40 kbit/s")),
    Row(&["G726-32"], narrowband(7.0, None, SecondarySource, "G.726 at 32 kbit/s")),
    Row(&["G726-24"], narrowband(25.0, None, SecondarySource, "G.726 at 24 kbit/s")),
    Row(&["G726-16"], narrowband(50.0, None, SecondarySource, "G.726 at 16 kbit/s")),
    Row(&["G728"], narrowband(7.0, None, SecondarySource, "G.728 at 16 kbit/s")),
];

/// What `annexb=no` in the SDP makes of G729.
const G729_WITHOUT_VAD: Impairment =
    narrowband(10.0, Some(19.0), Borrowed, "G.729 without VAD, Bpl of G.729A with VAD");

/// AMR-WB (G.722.2) by mode: kbit/s, Ie,wb heard with one ear, with both, and Bpl,wb, which exists for both only.
type AmrWbRow = (f64, f64, Option<f64>, Option<f64>);
const AMR_WB: [AmrWbRow; 9] = [
    (6.60, 41.0, Some(56.0), None),
    (8.85, 26.0, Some(41.0), None),
    (12.65, 13.0, Some(20.0), Some(4.3)),
    (14.25, 10.0, None, None),
    (15.85, 7.0, Some(17.0), None),
    (18.25, 5.0, None, None),
    (19.85, 3.0, None, None),
    (23.05, 1.0, Some(8.0), Some(4.6)),
    // Worse than the mode below it: so it is published.
    (23.85, 8.0, Some(10.0), Some(4.9)),
];

/// How a telephone is held to a listener. AMR-WB's impairments differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// One ear: a handset.
    Monotic,
    /// Both: a headset.
    Diotic,
}

/// The impairment of AMR-WB in `mode` (RFC 4867, 0 to 8). `None` where there is no such mode, or no number for it.
pub fn amr_wb(mode: u8, listening: Listening) -> Option<Impairment> {
    let (_, monotic, diotic, bpl) = *AMR_WB.get(usize::from(mode))?;
    let row = |ie, bpl, condition| Impairment {
        ie,
        bpl,
        scale: Scale::Wideband,
        provenance: SecondarySource,
        condition,
    };
    match listening {
        Listening::Monotic => Some(row(monotic, None, "AMR-WB, handset")),
        Listening::Diotic => diotic.map(|ie| row(ie, bpl, "AMR-WB, headset")),
    }
}

/// The impairment of a codec by its SDP name and format parameters, what was declared before what is in the table.
///
/// # Errors
/// Why there is none, in words for the report.
pub fn impairment(codec: &str, parameters: Option<&str>, declared: &Declared) -> Result<Impairment, String> {
    if let Some(own) = declared.find(codec) {
        return Ok(own);
    }
    let parameter = |name| parameters.and_then(|text| parameter(text, name));
    if codec.eq_ignore_ascii_case("G729")
        && parameter("annexb").is_some_and(|annex| annex.eq_ignore_ascii_case("no"))
    {
        return Ok(G729_WITHOUT_VAD);
    }
    if codec.eq_ignore_ascii_case("AMR-WB") {
        // A set of one mode is the mode; whoever listens is taken to hold a handset.
        let mode = parameter("mode-set").and_then(|modes| modes.parse().ok());
        return mode.and_then(|mode| amr_wb(mode, Listening::Monotic)).ok_or_else(|| {
            "AMR-WB: the impairment depends on the mode, and the SDP does not name a single one".to_owned()
        });
    }
    let named = |row: &&Row| row.0.iter().any(|name| name.eq_ignore_ascii_case(codec));
    if let Some(Row(_, known)) = TABLE.iter().find(named) {
        return Ok(*known);
    }
    Err(if codec.eq_ignore_ascii_case("G722") {
        "no verified wideband impairment factor for G722 (--codec-impairment declares one)".to_owned()
    } else {
        format!("no impairment factor is published for {codec}")
    })
}

/// The value of `name` in `a=fmtp` parameters, as in "octet-align=1; mode-set=2".
fn parameter<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split(';')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| key.trim().eq_ignore_ascii_case(name).then_some(value.trim()))
}

/// Impairments that the operator declares; of two for one codec the later counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declared(Vec<Declaration>);

/// One declaration, `opus=10,20` or `opus=10,20,fullband`.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    codec: Box<str>,
    impairment: Impairment,
}

/// Why a declaration is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeclareError {
    /// Not of the form.
    #[error("{0:?} is not NAME=IE,BPL or NAME=IE,BPL,SCALE, as in opus=10,20,fullband")]
    Form(String),
    /// Out of range.
    #[error("{0:?}: Ie is 0 to 95 (fullband to 132), Bpl more than 0 and at most 100")]
    Range(String),
}

impl FromStr for Declaration {
    type Err = DeclareError;

    fn from_str(text: &str) -> Result<Self, DeclareError> {
        let form = || DeclareError::Form(text.to_owned());
        let (codec, numbers) = text.split_once('=').ok_or_else(form)?;
        let codec = codec.trim();
        let mut parts = numbers.split(',').map(str::trim);
        let mut number = || parts.next().and_then(|part| part.parse::<f64>().ok()).ok_or_else(form);
        let (ie, bpl) = (number()?, number()?);
        let scale = match parts.next() {
            None | Some("narrowband") => Scale::Narrowband,
            Some("wideband") => Scale::Wideband,
            Some("fullband") => Scale::Fullband,
            Some(_) => return Err(form()),
        };
        if codec.is_empty() || parts.next().is_some() {
            return Err(form());
        }
        let most = if scale == Scale::Fullband { 132.0 } else { 95.0 };
        if !(0.0..=most).contains(&ie) || !(f64::MIN_POSITIVE..=100.0).contains(&bpl) {
            return Err(DeclareError::Range(text.to_owned()));
        }
        let impairment = Impairment {
            ie,
            bpl: Some(bpl),
            scale,
            provenance: Provenance::Operator,
            condition: "as the operator declares",
        };
        Ok(Self { codec: codec.into(), impairment })
    }
}

impl Declared {
    /// Nothing.
    pub const NONE: Self = Self(Vec::new());

    /// All of these.
    pub fn new(declarations: &[Declaration]) -> Self {
        Self(declarations.to_vec())
    }

    fn find(&self, codec: &str) -> Option<Impairment> {
        let own = self.0.iter().rev().find(|own| own.codec.eq_ignore_ascii_case(codec))?;
        Some(own.impairment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(codec: &str) -> String {
        impairment(codec, None, &Declared::NONE).unwrap_err()
    }

    #[test]
    fn an_unpublished_codec_gets_a_reason_not_a_number() {
        assert_eq!(reason("opus"), "no impairment factor is published for opus");
        for codec in ["iLBC", "AMR", "speex", "SILK", "iSAC", "EVS"] {
            assert!(reason(codec).starts_with("no impairment factor is published"), "{codec}");
        }
        assert!(reason("AMR-WB").contains("mode"));
    }

    #[test]
    fn every_row_says_where_it_comes_from_and_what_it_is_for() {
        for Row(names, row) in &TABLE {
            assert!(!names.is_empty() && !row.condition.is_empty() && row.scale == Scale::Narrowband);
            assert!((0.0..=95.0).contains(&row.ie) && row.bpl.is_none_or(|bpl| bpl > 0.0));
        }
    }

    #[test]
    fn format_parameters_choose_the_variant() {
        let of = |codec, parameters| impairment(codec, Some(parameters), &Declared::NONE);
        assert_eq!(of("G729", "annexb=no"), Ok(G729_WITHOUT_VAD));
        assert!((of("G729", "annexb=yes").unwrap().ie - 11.0).abs() < 1e-9);
        assert!((of("AMR-WB", "octet-align=1; mode-set=8").unwrap().ie - 8.0).abs() < 1e-9);
        for parameters in ["octet-align=1", "mode-set=0,2,8", "mode-set=9"] {
            assert!(of("AMR-WB", parameters).unwrap_err().contains("a single one"), "{parameters}");
        }
    }

    #[test]
    fn amr_wb_needs_its_mode_and_has_no_loss_figure_for_handsets() {
        let handset = amr_wb(2, Listening::Monotic).unwrap();
        assert_eq!((handset.ie, handset.bpl, handset.scale), (13.0, None, Scale::Wideband));
        let headset = amr_wb(2, Listening::Diotic).unwrap();
        assert_eq!((headset.ie, headset.bpl), (20.0, Some(4.3)));
        assert_eq!((amr_wb(3, Listening::Diotic), amr_wb(9, Listening::Monotic)), (None, None));
    }

    #[test]
    fn an_operator_declares_what_nobody_published_and_is_named_for_it() {
        let declared = Declared::new(&["opus=10,20".parse().unwrap(), "G722=13,5,wideband".parse().unwrap()]);
        let opus = impairment("OPUS", None, &declared).unwrap();
        assert_eq!(
            (opus.ie, opus.bpl, opus.scale, opus.provenance),
            (10.0, Some(20.0), Scale::Narrowband, Provenance::Operator)
        );
        assert_eq!(impairment("G722", None, &declared).unwrap().scale, Scale::Wideband);
        assert!(impairment("op", None, &declared).is_err());
    }

    #[test]
    fn the_last_declaration_of_a_codec_counts_also_before_the_table() {
        let declared = Declared::new(&["PCMU=1,1".parse().unwrap(), "pcmu=0,4.3".parse().unwrap()]);
        assert_eq!(impairment("PCMU", None, &declared).unwrap().bpl, Some(4.3));
    }

    #[test]
    fn declarations_that_make_no_sense_are_refused() {
        for text in ["opus", "opus=10", "=1,2", "opus=1,2,ultra", "opus=1,2,wideband,3", "opus=x,2"] {
            assert_eq!(text.parse::<Declaration>(), Err(DeclareError::Form(text.to_owned())), "{text}");
        }
        for text in ["opus=-1,10", "opus=96,10", "opus=1,0", "opus=1,101", "opus=NaN,10", "opus=1,NaN"] {
            assert_eq!(text.parse::<Declaration>(), Err(DeclareError::Range(text.to_owned())), "{text}");
        }
    }
}
