//! Reads any text: finds the dumps in it, line by line, in time linear in its length.

use std::collections::BTreeMap;

use super::labels::{
    ATTEMPT, ATTEMPT_ON, after_heading, candidates, head, is_msr_entry, is_part_of_label, looks_like_qemu,
    next_label, skip_words, starts_something,
};
use super::line::{self, Line};
use super::list::{self, Item};
use super::qemu::{self, Registers, Seen};
use super::store::{has, store};
use super::template::{self, Reading, Section, Target, Template};
use super::types::{
    Dump, DumpState, DumpedVmcb, DumpedVmcs, MsrEntry, Parsed, Reason, Source, Sourced, Unreadable, Vendor,
};
use super::{merge, number, svm_lines, vmx_lines};

/// A dump with no line for so long is over; what follows is another one.
const DUMP_REACH: u32 = 400;
/// Soft line breaks are joined up to so many bytes.
const MAX_HELD: usize = 4096;
/// A line is continued at most so often: mail programs wrap at 70 to 80 columns, dump lines have at most 120.
const MAX_JOINS: u8 = 3;
/// Callers told apart (kernels with CONFIG_PRINTK_CALLER); more share one stream.
const MAX_STREAMS: usize = 64;

/// Reads a text. Never fails: see [`Parsed::unreadable`] for what could not be read.
pub fn parse(text: &str) -> Parsed {
    let mut reader = Reader::default();
    let quoted_printable = text.contains("=3D");
    let mut number = 0u32;
    let mut held = String::new();
    let mut first = 0;
    for raw in text.lines() {
        number = number.saturating_add(1);
        if held.is_empty() {
            first = number;
        }
        if quoted_printable {
            held.push_str(raw);
            // A `=` at the end is a soft line break.
            if held.ends_with('=') && held.len() < MAX_HELD {
                held.pop();
                continue;
            }
            let decoded = line::decode_quoted_printable(&std::mem::take(&mut held));
            reader.line(first, &decoded);
        } else {
            reader.line(number, raw);
        }
    }
    reader.line(first, &line::decode_quoted_printable(&held));
    reader.finish(number)
}

/// A list of MSRs being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MsrList {
    EntryLoad,
    ExitStore,
    ExitLoad,
}

/// A line that the next one may continue.
#[derive(Debug)]
struct Pending {
    template: &'static Template,
    text: String,
    line: u32,
    reading: Reading,
    joins: u8,
}

/// What one caller is printing.
#[derive(Debug, Default)]
struct Stream {
    /// Index of its current dump.
    dump: Option<usize>,
    section: Option<Section>,
    list: Option<MsrList>,
    pending: Option<Pending>,
    /// The beginning of a label at the end of a wrapped line, as "Sysenter" of "Sysenter RSP=".
    carry: String,
}

/// Everything read so far.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) dumps: Vec<Dump>,
    pub(super) registers: Vec<Registers>,
    pub(super) items: Vec<Item>,
    pub(super) failures: Vec<Sourced<u64>>,
    /// Entries of VM-entry MSR-load lists that Xen says were refused.
    pub(super) refused_msrs: Vec<Sourced<MsrEntry>>,
    pub(super) unreadable: Vec<Unreadable>,
    streams: BTreeMap<String, Stream>,
    /// Words before the message on lines whose prefix is not known to [`line`]; learned from strong labels.
    prefix_words: usize,
    amd: bool,
    /// The last line that was understood is one of QEMU's registers.
    in_registers: bool,
}

impl Reader {
    fn line(&mut self, number: u32, raw: &str) {
        for message in line::messages(number, raw) {
            self.message(message);
        }
    }

