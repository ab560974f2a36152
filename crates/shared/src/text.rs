//! Text that people see: one line, bounded, control characters escaped where it enters.

/// The longest name, label, reason or message, in bytes.
pub const MAX_LINE_BYTES: usize = 1024;

/// Escapes control characters and cuts the text to [`MAX_LINE_BYTES`] on a character boundary.
pub fn one_line(text: &str) -> String {
    shorten_bytes(&escape(text), MAX_LINE_BYTES)
}

/// Escapes control characters and keeps at most `max` characters, with `…` for what was cut.
pub fn shorten(text: &str, max: usize) -> String {
    let escaped = escape(text);
    if escaped.chars().count() <= max {
        return escaped;
    }
    escaped.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

fn shorten_bytes(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_length_is_bounded() {
        assert_eq!(one_line("a\nb\x1b[2J"), "a\\nb\\u{1b}[2J");
        let long = one_line(&"é".repeat(2000));
        assert!(long.len() <= MAX_LINE_BYTES && long.ends_with('…'));
        assert_eq!(shorten("abcdef", 4), "abc…");
    }
}
