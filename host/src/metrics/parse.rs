//! What a worker says of its metrics: Prometheus's text form, version 0.0.4, read strictly. What does not keep
//! to it is refused as a whole, so that nothing that is wrong is added to what is right.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::exposition::{Exposition, Family, Histogram, Labels, Series};

/// Reads an exposition. Families of kinds that cannot be added up, such as summaries, are left out.
///
/// # Errors
/// The first line that is wrong.
pub fn parse(text: &str) -> Result<Exposition> {
    let mut reader = Reader::default();
    for (index, line) in text.lines().enumerate() {
        reader.line(line).with_context(|| format!("line {}", index + 1))?;
    }
    reader.finish_family()?;
    Ok(reader.read)
}

/// A line's name, labels and value.
struct Sample<'a> {
    name: &'a str,
    labels: Labels,
    value: f64,
}

#[derive(Default)]
struct Reader {
    read: Exposition,
    /// The text of the last HELP, and whose it is.
    help: Option<(String, String)>,
    family: Option<Begun>,
}

/// A family whose samples are being read.
struct Begun {
    name: String,
    help: String,
    samples: Samples,
}

enum Samples {
    Counters(BTreeMap<Labels, f64>),
    Gauges(BTreeMap<Labels, f64>),
    Histograms(BTreeMap<Labels, Parts>),
    /// Of a kind that cannot be added up.
    Others,
}

/// What is known of a histogram.
#[derive(Default)]
struct Parts {
    buckets: Vec<(String, f64)>,
    sum: Option<f64>,
    count: Option<f64>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<()> {
        let line = line.trim_matches([' ', '\t']);
        if let Some(comment) = line.strip_prefix('#') {
            return self.comment(comment.trim_start());
        }
        if line.is_empty() { Ok(()) } else { self.sample(sample(line)?) }
    }

    fn comment(&mut self, comment: &str) -> Result<()> {
        if let Some(rest) = comment.strip_prefix("HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            self.help = Some((name.to_owned(), unescaped(help)?));
        } else if let Some(rest) = comment.strip_prefix("TYPE ") {
            let (name, kind) = rest.split_once(' ').context("a TYPE without a kind")?;
            self.begin_family(name, kind.trim())?;
        }
        Ok(())
    }

    fn begin_family(&mut self, name: &str, kind: &str) -> Result<()> {
        self.finish_family()?;
        ensure!(is_name(name, ":"), "{name:?} is no name of a metric");
        ensure!(!self.read.has(name), "a second TYPE of {name}");
        let samples = match kind {
            "counter" => Samples::Counters(BTreeMap::new()),
            "gauge" => Samples::Gauges(BTreeMap::new()),
            "histogram" => Samples::Histograms(BTreeMap::new()),
            _ => Samples::Others,
        };
        let help = self.help.take().filter(|(of, _)| of == name).map(|(_, help)| help).unwrap_or_default();
        self.family = Some(Begun { name: name.to_owned(), help, samples });
        Ok(())
    }

    fn finish_family(&mut self) -> Result<()> {
        let Some(Begun { name, help, samples }) = self.family.take() else { return Ok(()) };
        let series = match samples {
            Samples::Counters(series) => Series::Counters(series),
            Samples::Gauges(series) => Series::Gauges(series),
            Samples::Histograms(parts) => Series::Histograms(
                parts
                    .into_iter()
                    .map(|(labels, parts)| Ok((labels, parts.whole()?)))
                    .collect::<Result<_>>()
                    .with_context(|| format!("the histogram {name}"))?,
            ),
            Samples::Others => return Ok(()),
        };
        self.read.insert(&name, Family { help, series });
        Ok(())
    }

