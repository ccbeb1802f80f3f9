//! When something may happen: cron expressions, time zones, windows. Pure: what time it is comes in as an argument.

pub use cron::{Cron, CronError};
pub use windows::{Phase, Stretch, Window, Windows};
pub use zone::{Zone, ZoneError};

mod cron;
mod windows;
mod zone;
