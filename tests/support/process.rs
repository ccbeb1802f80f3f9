//! What the kernel knows of a running process. A process that has ended has none of it: the test fails.

use std::fs;
use std::time::Duration;

/// Bytes of memory that it holds now.
pub fn memory(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The most that it ever held.
pub fn peak_memory(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("a running process")
        .count()
}

pub fn sockets(pid: u32) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("a running process");
    let targets = descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

/// Time on a processor that it has used.
pub fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    // Behind the name, which stands in parentheses: fields 14 and 15, in hundredths of a second.
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let used = fields.split(' ').skip(11).take(2);
    let ticks: u64 = used.map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

/// A line of `/proc/<pid>/status`, in bytes.
fn status(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.expect("its memory") * 1024
}
