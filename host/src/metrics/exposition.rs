//! Metrics as Prometheus knows them: families of series, and how those of several workers become one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

/// Series at most of what is added up, a histogram counting as one: far more than there are.
const SERIES_MAX: usize = 10_000;

/// Names and values, by name.
pub type Labels = BTreeMap<String, String>;

/// All metrics of a process, or of several.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exposition(BTreeMap<String, Family>);

/// Series of the same name.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// What they mean.
    pub help: String,
    /// The series.
    pub series: Series,
}

/// Series of a kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Series {
    /// They only grow.
    Counters(BTreeMap<Labels, f64>),
    /// How it is at the moment.
    Gauges(BTreeMap<Labels, f64>),
    /// They only grow, too.
    Histograms(BTreeMap<Labels, Histogram>),
}

/// How often values up to each bound were seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Upper bounds as they were written, the last one infinite, and the number of values up to each.
    pub buckets: Vec<(String, f64)>,
    /// All values together.
    pub sum: f64,
}

impl Histogram {
    /// How many values there were.
    pub fn count(&self) -> f64 {
        self.buckets.last().map_or(0.0, |(_, count)| *count)
    }

    /// Combines them number by number; where the bounds are others, the newer one counts.
    pub fn combine(&mut self, newer: &Self, how: fn(f64, f64) -> f64) {
        let bounds = |histogram: &Self| histogram.buckets.iter().map(|(bound, _)| bound.clone()).collect::<Vec<_>>();
        if bounds(self) != bounds(newer) {
            *self = newer.clone();
            return;
        }
        for ((_, count), (_, other)) in self.buckets.iter_mut().zip(&newer.buckets) {
            *count = how(*count, *other);
        }
        self.sum = how(self.sum, newer.sum);
    }
}

impl Series {
    fn len(&self) -> usize {
        match self {
            Self::Counters(series) | Self::Gauges(series) => series.len(),
            Self::Histograms(series) => series.len(),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Counters(_) => "counter",
            Self::Gauges(_) => "gauge",
            Self::Histograms(_) => "histogram",
        }
    }

    fn is_gauges(&self) -> bool {
        matches!(self, Self::Gauges(_))
    }
}

impl Exposition {
    /// Adds a family, in place of one of the same name.
    pub fn insert(&mut self, name: &str, family: Family) {
        self.0.insert(name.to_owned(), family);
    }

    /// Whether there is a family of that name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The histograms of that name, if it is one of histograms.
    pub fn histograms(&self, name: &str) -> impl Iterator<Item = (&Labels, &Histogram)> {
        match self.0.get(name).map(|family| &family.series) {
            Some(Series::Histograms(series)) => Some(series.iter()),
            _ => None,
        }
        .into_iter()
        .flatten()
    }

    /// The sum of the gauges of that name, if there are any.
    pub fn gauge(&self, name: &str) -> Option<f64> {
        match &self.0.get(name)?.series {
            Series::Gauges(series) => Some(series.values().sum()),
            _ => None,
        }
    }

    /// Adds what another process counted. Its gauges are left out.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, |a, b| a + b);
    }

    /// Goes on to what the same process says later: its gauges are as they are now, and nothing that was
    /// counted gets less.
    pub fn advance(&mut self, later: Self) {
        self.drop_gauges();
        self.combine(&later, f64::max);
        self.0.extend(later.0.into_iter().filter(|(_, family)| family.series.is_gauges()));
    }

    /// Forgets what was so at the moment.
    pub fn drop_gauges(&mut self) {
        self.0.retain(|_, family| !family.series.is_gauges());
    }

    /// Adds the gauges of a worker, with its number as a label.
    pub fn add_gauges(&mut self, other: &Self, worker: usize) {
        for (name, family) in &other.0 {
            let Series::Gauges(theirs) = &family.series else { continue };
            let empty = || Family { help: family.help.clone(), series: Series::Gauges(BTreeMap::new()) };
            let mine = self.0.entry(name.clone()).or_insert_with(empty);
            let Series::Gauges(mine) = &mut mine.series else { continue };
            for (labels, value) in theirs {
                let mut labels = labels.clone();
                labels.insert("worker".to_owned(), worker.to_string());
                mine.insert(labels, *value);
            }
        }
    }

    /// Combines what only grows. A family or histogram that has another shape now, as after a reload, counts
    /// anew.
    fn combine(&mut self, newer: &Self, how: fn(f64, f64) -> f64) {
        let mut room = SERIES_MAX.saturating_sub(self.0.values().map(|family| family.series.len()).sum());
        for (name, family) in newer.0.iter().filter(|(_, family)| !family.series.is_gauges()) {
            if self.0.get(name).is_none_or(|mine| mine.series.kind() != family.series.kind()) {
                let series = match family.series {
                    Series::Histograms(_) => Series::Histograms(BTreeMap::new()),
                    _ => Series::Counters(BTreeMap::new()),
                };
                self.insert(name, Family { help: String::new(), series });
            }
            let Some(mine) = self.0.get_mut(name) else { continue };
            mine.help.clone_from(&family.help);
            match (&mut mine.series, &family.series) {
                (Series::Counters(mine), Series::Counters(newer)) => {
                    combine_each(mine, newer, &mut room, |mine, newer| *mine = how(*mine, *newer));
                }
                (Series::Histograms(mine), Series::Histograms(newer)) => {
                    combine_each(mine, newer, &mut room, |mine, newer| mine.combine(newer, how));
                }
                _ => {}
            }
        }
    }
}

