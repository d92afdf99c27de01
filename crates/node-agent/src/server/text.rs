//! Prometheus' text format, with timestamps where a scraper needs them.

use std::fmt::Write as _;

/// A page of metrics under construction.
#[derive(Debug, Default)]
pub(super) struct Text {
    text: String,
    name: String,
}

impl Text {
    /// Begins a metric; its samples follow.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.name = name.to_owned();
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One value of the metric that was begun last.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.sample_at(labels, value, None);
    }

    /// The same, taken at a moment: milliseconds since 1970.
    pub(super) fn sample_at(&mut self, labels: &[(&str, &str)], value: f64, at: Option<u128>) {
        self.text.push_str(&self.name);
        for (index, (name, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.text, "{before}{name}=\"{value}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = write!(self.text, " {value}");
        if let Some(at) = at {
            let _ = write!(self.text, " {at}");
        }
        self.text.push('\n');
    }

    /// The page.
    pub(super) fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_written_as_prometheus_reads_it() {
        let mut text = Text::default();
        text.family("requests_total", "counter", "Requests");
        text.sample(&[("path", "a\"b\\c\nd"), ("code", "200")], 3.0);
        text.sample_at(&[], 0.25, Some(1700));
        assert_eq!(
            text.finish(),
            "# HELP requests_total Requests\n# TYPE requests_total counter\n\
             requests_total{path=\"a\\\"b\\\\c\\nd\",code=\"200\"} 3\nrequests_total 0.25 1700\n"
        );
    }
}
