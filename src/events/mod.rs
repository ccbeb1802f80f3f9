//! The record of what happened, for whoever asks later: lines in files, and who did what.

mod audit;
mod lines;
mod stamp;

pub use audit::{Audit, Config, Deed};
pub use lines::{Line, Lines, Rotation, Target, quoted};
