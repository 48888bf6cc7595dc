//! Takes what logs, mails and web pages put around a kernel message off it, and brings the rest to one spelling.

/// A message with its surroundings taken off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// Line in the input, counted from 1.
    pub number: u32,
    /// The text: runs of blanks are one space, no space around `=`, none at the ends.
    pub text: String,
    /// The task or CPU that printed it (`T1234`, `C3`), where the kernel was built to say so.
    pub caller: String,
}

/// How much of a line is searched for a prefix.
const PREFIX_REACH: usize = 256;

/// Splits one physical line into messages: web pages and log shippers put several into one with `<br>`, `\n` or
/// `#012` between them.
pub(crate) fn messages(number: u32, raw: &str) -> Vec<Line> {
    let decoded = decode_entities(raw);
    let mut rest = decoded.as_str();
    let mut out = Vec::new();
    loop {
        let (head, tail) = match separator(rest) {
            None => (rest, None),
            Some((at, len)) => (&rest[..at], Some(&rest[at + len..])),
        };
        let (payload, caller) = strip_prefix(head);
        out.push(Line { number, text: canonical(payload), caller: caller.to_owned() });
        match tail {
            Some(tail) => rest = tail,
            None => return out,
        }
    }
}

/// Where the next separator between messages begins, and its length: one pass, whichever it is.
fn separator(text: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let rest = &bytes[at..];
        match byte {
            b'\\' if rest.starts_with(b"\\n") => return Some((at, 2)),
            b'#' if rest.starts_with(b"#012") => return Some((at, 4)),
            b'<' if rest.starts_with(b"<br") => {
                let close = rest.iter().take(8).position(|b| *b == b'>');
                return Some((at, close.map_or(3, |c| c + 1)));
            }
            _ => {}
        }
    }
    None
}

/// Replaces HTML's character references, as far as dumps can contain them.
fn decode_entities(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        // No reference in question is longer than 10 bytes; the window keeps long lines linear.
        let window = rest.as_bytes().iter().take(10).position(|b| *b == b';');
        let decoded = window.and_then(|end| match &rest[1..end] {
            "lt" => Some('<'),
            "gt" => Some('>'),
            "amp" => Some('&'),
            "quot" => Some('"'),
            "nbsp" => Some(' '),
            name => {
                let number = name.strip_prefix('#')?;
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)
            }
        });
        match (decoded, window) {
            (Some(c), Some(end)) => {
                out.push(c);
                rest = &rest[end + 1..];
            }
            _ => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Decodes the `=3D` of mails in quoted-printable; soft line breaks are the caller's.
pub(crate) fn decode_quoted_printable(raw: &str) -> String {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let code = if *byte == b'=' { tail.first_chunk::<2>() } else { None };
        let digit = |b: u8| char::from(b).to_digit(16);
        match code.and_then(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)) {
            Some(decoded) => {
                out.push(decoded as u8);
                rest = &tail[2..];
            }
            None => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Takes quotation marks of mail, log levels, time stamps, the host's name and the module's name off a line.
/// Returns the message and the caller identification.
fn strip_prefix(line: &str) -> (&str, &str) {
    let mut rest = line;
    let mut caller = "";
    if let Some(after) = after_syslog_tag(rest).or_else(|| after_syslog_header(rest)) {
        rest = after;
    }
    loop {
        let before = rest;
        rest =
            rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '>' | '|' | '\u{feff}' | '`'));
        if let Some(after) = rest.strip_prefix('<') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0 && after[digits..].starts_with('>') {
                rest = &after[digits + 1..];
            } else if let Some(end) = tag_end(after) {
                rest = &after[end..];
            }
        }
        if let Some(after) = rest.strip_prefix('[')
            && let Some(end) = after.bytes().take(48).position(|b| b == b']')
        {
            let inside = after[..end].trim();
            if is_caller(inside) {
                caller = inside;
                rest = &after[end + 1..];
            } else if is_time(inside) {
                rest = &after[end + 1..];
            }
        }
        for name in
            ["kvm_intel:", "kvm_amd:", "KVM:", "SVM:", "kvm:", "kernel:", "(XEN)", "<code>", "</code>"]
        {
            if let Some(after) = rest.strip_prefix(name) {
                // QEMU's "KVM: entry failed" keeps its words; only the tag goes.
                rest = after;
            }
        }
        if rest.len() == before.len() {
            return (rest, caller);
        }
    }
}

/// The text after `kernel:` or `kernel[123]:` in the first bytes of a line, as syslog and the journal write.
fn after_syslog_tag(line: &str) -> Option<&str> {
    let mut reach = line.len().min(PREFIX_REACH);
    while !line.is_char_boundary(reach) {
        reach -= 1;
    }
    let at = line[..reach].find("kernel")?;
    let after = &line[at + "kernel".len()..];
    let after = match after.strip_prefix('[') {
        Some(inner) => &inner[inner.bytes().take(12).position(|b| b == b']')? + 1..],
        None => after,
    };
    after.strip_prefix(": ").or_else(|| after.strip_prefix(":\t"))
}

