use std::error::Error;
use std::process::ExitCode;

use crate::config;
use crate::units::with_causes;

/// Says on standard error what is wrong, with all its causes; the exit code for it.
pub(super) fn fail(error: &dyn Error, code: u8) -> ExitCode {
    eprintln!("wharf: {}", with_causes(error));
    ExitCode::from(code)
}

/// Says on standard error what is wrong with the settings, as editors understand it; the exit code for it.
pub(super) fn refuse(error: &config::Error) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(2)
}

/// A line on standard output, if anyone still reads it.
pub(super) fn line(words: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{words}");
}
