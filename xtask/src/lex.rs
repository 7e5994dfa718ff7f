//! Just enough of Rust's grammar to tell code from comments and text in quotes.
//!
//! Used by `tidy` and `spec`, which would otherwise see a word in a comment as code, or the other way round.
//! It splits into spans that together are the whole file; it never fails, whatever it is given.

/// What a span of source text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Neither of the others.
    Code,
    /// `//`, `///`, `//!`, `/* */`, with their marks.
    Comment,
    /// A string or byte string of any form, with its quotes.
    Text,
}

/// One span of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span<'a> {
    /// What it is.
    pub(crate) kind: Kind,
    /// The line (from 1) on which it begins.
    pub(crate) line: usize,
    /// Its bytes.
    pub(crate) text: &'a str,
}

/// Splits a source file.
pub(crate) fn spans(source: &str) -> Vec<Span<'_>> {
    let bytes = source.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut code_from) = (0, 0);
    while at < bytes.len() {
        let (kind, end) = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => (
                Kind::Comment,
                source[at..].find('\n').map_or(bytes.len(), |n| at + n),
            ),
            b'/' if bytes.get(at + 1) == Some(&b'*') => (Kind::Comment, block_comment(bytes, at)),
            b'"' => (Kind::Text, quoted(bytes, at + 1, b'"')),
            b'r' | b'b' | b'c' if !in_word(bytes, at) => match raw_or_byte_string(bytes, at) {
                Some(end) => (Kind::Text, end),
                None => {
                    at += 1;
                    continue;
                }
            },
            b'\'' => {
                // A character is code here; only its quotes must not start a string. Lifetimes have no second quote.
                at = character(bytes, at);
                continue;
            }
            _ => {
                at += 1;
                continue;
            }
        };
        if code_from < at {
            found.push((Kind::Code, code_from, at));
        }
        found.push((kind, at, end));
        at = end;
        code_from = end;
    }
    if code_from < bytes.len() {
        found.push((Kind::Code, code_from, bytes.len()));
    }
    let mut line = 1;
    found
        .into_iter()
        .map(|(kind, from, to)| {
            let text = &source[from..to];
            let span = Span { kind, line, text };
            line += text.matches('\n').count();
            span
        })
        .collect()
}

/// The file with everything that is not code turned to blanks, so that lines and columns stay.
pub(crate) fn code(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    for span in spans(source) {
        match span.kind {
            Kind::Code => out.push_str(span.text),
            _ => out.extend(
                span.text
                    .chars()
                    .map(|c| if c == '\n' { '\n' } else { ' ' }),
            ),
        }
    }
    out
}

/// Whether `text` holds `word` with no letter, digit or `_` beside it, and where.
pub(crate) fn find_word(text: &str, word: &str) -> Option<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).map(|(at, _)| at).find(|&at| {
        !text[..at].chars().next_back().is_some_and(part)
            && !text[at + word.len()..].chars().next().is_some_and(part)
    })
}

fn in_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn block_comment(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0_usize);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'/', Some(b'*')) => {
                depth += 1;
                at += 2;
            }
            (b'*', Some(b'/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

fn quoted(bytes: &[u8], from: usize, quote: u8) -> usize {
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of `r"…"`, `r#"…"#`, `b"…"`, `br"…"`, `c"…"` when one begins at `at`.
fn raw_or_byte_string(bytes: &[u8], at: usize) -> Option<usize> {
    let mut i = at;
    if matches!(bytes[i], b'b' | b'c') {
        i += 1;
    }
    if bytes.get(i) == Some(&b'"') {
        return Some(quoted(bytes, i + 1, b'"'));
    }
    if bytes.get(i) != Some(&b'r') {
        return None;
    }
    i += 1;
    let hashes = bytes[i..].iter().take_while(|b| **b == b'#').count();
    i += hashes;
    if bytes.get(i) != Some(&b'"') {
        return None;
    }
    i += 1;
    while i < bytes.len() {
        if bytes[i] == b'"'
            && bytes[i + 1..]
                .iter()
                .take(hashes)
                .filter(|b| **b == b'#')
                .count()
                == hashes
        {
            return Some(i + 1 + hashes);
        }
        i += 1;
    }
    Some(bytes.len())
}

/// The position behind a character literal, or behind the quote of a lifetime.
fn character(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at + 1) == Some(&b'\\') {
        return quoted(bytes, at + 1, b'\'');
    }
    // One character of up to four bytes, then the closing quote.
    let closes = (2..=5).find(|n| bytes.get(at + n) == Some(&b'\''));
    match closes {
        Some(2) => at + 3,
        Some(n) if !bytes[at + 1].is_ascii() => at + n + 1,
        _ => at + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(source: &str) -> Vec<(Kind, &str)> {
        spans(source)
            .into_iter()
            .map(|s| (s.kind, s.text))
            .collect()
    }

    #[test]
    fn code_comments_and_strings_are_told_apart() {
        use Kind::{Code, Comment, Text};
        assert_eq!(
            kinds("a /* x /* y */ \" */ b // c\n\"d // \\\" e\" r#\"f\"g\"# h"),
            [
                (Code, "a "),
                (Comment, "/* x /* y */ \" */"),
                (Code, " b "),
                (Comment, "// c"),
                (Code, "\n"),
                (Text, "\"d // \\\" e\""),
                (Code, " "),
                (Text, "r#\"f\"g\"#"),
                (Code, " h"),
            ]
        );
    }

    #[test]
    fn characters_and_lifetimes_start_no_string() {
        assert_eq!(kinds("'\"' 'é' '\\'' &'a str \"s\"").len(), 2);
        assert_eq!(kinds("fn f<'a>(x: &'a str) {}").len(), 1);
        assert_eq!(kinds("b\"x\" + br#\"y\"# + number").len(), 4);
    }

    #[test]
    fn lines_are_counted_and_kept() {
        let source = "a\n\"b\nc\"\n// d\ne";
        assert_eq!(
            spans(source).iter().map(|s| s.line).collect::<Vec<_>>(),
            [1, 2, 3, 4, 4]
        );
        assert_eq!(code(source), "a\n  \n  \n    \ne");
    }

    #[test]
    fn words_have_borders() {
        assert_eq!(find_word("a hyper::b", "hyper"), Some(2));
        assert_eq!(find_word("hyperx xhyper hyper_util", "hyper"), None);
    }

    #[test]
    fn broken_input_ends() {
        for source in ["\"", "/*", "r#\"", "'", "'\\", "b", "r#", "\"\\", "é'"] {
            let _ = spans(source);
        }
    }
}
