//! Values with units, as the command line and configuration files spell them.

use std::time::Duration;

/// Reads a duration such as `250ms`, `5s`, `10m`, `12h`, `90d` or `4w`; the unit is required.
///
/// # Errors
/// A sentence that names the text and the units.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let error =
        || format!("`{text}` is not a duration: a whole number and one of ms, s, m, h, d, w");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| error())?;
    let seconds = match unit {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        "w" => 7 * 24 * 60 * 60,
        _ => return Err(error()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(error)
}

/// Reads a size such as `512MiB`, `16 MB` or `65536` (bytes).
///
/// # Errors
/// A sentence that names the text and the units.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let error =
        || format!("`{text}` is not a size: a whole number and one of KiB, MiB, GiB, kB, MB, GB");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| error())?;
    let bytes = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(error()),
    };
    number.checked_mul(bytes).filter(|bytes| *bytes > 0).ok_or_else(error)
}

/// A duration in its two largest units: `13 d 4 h`.
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("d", 24 * 60 * 60), ("h", 60 * 60), ("min", 60), ("s", 1)];
    let Some(first) = units.iter().position(|(_, length)| seconds >= *length) else {
        return "0 s".into();
    };
    let (name, length) = units[first];
    let mut text = format!("{} {name}", seconds / length);
    if let Some((next, next_length)) = units.get(first + 1)
        && seconds % length / next_length > 0
    {
        text.push_str(&format!(" {} {next}", seconds % length / next_length));
    }
    text
}

/// A number with a comma between thousands.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_may_have_a_unit() {
        for (text, expected) in [
            ("512MiB", Some(512 << 20)),
            ("16 MB", Some(16_000_000)),
            ("65536", Some(65536)),
            ("0", None),
            ("1.5GiB", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(parse_size(text).ok(), expected, "text: {text:?}");
        }
    }

    #[test]
    fn a_duration_needs_a_unit() {
        for (text, expected) in [
            ("250ms", Some(Duration::from_millis(250))),
            ("5s", Some(Duration::from_secs(5))),
            ("10m", Some(Duration::from_secs(600))),
            ("12h", Some(Duration::from_secs(43_200))),
            ("90d", Some(Duration::from_secs(7_776_000))),
            ("2w", Some(Duration::from_secs(1_209_600))),
            ("5", None),
            ("s", None),
            ("", None),
            ("-5s", None),
            ("1.5h", None),
            ("5 s", None),
            ("5S", None),
            ("99999999999999999999s", None),
            ("18446744073709551615w", None),
        ] {
            assert_eq!(parse_duration(text).ok(), expected, "text: {text:?}");
        }
    }

    #[test]
    fn durations_and_counts_are_shown_as_people_read_them() {
        for (seconds, text) in
            [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (1_137_600, "13 d 4 h")]
        {
            assert_eq!(show_duration(Duration::from_secs(seconds)), text);
        }
        for (count, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(show_count(count), text);
        }
    }
}
