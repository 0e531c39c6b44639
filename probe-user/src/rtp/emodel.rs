//! Listening quality by the E-model (ITU-T G.107), narrowband, for codecs with published impairments.
//!
//! R = 93.2 - Ie,eff: every parameter but the codec's and the loss at its default, so this is a listening
//! value (MOS-LQ); delay, which a passive probe does not know, is not in it. Where no equipment impairment is
//! published, there is no value and a reason instead.

use serde::Serialize;

/// R with every default parameter and no impairment (G.107, 06/2015, table 2).
const DEFAULT_R: f64 = 93.2;

/// A listening quality estimate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mos {
    /// Mean opinion score, 1 to 4.5.
    pub value: f64,
    /// Scale it stands on; scores of different scales do not compare.
    pub scale: &'static str,
    /// R factor behind it.
    pub r_factor: f64,
    /// What was assumed.
    pub assumptions: String,
}

/// Equipment impairment at zero loss, and robustness against loss (G.113, appendix I).
struct Impairment {
    name: &'static str,
    ie: f64,
    bpl: f64,
    note: &'static str,
}

const NARROWBAND: [Impairment; 6] = [
    Impairment { name: "PCMU", ie: 0.0, bpl: 25.1, note: "G.711 with packet loss concealment" },
    Impairment { name: "PCMA", ie: 0.0, bpl: 25.1, note: "G.711 with packet loss concealment" },
    Impairment { name: "G729", ie: 11.0, bpl: 19.0, note: "G.729A with VAD" },
    Impairment { name: "G723", ie: 15.0, bpl: 16.1, note: "G.723.1 at 6.3 kbit/s" },
    Impairment { name: "GSM", ie: 20.0, bpl: 10.0, note: "GSM full rate, Bpl borrowed from GSM-EFR" },
    Impairment { name: "GSM-EFR", ie: 5.0, bpl: 10.0, note: "GSM enhanced full rate" },
];

/// The estimate for a codec under `loss_percent` with bursts `burst_ratio` times those of random loss.
///
/// # Errors
/// The reason why there is none, in words for the report.
pub fn listening_quality(codec: Option<&str>, loss_percent: f64, burst_ratio: f64) -> Result<Mos, String> {
    let Some(codec) = codec else {
        return Err("codec unknown: no SDP, and a dynamic payload type".to_owned());
    };
    let Some(impairment) = NARROWBAND.iter().find(|known| known.name.eq_ignore_ascii_case(codec)) else {
        return Err(format!("no impairment factor is published for {codec}"));
    };
    let ratio = burst_ratio.max(1.0);
    let effective = if loss_percent > 0.0 {
        impairment.ie + (95.0 - impairment.ie) * loss_percent / (loss_percent / ratio + impairment.bpl)
    } else {
        impairment.ie
    };
    let r_factor = DEFAULT_R - effective;
    Ok(Mos {
        value: mos(r_factor),
        scale: "narrowband",
        r_factor,
        assumptions: format!("listening quality, {}, no delay, network loss only", impairment.note),
    })
}

/// R to MOS (G.107, annex B). Below 6.5 the polynomial falls under 1, which no scale has.
fn mos(r: f64) -> f64 {
    if r < 6.52 {
        1.0
    } else if r >= 100.0 {
        4.5
    } else {
        1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_test_vectors() {
        let table = [
            ("PCMU", 0.0, 1.0, 93.2, 4.409),
            ("PCMU", 1.0, 1.0, 89.560, 4.328),
            ("PCMA", 2.0, 2.0, 85.920, 4.227),
            ("PCMU", 20.0, 1.0, 51.071, 2.631),
            ("G729", 5.0, 1.0, 64.7, 3.340),
            ("G723", 2.0, 1.0, 69.36, 3.567),
            ("GSM-EFR", 5.0, 1.0, 58.2, 3.006),
        ];
        for (codec, loss, ratio, r, score) in table {
            let got = listening_quality(Some(codec), loss, ratio).unwrap();
            assert!(
                (got.r_factor - r).abs() < 0.005 && (got.value - score).abs() < 0.001,
                "{codec} {loss}: {got:?}"
            );
        }
    }

    #[test]
    fn an_unpublished_codec_gets_a_reason_not_a_number() {
        assert_eq!(
            listening_quality(Some("opus"), 0.0, 1.0).unwrap_err(),
            "no impairment factor is published for opus"
        );
        assert!(listening_quality(None, 0.0, 1.0).unwrap_err().contains("no SDP"));
    }
}
