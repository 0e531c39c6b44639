//! The E-model (ITU-T G.107, 06/2015): from what a path does to speech to the rating R, and from R to a mean
//! opinion score.
//!
//! ```text
//!   R = Ro - Is - Id - Ie,eff + A                narrowband, R to 93.2 with every default
//!   R = 129 - Ie,wb,eff                          wideband (G.107.1)
//!   R = 148 - Ie,fb,eff - Id                     fullband (G.107.2)
//! ```
//!
//! The three scales are three questions to listeners. A score of one says nothing on another: no function here
//! turns one into the other, and whoever adds scores up must keep them apart by [`Scale`].
//!
//! Formulas and numbers are checked against an independent computation of the same (Ro, Is, Id, R) in the tests.

use serde::Serialize;

/// Which listeners were asked: how much of the audible band they know speech with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// 300 to 3400 Hz: G.107.
    Narrowband,
    /// 100 to 7000 Hz: G.107.1.
    Wideband,
    /// 20 Hz to 20 kHz: G.107.2.
    Fullband,
}

impl Scale {
    /// The word for it in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Narrowband => "narrowband",
            Self::Wideband => "wideband",
            Self::Fullband => "fullband",
        }
    }

    /// R without any impairment.
    pub fn best_r(self) -> f64 {
        match self {
            // What practice quotes for the 93.2062 that the defaults give.
            Self::Narrowband => 93.2,
            Self::Wideband => 129.0,
            Self::Fullband => 148.0,
        }
    }

    /// What loss can take away at most: the 95 of G.107 stays in G.107.1, and is 132 in G.107.2.
    const fn loss_ceiling(self) -> f64 {
        match self {
            Self::Narrowband | Self::Wideband => 95.0,
            Self::Fullband => 132.0,
        }
    }

    /// Mean opinion score of `r` on this scale, 1 to 4.5 (G.107 annex B; the wider scales are compressed to it).
    pub fn mos(self, r: f64) -> f64 {
        match self {
            Self::Narrowband => mos(r),
            Self::Wideband => mos(r / 1.29),
            Self::Fullband => mos(r / 1.48),
        }
    }
}

/// Ie,eff: the equipment impairment of a codec (`ie`, robustness `bpl`) under `loss_percent`, of which the bursts are
/// `burst_ratio` times as long as those of random loss. G.107.1 and G.107.2 know no burst ratio.
pub fn effective_impairment(scale: Scale, ie: f64, bpl: f64, loss_percent: f64, burst_ratio: f64) -> f64 {
    // Copies can make loss negative. They are no gain in quality.
    if loss_percent <= 0.0 {
        return ie;
    }
    let ratio = if scale == Scale::Narrowband { burst_ratio.max(1.0) } else { 1.0 };
    ie + (scale.loss_ceiling() - ie) * loss_percent / (loss_percent / ratio + bpl)
}

/// Idd: what pure delay takes away, `one_way_ms` mouth to ear, with an echo-free path. `None` on the wideband scale,
/// for which no verified formula was at hand.
pub fn delay_impairment(scale: Scale, one_way_ms: f64) -> Option<f64> {
    match scale {
        Scale::Narrowband => {
            Some(Transmission::with_delay(one_way_ms).rating().id - Transmission::DEFAULT.rating().id)
        }
        Scale::Wideband => None,
        Scale::Fullband => Some(1.48 * pure_delay(one_way_ms, 1.0, 100.0)),
    }
}