    fn message(&mut self, message: Line) {
        if message.text.is_empty() || message.text.starts_with('#') || message.text.starts_with(';') {
            return;
        }
        let key = if self.streams.len() < MAX_STREAMS || self.streams.contains_key(&message.caller) {
            message.caller.clone()
        } else {
            String::new()
        };
        let mut stream = self.streams.remove(&key).unwrap_or_default();
        if !self.continues(&mut stream, &message) {
            self.flush(&mut stream);
            let carry = std::mem::take(&mut stream.carry);
            let carried = line::canonical(&format!("{carry} {}", message.text));
            if !carry.is_empty() && (candidates(&carried).next().is_some() || is_msr_entry(&carry)) {
                self.fresh(&mut stream, &Line { text: carried, ..message });
            } else {
                self.fresh(&mut stream, &message);
            }
        }
        self.streams.insert(key, stream);
    }

    pub(super) fn finish(mut self, lines: u32) -> Parsed {
        for (_, mut stream) in std::mem::take(&mut self.streams) {
            self.flush(&mut stream);
        }
        merge::merge(self, lines)
    }

    /// Tries to read a message as the rest of the line before.
    fn continues(&mut self, stream: &mut Stream, message: &Line) -> bool {
        let Some(pending) = &stream.pending else { return false };
        let awaited = || {
            let missing = pending.reading.outcomes.iter().filter(|o| o.value.is_err());
            missing
                .map(|o| pending.template.parts[o.part].key)
                .any(|k| !k.is_empty() && message.text.starts_with(k))
        };
        if pending.joins >= MAX_JOINS || (starts_something(&message.text) && !awaited()) {
            return false;
        }
        let best = [" ", ""]
            .map(|glue| {
                let text = line::canonical(&format!("{}{glue}{}", pending.text, message.text));
                let reading = template::read(pending.template, &text);
                (text, reading)
            })
            .into_iter()
            .reduce(|a, b| if b.1.good() > a.1.good() { b } else { a });
        let Some((text, reading)) = best else { return false };
        // "(effective)" adds no number, but says what the number before is.
        let says_origin = message.text.starts_with('(')
            && matches!(pending.template.parts[0].target, Target::GuestEfer)
            && !pending.text.contains('(');
        if reading.good() <= pending.reading.good() && !says_origin {
            return false;
        }
        let next = Pending {
            template: pending.template,
            line: pending.line,
            joins: pending.joins + 1,
            text,
            reading,
        };
        if next.reading.open {
            stream.pending = Some(next);
        } else {
            stream.pending = None;
            self.apply(stream, &next);
            let end = next.reading.end.min(next.text.len());
            self.pieces(stream, next.text[end..].trim_start_matches(SEPARATORS), message.number, false);
        }
        true
    }

    /// Takes the line that waited for a continuation as it is.
    fn flush(&mut self, stream: &mut Stream) {
        if let Some(pending) = stream.pending.take() {
            self.apply(stream, &pending);
        }
    }

    /// Reads a message from its beginning.
    fn fresh(&mut self, stream: &mut Stream, message: &Line) {
        self.note_remarks(stream, message);
        let mut rest = message.text.as_str();
        if self.prefix_words > 0 && !starts_something(rest) {
            let bare = skip_words(rest, self.prefix_words);
            if self.msr_entry(stream, bare, message.number) {
                return;
            }
            if starts_something(bare) {
                rest = bare;
            }
        }
        self.pieces(stream, rest, message.number, true);
    }

    /// Reads the labelled pieces of a text one after the other. `first` says that it is a message from its beginning.
    fn pieces(&mut self, stream: &mut Stream, text: &str, line: u32, mut first: bool) {
        let mut rest = text;
        while !rest.is_empty() {
            if self.heading(stream, rest, line) {
                rest = after_heading(rest);
            } else if let Some(template) = self.choose(stream, rest, line) {
                let reading = template::read(template, rest);
                let end = reading.end.min(rest.len());
                let read = Pending { template, text: head(rest).to_owned(), line, reading, joins: 0 };
                if read.reading.open && rest.len() == read.text.len() {
                    stream.pending = Some(read);
                    return;
                }
                self.apply(stream, &read);
                rest = &rest[end.max(template.label.len())..];
            } else if first && self.whole_line(stream, rest, line) {
                return;
            } else {
                let Some((at, words)) = next_label(rest) else {
                    if is_part_of_label(rest) {
                        rest.clone_into(&mut stream.carry);
                    }
                    return;
                };
                if first {
                    self.prefix_words = words;
                }
                rest = &rest[at..];
                first = false;
                continue;
            }
            first = false;
            rest = rest.trim_start_matches(SEPARATORS);
        }
    }

