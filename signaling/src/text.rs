//! Foreign text made fit for one line of ours: printable, short, and without tokens.

/// What stands for a token.
const REDACTED: &str = "<token>";

/// Replaces everything that looks like a JSON Web Token. livekit-server repeats the whole token in
/// the body of its 401 (`invalid token: eyJ…, error: …`), so server text is never shown as it is.
/// A JWT's first part is base64url of `{"…`, which always begins `eyJ` (RFC 7515 §3.1).
pub(crate) fn scrub(text: &str) -> String {
    let is_token_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("eyJ") {
        out.push_str(&rest[..at]);
        out.push_str(REDACTED);
        let token = &rest[at..];
        let end = token.find(|c| !is_token_char(c)).unwrap_or(token.len());
        rest = &token[end..];
    }
    out.push_str(rest);
    out
}

/// Scrubbed, on one line, at most `chars_max` characters.
pub(crate) fn foreign(text: &str, chars_max: usize) -> String {
    let scrubbed = scrub(text);
    let mut out = String::new();
    let mut count = 0;
    for word in scrubbed.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
            count += 1;
        }
        for c in word.chars() {
            if count >= chars_max {
                out.push('…');
                return out;
            }
            out.push(c);
            count += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_vanish_whole_or_cut() {
        let body = "invalid token: eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJkZXZrZXkifQ.AA-A_A, error: bad";
        assert_eq!(scrub(body), "invalid token: <token>, error: bad");
        assert_eq!(scrub("cut eyJhbGciOi"), "cut <token>");
        assert_eq!(scrub("\"eyJa.b.c\" and eyJd"), "\"<token>\" and <token>");
        assert_eq!(scrub("nothing"), "nothing");
        assert_eq!(scrub(""), "");
    }

    #[test]
    fn one_short_line() {
        assert_eq!(foreign("a\r\n  b\tc\u{1b}[0m", 100), "a b c [0m");
        assert_eq!(foreign("aaaa", 2), "aa…");
        assert_eq!(foreign("ääää", 4), "ääää");
        assert_eq!(foreign("", 4), "");
    }
}
