//! The numbers that a node shows, read from the text of its `/metrics`.

use std::collections::BTreeMap;

/// One reading of all series.
#[derive(Clone, Debug)]
pub struct Metrics(Vec<Series>);

#[derive(Clone, Debug)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    pub fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(Series::parse)
                .collect(),
        )
    }

    /// The sum over all series of `name` that carry at least these labels; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let carries = |series: &Series| {
            labels
                .iter()
                .all(|(key, value)| series.labels.get(*key).is_some_and(|label| label == value))
        };
        self.0
            .iter()
            .filter(|series| series.name == name && carries(series))
            .map(|series| series.value)
            .sum()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|series| series.name == name)
    }

    /// The names of the labels that the series of `name` carry.
    pub fn labels(&self, name: &str) -> Vec<String> {
        let series = self.0.iter().find(|series| series.name == name);
        series
            .map(|series| series.labels.keys().cloned().collect())
            .unwrap_or_default()
    }
}

impl Series {
    fn parse(line: &str) -> Option<Self> {
        let (head, value) = line.rsplit_once(' ')?;
        let (name, labels) = head.split_once('{').unwrap_or((head, ""));
        let labels = labels
            .trim_end_matches('}')
            .split("\",")
            .filter_map(|pair| pair.split_once("=\""))
            .map(|(key, value)| (key.trim().to_owned(), value.trim_end_matches('"').to_owned()));
        Some(Self {
            name: name.trim().to_owned(),
            labels: labels.collect(),
            value: value.parse().ok()?,
        })
    }
}
