//! A process looked at from outside, again and again, by a thread that does nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::support::node::Node;

/// Looks at a node every so often. While it is killed and starts again there is no process to be told of.
pub struct Watch<T> {
    /// Whom to look at. Held while looking: nobody ends the process meanwhile.
    pid: Arc<Mutex<Option<u32>>>,
    over: Arc<AtomicBool>,
    looking: Option<JoinHandle<Vec<(Duration, T)>>>,
}

impl<T: Send + 'static> Watch<T> {
    pub fn begin(node: &Node, every: Duration, look: impl Fn(Option<u32>) -> Option<T> + Send + 'static) -> Self {
        let pid = Arc::new(Mutex::new(Some(node.pid())));
        let over = Arc::new(AtomicBool::new(false));
        let (whom, until) = (Arc::clone(&pid), Arc::clone(&over));
        let looking = std::thread::spawn(move || {
            let begun = Instant::now();
            let mut seen = Vec::new();
            while !until.load(Ordering::SeqCst) {
                let pid = whom.lock();
                if let Some(look) = look(*pid) {
                    seen.push((begun.elapsed(), look));
                }
                drop(pid);
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