/// Every parameter of G.107 (table 2), in its units there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transmission {
    /// Send loudness rating, dB.
    pub slr: f64,
    /// Receive loudness rating, dB.
    pub rlr: f64,
    /// Sidetone masking rating, dB.
    pub stmr: f64,
    /// D-value of the telephone, receive side, dB.
    pub dr: f64,
    /// D-value, send side, dB.
    pub ds: f64,
    /// Talker echo loudness rating, dB.
    pub telr: f64,
    /// Weighted echo path loss, dB.
    pub wepl: f64,
    /// Mean one-way delay of the echo path, ms.
    pub t: f64,
    /// Absolute delay in echo-free connections, ms.
    pub ta: f64,
    /// Round-trip delay in a 4-wire loop, ms.
    pub tr: f64,
    /// Quantisation distortion units.
    pub qdu: f64,
    /// Circuit noise, dBm0p.
    pub nc: f64,
    /// Noise floor at the receive side, dBmp.
    pub nfor: f64,
    /// Room noise at the send side, dB(A).
    pub ps: f64,
    /// Room noise at the receive side, dB(A).
    pub pr: f64,
    /// Sensitivity to delay.
    pub st: f64,
    /// Least perceivable delay, ms.
    pub mt: f64,
    /// Equipment impairment under loss, see [`effective_impairment`].
    pub ie_eff: f64,
    /// Advantage that users grant for convenience: 0 at a wire.
    pub advantage: f64,
}

/// A rating and what it is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rating {
    /// Signal to noise.
    pub ro: f64,
    /// Impairments at the same time as speech.
    pub is: f64,
    /// Impairments by delay and echo.
    pub id: f64,
    /// The sum.
    pub r: f64,
}

impl Transmission {
    /// Every parameter at its default: R is 93.2062.
    pub const DEFAULT: Self = Self {
        slr: 8.0,
        rlr: 2.0,
        stmr: 15.0,
        dr: 3.0,
        ds: 3.0,
        telr: 65.0,
        wepl: 110.0,
        t: 0.0,
        ta: 0.0,
        tr: 0.0,
        qdu: 1.0,
        nc: -70.0,
        nfor: -64.0,
        ps: 35.0,
        pr: 35.0,
        st: 1.0,
        mt: 100.0,
        ie_eff: 0.0,
        advantage: 0.0,
    };

    /// A packet network of so much delay, mouth to ear: T = Ta, Tr twice that.
    pub fn with_delay(one_way_ms: f64) -> Self {
        Self { t: one_way_ms, ta: one_way_ms, tr: 2.0 * one_way_ms, ..Self::DEFAULT }
    }

    /// The rating (G.107, 7.1 to 7.6).
    pub fn rating(&self) -> Rating {
        let no = self.noise();
        let ro = 15.0 - 1.5 * (self.slr + no);
        let (is, ist) = self.simultaneous(no, ro);
        let id = self.delayed(no, ro, ist);
        Rating { ro, is, id, r: ro - is - id - self.ie_eff + self.advantage }
    }

    /// No: all noise, as a sum of powers, dBm0p.
    fn noise(&self) -> f64 {
        let overall = self.slr + self.rlr;
        let nos = self.ps - self.slr - self.ds - 100.0 + 0.004 * (self.ps - overall - self.ds - 14.0).powi(2);
        // Room noise that comes back by the listener's own sidetone.
        let pre = self.pr + 10.0 * (1.0 + power((10.0 - (self.stmr + self.dr)) / 10.0)).log10();
        let nor = self.rlr - 121.0 + pre + 0.008 * (pre - 35.0).powi(2);
        let nfo = self.nfor + self.rlr;
        10.0 * [self.nc, nos, nor, nfo].map(|level| power(level / 10.0)).iter().sum::<f64>().log10()
    }

    /// Is, and the Ist in it: too loud, sidetone, quantisation.
    fn simultaneous(&self, no: f64, ro: f64) -> (f64, f64) {
        let xolr = self.slr + self.rlr + 0.2 * (64.0 + no - self.rlr);
        let iolr = 20.0 * ((1.0 + (xolr / 8.0).powi(8)).powf(1.0 / 8.0) - xolr / 8.0);
        let echoed = (-self.t / 4.0).exp() * power(-self.telr / 10.0);
        let stmro = -10.0 * (power(-self.stmr / 10.0) + echoed).log10();
        let ist = 12.0 * (1.0 + ((stmro - 13.0) / 6.0).powi(8)).powf(1.0 / 8.0)
            - 28.0 * (1.0 + ((stmro + 1.0) / 19.4).powi(35)).powf(1.0 / 35.0)
            - 13.0 * (1.0 + ((stmro - 3.0) / 33.0).powi(13)).powf(1.0 / 13.0)
            + 29.0;
        let q = 37.0 - 15.0 * self.qdu.log10();
        let g = 1.07 + 0.258 * q + 0.0602 * q * q;
        let y = (ro - 100.0) / 15.0 + 46.0 / 8.4 - g / 9.0;
        let z = 46.0 / 30.0 - g / 40.0;
        let iq = 15.0 * (1.0 + power(y) + power(z)).log10();
        (iolr + ist + iq, ist)
    }

