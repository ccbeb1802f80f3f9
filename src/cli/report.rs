use std::error::Error;
use std::process::ExitCode;

/// Says on standard error what is wrong, with all its causes; the exit code for it.
pub(super) fn fail(error: &(dyn Error + 'static), code: u8) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(below) = cause {
        text += &format!(": {below}");
        cause = below.source();
    }
    eprintln!("wharf: {text}");
    ExitCode::from(code)
}

/// A line on standard output, if anyone still reads it.
pub(super) fn line(words: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{words}");
}
