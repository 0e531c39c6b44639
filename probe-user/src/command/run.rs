//! stub replaced below
use clap::Args;
/// Run
#[derive(Debug, Args)]
pub struct Run {}
impl Run {
    /// x
    pub fn execute(&self) -> anyhow::Result<()> {
        Ok(())
    }
}
