use std::error::Error;
use std::process::ExitCode;

use super::node::Failure;
use crate::config;
use crate::units::with_causes;

/// Says on standard error what is wrong, with all its causes; the exit code for it.
pub(super) fn fail(error: &dyn Error, code: u8) -> ExitCode {
    eprintln!("wharf: {}", with_causes(error));
    ExitCode::from(code)
}

/// Does a command's work to its end; the exit code for what came of it.
pub(super) fn finish(work: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    match runtime.block_on(work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error, 1),
    }
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