    /// Lines that are taken as a whole: QEMU's registers, entries of an MSR list, `FIELD = value`.
    fn whole_line(&mut self, stream: &mut Stream, text: &str, line: u32) -> bool {
        self.msr_entry(stream, text, line) || self.qemu_line(text, line) || self.list_line(text, line)
    }

    fn qemu_line(&mut self, text: &str, line: u32) -> bool {
        let near = self.registers.last().is_some_and(|r| line.saturating_sub(r.lines.1) < 4);
        let seen = qemu::classify(head(text), near && self.in_registers);
        match &seen {
            Seen::Other => return false,
            Seen::Begin => self.registers.push(Registers::new(line)),
            Seen::Garbled => {
                let (register, rest) = text.split_once('=').unwrap_or((text, ""));
                self.name(line, register, Reason::NotANumber { found: rest.chars().take(24).collect() });
            }
            Seen::Values(_) | Seen::Segment(..) => {
                if self.registers.last().is_none_or(|r| r.has(&seen)) {
                    self.registers.push(Registers::new(line));
                }
                if let Some(last) = self.registers.last_mut() {
                    last.take(&seen, line);
                }
            }
        }
        self.in_registers = true;
        true
    }

    fn list_line(&mut self, text: &str, line: u32) -> bool {
        match list::read(text, line, self.amd) {
            list::Outcome::Other => false,
            list::Outcome::Item(item) => {
                self.amd |= item.is_amd();
                self.items.push(item);
                true
            }
            list::Outcome::Unreadable(what, reason) => {
                self.unreadable.push(Unreadable { line, what, reason });
                true
            }
        }
    }

    fn msr_entry(&mut self, stream: &mut Stream, text: &str, line: u32) -> bool {
        let (Some(list), Some(index)) = (stream.list, stream.dump) else { return false };
        let Some((_, rest)) = text.split_once(": msr=").filter(|_| is_msr_entry(text)) else { return false };
        if text.len() < 32 && !text.contains("value=0x") {
            text.clone_into(&mut stream.carry);
            return true;
        }
        let entry = number::hex(rest).and_then(|msr| {
            let at = rest.find("value=").ok_or(Reason::Missing)?;
            let value = number::hex(&rest[at + "value=".len()..])?;
            let msr = u32::try_from(msr.value).map_err(|_| Reason::TooWide { bits: 32 })?;
            if value.digits < 16 {
                return Err(Reason::CutOff { digits: value.digits, expected: 16 });
            }
            Ok(MsrEntry { index: msr, value: value.value })
        });
        match (entry, &mut self.dumps[index].state) {
            (Ok(value), DumpState::Vmcs(vmcs)) => {
                let list = match list {
                    MsrList::EntryLoad => &mut vmcs.entry_load,
                    MsrList::ExitStore => &mut vmcs.exit_store,
                    MsrList::ExitLoad => &mut vmcs.exit_load,
                };
                list.push(Sourced { value, line, source: Source::Kernel });
                self.dumps[index].lines.1 = line;
            }
            (Err(reason), _) => self.name(line, "msr=", reason),
            (Ok(_), DumpState::Vmcb(_)) => {}
        }
        true
    }

