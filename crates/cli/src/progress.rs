//! Progress of long work on stderr: a spinner on a terminal, plain lines elsewhere.

use std::{
    io::{IsTerminal as _, stderr},
    time::Duration,
};

use builder::{Event, Progress, Unused};
use indicatif::{ProgressBar, ProgressStyle};

/// Shows a build's events to a person.
pub struct Display {
    spinner: Option<ProgressBar>,
    quiet: bool,
    /// Convolutions and products without a kernel, shown together at the end of their step.
    fallbacks: usize,
}

impl Display {
    /// A display; `quiet` shows warnings only.
    pub fn new(quiet: bool) -> Self {
        let spinner = (!quiet && stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Display { spinner, quiet, fallbacks: 0 }
    }

    /// Takes the spinner away.
    pub fn finish(&mut self) {
        if let Some(bar) = self.spinner.take() {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        match &self.spinner {
            Some(bar) => bar.println(text),
            None => tell!("{text}"),
        }
    }
}

impl Progress for Display {
    fn event(&mut self, event: Event) {
        match event {
            Event::Phase { name } => {
                if let Some(bar) = &self.spinner {
                    bar.set_message(name);
                }
            }
            Event::Done { name, took } if !self.quiet => {
                self.line(&format!("{:>8.2} s  {name}", took.as_secs_f64()));
            }
            Event::Untuned { unused, tune } => {
                for line in untuned(&unused, &tune) {
                    self.line(&line);
                }
            }
            Event::WaitsForLibrary if !self.quiet => {
                self.line("waiting for another build, which compiles a guest library");
            }
            Event::CompilesLibrary if !self.quiet => {
                self.line(
                    "compiling the guest library; this is done once and takes a minute or two",
                );
            }
            Event::Fallback { node, operator, macs, share, reason } => {
                if self.fallbacks == 0 {
                    self.line("warning: these nodes have no kernel and run in generated loops:");
                }
                self.fallbacks += 1;
                self.line(&format!(
                    "  {operator} `{node}`: {:.1} million multiply-adds, {:.1} % of the model: {reason}",
                    macs as f64 / 1e6,
                    share * 100.0
                ));
            }
            _ => {}
        }
    }
}

/// One line for each reason for which choices are not used.
fn untuned(unused: &[Unused], tune: &str) -> Vec<String> {
    let mut reasons: Vec<(&str, Vec<&Unused>)> = Vec::new();
    for one in unused {
        match reasons.iter_mut().find(|(reason, _)| *reason == one.reason) {
            Some((_, layers)) => layers.push(one),
            None => reasons.push((&one.reason, vec![one])),
        }
    }
    let line = |(reason, layers): (&str, Vec<&Unused>)| {
        let what = match &layers[..] {
            [only] => {
                format!("choice for `{}` is not used (`{}`)", only.layer, only.choice)
            }
            layers => format!("choices for {} layers are not used", layers.len()),
        };
        format!("warning: the tuning log's {what}: {reason}; `{tune}` measures for this build")
    };
    reasons.into_iter().map(line).collect()
}

impl Drop for Display {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_that_are_not_used_take_a_line_for_each_reason() {
        let unused = |layer: &str, reason: &str| Unused {
            layer: layer.to_owned(),
            choice: "winograd".to_owned(),
            reason: reason.to_owned(),
        };
        let all = [unused("a", "too old"), unused("b", "no such layer"), unused("c", "too old")];
        let lines = untuned(&all, "graphlet tune m.toml");
        assert_eq!(
            lines,
            [
                "warning: the tuning log's choices for 2 layers are not used: too old; \
                 `graphlet tune m.toml` measures for this build",
                "warning: the tuning log's choice for `b` is not used (`winograd`): no such \
                 layer; `graphlet tune m.toml` measures for this build",
            ]
        );
    }
}
