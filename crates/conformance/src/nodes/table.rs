//! The result of a whole run, as the table in `docs/operators.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use anyhow::{Context as _, Result};

use super::{Outcome, Verdict};

const BEGIN: &str = "<!-- node cases: written by `make conformance ARGUMENTS=--write` -->\n";
const END: &str = "<!-- end of node cases -->\n";

/// How the compiler ends what it says of an element type that it does not take.
const NO_SUCH_TYPE: &str = " (tensors have no such type)";

/// How many cases came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// All of them.
    pub cases: usize,
    /// The sandbox computes what it has to be.
    pub passed: usize,
    /// Nothing was left to run.
    pub no_kernel: usize,
    /// Refused with a reason.
    pub refused: usize,
    /// Wrong numbers, or broken.
    pub failed: usize,
}

impl Summary {
    /// Counts verdicts.
    pub fn of<'v>(verdicts: impl IntoIterator<Item = &'v Verdict>) -> Self {
        let mut summary = Summary::default();
        for verdict in verdicts {
            summary.cases += 1;
            *match verdict.outcome {
                Outcome::Passed { .. } | Outcome::Imported => &mut summary.passed,
                Outcome::NoKernel => &mut summary.no_kernel,
                Outcome::Refused { .. } => &mut summary.refused,
                Outcome::Wrong(_) | Outcome::Broken(_) => &mut summary.failed,
            } += 1;
        }
        summary
    }
}

/// The table in Markdown: a line for each operator, with the reasons for what is refused.
pub fn table(verdicts: &[Verdict]) -> String {
    let mut operators: BTreeMap<&str, Vec<&Verdict>> = BTreeMap::new();
    for verdict in verdicts {
        operators.entry(&verdict.operator).or_default().push(verdict);
    }
    let all = Summary::of(verdicts);
    let whole = operators.values().filter(|of| Summary::of(of.iter().copied()).refused == 0);
    let mut text = format!(
        "Of {} cases {} pass, {} leave no kernel to run, and {} are refused with a reason; of {} \
         operators {} have no case that is refused.\n\n\
         | operator | cases | pass | no kernel | refused | why |\n|---|---|---|---|---|---|\n",
        all.cases,
        all.passed,
        all.no_kernel,
        all.refused,
        operators.len(),
        whole.count()
    );
    for (operator, verdicts) in &operators {
        let summary = Summary::of(verdicts.iter().copied());
        let name = if operator.is_empty() { "(none)" } else { operator };
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} |",
            summary.cases,
            cell(summary.passed),
            cell(summary.no_kernel),
            cell(summary.refused + summary.failed),
            reasons(verdicts)
        );
    }
    text
}

/// `document` with the table between its markers.
///
/// # Errors
/// When it has no markers.
pub fn insert(document: &str, table: &str) -> Result<String> {
    let (head, rest) = document.split_once(BEGIN).context("no mark before the table")?;
    let (_, tail) = rest.split_once(END).context("no mark behind the table")?;
    Ok(format!("{head}{BEGIN}{table}{END}{tail}"))
}

fn cell(count: usize) -> String {
    if count == 0 { String::new() } else { count.to_string() }
}

/// The reasons, most frequent first. Those that differ only in an element type are one.
fn reasons(verdicts: &[&Verdict]) -> String {
    let mut counts: BTreeMap<(String, String), (usize, BTreeSet<String>)> = BTreeMap::new();
    for verdict in verdicts {
        let reason = match &verdict.outcome {
            Outcome::Refused { message, .. } => brief(message),
            Outcome::Wrong(what) | Outcome::Broken(what) => what.clone(),
            _ => continue,
        };
        // `Cast of int4 (tensors have no such type)`.
        let typed = reason.strip_suffix(NO_SUCH_TYPE).and_then(|what| what.split_once(" of "));
        let (key, dtype) = match typed {
            Some((operator, dtype)) => {
                ((format!("{operator} of "), NO_SUCH_TYPE.to_owned()), Some(dtype.to_owned()))
            }
            None => ((reason, String::new()), None),
        };
        let (count, dtypes) = counts.entry(key).or_default();
        *count += 1;
        dtypes.extend(dtype);
    }
    let mut ranked: Vec<_> = counts.into_iter().collect();
    ranked.sort_by(|(a, (more, _)), (b, (less, _))| less.cmp(more).then_with(|| a.cmp(b)));
    let text = ranked.into_iter().map(|((head, tail), (_, dtypes))| {
        format!("{head}{}{tail}", dtypes.into_iter().collect::<Vec<_>>().join(", "))
    });
    text.collect::<Vec<_>>().join("; ").replace('|', "\\|")
}

/// A reason without the names of nodes and tensors, which differ from case to case: the first of
/// several mistakes, and what stands behind its node's name.
fn brief(message: &str) -> String {
    let first = message.split("; `").next().unwrap_or(message);
    let mut text = first;
    if let Some((node, rest)) = first.split_once("`: ")
        && node.starts_with('`')
    {
        text = rest;
    }
    let mut parts: Vec<&str> = text.split('`').collect();
    // Every second part stood between backticks.
    for part in parts.iter_mut().skip(1).step_by(2) {
        *part = "";
    }
    let plain = parts.concat();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(case: &str, operator: &str, outcome: Outcome) -> Verdict {
        Verdict { case: case.to_owned(), operator: operator.to_owned(), outcome }
    }

    fn refused(message: &str) -> Outcome {
        Outcome::Refused { code: "unsupported_operator".to_owned(), message: message.to_owned() }
    }

    #[test]
    fn a_line_counts_an_operators_cases_and_names_each_reason_once() {
        let verdicts = [
            verdict("a", "Add", Outcome::Passed { module_bytes: 9 }),
            verdict("b", "Add", Outcome::NoKernel),
            verdict("c", "Det", refused("`n1`: Det (TVM does not know it)")),
            verdict("d", "Det", refused("`n2`: Det (TVM does not know it); `n3`: Det (no)")),
            verdict("e", "Det", refused("`x` holds strings")),
        ];
        let text = table(&verdicts);
        assert!(text.starts_with("Of 5 cases 1 pass, 1 leave no kernel to run, and 3 are refused"));
        assert!(text.contains("| Add | 2 | 1 | 1 |  |  |\n"), "{text}");
        let reasons = "Det (TVM does not know it); holds strings";
        assert!(text.contains(&format!("| Det | 3 |  |  | 3 | {reasons} |\n")), "{text}");
    }

    #[test]
    fn element_types_that_are_refused_alike_are_one_reason() {
        let verdicts = [
            verdict("a", "Cast", refused("`n`: Cast of int4 (tensors have no such type)")),
            verdict("b", "Cast", refused("`n`: Cast of float8 (tensors have no such type)")),
            verdict("c", "Cast", refused("`n`: Cast of int4 (tensors have no such type)")),
            verdict("d", "Cast", refused("`x` holds strings")),
        ];
        let reasons = "Cast of float8, int4 (tensors have no such type); holds strings";
        assert!(table(&verdicts).contains(&format!("| Cast | 4 |  |  | 4 | {reasons} |\n")));
    }

    #[test]
    fn the_table_takes_the_place_of_the_one_before() {
        let document = format!("head\n{BEGIN}old\n{END}tail\n");
        let new = insert(&document, "new\n").unwrap();
        assert_eq!(new, format!("head\n{BEGIN}new\n{END}tail\n"));
        assert_eq!(insert(&new, "new\n").unwrap(), new);
        assert!(insert("head\n", "new\n").is_err());
    }
}
