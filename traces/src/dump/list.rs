//! Lines `FIELD = value`: fields by the manual's or Linux's names or by number, capability MSRs, the processor.

use rootmode_vmx::Field;

use super::names;
use super::number;
use super::store::bits;
use super::types::{Reason, Source, Sourced, Vendor, VmcbKey};

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A VMCS field.
    Vmcs(Field, Sourced<u64>),
    /// A VMCB field.
    Vmcb(VmcbKey, Sourced<u64>),
    /// An MSR by index.
    Msr(u32, Sourced<u64>),
    /// A processor model.
    Cpu(Sourced<String>),
    /// Width of physical addresses in bits.
    MaxPhysAddr(Sourced<u64>),
    /// Whose extension the list is about.
    Vendor(Sourced<Vendor>),
}

impl Item {
    /// Whether bare VMCB names are meant from here on.
    pub(crate) fn is_amd(&self) -> bool {
        match self {
            Self::Vmcb(..) => true,
            Self::Vendor(v) => v.value == Vendor::Amd,
            Self::Cpu(c) => c.value.to_ascii_lowercase().starts_with("amd"),
            Self::Vmcs(..) | Self::Msr(..) | Self::MaxPhysAddr(_) => false,
        }
    }
}

/// What came of reading a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not a line of a list.
    Other,
    Item(Item),
    /// The name in the words of the text, and why it could not be read.
    Unreadable(String, Reason),
}

/// Longer lines are no list: names and numbers are short.
const MAX_LINE: usize = 160;

/// Reads a line in canonical spelling. `amd` says that the text is about a VMCB, so that `cr0` means one's.
pub(crate) fn read(text: &str, line: u32, amd: bool) -> Outcome {
    if text.len() > MAX_LINE {
        return Outcome::Other;
    }
    let text = text.split(" #").next().unwrap_or(text).split(" //").next().unwrap_or(text).trim_end();
    let Some((name, value)) = split(text) else { return Outcome::Other };
    let name = name.trim().trim_matches(['"', '\'', '*', '-', '|']).trim();
    let value = value.trim().trim_matches(['"', '\'', ',', ';', '|']).trim();
    if name.is_empty() || name.len() > 80 {
        return Outcome::Other;
    }
    let source = Source::List;
    match name {
        "cpu" => return Outcome::Item(Item::Cpu(Sourced { value: value.to_owned(), line, source })),
        "vendor" => {
            let value = match value.to_ascii_lowercase().as_str() {
                "intel" | "vmx" | "genuineintel" => Vendor::Intel,
                "amd" | "svm" | "authenticamd" => Vendor::Amd,
                _ => return Outcome::Unreadable(name.to_owned(), number::not_a_number(value)),
            };
            return Outcome::Item(Item::Vendor(Sourced { value, line, source }));
        }
        _ => {}
    }
    let number = number::either(value);
    let make = |n: number::Number| Sourced { value: n.value, line, source };
    let Some(key) = resolve(name, amd) else {
        if names::fold(name).ends_with("_HIGH") {
            // Bits 63:32 of a field whose full encoding has them all.
            return Outcome::Other;
        }
        // Only names that cannot be anything else are worth a complaint.
        let folded = names::fold(name);
        let field_like = ["GUEST_", "HOST_", "VM_ENTRY_", "VM_EXIT_", "VMCS_", "VMCB_"];
        let whole = number.as_ref().is_ok_and(|n| n.len == value.len());
        if whole
            && text.contains(['=', ':'])
            && !folded.contains("__")
            && field_like.iter().any(|p| folded.starts_with(p))
        {
            return Outcome::Unreadable(name.to_owned(), Reason::UnknownField);
        }
        return Outcome::Other;
    };
    let number = match number {
        Ok(n)
            if value[n.len..].trim_start_matches([' ', ',']).starts_with(|c: char| c != '(' && c != '#') =>
        {
            return Outcome::Other;
        }
        Ok(n) => n,
        Err(reason) => return Outcome::Unreadable(name.to_owned(), reason),
    };
    let bits = match key {
        Key::Vmcs(field) => bits(field),
        Key::Vmcb(key) => key.size * 8,
        Key::Msr(_) | Key::MaxPhysAddr => 64,
    };
    // A negative number was sign-extended to 64 bits; it means the field's own width.
    let sign = if bits < 64 { u64::MAX << bits } else { 0 };
    let value = if value.starts_with('-') && number.value & sign == sign {
        number.value & !sign
    } else {
        number.value
    };
    if value & sign != 0 {
        return Outcome::Unreadable(name.to_owned(), Reason::TooWide { bits });
    }
    let sourced = make(number::Number { value, ..number });
    Outcome::Item(match key {
        Key::Vmcs(field) => Item::Vmcs(field, sourced),
        Key::Vmcb(key) => Item::Vmcb(key, sourced),
        Key::Msr(index) => Item::Msr(index, sourced),
        Key::MaxPhysAddr => Item::MaxPhysAddr(sourced),
    })
}

enum Key {
    Vmcs(Field),
    Vmcb(VmcbKey),
    Msr(u32),
    MaxPhysAddr,
}

/// Name and value: at `=`, else at the last `:`, else at the last blank.
fn split(text: &str) -> Option<(&str, &str)> {
    text.split_once('=').or_else(|| text.rsplit_once(": ")).or_else(|| text.rsplit_once(' '))
}

