//! Label files: one label a line, plain or with a WordNet id in front.

/// A label file could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// The file is not text.
    #[error("the labels file is not UTF-8 (byte {at})")]
    NotUtf8 {
        /// Offset of the first byte that is not.
        at: usize,
    },
    /// A line is empty, so the classes after it would be named wrongly.
    #[error("line {line} of the labels file is empty")]
    EmptyLine {
        /// Line, from 1.
        line: usize,
    },
    /// There is no label at all.
    #[error("the labels file is empty")]
    Empty,
}

/// Reads a label file: one label a line in class order, `tench` or `n01440764 tench` (the
/// WordNet id, `n` and eight digits, is dropped). A byte-order mark and carriage returns are
/// accepted; a last empty line is no label.
///
/// # Errors
/// [`LabelError`] for bytes that are not UTF-8, an empty line, or an empty file.
pub fn parse_labels(bytes: &[u8]) -> Result<Vec<String>, LabelError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| LabelError::NotUtf8 { at: error.valid_up_to() })?;
    let text = text.trim_start_matches('\u{feff}').trim_end();
    if text.is_empty() {
        return Err(LabelError::Empty);
    }
    text.lines()
        .enumerate()
        .map(|(index, line)| {
            let label = without_wordnet_id(line.trim());
            if label.is_empty() {
                return Err(LabelError::EmptyLine { line: index + 1 });
            }
            Ok(label.to_owned())
        })
        .collect()
}

fn without_wordnet_id(line: &str) -> &str {
    match line.split_once(char::is_whitespace) {
        Some((id, label))
            if id.len() == 9
                && id.starts_with('n')
                && id[1..].bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            label.trim_start()
        }
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_plain_lines_or_follow_a_wordnet_id() {
        for (text, expected) in [
            ("tench, Tinca tinca\ngoldfish\n", vec!["tench, Tinca tinca", "goldfish"]),
            ("n01440764 tench\r\nn01443537 goldfish\r\n", vec!["tench", "goldfish"]),
            ("\u{feff}nine\nn0144 short\n", vec!["nine", "n0144 short"]),
        ] {
            assert_eq!(parse_labels(text.as_bytes()).unwrap(), expected, "text: {text:?}");
        }
    }

    #[test]
    fn an_empty_line_in_the_middle_is_refused_because_classes_would_shift() {
        assert_eq!(parse_labels(b"a\n\nb\n"), Err(LabelError::EmptyLine { line: 2 }));
        assert_eq!(parse_labels(b"\n\n"), Err(LabelError::Empty));
        assert_eq!(parse_labels(b"a\n\xff"), Err(LabelError::NotUtf8 { at: 2 }));
    }
}
