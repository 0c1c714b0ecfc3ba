//! How long something took, each time: as many as there were by how long, and no longer to be told apart. It takes the same room
//! however many these are.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};

/// Seconds up to which each bucket goes; what took longer is in none.
const BUCKETS: [f64; 11] = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0];

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latencies {
    /// Those of each bucket, without those below it.
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

impl Latencies {
    /// Takes one in, of so many seconds.
    pub fn add(&mut self, seconds: f64) {
        if let Some(place) = BUCKETS.iter().position(|most| seconds <= *most) {
            self.buckets[place] += 1;
        }
        self.count += 1;
        self.seconds += seconds;
    }

    fn histogram(&self) -> Histogram {
        let mut below = 0;
        let bucket = |(most, number): (&f64, &u64)| {
            below += number;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*most);
            bucket.set_cumulative_count(below);
            bucket
        };
        let buckets = BUCKETS.iter().zip(&self.buckets).map(bucket).collect();
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(self.count);
        histogram.set_sample_sum(self.seconds);
        histogram
    }
}

/// They as a metric.
pub(crate) struct LatencyMetric {
    desc: Desc,
    latencies: Latencies,
}

impl LatencyMetric {
    /// One of this name.
    ///
    /// # Errors
    /// Where the name is none.
    pub(crate) fn new(name: &str, help: &str, latencies: Latencies) -> prometheus::Result<Self> {
        let desc = Desc::new(name.to_owned(), help.to_owned(), Vec::new(), std::collections::HashMap::new())?;
        Ok(Self { desc, latencies })
    }
}

impl Collector for LatencyMetric {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut metric = Metric::default();
        metric.set_histogram(self.latencies.histogram());
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, TextEncoder};

    use super::*;

    #[test]
    fn none_is_lost_however_many_there_are() {
        let mut latencies = Latencies::default();
        for n in 0..5_000 {
            latencies.add([0.25, 0.375, 7.0, 100.0][n % 4]);
        }
        let metric = LatencyMetric::new("took_seconds", "How long it took.", latencies)
            .unwrap_or_else(|error| panic!("{error}"));
        let mut text = Vec::new();
        TextEncoder::new().encode(&metric.collect(), &mut text).unwrap_or_else(|error| panic!("{error}"));
        let text = String::from_utf8_lossy(&text);
        for line in [
            "# TYPE took_seconds histogram",
            "took_seconds_bucket{le=\"0.25\"} 1250",
            "took_seconds_bucket{le=\"0.5\"} 2500",
            "took_seconds_bucket{le=\"5\"} 2500",
            "took_seconds_bucket{le=\"10\"} 3750",
            "took_seconds_bucket{le=\"60\"} 3750",
            "took_seconds_bucket{le=\"+Inf\"} 5000",
            "took_seconds_sum 134531.25",
            "took_seconds_count 5000",
        ] {
            assert!(text.lines().any(|said| said == line), "{line}:\n{text}");
        }
    }
}