/// Combines series of the same labels, and takes new ones while there is room.
fn combine_each<T: Clone>(
    mine: &mut BTreeMap<Labels, T>,
    newer: &BTreeMap<Labels, T>,
    room: &mut usize,
    mut combine: impl FnMut(&mut T, &T),
) {
    for (labels, value) in newer {
        match mine.entry(labels.clone()) {
            Entry::Occupied(mut entry) => combine(entry.get_mut(), value),
            Entry::Vacant(entry) if *room > 0 => {
                *room -= 1;
                entry.insert(value.clone());
            }
            Entry::Vacant(_) => {}
        }
    }
}

/// The text form, version 0.0.4.
impl fmt::Display for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, Family { help, series }) in self.0.iter().filter(|(_, family)| family.series.len() > 0) {
            writeln!(f, "# HELP {name} {}", help.replace('\\', r"\\").replace('\n', r"\n"))?;
            writeln!(f, "# TYPE {name} {}", series.kind())?;
            match series {
                Series::Counters(series) | Series::Gauges(series) => {
                    series.iter().try_for_each(|(labels, value)| write_sample(f, name, labels, None, *value))?;
                }
                Series::Histograms(series) => {
                    series.iter().try_for_each(|(labels, histogram)| write_histogram(f, name, labels, histogram))?;
                }
            }
        }
        Ok(())
    }
}

fn write_histogram(f: &mut fmt::Formatter<'_>, name: &str, labels: &Labels, histogram: &Histogram) -> fmt::Result {
    for (bound, count) in &histogram.buckets {
        write_sample(f, &format!("{name}_bucket"), labels, Some(bound), *count)?;
    }
    write_sample(f, &format!("{name}_sum"), labels, None, histogram.sum)?;
    write_sample(f, &format!("{name}_count"), labels, None, histogram.count())
}