/// The text after `Jun 24 17:25:51 host QEMU[2997]: `, or after the same with an ISO 8601 time.
fn after_syslog_header(line: &str) -> Option<&str> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let is_clock = |word: &str| word.len() >= 8 && word.as_bytes()[2] == b':' && word.as_bytes()[5] == b':';
    let is_iso = |word: &str| word.len() >= 19 && word.as_bytes()[4] == b'-' && word.as_bytes()[10] == b'T';
    let (first, rest) = next_word(line)?;
    let rest = if MONTHS.contains(&first) {
        let (_day, rest) = next_word(rest)?;
        let (clock, rest) = next_word(rest)?;
        is_clock(clock).then_some(rest)?
    } else {
        is_iso(first).then_some(rest)?
    };
    let (_host, rest) = next_word(rest)?;
    let (tag, after) = next_word(rest)?;
    Some(if tag.ends_with(':') { after } else { rest })
}

/// The first word of a text and what follows it.
fn next_word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches(' ');
    let end = text.find(' ')?;
    (end <= 64).then(|| (&text[..end], &text[end..]))
}

/// The end of a short HTML tag whose `<` was taken off.
fn tag_end(after: &str) -> Option<usize> {
    let first = after.strip_prefix('/').unwrap_or(after).bytes().next()?;
    let end = after.bytes().take(40).position(|b| b == b'>')?;
    first.is_ascii_alphabetic().then_some(end + 1)
}

fn is_caller(inside: &str) -> bool {
    let digits = inside.strip_prefix(['T', 'C']).unwrap_or("");
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn is_time(inside: &str) -> bool {
    let time_like = |b: u8| b.is_ascii_digit() || b" .,:+-/TZ@".contains(&b) || b.is_ascii_alphabetic();
    inside.bytes().any(|b| b.is_ascii_digit())
        && inside.bytes().all(time_like)
        && (inside.bytes().all(|b| !b.is_ascii_alphabetic()) || inside.contains(':'))
}

/// Runs of blanks become one space; spaces around `=` go; control characters and terminal colours go.
pub(crate) fn canonical(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut blank = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // ESC [ parameters letter
            for c in chars.by_ref().take(16) {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else if c.is_whitespace() || c == '\u{a0}' {
            blank = true;
        } else if c.is_control() || c == '\u{200b}' {
            // Dropped: such a character cannot be part of a message.
        } else {
            if blank && !out.is_empty() && c != '=' && !out.ends_with('=') {
                out.push(' ');
            }
            blank = false;
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(raw: &str) -> String {
        messages(1, raw).remove(0).text
    }

    #[test]
    fn whatever_stands_around_a_message_comes_off() {
        let plain = "CR3=0x0000000077aad000";
        for raw in [
            "CR3 = 0x0000000077aad000",
            "[10639.238051] CR3 = 0x0000000077aad000",
            "<3>[10639.238051] CR3 = 0x0000000077aad000",
            "[  673.862338] kvm_intel: CR3 = 0x0000000077aad000",
            "[  673.862338][ T1234] kvm_intel: CR3 = 0x0000000077aad000",
            "Sep  8 22:52:20 xubuntu2004 kernel: [10639.238051] CR3 = 0x0000000077aad000",
            "2024-01-02T03:04:05.678901+00:00 host kernel: CR3 = 0x0000000077aad000\r",
            "Jan 02 03:04:05 host kernel[77]: CR3 = 0x0000000077aad000",
            "Jun 24 17:25:51 testhost QEMU[2997]: CR3 = 0x0000000077aad000",
            "2024-01-02T03:04:05+0000 host qemu-system-x86[1]: CR3 = 0x0000000077aad000",
            "> > [10639.238051] CR3 = 0x0000000077aad000",
            ">> &gt; CR3 = 0x0000000077aad000",
            "    | CR3\t=  0x0000000077aad000  ",
            "<pre>CR3 &#61; 0x0000000077aad000",
            "\u{1b}[32m[  10.000000] \u{1b}[0mCR3 = 0x0000000077aad000",
            "[Tue Nov 12 10:22:33 2024] CR3 = 0x0000000077aad000",
        ] {
            // A coloured time stamp is removed only once the colours are.
            let once = text(raw);
            let twice = text(&once);
            assert_eq!(twice, plain, "{raw:?} gave {once:?}");
        }
    }

    #[test]
    fn brackets_that_are_no_time_stamp_stay() {
        assert_eq!(text("[-------] CPL=0"), "[-------] CPL=0");
        assert_eq!(text("[not a time] x"), "[not a time] x");
    }

    #[test]
    fn the_caller_is_told_apart_from_the_time() {
        let line = messages(7, "[  673.862338][ T1234] x").remove(0);
        assert_eq!((line.number, line.caller.as_str(), line.text.as_str()), (7, "T1234", "x"));
    }

    #[test]
    fn several_messages_in_one_line_are_told_apart() {
        let texts: Vec<_> =
            messages(1, "[1.0] a = 1<br/>[1.1] b = 2\\n[1.2] c").into_iter().map(|l| l.text).collect();
        assert_eq!(texts, ["a=1", "b=2", "c"]);
    }
}