    /// Id: talker echo, listener echo, pure delay.
    fn delayed(&self, no: f64, ro: f64, ist: f64) -> f64 {
        let t = self.t;
        let mut terv =
            self.telr - 40.0 * ((1.0 + t / 10.0) / (1.0 + t / 150.0)).log10() + 6.0 * (-0.3 * t * t).exp();
        if self.stmr < 9.0 {
            terv += ist / 2.0;
        }
        let roe = -1.5 * (no - self.rlr);
        let re = 80.0 + 2.5 * (terv - 14.0);
        let half = (roe - re) / 2.0;
        let mut talker =
            if t < 1.0 { 0.0 } else { (half + (half * half + 100.0).sqrt() - 1.0) * (1.0 - (-t).exp()) };
        if self.stmr > 20.0 {
            talker = (talker * talker + ist * ist).sqrt();
        }
        let rle = 10.5 * (self.wepl + 7.0) * (self.tr + 1.0).powf(-0.25);
        let half = (ro - rle) / 2.0;
        let listener = half + (half * half + 169.0).sqrt();
        talker + listener + pure_delay(self.ta, self.st, self.mt)
    }
}

/// Idd (G.107, equation 7-27).
fn pure_delay(ta_ms: f64, sensitivity: f64, least_ms: f64) -> f64 {
    if ta_ms <= least_ms {
        return 0.0;
    }
    let x = (ta_ms / least_ms).log2();
    let p = 6.0 * sensitivity;
    25.0 * ((1.0 + x.powf(p)).powf(1.0 / p) - 3.0 * (1.0 + (x / 3.0).powf(p)).powf(1.0 / p) + 2.0)
}