fn write_sample(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    labels: &Labels,
    bound: Option<&str>,
    value: f64,
) -> fmt::Result {
    f.write_str(name)?;
    let all = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(bound.map(|le| ("le", le)));
    let mut before = '{';
    for (label, value) in all {
        let value = value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
        write!(f, "{before}{label}=\"{value}\"")?;
        before = ',';
    }
    if before == ',' {
        f.write_str("}")?;
    }
    // Rust writes infinity in another way.
    match value {
        f64::INFINITY => writeln!(f, " +Inf"),
        f64::NEG_INFINITY => writeln!(f, " -Inf"),
        _ => writeln!(f, " {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::parse::parse;

    fn counters(text: &str) -> Exposition {
        parse(&format!("# HELP c_total C.\n# TYPE c_total counter\n{text}")).unwrap()
    }

    fn histogram(bounds: [&str; 2], counts: [u32; 2], sum: f64) -> Exposition {
        let ([a, b], [first, second]) = (bounds, counts);
        let lines = format!(
            "# HELP h_seconds H.\n# TYPE h_seconds histogram\nh_seconds_bucket{{r=\"x\",le=\"{a}\"}} {first}\n\
             h_seconds_bucket{{r=\"x\",le=\"{b}\"}} {second}\nh_seconds_sum{{r=\"x\"}} {sum}\n\
             h_seconds_count{{r=\"x\"}} {second}\n"
        );
        parse(&lines).unwrap()
    }

    #[test]
    fn counters_add_up_by_their_labels() {
        let mut all = counters("c_total{a=\"1\",b=\"2\"} 3\nc_total{a=\"2\"} 1\n");
        all.add(&counters("c_total{b=\"2\",a=\"1\"} 4\nc_total 7\n"));
        let text =
            "# HELP c_total C.\n# TYPE c_total counter\nc_total 7\nc_total{a=\"1\",b=\"2\"} 7\nc_total{a=\"2\"} 1\n";
        assert_eq!(all.to_string(), text);
    }

    #[test]
    fn histograms_add_up_bucket_by_bucket() {
        let mut all = histogram(["0.5", "+Inf"], [1, 2], 3.5);
        all.add(&histogram(["0.5", "+Inf"], [10, 20], 1.0));
        assert_eq!(all, histogram(["0.5", "+Inf"], [11, 22], 4.5));
    }

    #[test]
    fn what_has_another_shape_now_counts_anew() {
        let mut all = histogram(["0.5", "+Inf"], [5, 9], 1.0);
        all.add(&histogram(["0.25", "+Inf"], [1, 2], 1.0));
        assert_eq!(all, histogram(["0.25", "+Inf"], [1, 2], 1.0));

        let mut all = counters("c_total 5\n");
        let other = parse("# TYPE c_total histogram\nc_total_bucket{le=\"+Inf\"} 1\nc_total_sum 1\nc_total_count 1\n");
        all.add(other.as_ref().unwrap());
        assert_eq!(all, other.unwrap());
    }

    #[test]
    fn a_process_that_says_less_than_before_has_still_counted_that() {
        let mut latest = counters("c_total{a=\"1\"} 5\nc_total{a=\"2\"} 1\n");
        latest.advance(counters("c_total{a=\"1\"} 4\nc_total{a=\"3\"} 1\n"));
        assert_eq!(latest, counters("c_total{a=\"1\"} 5\nc_total{a=\"2\"} 1\nc_total{a=\"3\"} 1\n"));
        let mut latest = histogram(["0.5", "+Inf"], [5, 9], 2.0);
        latest.advance(histogram(["0.5", "+Inf"], [6, 8], 1.0));
        assert_eq!(latest, histogram(["0.5", "+Inf"], [6, 9], 2.0));
    }

    #[test]
    fn gauges_are_as_they_are_now_and_of_a_worker() {
        let gauges = |text: &str| parse(&format!("# HELP g G.\n# TYPE g gauge\n{text}")).unwrap();
        let mut latest = gauges("g{a=\"1\"} 5\ng{a=\"2\"} 5\n");
        latest.advance(gauges("g{a=\"1\"} 4\n"));
        let mut all = Exposition::default();
        all.add(&latest);
        assert_eq!(all, Exposition::default());
        all.add_gauges(&latest, 0);
        all.add_gauges(&gauges("g -Inf\n"), 1);
        let text = "# HELP g G.\n# TYPE g gauge\ng{a=\"1\",worker=\"0\"} 4\ng{worker=\"1\"} -Inf\n";
        assert_eq!(all.to_string(), text);
    }

    #[test]
    fn a_gauge_does_not_get_into_a_family_of_another_kind() {
        let mut all = counters("c_total 5\n");
        all.add_gauges(&parse("# TYPE c_total gauge\nc_total 1\n").unwrap(), 0);
        assert_eq!(all, counters("c_total 5\n"));
    }

    #[test]
    fn there_is_a_bound_on_series_and_known_ones_still_count_beyond_it() {
        let many = |from: usize| {
            let lines: String = (from..from + SERIES_MAX).map(|n| format!("c_total{{n=\"{n}\"}} 1\n")).collect();
            counters(&lines)
        };
        let mut all = many(0);
        all.add(&many(SERIES_MAX));
        assert_eq!(all, many(0));
        all.add(&many(0));
        assert!(all.to_string().contains("c_total{n=\"0\"} 2\n"));
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let text = "# HELP g one \\\\ two\\nthree\n# TYPE g gauge\ng{a=\"\\\"\\\\\\n,}\"} 0.5\n";
        assert_eq!(parse(text).unwrap().to_string(), text);
        let histogram = histogram(["0.005", "+Inf"], [1, 2], 0.25);
        assert_eq!(parse(&histogram.to_string()).unwrap(), histogram);
    }
}
