//! How quality is judged: options that files and interfaces share.

use std::sync::Arc;

use clap::Args;
use voxprobe::rtp::impairment::{Declaration, Declared};
use voxprobe::rtp::playout::JitterBuffer;
use voxprobe::rtp::quality::Settings;

/// See the module.
#[derive(Debug, Args)]
pub(crate) struct Quality {
    /// De-jitter buffer to simulate, as 60ms, or adaptive: what it discards as too late counts as loss in bursts and MOS
    #[arg(long, value_name = "TIME|adaptive", default_value = "60ms")]
    jitter_buffer: JitterBuffer,
    /// Impairment (Ie) of a codec, and its robustness against loss (Bpl), for MOS where none is published; as
    /// opus=10,20 or opus=10,20,fullband. The report says that it is yours
    #[arg(long, value_name = "CODEC=IE,BPL[,SCALE]")]
    codec_impairment: Vec<Declaration>,
}

impl Quality {
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::new(Settings {
            jitter_buffer: self.jitter_buffer,
            impairments: Declared::new(&self.codec_impairment),
        })
    }
}