    fn sample(&mut self, Sample { name, mut labels, value }: Sample<'_>) -> Result<()> {
        let family = self.family.as_mut().context("a sample without a TYPE before it")?;
        let part = name.strip_prefix(family.name.as_str());
        let part = part.with_context(|| format!("a sample of {name} among those of {}", family.name))?;
        match (&mut family.samples, part) {
            (Samples::Others, _) => Ok(()),
            (Samples::Gauges(series), "") => once(series.insert(labels, value)),
            (Samples::Counters(series), "") => once(series.insert(labels, counted(value)?)),
            (Samples::Histograms(series), "_bucket") => {
                let bound = labels.remove("le").context("a bucket without le")?;
                series.entry(labels).or_default().buckets.push((bound, counted(value)?));
                Ok(())
            }
            (Samples::Histograms(series), "_sum") => {
                once(series.entry(labels).or_default().sum.replace(counted(value)?))
            }
            (Samples::Histograms(series), "_count") => {
                once(series.entry(labels).or_default().count.replace(counted(value)?))
            }
            _ => bail!("a sample of {name} among those of {}", family.name),
        }
    }
}

impl Parts {
    /// The histogram, if nothing is missing and it all fits.
    fn whole(self) -> Result<Histogram> {
        let (sum, count) = self.sum.zip(self.count).context("has no sum or no count")?;
        let mut before = (f64::NEG_INFINITY, 0.0);
        for (bound, count) in &self.buckets {
            let bound: f64 = bound.parse().ok().with_context(|| format!("le={bound:?} is no number"))?;
            ensure!(bound > before.0 && *count >= before.1, "has buckets in disorder");
            before = (bound, *count);
        }
        ensure!(before == (f64::INFINITY, count), "does not end with all of its values");
        Ok(Histogram { buckets: self.buckets, sum })
    }
}

/// That there was none before.
fn once<T>(before: Option<T>) -> Result<()> {
    ensure!(before.is_none(), "a second sample of a series");
    Ok(())
}

/// A value that counts something: it cannot get less.
fn counted(value: f64) -> Result<f64> {
    ensure!(value.is_finite() && value >= 0.0, "{value} is no count");
    Ok(value)
}

fn sample(line: &str) -> Result<Sample<'_>> {
    let end = line.find(['{', ' ', '\t']).context("a sample without a value")?;
    let (name, rest) = line.split_at(end);
    ensure!(is_name(name, ":"), "{name:?} is no name of a metric");
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Labels::new(), rest),
    };
    let value = rest.trim_start_matches([' ', '\t']);
    // With a time behind it, it would not be of now.
    let value = value.parse().ok().with_context(|| format!("{value:?} is no value"))?;
    Ok(Sample { name, labels, value })
}

/// The labels behind a brace, and what follows the one that ends them.
fn labels(mut rest: &str) -> Result<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, after) = rest.split_once("=\"").context("labels that do not end")?;
        ensure!(is_name(name, ""), "{name:?} is no name of a label");
        ensure!(name != "worker", "the label worker is for usher to add");
        let end = quote(after).context("a label's value that does not end")?;
        let (value, after) = after.split_at(end);
        ensure!(labels.insert(name.to_owned(), unescaped(value)?).is_none(), "the label {name} twice");
        rest = after.strip_prefix('"').unwrap_or(after).trim_start_matches([' ', '\t']);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => ensure!(rest.starts_with('}'), "labels without a comma between them"),
        }
    }
}

/// Where the quote is that ends a value: one that is not escaped.
fn quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, character)| {
        let ends = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        ends.then_some(at)
    })
}

fn unescaped(text: &str) -> Result<String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some(escaped @ ('\\' | '"')) => escaped,
                _ => bail!("an escape that is none in {text:?}"),
            },
            _ => character,
        });
    }
    Ok(plain)
}

