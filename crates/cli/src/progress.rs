//! Progress of long work on stderr: a spinner on a terminal, plain lines elsewhere.

use std::{
    io::{IsTerminal as _, stderr},
    time::Duration,
};

use builder::{Event, Progress};
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
            None => eprintln!("{text}"),
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
            Event::Untuned(unused) => self.line(&format!(
                "warning: the tuning log's choice for `{}` is not used (`{}`): {}",
                unused.layer, unused.choice, unused.reason
            )),
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

impl Drop for Display {
    fn drop(&mut self) {
        self.finish();
    }
}
