//! Mean opinion scores of a stream: listening (MOS-LQ) wherever a codec's impairment is known, conversational
//! (MOS-CQ) where the delay is known, too. Where there is none, the reason.
//!
//! ```text
//!   codec ───────────▶ impairment ─┐
//!   lost + too late ─▶ Ppl, BurstR ├─▶ emodel ─▶ MOS-LQ ─┬─▶ report, health log
//!   RTCP round trip ─▶ delay ──────┘             MOS-CQ ─┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::emodel::{Scale, delay_impairment, effective_impairment};
use super::impairment::{Impairment, impairment};
use super::quality::Settings;

/// A quality estimate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mos {
    /// Mean opinion score, 1 to 4.5.
    pub value: f64,
    /// Scale it stands on; scores of different scales do not compare.
    pub scale: Scale,
    /// R factor behind it, on that scale.
    pub r_factor: f64,
    /// What was assumed.
    pub assumptions: String,
    /// Where the codec's impairment comes from.
    pub provenance: super::impairment::Provenance,
}

/// What a score is computed from.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// SDP name of the codec, or why it is not known.
    pub codec: Result<String, String>,
    /// Its format parameters in the SDP.
    pub parameters: Option<String>,
    /// Packets lost, or too late for the de-jitter buffer, in percent of those expected.
    pub loss_percent: f64,
    /// How bursty that was (G.107, BurstR).
    pub burst_ratio: f64,
    /// Are packets that were too late for the de-jitter buffer in it? Without a clock, none could be simulated.
    pub is_buffered: bool,
    /// What the operator chose and declared.
    pub settings: Arc<Settings>,
}

impl Heard {
    /// What a listener gives: delay does not matter to him.
    ///
    /// # Errors
    /// The reason why there is no score, in words for the report.
    pub fn listening(&self) -> Result<Mos, String> {
        let (impairment, ie_eff) = self.impairment()?;
        let basis = format!("listening quality, {}, no delay, {}", impairment.condition, self.basis());
        Ok(mos(&impairment, impairment.scale.best_r() - ie_eff, &basis))
    }

    /// What somebody who talks gives, with `one_way` from mouth to ear. Echo is taken to be cancelled.
    ///
    /// # Errors
    /// The reason why there is no score, in words for the report.
    pub fn conversational(&self, one_way: Option<Duration>) -> Result<Mos, String> {
        let (impairment, ie_eff) = self.impairment()?;
        let Some(one_way) = one_way else {
            return Err("delay unknown: no round trip by RTCP was seen".to_owned());
        };
        let delay_ms = one_way.as_secs_f64() * 1e3;
        let Some(by_delay) = delay_impairment(impairment.scale, delay_ms) else {
            return Err("no verified delay impairment on the wideband scale (G.107.1)".to_owned());
        };
        let basis = format!(
            "conversational quality, {}, {delay_ms:.0} ms one way, echo cancelled, {}",
            impairment.condition,
            self.basis()
        );
        Ok(mos(&impairment, impairment.scale.best_r() - ie_eff - by_delay, &basis))
    }

    fn impairment(&self) -> Result<(Impairment, f64), String> {
        let codec = self.codec.as_ref().map_err(|because| format!("codec unknown: {because}"))?;
        let known = impairment(codec, self.parameters.as_deref(), &self.settings.impairments)?;
        let bpl = match known.bpl {
            Some(bpl) => bpl,
            // Without loss it does not matter.
            None if self.loss_percent <= 0.0 => 1.0,
            None => {
                return Err(format!(
                    "no robustness against loss (Bpl) is published for {}, and packets were lost",
                    known.condition
                ));
            }
        };
        let ie_eff = effective_impairment(known.scale, known.ie, bpl, self.loss_percent, self.burst_ratio);
        Ok((known, ie_eff))
    }

    fn basis(&self) -> String {
        if self.is_buffered {
            format!("loss and what is too late for {}", self.settings.jitter_buffer)
        } else {
            "network loss only".to_owned()
        }
    }
}

fn mos(impairment: &Impairment, r_factor: f64, basis: &str) -> Mos {
    Mos {
        value: impairment.scale.mos(r_factor),
        scale: impairment.scale,
        r_factor,
        assumptions: format!("{basis}; impairment {}", impairment.provenance.words()),
        provenance: impairment.provenance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::impairment::Declared;

    fn heard(codec: &str, loss_percent: f64, burst_ratio: f64) -> Heard {
        Heard {
            codec: Ok(codec.to_owned()),
            parameters: None,
            loss_percent,
            burst_ratio,
            is_buffered: false,
            settings: Arc::default(),
        }
    }

    #[test]
    fn agrees_with_the_test_vectors() {
        let table = [
            ("PCMU", 0.0, 1.0, 93.2, 4.409),
            ("pcma", 2.0, 2.0, 85.920, 4.227),
            ("G729", 5.0, 1.0, 64.7, 3.340),
            ("G723", 2.0, 1.0, 69.36, 3.567),
            ("GSM-EFR", 5.0, 1.0, 58.2, 3.006),
        ];
        for (codec, loss, ratio, r, score) in table {
            let got = heard(codec, loss, ratio).listening().unwrap();
            assert!(
                (got.r_factor - r).abs() < 5.1e-4 && (got.value - score).abs() < 5.1e-4,
                "{codec} {loss}: {got:?}"
            );
        }
    }

    #[test]
    fn delay_lowers_the_conversational_score_only() {
        let heard = heard("PCMU", 0.0, 1.0);
        let at = |ms| heard.conversational(Some(Duration::from_millis(ms))).unwrap().r_factor;
        // Id of 250 ms is 14.18, of which 0.149 is there without any delay.
        assert!((at(250) - (93.2 - 14.18 + 0.149)).abs() < 0.006 && (at(0) - 93.2).abs() < 1e-9);
        assert!(heard.conversational(None).unwrap_err().contains("delay unknown"));
        assert!((heard.listening().unwrap().value - 4.409).abs() < 5e-4);
    }

    #[test]
    fn a_codec_without_bpl_has_a_score_until_something_is_lost() {
        assert!((heard("G726-32", 0.0, 1.0).listening().unwrap().r_factor - 86.2).abs() < 1e-9);
        assert!(heard("G726-32", 0.1, 1.0).listening().unwrap_err().contains("(Bpl)"));
    }

    #[test]
    fn a_codec_that_is_not_known_has_no_score_and_the_reason_why() {
        let unknown = Heard { codec: Err("no SDP".to_owned()), ..heard("", 0.0, 1.0) };
        assert_eq!(unknown.listening().unwrap_err(), "codec unknown: no SDP");
    }

    #[test]
    fn a_declared_codec_stands_on_the_declared_scale_and_says_whose_number_it_is() {
        let impairments = Declared::new(&["opus=10,20,fullband".parse().unwrap()]);
        let settings = Arc::new(Settings { impairments, ..Settings::USUAL });
        let heard = Heard { settings, ..heard("opus", 0.0, 1.0) };
        let got = heard.listening().unwrap();
        assert_eq!((got.scale, got.r_factor), (Scale::Fullband, 138.0));
        assert!(got.assumptions.ends_with("declared by the operator"), "{}", got.assumptions);
        assert!(heard.conversational(Some(Duration::from_millis(400))).unwrap().r_factor < 110.0);
    }
}
