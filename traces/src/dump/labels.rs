//! Which line a text begins with, and where in it the next one begins.

use super::qemu::{self, Seen};
use super::template::Template;
use super::{svm_lines, vmx_lines};

/// What the first line of a dump has in newer kernels; mail programs wrap it here at the earliest.
pub(super) const ATTEMPT: &str = ", last";
/// What stands before the host processor's number.
pub(super) const ATTEMPT_ON: &[&str] = &["VM-entry on CPU ", "VMRUN on CPU "];

/// The beginning of a text: as much as any line of a dump needs. Looking no further keeps long lines linear.
pub(super) fn head(text: &str) -> &str {
    let mut end = text.len().min(240);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn templates() -> impl Iterator<Item = &'static Template> {
    vmx_lines::LINES.iter().chain(svm_lines::LINES)
}

/// Templates whose label a text begins with: at most two, for guest and host.
pub(super) fn candidates(text: &str) -> impl Iterator<Item = &'static Template> {
    templates().filter(move |t| text.starts_with(t.label))
}

/// Whether a text is an entry of an MSR list, `0: msr=0x00000600 value=0x0000000000000000`, or its beginning.
pub(super) fn is_msr_entry(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (1..4).contains(&digits) && text[digits..].starts_with(": msr=")
}

/// Whether a text is the first words of a label.
pub(super) fn is_part_of_label(text: &str) -> bool {
    templates().any(|t| t.label.strip_prefix(text).is_some_and(|rest| rest.starts_with([' ', '='])))
}

fn starts_strongly(text: &str) -> bool {
    candidates(text).any(|t| t.strong)
        || vmx_lines::HEADINGS.iter().chain(svm_lines::HEADINGS).any(|(h, _)| text.starts_with(h))
        || ((text.starts_with("VMCS ") || text.starts_with("VMCB ")) && head(text).contains(ATTEMPT))
}

pub(super) fn starts_something(text: &str) -> bool {
    starts_strongly(text) || candidates(text).next().is_some() || text.starts_with("MSR ")
}

pub(super) fn after_heading(text: &str) -> &str {
    vmx_lines::HEADINGS
        .iter()
        .chain(svm_lines::HEADINGS)
        .find_map(|(h, _)| text.strip_prefix(h))
        .unwrap_or_default()
}

pub(super) fn looks_like_qemu(text: &str) -> bool {
    !matches!(qemu::classify(head(text), true), Seen::Other | Seen::Garbled)
}

/// Where the next strong label begins in a text that begins with something else, and how many words stand before it.
pub(super) fn next_label(text: &str) -> Option<(usize, usize)> {
    let mut words = 0;
    let mut boundary = false;
    for (at, c) in text.char_indices() {
        if boundary && c != ' ' {
            words += 1;
            if starts_strongly(&text[at..]) {
                return Some((at, words));
            }
        }
        boundary = c == ' ' || c == '>' || c == '|';
    }
    None
}

/// A text without its first words.
pub(super) fn skip_words(text: &str, words: usize) -> &str {
    let mut rest = text;
    for _ in 0..words {
        match rest.split_once(' ') {
            Some((_, tail)) => rest = tail,
            None => return "",
        }
    }
    rest
}
