//! Ratios within one run, held against a budget that is checked in.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::Run;

/// Where the budget lies, from the top of the project.
pub(super) const BUDGET: &str = "tests/bench-budget.json";

/// One line of the budget: `figure` over `over` (or alone, where there is no other) has to be within the bounds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    figure: String,
    over: Option<String>,
    at_least: Option<f64>,
    at_most: Option<f64>,
}

/// Compares a run with the budget.
///
/// # Errors
/// If a ratio is outside, or nothing of the budget was measured at all. A figure that this run does not have is said.
pub(super) fn check(run: &Run, path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let budget: Vec<Line> =
        serde_json::from_str(&text).with_context(|| format!("{} is no budget", path.display()))?;
    println!("\nbudget of {}:", path.display());
    let (mut held, mut broken) = (0, 0);
    for line in &budget {
        let name = line
            .over
            .as_ref()
            .map_or_else(|| line.figure.clone(), |over| format!("{} / {over}", line.figure));
        let Some(ratio) = line.ratio(run) else {
            println!("  not measured  {name}");
            continue;
        };
        let is_within =
            line.at_least.is_none_or(|least| ratio >= least) && line.at_most.is_none_or(|most| ratio <= most);
        let bound = match (line.at_least, line.at_most) {
            (Some(least), _) => format!("at least {least}"),
            (_, Some(most)) => format!("at most {most}"),
            _ => bail!("{}: {name} has no bound", path.display()),
        };
        println!("  {}  {ratio:10.3}  {bound:<14}  {name}", if is_within { "ok    " } else { "BROKEN" });
        held += u32::from(is_within);
        broken += u32::from(!is_within);
    }
    if broken > 0 {
        bail!("{broken} of {} ratios are outside of the budget", held + broken);
    }
    if held == 0 {
        bail!("nothing of the budget was measured");
    }
    Ok(())
}

impl Line {
    fn ratio(&self, run: &Run) -> Option<f64> {
        let figure = run.find(&self.figure)?;
        match &self.over {
            Some(over) => Some(figure / run.find(over)?),
            None => Some(figure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(text: &str) -> (std::path::PathBuf, Run) {
        let path = std::env::temp_dir().join(format!("voxlab-budget-{}-{}", std::process::id(), text.len()));
        std::fs::write(&path, text).unwrap();
        let mut run = Run::default();
        run.note("a", 30.0, "Mpps");
        run.note("b", 10.0, "Mpps");
        (path, run)
    }

    #[test]
    fn a_ratio_within_its_bounds_passes_and_one_outside_fails() {
        for (text, passes) in [
            (r#"[{"figure": "a", "over": "b", "at_least": 3.0}]"#, true),
            (r#"[{"figure": "a", "over": "b", "at_least": 3.1}]"#, false),
            (r#"[{"figure": "a", "at_most": 30.0}]"#, true),
            (r#"[{"figure": "a", "at_most": 29.9}]"#, false),
            (r#"[{"figure": "c", "over": "b", "at_least": 0.0}]"#, false),
            (r#"[{"figure": "a"}]"#, false),
        ] {
            let (path, run) = budget(text);
            assert_eq!(check(&run, &path).is_ok(), passes, "{text}");
            std::fs::remove_file(path).unwrap();
        }
    }
}