    /// Headings of a dump and of its parts.
    fn heading(&mut self, stream: &mut Stream, text: &str, line: u32) -> bool {
        let begin = head(text);
        let vmcs = begin.starts_with("VMCS ") && begin.contains(ATTEMPT);
        let vmcb = begin.contains("VMCB ") && begin.contains(ATTEMPT);
        if vmcs || vmcb {
            let vendor = if vmcs { Vendor::Intel } else { Vendor::Amd };
            let index = self.open(stream, vendor, line);
            if let DumpState::Vmcs(v) = &mut self.dumps[index].state {
                v.shows_msr_lists = true;
            }
            stream.section = None;
            self.note_host_cpu(stream, begin);
            return true;
        }
        let headings = vmx_lines::HEADINGS.iter().chain(svm_lines::HEADINGS);
        let Some((_, section)) = headings.into_iter().find(|(h, _)| text.starts_with(h)) else {
            let list = match text {
                "MSR guest autoload:" => MsrList::EntryLoad,
                "MSR guest autostore:" => MsrList::ExitStore,
                "MSR host autoload:" => MsrList::ExitLoad,
                _ => return false,
            };
            stream.list = stream.dump.map(|_| list);
            return stream.dump.is_some();
        };
        let begins = matches!(section, Section::Guest | Section::VmcbControl);
        self.current(stream, *section, begins && stream.section.is_some(), line);
        true
    }

