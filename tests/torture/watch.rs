//! A process looked at from outside, again and again, by a thread that does nothing else.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::support::node::Node;

/// Looks at a node every so often, as long as it runs.
pub struct Watch<T> {
    /// Whom to look at. Held while looking: nobody ends the process meanwhile.
    pid: Arc<Mutex<Option<u32>>>,
    over: Arc<AtomicBool>,
    looking: Option<JoinHandle<Vec<(Duration, T)>>>,
}

impl<T: Send + 'static> Watch<T> {
    pub fn begin(node: &Node, every: Duration, look: impl Fn(u32) -> T + Send + 'static) -> Self {
        let pid = Arc::new(Mutex::new(Some(node.pid())));
        let over = Arc::new(AtomicBool::new(false));
        let (whom, until) = (Arc::clone(&pid), Arc::clone(&over));
        let looking = std::thread::spawn(move || {
            let begun = Instant::now();
            let mut seen = Vec::new();
            while !until.load(Ordering::SeqCst) {
                if let Some(pid) = *whom.lock() {
                    seen.push((begun.elapsed(), look(pid)));
                }
                std::thread::sleep(every);
            }
            seen
        });
        Self {
            pid,
            over,
            looking: Some(looking),
        }
    }

    /// Kills the node, and starts it again.
    pub async fn restart(&self, node: &mut Node) {
        *self.pid.lock() = None;
        node.restart().await;
        *self.pid.lock() = Some(node.pid());
    }

    /// All that was seen, and when.
    pub fn end(mut self) -> Vec<(Duration, T)> {
        self.over.store(true, Ordering::SeqCst);
        let looking = self.looking.take().expect("ended once");
        looking.join().expect("a look that works")
    }
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        *self.pid.lock() = None;
    }
}

/// Bytes of memory that a process holds now.
pub fn memory(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The most that it ever held.
pub fn peak_memory(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Time on a processor that a process has used.
pub fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which stands in parentheses: fields 14 and 15, in hundredths of a second.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: u64 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

fn status(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// How much the line that fits `seen` best rises from its first to its last point.
pub fn rise(seen: &[(Duration, f64)]) -> f64 {
    let count = seen.len() as f64;
    let mean = |of: &dyn Fn(&(Duration, f64)) -> f64| seen.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(&|point| point.0.as_secs_f64()), mean(&|point| point.1));
    let together = mean(&|point| (point.0.as_secs_f64() - x) * (point.1 - y));
    let alone = mean(&|point| (point.0.as_secs_f64() - x).powi(2));
    let span = seen.last().map_or(0.0, |last| (last.0 - seen[0].0).as_secs_f64());
    if alone > 0.0 { together / alone * span } else { 0.0 }
}

#[test]
fn the_rise_of_a_line_is_that_of_its_ends_whatever_swings_about_it() {
    let swings = [0.5, -0.5, -0.5, 0.5];
    let points = (0..400).map(|at| {
        (
            Duration::from_secs(at),
            10.0 + at as f64 / 10.0 + swings[at as usize % 4],
        )
    });

    let rise = rise(&points.collect::<Vec<_>>());

    assert!((39.8..40.0).contains(&rise), "{rise}");
}
