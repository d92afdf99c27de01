//! The list of cases that do not pass. A run that differs from it has failed: something broke, or
//! something got better and the list has to say so.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context as _, Result, ensure};

use super::{Depth, Outcome, Verdict};

/// The word for a case that leaves nothing to run.
pub(super) const NO_KERNEL: &str = "no_kernel";

const HEAD: &str = "\
# ONNX's node cases that do not pass: the case, why in one word, and the reason in full.
# `no_kernel`: all of it is known when it is compiled, so that nothing is left to run.
# The other words are the compiler's error codes. `make conformance` compares this list with what
# happens, and `make conformance ARGUMENTS=--write` writes it anew.
";

/// Why each case on the list does not pass, by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known(BTreeMap<String, String>);

/// A case that is not as the list says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Surprise {
    /// On the list, and passes.
    Passes(String),
    /// Fails, and is not on the list or for another reason.
    Fails(Verdict),
    /// On the list, and no case at all.
    Gone(String),
}

impl fmt::Display for Surprise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Surprise::Passes(case) => write!(f, "{case} passes now: take it off the list"),
            Surprise::Gone(case) => write!(f, "{case} is on the list, and there is no such case"),
            Surprise::Fails(Verdict { case, operator, outcome }) => {
                write!(f, "{case} ({operator}): ")?;
                match outcome {
                    Outcome::Passed { .. } | Outcome::Imported => write!(f, "passes"),
                    Outcome::NoKernel => write!(f, "leaves nothing to run"),
                    Outcome::Refused { code, message } => write!(f, "{code}: {message}"),
                    Outcome::Wrong(what) => write!(f, "wrong numbers: {what}"),
                    Outcome::Broken(what) => write!(f, "broken: {what}"),
                }
            }
        }
    }
}

impl Known {
    /// Reads a list.
    ///
    /// # Errors
    /// For a line that names no word, and a case that is named twice.
    pub fn parse(text: &str) -> Result<Self> {
        let mut known = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut fields = line.splitn(3, ' ');
            let case = fields.next().unwrap_or_default().to_owned();
            let word = fields.next().with_context(|| format!("`{line}` says no reason"))?;
            let before = known.insert(case, word.to_owned());
            ensure!(before.is_none(), "`{line}`: the case stands there twice");
        }
        Ok(Known(known))
    }

    /// The list as it has to be after a run of all cases.
    pub fn text(verdicts: &[Verdict]) -> String {
        let mut text = HEAD.to_owned();
        for Verdict { case, outcome, .. } in verdicts {
            if let Some(word) = outcome.word() {
                let reason = match outcome {
                    Outcome::Refused { message, .. } => message.as_str(),
                    _ => "",
                };
                text.push_str(format!("{case} {word} {reason}").trim_end());
                text.push('\n');
            }
        }
        text
    }

    /// Where verdicts differ from the list. `all` are the names of all cases.
    ///
    /// What is refused in the compiler's second half cannot be told after an import.
    pub fn surprises(&self, verdicts: &[Verdict], all: &[String], depth: Depth) -> Vec<Surprise> {
        let mut found: Vec<_> = self
            .0
            .keys()
            .filter(|case| all.binary_search(case).is_err())
            .map(|case| Surprise::Gone(case.clone()))
            .collect();
        for verdict in verdicts {
            let listed = self.0.get(&verdict.case).map(String::as_str);
            let fails = match &verdict.outcome {
                Outcome::Wrong(_) | Outcome::Broken(_) => true,
                outcome => outcome.word().is_some() && outcome.word() != listed,
            };
            if fails {
                found.push(Surprise::Fails(verdict.clone()));
            } else if depth == Depth::Run && verdict.outcome.word().is_none() && listed.is_some() {
                found.push(Surprise::Passes(verdict.case.clone()));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(case: &str, outcome: Outcome) -> Verdict {
        Verdict { case: case.to_owned(), operator: "Op".to_owned(), outcome }
    }

    fn refused(code: &str) -> Outcome {
        Outcome::Refused { code: code.to_owned(), message: "why not".to_owned() }
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let verdicts = [
            verdict("a", Outcome::Passed { module_bytes: 1 }),
            verdict("b", Outcome::NoKernel),
            verdict("c", refused("opset")),
        ];
        let text = Known::text(&verdicts);
        assert!(text.ends_with("b no_kernel\nc opset why not\n"), "{text}");
        let known = Known::parse(&text).unwrap();
        let all = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(known.surprises(&verdicts, &all, Depth::Run), []);
        assert!(Known::parse("a\n").is_err());
        assert!(Known::parse("a b\na c\n").is_err());
    }

    #[test]
    fn what_gets_better_and_what_gets_worse_are_both_surprises() {
        let known = Known::parse("b no_kernel\nc opset\nd opset\ne opset\n").unwrap();
        let all = ["a", "b", "c", "d", "f"].map(str::to_owned);
        let verdicts = [
            verdict("a", Outcome::Wrong("1 instead of 2".to_owned())),
            verdict("b", Outcome::Passed { module_bytes: 1 }),
            verdict("c", refused("unsupported_dtype")),
            verdict("d", refused("opset")),
            verdict("f", refused("opset")),
        ];
        let found = known.surprises(&verdicts, &all, Depth::Run);
        assert_eq!(
            found,
            [
                Surprise::Gone("e".to_owned()),
                Surprise::Fails(verdicts[0].clone()),
                Surprise::Passes("b".to_owned()),
                Surprise::Fails(verdicts[2].clone()),
                Surprise::Fails(verdicts[4].clone()),
            ]
        );
        // What the second half refuses is imported all the same.
        let imported = [verdict("d", Outcome::Imported)];
        let all = ["b", "c", "d", "e"].map(str::to_owned);
        assert_eq!(known.surprises(&imported, &all, Depth::Import), []);
        assert_eq!(known.surprises(&imported, &all, Depth::Run).len(), 1);
    }
}
