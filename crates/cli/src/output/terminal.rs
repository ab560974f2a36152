//! Makes a job's output safe for a terminal: printable UTF-8, tab, CR, LF and colours pass, every other control
//! shows as a visible character, so that no job can move the cursor, retitle the window or answer queries.
//!
//! Sequences may be cut anywhere between two pieces; what is incomplete waits for the next one.

/// The longest colour sequence that is believed.
const LONGEST_COLOUR: usize = 64;
const ESC: u8 = 0x1b;

/// The state between two pieces of one stream.
#[derive(Debug, Default)]
pub(crate) struct Escaper {
    pending: Vec<u8>,
}

impl Escaper {
    /// Appends the safe form of `bytes` to `out`.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut input = std::mem::take(&mut self.pending);
        input.extend_from_slice(bytes);
        let mut rest = input.as_slice();
        while !rest.is_empty() {
            match next(rest) {
                Step::Shown(taken, shown) => {
                    shown.write(&rest[..taken], out);
                    rest = &rest[taken..];
                }
                Step::Incomplete => {
                    self.pending = rest.to_vec();
                    return;
                }
            }
        }
    }

    /// Appends what still waits: nothing will complete it.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let pending = std::mem::take(&mut self.pending);
        let Some((&first, rest)) = pending.split_first() else {
            return;
        };
        if first == ESC {
            Shown::Control(first).write(&[], out);
            out.extend_from_slice(rest);
        } else {
            Shown::Invalid.write(&[], out);
        }
    }
}

enum Step {
    Shown(usize, Shown),
    Incomplete,
}

enum Shown {
    Unchanged,
    Control(u8),
    Escaped(char),
    Invalid,
}

impl Shown {
    fn write(&self, taken: &[u8], out: &mut Vec<u8>) {
        let mut character = |c: char| out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        match self {
            Self::Unchanged => out.extend_from_slice(taken),
            Self::Control(0x7f) => character('\u{2421}'),
            Self::Control(byte) => character(char::from_u32(0x2400 + u32::from(*byte)).unwrap_or('\u{fffd}')),
            Self::Escaped(c) => c.escape_unicode().for_each(character),
            Self::Invalid => character('\u{fffd}'),
        }
    }
}

fn next(rest: &[u8]) -> Step {
    match rest[0] {
        b'\t' | b'\n' | b'\r' => Step::Shown(1, Shown::Unchanged),
        ESC => colour(rest),
        byte if byte < 0x20 || byte == 0x7f => Step::Shown(1, Shown::Control(byte)),
        byte if byte < 0x80 => {
            let end = rest
                .iter()
                .position(|b| !(0x20..0x7f).contains(b))
                .unwrap_or(rest.len());
            Step::Shown(end, Shown::Unchanged)
        }
        _ => character(rest),
    }
}

/// `ESC [ parameters m`; everything else that begins with ESC is shown.
fn colour(rest: &[u8]) -> Step {
    let shown = Step::Shown(1, Shown::Control(ESC));
    match rest.get(1) {
        None => return Step::Incomplete,
        Some(b'[') => {}
        Some(_) => return shown,
    }
    let parameter = |byte: &u8| byte.is_ascii_digit() || *byte == b';' || *byte == b':';
    match rest[2..].iter().position(|byte| !parameter(byte)) {
        Some(length) if rest[2 + length] == b'm' && length <= LONGEST_COLOUR => {
            Step::Shown(length + 3, Shown::Unchanged)
        }
        None if rest.len() <= LONGEST_COLOUR => Step::Incomplete,
        _ => shown,
    }
}

fn character(rest: &[u8]) -> Step {
    let window = &rest[..rest.len().min(4)];
    let text = match std::str::from_utf8(window) {
        Ok(text) => text,
        Err(error) if error.valid_up_to() > 0 => {
            std::str::from_utf8(&window[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) => {
            return match error.error_len() {
                Some(length) => Step::Shown(length, Shown::Invalid),
                None => Step::Incomplete,
            };
        }
    };
    match text.chars().next() {
        Some(c) if c.is_control() || turns_text_around(c) => Step::Shown(c.len_utf8(), Shown::Escaped(c)),
        Some(c) => Step::Shown(c.len_utf8(), Shown::Unchanged),
        None => Step::Shown(1, Shown::Invalid),
    }
}

/// Characters that change the order in which their neighbours are drawn.
const fn turns_text_around(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]]) -> String {
        let (mut escaper, mut out) = (Escaper::default(), Vec::new());
        for piece in pieces {
            escaper.push(piece, &mut out);
        }
        escaper.finish(&mut out);
        String::from_utf8(out).expect("only UTF-8 reaches a terminal")
    }

    const CASES: [(&[u8], &str); 17] = [
        (b"plain text\r\n\tx", "plain text\r\n\tx"),
        ("é, 漢字, 👩‍🔬".as_bytes(), "é, 漢字, 👩‍🔬"),
        (
            b"\x1b[31mred\x1b[0m \x1b[m \x1b[38;5;9mx \x1b[38:2::1:2:3m",
            "\x1b[31mred\x1b[0m \x1b[m \x1b[38;5;9mx \x1b[38:2::1:2:3m",
        ),
        (b"\x1b[2J", "␛[2J"),
        (b"\x1b]0;title\x07", "␛]0;title␇"),
        (b"\x1bc", "␛c"),
        (b"\x1b[6n", "␛[6n"),
        (b"\x1b[31;1 q", "␛[31;1 q"),
        (b"\x1b\x1b[31m", "␛\x1b[31m"),
        (b"a\x08b\x00\x7f", "a␈b␀␡"),
        (b"\xc2\x9b31m", "\\u{9b}31m"),
        ("\u{202e}txt".as_bytes(), "\\u{202e}txt"),
        (b"\xff\xfe ok", "\u{fffd}\u{fffd} ok"),
        (b"\xe2\x82", "\u{fffd}"),
        (b"\x1b", "␛"),
        (b"\x1b[31", "␛[31"),
        (b"", ""),
    ];

    #[test]
    fn controls_are_shown_and_colours_pass() {
        for (bytes, want) in CASES {
            assert_eq!(shown(&[bytes]), want, "{bytes:?}");
        }
    }

    #[test]
    fn it_does_not_matter_where_the_pieces_are_cut() {
        for (bytes, want) in CASES {
            for cut in 0..=bytes.len() {
                assert_eq!(
                    shown(&[&bytes[..cut], &bytes[cut..]]),
                    want,
                    "{bytes:?} cut at {cut}"
                );
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(shown(&single), want, "{bytes:?} byte by byte");
        }
    }

    #[test]
    fn an_endless_colour_sequence_is_not_kept() {
        let mut escaper = Escaper::default();
        let mut out = Vec::new();
        escaper.push(b"\x1b[", &mut out);
        for _ in 0..1_000 {
            escaper.push(b"1;1;1;1;", &mut out);
        }
        assert!(
            escaper.pending.len() <= LONGEST_COLOUR,
            "{}",
            escaper.pending.len()
        );
        assert!(out.starts_with("␛[1;".as_bytes()));
    }
}
