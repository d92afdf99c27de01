//! Phases of a request as the guest marks them: guests have no clock, so the host stamps.

use std::time::{Duration, Instant};

use crate::limits;

/// Whole milliseconds, in a width that a log in JSON writes as a number.
pub(crate) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// When which phase began.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    marks: Vec<(String, Instant)>,
    profiling: bool,
}

/// Why a mark was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MarkError {
    #[error("a phase's name is 1 to 32 of `a-z`, `0-9` and `_`")]
    Name,
    #[error("more than {0} phases in one call")]
    TooMany(usize),
}

impl Phases {
    /// Nothing marked yet in a call of `operation`.
    pub(crate) fn of(operation: &str) -> Self {
        let profiling = operation == wire::OP_PROFILE;
        // A list that grows while nodes are timed would be timed with them.
        let room = if profiling { limits::PROFILE_PHASES } else { 0 };
        Phases { marks: Vec::with_capacity(room), profiling }
    }

    /// A phase begins; the one before ends.
    pub(crate) fn mark(&mut self, name: &[u8], now: Instant) -> Result<(), MarkError> {
        let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if name.is_empty() || name.len() > 32 || !name.iter().all(allowed) {
            return Err(MarkError::Name);
        }
        let most = if self.profiling { limits::PROFILE_PHASES } else { limits::PHASES };
        if self.marks.len() == most {
            return Err(MarkError::TooMany(most));
        }
        self.marks.push((String::from_utf8_lossy(name).into_owned(), now));
        Ok(())
    }

    /// The phases with their durations; what follows the mark `done` is no phase.
    pub(crate) fn finish(self, end: Instant) -> Vec<(String, Duration)> {
        let ends: Vec<_> = self.marks.iter().skip(1).map(|mark| mark.1).chain([end]).collect();
        let phases = self.marks.into_iter().zip(ends);
        phases
            .filter(|((name, _), _)| name != wire::PHASE_DONE)
            .map(|((name, begin), end)| (name, end.saturating_duration_since(begin)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_lasts_until_the_next_mark_and_the_last_until_the_end() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut phases = Phases::default();
        for (name, ms) in [("decode", 0), ("preprocess", 3), ("infer", 5)] {
            phases.mark(name.as_bytes(), at(ms)).unwrap();
        }
        let expected = [("decode", 3), ("preprocess", 2), ("infer", 15)]
            .map(|(name, ms)| (name.to_owned(), Duration::from_millis(ms)));
        assert_eq!(phases.finish(at(20)), expected);
    }

    #[test]
    fn what_follows_the_end_mark_is_no_phase() {
        let begin = Instant::now();
        let mut phases = Phases::default();
        phases.mark(b"infer", begin).unwrap();
        phases.mark(b"done", begin + Duration::from_millis(7)).unwrap();
        let expected = [("infer".to_owned(), Duration::from_millis(7))];
        assert_eq!(phases.finish(begin + Duration::from_millis(9)), expected);
    }

    #[test]
    fn names_and_number_of_phases_are_bounded() {
        let mut phases = Phases::default();
        let now = Instant::now();
        for name in ["", "Infer", "in fer", "\u{e9}", &"a".repeat(33)] {
            assert!(phases.mark(name.as_bytes(), now).is_err(), "name: {name:?}");
        }
        for _ in 0..limits::PHASES {
            phases.mark(b"infer", now).unwrap();
        }
        assert!(matches!(phases.mark(b"infer", now), Err(MarkError::TooMany(_))));
    }

    #[test]
    fn a_profile_has_a_phase_for_every_node_and_a_bound_too() {
        let now = Instant::now();
        for (operation, most) in
            [(wire::OP_HANDLE_REQUEST, limits::PHASES), (wire::OP_PROFILE, limits::PROFILE_PHASES)]
        {
            let mut phases = Phases::of(operation);
            for _ in 0..most {
                phases.mark(b"node", now).unwrap();
            }
            let refused = phases.mark(b"node", now);
            assert!(matches!(refused, Err(MarkError::TooMany(n)) if n == most), "{operation}");
        }
    }
}