/// 10 to the `exponent`: decibels to power.
fn power(exponent: f64) -> f64 {
    10_f64.powf(exponent)
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

    #[track_caller]
    fn close(got: f64, expected: f64, within: f64) {
        assert!((got - expected).abs() <= within, "{got} for {expected}");
    }

    #[test]
    fn defaults_give_the_rating_that_the_recommendation_states() {
        let rating = Transmission::DEFAULT.rating();
        close(rating.ro, 94.7688, 5e-5);
        close(rating.is, 1.4136, 5e-5);
        close(rating.id, 0.1490, 5e-5);
        close(rating.r, 93.2062, 5e-5);
        close(Scale::Narrowband.mos(rating.r), 4.409, 5e-4);
    }

    /// Id in full, of the same delay in all three places (T = Ta, Tr = 2 T).
    #[test]
    fn delay_costs_what_the_full_model_says() {
        let table = [
            (50.0, 1.60),
            (100.0, 2.69),
            (150.0, 3.82),
            (177.3, 5.30),
            (200.0, 7.55),
            (250.0, 14.18),
            (300.0, 20.69),
            (400.0, 31.11),
            (500.0, 38.55),
        ];
        for (delay_ms, id) in table {
            close(Transmission::with_delay(delay_ms).rating().id, id, 0.005);
        }
    }

    /// Ie, Bpl, loss in percent, burst ratio; Ie,eff, R and MOS without delay.
    #[test]
    fn loss_costs_what_the_narrowband_vectors_say() {
        let (bare, concealed, g729, g723, efr) =
            ((0.0, 4.3), (0.0, 25.1), (11.0, 19.0), (15.0, 16.1), (5.0, 10.0));
        let table = [
            (bare, 1.0, 1.0, 17.925, 75.275, 3.834),
            (bare, 2.0, 1.0, 30.159, 63.041, 3.256),
            (bare, 2.0, 2.0, 35.849, 57.351, 2.962),
            (bare, 5.0, 1.0, 51.075, 42.125, 2.169),
            (bare, 10.0, 1.0, 66.434, 26.766, 1.481),
            (concealed, 1.0, 1.0, 3.640, 89.560, 4.328),
            (concealed, 2.0, 1.0, 7.011, 86.189, 4.235),
            (concealed, 2.0, 2.0, 7.280, 85.920, 4.227),
            (concealed, 5.0, 1.0, 15.781, 77.419, 3.923),
            (concealed, 10.0, 1.0, 27.066, 66.134, 3.411),
            (concealed, 20.0, 1.0, 42.129, 51.071, 2.631),
            (g729, 0.0, 1.0, 11.0, 82.2, 4.104),
            (g729, 1.0, 1.0, 15.2, 78.0, 3.946),
            (g729, 2.0, 1.0, 19.0, 74.2, 3.787),
            (g729, 5.0, 1.0, 28.5, 64.7, 3.340),
            (g729, 10.0, 1.0, 39.966, 53.234, 2.745),
            (g723, 0.0, 1.0, 15.0, 78.2, 3.954),
            (g723, 2.0, 1.0, 23.84, 69.36, 3.567),
            (g723, 5.0, 1.0, 33.957, 59.243, 3.061),
            (efr, 0.0, 1.0, 5.0, 88.2, 4.292),
            (efr, 2.0, 1.0, 20.0, 73.2, 3.743),
            (efr, 5.0, 1.0, 35.0, 58.2, 3.006),
        ];
        for ((ie, bpl), loss, ratio, ie_eff, r, score) in table {
            let got = effective_impairment(Scale::Narrowband, ie, bpl, loss, ratio);
            close(got, ie_eff, 5.1e-4);
            close(Scale::Narrowband.best_r() - got, r, 5.1e-4);
            close(Scale::Narrowband.mos(93.2 - got), score, 5.1e-4);
        }
    }

    #[test]
    fn the_wideband_vectors_hold_on_their_own_scale() {
        for (ie, score) in [(1.0, 4.494), (8.0, 4.4206), (13.0, 4.3371), (41.0, 3.5123), (56.0, 2.9220)] {
            close(Scale::Wideband.mos(129.0 - ie), score, 5e-4);
        }
        // 12.65 kbit/s, heard with both ears, 2 % lost. Its bursts make no difference.
        let ie_eff = effective_impairment(Scale::Wideband, 20.0, 4.3, 2.0, 3.0);
        close(ie_eff, 43.8095, 5e-5);
        close(Scale::Wideband.mos(129.0 - ie_eff), 3.4062, 5e-5);
    }

    /// G.107.2 as another implementation has it: (132 - Ie) in place of (95 - Ie), and 1.48 times the pure delay.
    #[test]
    fn the_fullband_scale_has_its_own_ceiling() {
        close(effective_impairment(Scale::Fullband, 10.2, 4.3, 0.0, 1.0), 10.2, 1e-12);
        close(effective_impairment(Scale::Fullband, 10.2, 4.3, 4.3, 1.0), 10.2 + 121.8 / 2.0, 1e-9);
        assert_eq!(delay_impairment(Scale::Fullband, 100.0), Some(0.0));
        close(delay_impairment(Scale::Fullband, 400.0).unwrap(), 1.48 * pure_delay(400.0, 1.0, 100.0), 1e-12);
        close(Scale::Fullband.mos(148.0), 4.5, 1e-12);
    }

    #[test]
    fn a_score_never_leaves_its_range_and_never_rises_with_loss() {
        for scale in [Scale::Narrowband, Scale::Wideband, Scale::Fullband] {
            let scores: Vec<_> = (0..=1000)
                .map(|step| effective_impairment(scale, 5.0, 10.0, f64::from(step) / 10.0, 1.0))
                .map(|ie_eff| scale.mos(scale.best_r() - ie_eff))
                .collect();
            assert!(scores.iter().all(|score| (1.0..=4.5).contains(score)));
            assert!(scores.windows(2).all(|pair| pair[0] >= pair[1]), "{scale:?}");
        }
        close(effective_impairment(Scale::Narrowband, 0.0, 25.1, -99.39, 1.0), 0.0, 1e-12);
    }
}