    /// The template that a text's beginning has, if it may be believed here.
    fn choose(&mut self, stream: &Stream, text: &str, line: u32) -> Option<&'static Template> {
        let mut found = candidates(text);
        let first = found.next()?;
        let second = found.next();
        if first.strong {
            return Some(first);
        }
        if self.in_registers && looks_like_qemu(text) {
            return None;
        }
        let open = stream.dump.is_some_and(|d| {
            line.saturating_sub(self.dumps[d].lines.1) < DUMP_REACH
                && (self.dumps[d].vendor() == Vendor::Amd) == first.section.is_amd()
        });
        let section = stream.section.filter(|_| open);
        if let Some(second) = second {
            // The same words for guest and host: only the heading tells.
            return match section {
                Some(s) if s == first.section => Some(first),
                Some(_) => Some(second),
                None => {
                    let reading = template::read(first, text);
                    if reading.good() > 0 {
                        self.name(line, first.label, Reason::SectionUnknown);
                    }
                    None
                }
            };
        }
        let reading = template::read(first, text);
        let complete = reading.outcomes.len() > 1 && reading.good() == reading.outcomes.len();
        if first.parts.len() > 1 && first.parts[1].key.is_empty() {
            // A row of a table looks like other texts, as the registers of a kernel oops.
            return complete.then_some(first);
        }
        if complete || (section.is_some() && !looks_like_qemu(text)) { Some(first) } else { None }
    }

    /// Stores what a line said.
    fn apply(&mut self, stream: &mut Stream, read: &Pending) {
        let template = read.template;
        let line = read.line;
        let repeated = read.reading.good() > 0
            && stream
                .dump
                .is_some_and(|d| begins_dump(template) && has(&self.dumps[d], template.parts[0].target));
        let index = self.current(stream, template.section, repeated, line);
        stream.list = None;
        let before = read.text.get(..template.label.len()).unwrap_or_default();
        for outcome in &read.reading.outcomes {
            let part = &template.parts[outcome.part];
            let what = if part.key.is_empty() || part.key == ":" { before } else { part.key };
            match &outcome.value {
                Err(reason) => self.name(line, what, reason.clone()),
                Ok(value) => {
                    if let Err(reason) =
                        store(&mut self.dumps[index], part.target, *value, outcome.digits, line, &read.text)
                    {
                        self.name(line, what, reason);
                    }
                }
            }
        }
    }

    /// The stream's dump for a line of this section: a new one if there is none, if it is another vendor's, if it is
    /// long past or if `anew` says that the line begins one.
    fn current(&mut self, stream: &mut Stream, section: Section, anew: bool, line: u32) -> usize {
        let vendor = if section.is_amd() { Vendor::Amd } else { Vendor::Intel };
        let usable = stream.dump.filter(|d| {
            self.dumps[*d].vendor() == vendor && line.saturating_sub(self.dumps[*d].lines.1) < DUMP_REACH
        });
        let index = match usable {
            Some(index) if !anew => index,
            _ => self.open(stream, vendor, line),
        };
        stream.section = Some(section);
        self.in_registers = false;
        self.dumps[index].lines.1 = line;
        index
    }

    fn open(&mut self, stream: &mut Stream, vendor: Vendor, line: u32) -> usize {
        let state = match vendor {
            Vendor::Intel => DumpState::Vmcs(DumpedVmcs::default()),
            Vendor::Amd => DumpState::Vmcb(DumpedVmcb::default()),
        };
        self.amd |= vendor == Vendor::Amd;
        self.dumps.push(Dump { lines: (line, line), state, failure: None, host_cpu: None });
        stream.dump = Some(self.dumps.len() - 1);
        stream.list = None;
        self.dumps.len() - 1
    }

    /// Remarks beside a dump: failure codes, dropped messages, KVM's hint that dumping is off.
    fn note_remarks(&mut self, stream: &Stream, message: &Line) {
        let text = message.text.as_str();
        let line = message.number;
        for key in FAILURES {
            let Some(at) = text.find(key) else { continue };
            let rest = text[at + key.len()..].trim_start_matches([' ', ':', '=', '(', '"', '\'', ',']);
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            if let Ok(n) = number::either(&rest[..end]) {
                let source = if *key == QEMU_FAILURE { Source::Qemu } else { Source::Kernel };
                self.failures.push(Sourced { value: n.value, line, source });
                break;
            }
        }
        // Xen names the entry of the MSR-load list that the processor refused.
        if let Some((index, value)) = text.strip_prefix("msr ").and_then(|rest| rest.split_once(" val "))
            && let (Ok(index), Ok(value)) = (number::hex(index), number::hex(value))
            && let Ok(index) = u32::try_from(index.value)
        {
            let value = MsrEntry { index, value: value.value };
            self.refused_msrs.push(Sourced { value, line, source: Source::Kernel });
        }
        self.note_host_cpu(stream, text);
        if text.contains("printk messages dropped") && stream.dump.is_some() {
            self.name(line, "", Reason::Dropped);
        }
        if text.contains("dump_invalid_vmcs=1 to dump") || text.contains("dump_invalid_vmcb=1 to dump") {
            self.name(line, "", Reason::DumpDisabled);
        }
    }

    /// Takes the number out of "last attempted VM-entry on CPU 3".
    fn note_host_cpu(&mut self, stream: &Stream, text: &str) {
        let found = ATTEMPT_ON.iter().find_map(|key| text.find(key).map(|at| &text[at + key.len()..]));
        let number =
            found.and_then(|rest| number::decimal(rest).ok()).and_then(|n| u32::try_from(n.value).ok());
        if let (Some(cpu), Some(index)) = (number, stream.dump) {
            self.dumps[index].host_cpu.get_or_insert(cpu);
        }
    }

    fn name(&mut self, line: u32, what: &str, reason: Reason) {
        self.unreadable.push(Unreadable { line, what: what.trim_end_matches(['=', ' ']).to_owned(), reason });
    }
}

/// What stands between the pieces of a line.
const SEPARATORS: [char; 3] = [' ', ',', ';'];

/// What QEMU says, as in `KVM: entry failed, hardware error 0x80000021`.
const QEMU_FAILURE: &str = "hardware error";

/// What stands before a failure code: QEMU, KVM clients written in Rust, Xen.
const FAILURES: &[&str] = &[
    QEMU_FAILURE,
    "hardware_entry_failure_reason",
    "hardware entry failure reason",
    "hardware exit reason",
    "FailEntry(",
    "vmentry failure (reason",
    "VMLAUNCH error",
    "VMRESUME error",
    "VM-instruction error",
    "VM instruction error",
];

/// Whether a line is the first one of a dump, so that its second occurrence begins another.
fn begins_dump(template: &Template) -> bool {
    matches!(template.label, "CR0: actual=" | "cr_read:")
}
