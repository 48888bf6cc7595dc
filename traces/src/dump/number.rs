//! Numbers as kernels and people write them, read from the front of a text.

use super::types::Reason;

/// A number read from the front of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    /// The value.
    pub value: u64,
    /// Bytes of text that it took, prefix included.
    pub len: usize,
    /// Digits, prefix excluded.
    pub digits: u8,
}

/// Reads a hexadecimal number with or without `0x`. It must end at the end of the text or before a character that
/// can follow a number in a dump, so that `0x1f3g` is garbled and not 0x1f3.
pub(crate) fn hex(text: &str) -> Result<Number, Reason> {
    let prefix = if text.starts_with("0x") || text.starts_with("0X") { 2 } else { 0 };
    let digits = text[prefix..].bytes().take_while(u8::is_ascii_hexdigit).count();
    bounded(text, prefix, digits, 16)
}

/// Reads a decimal number, negative ones as two's complement of 64 bits.
pub(crate) fn decimal(text: &str) -> Result<Number, Reason> {
    let prefix = usize::from(text.starts_with('-'));
    let digits = text[prefix..].bytes().take_while(u8::is_ascii_digit).count();
    let n = bounded(text, prefix, digits, 10)?;
    Ok(if prefix == 1 { Number { value: n.value.wrapping_neg(), ..n } } else { n })
}

/// Reads what people write in lists: `0x` or a letter among the digits or a trailing `h` mean hexadecimal, else
/// decimal; `_`, `'` and the debugger's back-tick may group digits.
pub(crate) fn either(text: &str) -> Result<Number, Reason> {
    let word = text.find([' ', '\t', ',', ';', '#', '(']).map_or(text, |end| &text[..end]);
    let plain: String = word.chars().filter(|c| !matches!(c, '_' | '\'' | '`')).collect();
    let (body, hexadecimal) = match plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
        Some(rest) => (rest, true),
        None => match plain.strip_suffix(['h', 'H']) {
            Some(rest) => (rest, true),
            None => (plain.as_str(), plain.bytes().any(|b| b.is_ascii_alphabetic())),
        },
    };
    let negative = body.starts_with('-') && !hexadecimal;
    let body = if negative { &body[1..] } else { body };
    let all_digits = !body.is_empty() && body.bytes().all(|b| b.is_ascii_hexdigit());
    let value =
        if all_digits { u64::from_str_radix(body, if hexadecimal { 16 } else { 10 }).ok() } else { None };
    let value = value.ok_or_else(|| not_a_number(text))?;
    let value = if negative { value.wrapping_neg() } else { value };
    Ok(Number { value, len: word.len(), digits: u8::try_from(body.len()).unwrap_or(u8::MAX) })
}

fn bounded(text: &str, prefix: usize, digits: usize, radix: u32) -> Result<Number, Reason> {
    let end = prefix + digits;
    let follows = text[end..].chars().next();
    let ends_well = follows.is_none_or(|c| " ,;:)]|\"'<.".contains(c));
    if digits == 0 || !ends_well {
        return Err(not_a_number(text));
    }
    let value = u64::from_str_radix(&text[prefix..end], radix).map_err(|_| Reason::TooWide { bits: 64 })?;
    // A number of up to u64::MAX has at most 20 digits; more are leading zeros.
    Ok(Number { value, len: end, digits: u8::try_from(digits).unwrap_or(u8::MAX) })
}

pub(crate) fn not_a_number(text: &str) -> Reason {
    let end = text.find([' ', '\t', ',', ';']).unwrap_or(text.len());
    Reason::NotANumber { found: text[..end].chars().take(24).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hexadecimal_number_must_end_where_a_number_can_end() {
        for (text, expected) in [
            ("0x10", Some((0x10, 4, 2))),
            ("10,", Some((0x10, 2, 2))),
            ("0000ffff b:", Some((0xffff, 8, 8))),
            ("ffffffffffffffff", Some((u64::MAX, 16, 16))),
            ("0x1f3g", None),
            ("0x", None),
            ("", None),
            ("00?0", None),
            ("1ffffffffffffffff", None),
        ] {
            assert_eq!(hex(text).ok().map(|n| (n.value, n.len, n.digits)), expected, "{text:?}");
        }
    }

    #[test]
    fn list_numbers_are_decimal_unless_they_say_otherwise() {
        for (text, expected) in [
            ("16", Some(16)),
            ("0x16", Some(0x16)),
            ("16h", Some(0x16)),
            ("c0000080", Some(0xc000_0080)),
            ("0xffff`0000", Some(0xffff_0000)),
            ("1_000", Some(1000)),
            ("-1", Some(u64::MAX)),
            ("46 # bits", Some(46)),
            ("yes", None),
            ("", None),
            ("0x", None),
        ] {
            assert_eq!(either(text).ok().map(|n| n.value), expected, "{text:?}");
        }
    }

    #[test]
    fn decimal_numbers_may_be_negative() {
        assert_eq!(decimal("-1").map(|n| n.value), Ok(u64::MAX));
        assert_eq!(decimal("3000").map(|n| n.value), Ok(3000));
        assert!(decimal("0x10").is_err(), "x may not follow a decimal digit");
    }
}
