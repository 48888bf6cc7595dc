//! What a line of a kernel's dump looks like, and reading one.

use super::number;
use super::types::Reason;

/// The part of a dump that a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Section {
    /// VMX: "*** Guest State ***".
    Guest,
    /// VMX: "*** Host State ***".
    Host,
    /// VMX: "*** Control State ***".
    Control,
    /// SVM: "VMCB Control Area:".
    VmcbControl,
    /// SVM: "VMCB State Save Area:".
    VmcbSave,
}

impl Section {
    /// Whether this is a part of a VMCB's dump.
    pub(crate) fn is_amd(self) -> bool {
        matches!(self, Self::VmcbControl | Self::VmcbSave)
    }
}

/// What a number in a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The VMCS field with this encoding.
    Vmcs(u32),
    /// The guest's EFER: the VMCS field, unless the line ends in `(autoload)` or `(effective)`.
    GuestEfer,
    /// The VMCB field at this offset, of this many bytes.
    Vmcb(u16, u8),
    /// Intercept words 3 and 4 of the VMCB: two numbers in kernels since 5.10, one of 64 bits before.
    Intercepts,
    /// Shown elsewhere in the same dump, or no field.
    Nothing,
}

/// How a number is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Hexadecimal with at least so many digits.
    Hex(u8),
    /// Decimal.
    Dec,
}

/// One number in a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// What stands before the number, after the number before it; empty for the first part of a line.
    pub key: &'static str,
    pub target: Target,
    pub form: Form,
    /// Only some kernels print it.
    pub optional: bool,
}

/// One line of a dump, in the spelling of [`super::line::canonical`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Template {
    /// What stands before the first number.
    pub label: &'static str,
    /// The label occurs in no other text, so that it opens a dump without a heading and may be looked for inside a
    /// line with an unknown prefix.
    pub strong: bool,
    pub section: Section,
    pub parts: &'static [Part],
}

/// What came of reading one part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Index in the template's parts.
    pub part: usize,
    pub value: Result<u64, Reason>,
    /// Digits of the number that was read.
    pub digits: u8,
}

/// What came of reading a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// One for every part that is there or should be.
    pub outcomes: Vec<Outcome>,
    /// Where in the text the line's last read number ends.
    pub end: usize,
    /// Something that could follow is missing at the end of the text: the next line may continue this one.
    pub open: bool,
}

impl Reading {
    /// Numbers that could be read.
    pub(crate) fn good(&self) -> usize {
        self.outcomes.iter().filter(|o| o.value.is_ok()).count()
    }
}

/// How far behind the last number a key may begin: far enough for a garbled number, too near for another line.
const KEY_REACH: usize = 48;

/// Reads a text that begins with the template's label.
pub(crate) fn read(template: &Template, text: &str) -> Reading {
    let mut at = template.label.len();
    let mut end = at;
    let mut outcomes = Vec::with_capacity(template.parts.len());
    let mut open = false;
    for (index, part) in template.parts.iter().enumerate() {
        let window = window(text, at);
        let Some(found) = find_key(window, part.key) else {
            open |= !part.key.is_empty() && text.len() - end < KEY_REACH;
            if !part.optional {
                outcomes.push(Outcome { part: index, value: Err(Reason::Missing), digits: 0 });
            }
            continue;
        };
        // A short number with more than separators behind it was garbled, not written without its zeros.
        let gap = &window[..found];
        if let Some(Outcome { part: before, value, digits }) = outcomes.last_mut()
            && matches!(template.parts[*before].form, Form::Hex(least) if *digits < least)
            && value.is_ok()
            && !gap.trim_matches([' ', ',', ';', '.', '|']).is_empty()
        {
            *value = Err(number::not_a_number(gap.trim_start()));
        }
        let start = at + found + part.key.len();
        let start = start + (text[start..].len() - text[start..].trim_start_matches(' ').len());
        let (read, least) = match part.form {
            Form::Hex(least) => (number::hex(&text[start..]), least),
            Form::Dec => (number::decimal(&text[start..]), 1),
        };
        match read {
            Ok(n) => {
                at = start + n.len;
                end = at;
                let cut = at == text.len() && n.digits < least;
                open |= cut;
                let value =
                    if cut { Err(Reason::CutOff { digits: n.digits, expected: least }) } else { Ok(n.value) };
                outcomes.push(Outcome { part: index, value, digits: n.digits });
            }
            Err(_) if part.optional && part.key.is_empty() => {}
            Err(reason) => {
                let empty = matches!(&text[start..], "" | "0x");
                open |= empty;
                at = start;
                let value = Err(if empty { Reason::CutOff { digits: 0, expected: least } } else { reason });
                outcomes.push(Outcome { part: index, value, digits: 0 });
            }
        }
    }
    Reading { outcomes, end, open }
}

/// The next bytes of a text, cut at a character boundary.
fn window(text: &str, at: usize) -> &str {
    let mut to = text.len().min(at + KEY_REACH);
    while !text.is_char_boundary(to) {
        to -= 1;
    }
    &text[at..to.max(at)]
}

/// Where a key begins; not inside a longer word, so that `SP=` is not found in `RSP=`.
fn find_key(window: &str, key: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = window[from..].find(key) {
        let at = from + found;
        let inside_word = key.starts_with(|c: char| c.is_ascii_alphanumeric())
            && window[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
        if !inside_word {
            return Some(at);
        }
        from = at + 1;
    }
    None
}
