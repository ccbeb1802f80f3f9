//! How long an answer is waited for below, if it is: what a node tells its parent, if that is a node too.
//!
//! Each layer keeps a little for the way, so that whoever gives up first is the topmost, and its explanation
//! arrives before those below give up by themselves.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::gate::Class;

/// That nobody waits at all.
const CLASS: HeaderName = HeaderName::from_static("wharf-class");
/// Milliseconds until nobody waits for the header any more.
const HEADER: HeaderName = HeaderName::from_static("wharf-answer-within");

/// Kept for the way: a twentieth, within these.
const LEAST: Duration = Duration::from_millis(250);
const MOST: Duration = Duration::from_secs(2);

/// What a layer above may take of `patience`.
pub(super) fn less_the_way(patience: Duration) -> Duration {
    patience.saturating_sub((patience / 20).clamp(LEAST, MOST))
}

/// Tells a parent that is a node. One with no time left is told nothing: it could not explain itself in time.
pub(super) fn tell(headers: &mut HeaderMap, left: Duration) {
    if let Ok(milliseconds @ 1..) = u32::try_from(left.as_millis()) {
        headers.insert(HEADER, HeaderValue::from(milliseconds));
    }
}

/// Tells it that nobody waits: then it does not cross the line of that one, either, outside its window, or before what somebody waits
/// for.
pub(super) fn tell_class(headers: &mut HeaderMap, class: Class) {
    if class == Class::Synchronisation {
        headers.insert(CLASS, HeaderValue::from_static("synchronisation"));
    }
}

/// What a node below said of it. An operator who wants something now waits for it.
pub fn class_told(headers: &HeaderMap) -> Class {
    match headers.get(CLASS) {
        Some(class) if class == "synchronisation" => Class::Synchronisation,
        _ => Class::Interactive,
    }
}

/// That is for nodes alone.
pub(super) fn keep_to_ourselves(headers: &mut HeaderMap) {
    headers.remove(HEADER);
    headers.remove(CLASS);
}

/// What a node below said; `None` if it said nothing, or nothing that makes sense.
pub fn told(headers: &HeaderMap) -> Option<Duration> {
    let mut all = headers.get_all(HEADER).iter();
    let (Some(written), None) = (all.next(), all.next()) else {
        return None;
    };
    let digits = written.to_str().ok()?;
    let digits = digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(digits)?;
    let milliseconds: u32 = digits.parse().ok().filter(|milliseconds| *milliseconds > 0)?;
    Some(Duration::from_millis(milliseconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Option<u128> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HEADER, line.parse().unwrap());
        }
        told(&headers).map(|span| span.as_millis())
    }

    #[test]
    fn what_makes_no_sense_is_nothing_said() {
        assert_eq!(read(&["1500"]), Some(1500));
        for nonsense in ["", "0", "-1", "+5", "1.5", "1e3", "20s", " 5", "99999999999999999999"] {
            assert_eq!(read(&[nonsense]), None, "{nonsense:?}");
        }
        assert_eq!(read(&["1500", "1500"]), None);
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn what_is_told_is_understood() {
        let mut headers = HeaderMap::new();
        tell(&mut headers, Duration::from_millis(1234));
        assert_eq!(told(&headers), Some(Duration::from_millis(1234)));

        let mut headers = HeaderMap::new();
        tell(&mut headers, Duration::from_micros(10));
        assert!(headers.is_empty());
    }

    #[test]
    fn each_layer_keeps_a_twentieth_but_a_quarter_second_at_least_and_two_at_most() {
        let kept = |seconds: u64| Duration::from_secs(seconds) - less_the_way(Duration::from_secs(seconds));

        assert_eq!(kept(20), Duration::from_secs(1));
        assert_eq!(kept(1), LEAST);
        assert_eq!(kept(1000), MOST);
        assert_eq!(less_the_way(Duration::from_millis(100)), Duration::ZERO);
    }
}
