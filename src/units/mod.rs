//! Values with a unit, as they are written in settings: sizes, spans of time, secrets; and the clock.

pub use address::{Address, AddressError};
pub use causes::with_causes;
pub(crate) use clock::is_plausible;
pub use clock::{Clock, Hands};
pub use file::{open_file, read_file};
pub use live::Live;
pub use moment::{Moment, MomentError, date};
pub use notes::Notes;
pub use rate::{Rate, RateError};
pub use secret::Secret;
pub use secret_file::read_secret_file;
pub use size::{Size, SizeError};
pub use span::{Span, SpanError};
pub(crate) use text::{AsText, written_as_text};

mod address;
mod causes;
mod clock;
mod file;
mod live;
mod moment;
mod notes;
mod rate;
mod secret;
mod secret_file;
mod size;
mod span;
mod text;
