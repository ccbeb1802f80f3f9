//! A child that does not outlive the demo, however the demo ends.
#![allow(
    unsafe_code,
    reason = "the kernel is told between fork and exec, where the standard library can do nothing"
)]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Makes the kernel kill the child as soon as the thread that spawned it ends: also after SIGKILL, when no
/// destructor runs.
pub(super) fn dies_with_us(command: &mut Command) {
    let parent = std::process::id();
    let before_exec = move || {
        // SAFETY: prctl with PR_SET_PDEATHSIG takes an integer, reads no memory, and is async-signal-safe.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended before the line above: then nobody would send the signal any more.
        if std::os::unix::process::parent_id() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: the closure only calls prctl and getppid, which are async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(before_exec);
    }
}
