//! Files of variables: `NAME=VALUE`, one a line.
//!
//! Empty lines and those that begin with `#` are skipped, and so is `export` in front of a name. In single quotes
//! everything is literal; in double quotes `\n`, `\r`, `\t`, `\\`, `\"` and `\$` are escapes; without quotes the
//! value ends at ` #` and loses the spaces around it. Nothing is substituted.

use std::path::Path;

use anyhow::Result;

use crate::commands::Usage;
use crate::values;

/// The variables of a file, in its order.
///
/// # Errors
/// What is wrong, with file and line.
pub(super) fn parse(text: &str, path: &Path) -> Result<Vec<(String, String)>> {
    let mut variables = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let pair = variable(line)
            .map_err(|rule| Usage(format!("{}:{}: {rule}", super::file::shown(path), index + 1)))?;
        variables.push(pair);
    }
    Ok(variables)
}

fn variable(line: &str) -> Result<(String, String), String> {
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let Some((name, rest)) = line.split_once('=') else {
        return Err(format!("`{line}` has no `=`; write NAME=VALUE"));
    };
    let name = name.trim_end();
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(format!("`{name}` is not the name of a variable"));
    }
    let value = value(rest.trim_start())?;
    values::env(&format!("{name}={value}"))
}

fn value(text: &str) -> Result<String, String> {
    let (value, rest) = match text.chars().next() {
        Some('\'') => {
            let (value, rest) = text[1..]
                .split_once('\'')
                .ok_or("the single quote is not closed")?;
            (value.to_owned(), rest)
        }
        Some('"') => double_quoted(&text[1..])?,
        _ => {
            let comment = text.find(" #").or_else(|| text.find("\t#"));
            return Ok(text[..comment.unwrap_or(text.len())].trim_end().to_owned());
        }
    };
    match rest.trim_start() {
        "" => Ok(value),
        comment if comment.starts_with('#') && comment != rest => Ok(value),
        more => Err(format!("`{more}` stands behind the closing quote")),
    }
}

/// The value, and what stands behind its closing quote.
fn double_quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, 't')) => value.push('\t'),
                Some((_, same @ ('\\' | '"' | '$'))) => value.push(same),
                Some((_, other)) => value.extend(['\\', other]),
                None => {}
            },
            other => value.push(other),
        }
    }
    Err("the double quote is not closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_other_tools_read_them() {
        let text = "\u{feff}# comment\n\nA=1\nB = two words # comment\nexport C='$A #\"x\"'\nD=\"a\\n\\\"b\\\" \\$A \\x\" # c\n\
                    E=\nF=a#b\nG=\"\"\nURL=http://h/?a=b\r\n";
        let want = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "$A #\"x\""),
            ("D", "a\n\"b\" $A \\x"),
            ("E", ""),
            ("F", "a#b"),
            ("G", ""),
            ("URL", "http://h/?a=b"),
        ];
        let want = want.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text, Path::new("x.env")).expect("valid"), want);
    }

    #[test]
    fn errors_name_file_and_line() {
        for (line, said) in [
            ("A", "`A` has no `=`"),
            ("=1", "not the name"),
            ("A B=1", "`A B` is not the name"),
            ("A='x", "single quote"),
            ("A=\"x", "double quote"),
            ("A='x'y", "`y` stands behind"),
            ("HODEI_X=1", "HODEI_"),
        ] {
            let error = parse(&format!("OK=1\n{line}\n"), Path::new("x.env")).expect_err(line);
            let error = error.to_string();
            assert!(error.starts_with("x.env:2: ") && error.contains(said), "{error}");
        }
    }
}