/// Whether it is a name: letters, digits and underscores, and what is in `more`; no digit first.
fn is_name(text: &str, more: &str) -> bool {
    let fits = |character: char| character.is_ascii_alphanumeric() || character == '_' || more.contains(character);
    text.starts_with(|first: char| !first.is_ascii_digit()) && text.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_says_is_read() {
        let text = "\n# a comment\n# HELP c_total One.\n# TYPE c_total counter\nc_total{b=\"2\", a=\"x,}\\\"\",} 3\n\
                    # TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 1\ns_count 1\n\
                    # TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3.5\nh_count 2\n\
                    # HELP g Two.\n# TYPE g gauge\ng NaN\n";
        let read = parse(text).unwrap().to_string();
        let written = "# HELP c_total One.\n# TYPE c_total counter\nc_total{a=\"x,}\\\"\",b=\"2\"} 3\n\
                       # HELP g Two.\n# TYPE g gauge\ng NaN\n\
                       # HELP h \n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3.5\nh_count 2\n";
        assert_eq!(read, written);
    }

    #[test]
    fn what_is_broken_is_refused_and_said_where() {
        let histogram = "# TYPE h histogram\n";
        for (text, why) in [
            ("c 1".to_owned(), "line 1: a sample without a TYPE"),
            ("# TYPE c counter\nd 1".to_owned(), "line 2: a sample of d"),
            ("# TYPE c counter\nc_total 1".to_owned(), "a sample of c_total"),
            ("# TYPE c counter\nc -1".to_owned(), "-1 is no count"),
            ("# TYPE c counter\nc NaN".to_owned(), "NaN is no count"),
            ("# TYPE c counter\nc 1 1700000000000".to_owned(), "no value"),
            ("# TYPE c counter\nc".to_owned(), "without a value"),
            ("# TYPE c counter\nc 1\nc 2".to_owned(), "a second sample"),
            ("# TYPE c counter\n# TYPE c counter".to_owned(), "a second TYPE"),
            ("# TYPE c counter\n# TYPE d gauge\n# TYPE c counter".to_owned(), "a second TYPE"),
            ("# TYPE c".to_owned(), "without a kind"),
            ("# TYPE 1c counter".to_owned(), "no name of a metric"),
            ("# TYPE c counter\nc{a=\"1\" 1".to_owned(), "without a comma"),
            ("# TYPE c counter\nc{a=\"1} 1".to_owned(), "does not end"),
            ("# TYPE c counter\nc{a=1} 1".to_owned(), "do not end"),
            ("# TYPE c counter\nc{a=\"1\",a=\"2\"} 1".to_owned(), "twice"),
            ("# TYPE c counter\nc{a-b=\"1\"} 1".to_owned(), "no name of a label"),
            ("# TYPE c counter\nc{a=\"\\x\"} 1".to_owned(), "an escape"),
            ("# TYPE g gauge\ng{worker=\"1\"} 1".to_owned(), "for usher"),
            (format!("{histogram}h_bucket 1"), "without le"),
            (format!("{histogram}h_bucket{{le=\"+Inf\"}} 1\nh_sum 1"), "no sum or no count"),
            (format!("{histogram}h_bucket{{le=\"+Inf\"}} 1\nh_sum 1\nh_count 2"), "all of its values"),
            (format!("{histogram}h_bucket{{le=\"1\"}} 1\nh_sum 1\nh_count 1"), "all of its values"),
            (format!("{histogram}h_bucket{{le=\"x\"}} 1\nh_sum 1\nh_count 1"), "no number"),
            (format!("{histogram}h_bucket{{le=\"2\"}} 1\nh_bucket{{le=\"1\"}} 1\nh_sum 1\nh_count 1"), "in disorder"),
            (
                format!("{histogram}h_bucket{{le=\"1\"}} 2\nh_bucket{{le=\"+Inf\"}} 1\nh_sum 1\nh_count 1"),
                "in disorder",
            ),
        ] {
            let error = format!("{:#}", parse(&text).expect_err(&text));
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn no_part_of_what_is_right_makes_it_panic() {
        let text = "# HELP h ä\\n\n# TYPE h histogram\nh_bucket{ä=\"ö\",le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n";
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            drop(parse(&text[..end]));
            drop(parse(&text[end..]));
        }
    }
}
