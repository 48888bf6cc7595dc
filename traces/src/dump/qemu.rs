//! QEMU's register dump, which it prints after `KVM: entry failed`: selectors, bases, limits and flags as the guest
//! sees them.

use std::collections::BTreeMap;

use super::number;
use super::store::field;
use super::types::{DumpedVmcb, DumpedVmcs, EferOrigin, Source, Sourced, VmcbKey};

/// A segment register as QEMU prints it: selector, base, limit, and the descriptor's flags where its second
/// doubleword has them (type in bits 11:8, S 12, DPL 14:13, P 15, AVL 20, L 21, D/B 22, G 23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub selector: u16,
    pub base: u64,
    pub limit: u32,
    pub flags: u32,
}

/// One register dump.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registers {
    /// First and last line.
    pub lines: (u32, u32),
    /// RIP, RSP, RFLAGS, CR0, CR2, CR3, CR4, DR6, DR7, EFER; GDT and IDT base and limit: value and line.
    values: BTreeMap<&'static str, (u64, u32)>,
    segments: BTreeMap<&'static str, (Segment, u32)>,
}

/// What a line is to this reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Not a line of a register dump.
    Other,
    /// The first line of one.
    Begin,
    /// A line of one: registers and values, or a segment; empty for registers that no rule asks for.
    Values(Vec<(&'static str, u64)>),
    /// A segment register.
    Segment(&'static str, Segment),
    /// It has a register's name where one should be, but not its form.
    Garbled,
}

/// Segments: QEMU's label, VMCS encodings of selector, access rights, limit and base, VMCB offset.
const SEGMENTS: &[(&str, u32, u32, u32, u32, u16)] = &[
    ("ES=", 0x0800, 0x4814, 0x4800, 0x6806, 0x400),
    ("CS=", 0x0802, 0x4816, 0x4802, 0x6808, 0x410),
    ("SS=", 0x0804, 0x4818, 0x4804, 0x680a, 0x420),
    ("DS=", 0x0806, 0x481a, 0x4806, 0x680c, 0x430),
    ("FS=", 0x0808, 0x481c, 0x4808, 0x680e, 0x440),
    ("GS=", 0x080a, 0x481e, 0x480a, 0x6810, 0x450),
    ("LDT=", 0x080c, 0x4820, 0x480c, 0x6812, 0x470),
    ("TR=", 0x080e, 0x4822, 0x480e, 0x6814, 0x490),
];

/// A register: our name, VMCS encoding, VMCB offset and size.
type Value = (&'static str, Option<u32>, Option<(u16, u8)>);

/// Other registers: our name, VMCS encoding, VMCB offset. CR0 and CR4 go to the read shadows: what the guest
/// sees is not what the VMCS field holds. For a VMCB they are the registers themselves with nested paging.
const VALUES: &[Value] = &[
    ("RIP", Some(0x681e), Some((0x578, 8))),
    ("RSP", Some(0x681c), Some((0x5d8, 8))),
    ("RFLAGS", Some(0x6820), Some((0x570, 8))),
    ("CR0", Some(0x6004), Some((0x558, 8))),
    ("CR2", None, Some((0x640, 8))),
    ("CR3", Some(0x6802), Some((0x550, 8))),
    ("CR4", Some(0x6006), Some((0x548, 8))),
    ("DR6", None, Some((0x568, 8))),
    ("DR7", Some(0x681a), Some((0x560, 8))),
    ("EFER", None, Some((0x4d0, 8))),
    ("GDT base", Some(0x6816), Some((0x468, 8))),
    ("GDT limit", Some(0x4810), Some((0x464, 4))),
    ("IDT base", Some(0x6818), Some((0x488, 8))),
    ("IDT limit", Some(0x4812), Some((0x484, 4))),
];

/// Lines of `key=value` pairs: how the line begins, a key it must have, keys and our names.
type Pairs = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const PAIRS: &[Pairs] = &[
    ("RSI=", "RSP=", &[("RSP=", "RSP")]),
    ("ESI=", "ESP=", &[("ESP=", "RSP")]),
    ("RIP=", "RFL=", &[("RIP=", "RIP"), ("RFL=", "RFLAGS")]),
    ("EIP=", "EFL=", &[("EIP=", "RIP"), ("EFL=", "RFLAGS")]),
    ("CR0=", "CR2=", &[("CR0=", "CR0"), ("CR2=", "CR2"), ("CR3=", "CR3"), ("CR4=", "CR4")]),
    ("DR6=", "DR7=", &[("DR6=", "DR6"), ("DR7=", "DR7")]),
    ("EFER=", "EFER=", &[("EFER=", "EFER")]),
    ("DR0=", "DR1=", &[]),
    ("R8=", "R9=", &[]),
    ("R12=", "R13=", &[]),
    ("CCS=", "CCO=", &[]),
];

/// Classifies a line in canonical spelling. `inside` says that the lines before belong to a register dump.
pub(crate) fn classify(text: &str, inside: bool) -> Seen {
    if (text.starts_with("EAX=") && text.contains(" EBX="))
        || (text.starts_with("RAX=") && text.contains(" RBX="))
    {
        return Seen::Begin;
    }
    if let Some((label, ..)) = SEGMENTS.iter().find(|(label, ..)| text.starts_with(label)) {
        return match segment(&text[label.len()..]) {
            Some(s) => Seen::Segment(label, s),
            None if inside => Seen::Garbled,
            None => Seen::Other,
        };
    }
    for (label, base, limit) in [("GDT=", "GDT base", "GDT limit"), ("IDT=", "IDT base", "IDT limit")] {
        if let Some(rest) = text.strip_prefix(label) {
            return match two(rest) {
                Some((b, l)) => Seen::Values(vec![(base, b), (limit, l)]),
                None if inside => Seen::Garbled,
                None => Seen::Other,
            };
        }
    }
    for (begin, must, pairs) in PAIRS {
        if !text.starts_with(begin) || !text.contains(must) || (*begin == "EFER=" && !inside) {
            continue;
        }
        let mut values = Vec::new();
        for (key, name) in *pairs {
            let Some(at) = text.find(key) else { return Seen::Garbled };
            let Ok(n) = number::hex(&text[at + key.len()..]) else { return Seen::Garbled };
            values.push((*name, n.value));
        }
        return Seen::Values(values);
    }
    Seen::Other
}

fn segment(rest: &str) -> Option<Segment> {
    let mut words = rest.split(' ');
    let mut next = |digits: usize| {
        let word = words.next()?;
        if word.len() != digits && word.len() != 2 * digits {
            return None;
        }
        u64::from_str_radix(word, 16).ok()
    };
    Some(Segment {
        selector: u16::try_from(next(4)?).ok()?,
        base: next(8)?,
        limit: u32::try_from(next(8)?).ok()?,
        flags: u32::try_from(next(8)?).ok()?,
    })
}

fn two(rest: &str) -> Option<(u64, u64)> {
    let (base, limit) = rest.split_once(' ')?;
    let limit = limit.split(' ').next()?;
    if !matches!(base.len(), 8 | 16) || limit.len() != 8 {
        return None;
    }
    Some((u64::from_str_radix(base, 16).ok()?, u64::from_str_radix(limit, 16).ok()?))
}

impl Registers {
    pub(crate) fn new(line: u32) -> Self {
        Self { lines: (line, line), ..Self::default() }
    }

    /// Takes what [`classify`] saw in a line.
    pub(crate) fn take(&mut self, seen: &Seen, line: u32) {
        self.lines.1 = line;
        match seen {
            Seen::Values(values) => {
                for (name, value) in values {
                    self.values.entry(name).or_insert((*value, line));
                }
            }
            Seen::Segment(label, segment) => {
                self.segments.entry(label).or_insert((*segment, line));
            }
            Seen::Other | Seen::Begin | Seen::Garbled => {}
        }
    }

    /// Whether the line's registers were all seen before: then it begins another dump.
    pub(crate) fn has(&self, seen: &Seen) -> bool {
        match seen {
            Seen::Values(values) => values.iter().any(|(name, _)| self.values.contains_key(name)),
            Seen::Segment(label, _) => self.segments.contains_key(label),
            Seen::Other | Seen::Begin | Seen::Garbled => false,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty() && self.segments.is_empty()
    }

    pub(crate) fn rip(&self) -> Option<u64> {
        self.values.get("RIP").map(|(v, _)| *v)
    }

    /// Fills fields that a VMCS lacks.
    pub(crate) fn fill_vmcs(&self, vmcs: &mut DumpedVmcs) {
        let mut put = |encoding: u32, value: u64, line: u32| {
            if let Some(field) = field(encoding) {
                vmcs.fields.entry(field).or_insert(Sourced { value, line, source: Source::Qemu });
            }
        };
        for (label, selector, rights, limit, base, _) in SEGMENTS {
            if let Some((s, line)) = self.segments.get(label) {
                // SDM Vol. 3C "Guest Register State": bits 7:0 and 15:12 as in a descriptor, bit 16 unusable, which
                // is what KVM makes of a segment that is not present.
                let present = s.flags & 0x8000 != 0;
                put(*selector, s.selector.into(), *line);
                put(*rights, u64::from((s.flags >> 8) & 0xf0ff) | if present { 0 } else { 1 << 16 }, *line);
                put(*limit, s.limit.into(), *line);
                put(*base, s.base, *line);
            }
        }
        for (name, encoding, _) in VALUES {
            if let (Some((value, line)), Some(encoding)) = (self.values.get(name), encoding) {
                put(*encoding, *value, *line);
            }
        }
        if let (None, Some((value, line))) = (&vmcs.effective_efer, self.values.get("EFER")) {
            let efer = Sourced { value: *value, line: *line, source: Source::Qemu };
            vmcs.effective_efer = Some((efer, EferOrigin::Qemu));
        }
    }

    /// Fills fields that a VMCB lacks.
    pub(crate) fn fill_vmcb(&self, vmcb: &mut DumpedVmcb) {
        let mut put = |offset: u16, size: u8, value: u64, line: u32| {
            let sourced = Sourced { value, line, source: Source::Qemu };
            vmcb.fields.entry(VmcbKey { offset, size }).or_insert(sourced);
        };
        for (label, _, _, _, _, offset) in SEGMENTS {
            if let Some((s, line)) = self.segments.get(label) {
                // APM Vol. 2 "VMCB State Save Area": the descriptor's bits 55:52 and 47:40, concatenated.
                let attributes = (s.flags >> 8) & 0xff | (s.flags >> 12) & 0xf00;
                put(*offset, 2, s.selector.into(), *line);
                put(*offset + 2, 2, attributes.into(), *line);
                put(*offset + 4, 4, s.limit.into(), *line);
                put(*offset + 8, 8, s.base, *line);
            }
        }
        for (name, _, key) in VALUES {
            if let (Some((value, line)), Some((offset, size))) = (self.values.get(name), key) {
                put(*offset, *size, *value, *line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_register_dump_are_told_from_kvms_host_state() {
        assert_eq!(classify("RAX=0000000000000000 RBX=0000000000000001 RCX=0 RDX=0", false), Seen::Begin);
        let segment = Segment { selector: 0xf000, base: 0xffff_0000, limit: 0xffff, flags: 0x9b00 };
        assert_eq!(classify("CS=f000 ffff0000 0000ffff 00009b00", false), Seen::Segment("CS=", segment));
        assert_eq!(classify("CS=0010 SS=0018 DS=0000 ES=0000 FS=0000 GS=0000 TR=0040", false), Seen::Other);
        assert_eq!(
            classify("CR0=0000000080050033 CR3=000000010a0b4000 CR4=00000000001626e0", false),
            Seen::Other
        );
        assert_eq!(classify("RIP=0xffffffffc0a0b000 RSP=0xffffc90000a0b000", true), Seen::Other);
        assert_eq!(classify("EFER=0000000000000000", false), Seen::Other);
        assert_eq!(classify("EFER=0000000000000500", true), Seen::Values(vec![("EFER", 0x500)]));
        assert_eq!(classify("CS=f0g0 ffff0000 0000ffff 00009b00", true), Seen::Garbled);
    }

    #[test]
    fn a_segment_that_is_not_present_is_unusable_in_a_vmcs() {
        let mut registers = Registers::new(1);
        registers.take(&classify("LDT=0000 00000000 0000ffff 00000000", true), 2);
        registers.take(&classify("CS=0008 00000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]", true), 3);
        let mut vmcs = DumpedVmcs::default();
        registers.fill_vmcs(&mut vmcs);
        assert_eq!(vmcs.value(rootmode_vmx::Field::GuestLdtrRights), Some(0x1_0000));
        assert_eq!(vmcs.value(rootmode_vmx::Field::GuestCsRights), Some(0xa09b));
        let mut vmcb = DumpedVmcb::default();
        registers.fill_vmcb(&mut vmcb);
        assert_eq!(vmcb.value(0x412, 2), Some(0xa9b));
        assert_eq!(vmcb.value(0x472, 2), Some(0));
    }
}
