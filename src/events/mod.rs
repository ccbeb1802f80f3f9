//! The record of what happened, for whoever asks later: lines in files, and who did what.

mod audit;
mod lines;
mod metrics;
mod stamp;

pub use audit::{Audit, Config, Deed};
pub use lines::{Line, Lines, Readers, Rotation, Target, quoted};
pub use metrics::{Counted, Metrics};