fn resolve(name: &str, amd: bool) -> Option<Key> {
    let lower = name.to_ascii_lowercase();
    if matches!(lower.as_str(), "maxphyaddr" | "max_phys_addr" | "physical address bits") {
        return Some(Key::MaxPhysAddr);
    }
    if let Some(rest) = lower
        .strip_prefix("msr ")
        .or_else(|| lower.strip_prefix("msr["))
        .or_else(|| lower.strip_prefix("rdmsr ").or_else(|| lower.strip_prefix("msr_")))
    {
        let index = rest.trim_end_matches([']', ' ']);
        if let Some(n) = number::hex(index).ok().filter(|n| n.len == index.len()) {
            return u32::try_from(n.value).ok().map(Key::Msr);
        }
    }
    if let Some(index) = names::lookup_capability_msr(name) {
        return Some(Key::Msr(index));
    }
    let says_vmcb = ["vmcb", "control.", "control->", "save.", "save->", "ctrl."];
    if amd || says_vmcb.iter().any(|p| lower.starts_with(p)) {
        return names::lookup_vmcb_field(name).map(Key::Vmcb);
    }
    if let Some(field) = names::lookup_vmcs_field(name) {
        return Some(Key::Vmcs(field));
    }
    let index = u32::from_str_radix(lower.strip_prefix("0x")?, 16).ok()?;
    names::capability_msr_name(index).map(|_| Key::Msr(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vmcs(text: &str) -> Option<(u32, u64)> {
        match read(text, 1, false) {
            Outcome::Item(Item::Vmcs(field, v)) => Some((field.encoding(), v.value)),
            _ => None,
        }
    }

    #[test]
    fn fields_are_known_by_linuxs_constant_the_manuals_words_and_their_number() {
        for (text, expected) in [
            ("GUEST_CR0=0x80000031", (0x6800, 0x8000_0031)),
            ("guest_cr0: 31h", (0x6800, 0x31)),
            ("Guest CR0 80000031h", (0x6800, 0x8000_0031)),
            ("0x6800=49", (0x6800, 49)),
            ("VMCS_GUEST_CS_AR=0xa09b", (0x4816, 0xa09b)),
            ("Guest CS access rights=0xa09b", (0x4816, 0xa09b)),
            ("VM-entry controls=0x11ff # load debug controls", (0x4012, 0x11ff)),
            ("VM-entry interruption-information field: 0x80000b0e", (0x4016, 0x8000_0b0e)),
            ("CR0 guest/host mask=0xffffffffffffffff", (0x6000, u64::MAX)),
            ("Address of I/O bitmap A=0x1000", (0x2000, 0x1000)),
            ("VMCS link pointer=-1", (0x2800, u64::MAX)),
            ("PIN_BASED_VM_EXEC_CONTROL 22", (0x4000, 22)),
            ("IO_BITMAP_A_FULL=0x0", (0x2000, 0)),
            ("\"guest_rip\": 4096,", (0x681e, 4096)),
        ] {
            assert_eq!(vmcs(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_number_that_does_not_fit_is_named_not_cut() {
        let too_wide = Outcome::Unreadable("GUEST_CS_SELECTOR".into(), Reason::TooWide { bits: 16 });
        assert_eq!(read("GUEST_CS_SELECTOR=0x10008", 1, false), too_wide);
        assert_eq!(vmcs("EXCEPTION_BITMAP=-1"), Some((0x4004, 0xffff_ffff)));
        assert!(matches!(read("GUEST_CR0=yes", 1, false), Outcome::Unreadable(..)));
        let unknown = Outcome::Unreadable("GUEST_CR9".into(), Reason::UnknownField);
        assert_eq!(read("GUEST_CR9=1", 1, false), unknown);
        assert_eq!(read("uptime=17", 1, false), Outcome::Other);
    }

    #[test]
    fn the_processor_is_told_by_model_width_and_capability_msrs() {
        let source = Source::List;
        for (text, expected) in [
            ("cpu=intel-spr", Item::Cpu(Sourced { value: "intel-spr".into(), line: 3, source })),
            ("maxphyaddr=46", Item::MaxPhysAddr(Sourced { value: 46, line: 3, source })),
            (
                "MSR 0x480=0xda040000000004",
                Item::Msr(0x480, Sourced { value: 0xda_0400_0000_0004, line: 3, source }),
            ),
            ("IA32_VMX_BASIC=1", Item::Msr(0x480, Sourced { value: 1, line: 3, source })),
            ("MSR_IA32_VMX_TRUE_ENTRY_CTLS: 0x10", Item::Msr(0x490, Sourced { value: 16, line: 3, source })),
            ("0x48b: 0x7f", Item::Msr(0x48b, Sourced { value: 0x7f, line: 3, source })),
            ("vendor=AMD", Item::Vendor(Sourced { value: Vendor::Amd, line: 3, source })),
        ] {
            assert_eq!(read(text, 3, false), Outcome::Item(expected), "{text}");
        }
    }

    #[test]
    fn vmcb_fields_need_their_structure_or_an_amd_text() {
        let key = |offset, size, value| {
            let sourced = Sourced { value, line: 1, source: Source::List };
            Outcome::Item(Item::Vmcb(VmcbKey { offset, size }, sourced))
        };
        assert_eq!(read("vmcb.save.cr0=0x80000011", 1, false), key(0x558, 8, 0x8000_0011));
        assert_eq!(read("control.asid=0", 1, false), key(0x58, 4, 0));
        assert_eq!(read("save->cs.attrib=0x29b", 1, false), key(0x412, 2, 0x29b));
        assert_eq!(read("cr0=0x80000011", 1, false), Outcome::Other);
        assert_eq!(read("cr0=0x80000011", 1, true), key(0x558, 8, 0x8000_0011));
        assert_eq!(read("GUEST_ASID=1", 1, true), key(0x58, 4, 1));
        assert_eq!(read("0x558=17", 1, true), key(0x558, 8, 17));
    }
}
