//! What a parsed text consists of: dumps, their values with the line each came from, and what could not be read.

use std::collections::BTreeMap;
use std::fmt;

use rootmode_svm::vmcb::{Area, TABLE};
use rootmode_svm::{Vmcb, Vmsa};
use rootmode_vmx::{Field, Vmcs};

/// Whose virtualization extension a dump belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vendor {
    /// Intel VMX: the text shows a VMCS.
    Intel,
    /// AMD SVM: the text shows a VMCB.
    Amd,
}

/// Where a value comes from. Ordered by trust: of two sources for one field the smaller one is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A line `FIELD = value`, written by hand or by a tool.
    List,
    /// KVM's `dump_vmcs` or `dump_vmcb`: what the control structure held.
    Kernel,
    /// QEMU's register dump after a failed entry: what the guest believes its registers to be. A control structure
    /// can differ from it (CR0, CR4 and, without "unrestricted guest", segments and RFLAGS).
    Qemu,
}

/// A value with the place in the text that it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value as printed.
    pub value: T,
    /// Line in the input, counted from 1.
    pub line: u32,
    /// Who printed it.
    pub source: Source,
}

/// A field of the VMCB by its byte offset from the start of the VMCB (the state save area begins at 0x400) and its
/// size in bytes, as in APM Vol. 2 "Layout of VMCB".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmcbKey {
    /// Byte offset from the start of the VMCB, 0 to 0xFFF.
    pub offset: u16,
    /// Bytes: 1, 2, 4 or 8. KVM prints some 8-byte fields of the manual as two halves; the key is the printed part.
    pub size: u8,
}

/// An entry of an MSR list that KVM printed ("MSR guest autoload:" and its like).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrEntry {
    /// MSR index.
    pub index: u32,
    /// Value to load, or last value stored.
    pub value: u64,
}

/// How KVM got the guest's EFER that it printed (kernels since 5.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EferOrigin {
    /// From the VM-entry MSR-load list.
    Autoload,
    /// Neither the field nor the list is used; this is what the guest will run with.
    Effective,
    /// QEMU's register dump.
    Qemu,
}

/// The readable part of a dumped VMCS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpedVmcs {
    /// Values as printed, never wider than the field.
    pub fields: BTreeMap<Field, Sourced<u64>>,
    /// The guest's EFER where it was printed but is not the VMCS field "guest IA32_EFER".
    pub effective_efer: Option<(Sourced<u64>, EferOrigin)>,
    /// VM-entry MSR-load list, where printed.
    pub entry_load: Vec<Sourced<MsrEntry>>,
    /// VM-exit MSR-store list, where printed.
    pub exit_store: Vec<Sourced<MsrEntry>>,
    /// VM-exit MSR-load list, where printed.
    pub exit_load: Vec<Sourced<MsrEntry>>,
    /// The kernel prints MSR lists that are not empty (5.13 and later), so that an empty list above has count 0.
    pub shows_msr_lists: bool,
}

impl DumpedVmcs {
    /// The value of a field, if the text had it.
    pub fn value(&self, field: Field) -> Option<u64> {
        self.fields.get(&field).map(|f| f.value)
    }

    /// The line that a field's value comes from.
    pub fn line(&self, field: Field) -> Option<u32> {
        self.fields.get(&field).map(|f| f.line)
    }

    /// The fields as a VMCS in which all others are unknown. The counts of the MSR lists are known where the kernel
    /// prints lists that are not empty.
    pub fn to_vmcs(&self) -> Vmcs {
        let mut vmcs = Vmcs::unknown();
        if self.shows_msr_lists {
            for (field, list) in [
                (Field::EntryMsrLoadCount, &self.entry_load),
                (Field::ExitMsrStoreCount, &self.exit_store),
                (Field::ExitMsrLoadCount, &self.exit_load),
            ] {
                vmcs.set(field, list.len() as u64);
            }
        }
        for (field, sourced) in &self.fields {
            vmcs.set(*field, sourced.value);
        }
        vmcs
    }
}

/// The readable part of a dumped VMCB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpedVmcb {
    /// Fields by offset and size; values as printed, never wider than the field.
    pub fields: BTreeMap<VmcbKey, Sourced<u64>>,
}

impl DumpedVmcb {
    /// The value of the field at this offset with this size in bytes, if the text had exactly that field.
    pub fn value(&self, offset: u16, size: u8) -> Option<u64> {
        self.fields.get(&VmcbKey { offset, size }).map(|f| f.value)
    }

    /// The first line that a field's value, or a part of it, comes from.
    pub fn line(&self, field: rootmode_svm::Field) -> Option<u32> {
        let row = field.row();
        let start = if row.area == Area::Vmsa { SAVE_AREA + row.offset } else { row.offset };
        let inside = |k: &VmcbKey| (start..start + row.size).contains(&k.offset);
        self.fields.iter().filter(|(k, _)| inside(k)).map(|(_, v)| v.line).min()
    }

    /// The fields as a VMCB in which all others are unknown. A field of which only the low half is printed
    /// (EXITCODE, the interrupt shadow) is known, sign-extended; one of which a part is unreadable is not.
    pub fn to_vmcb(&self) -> Vmcb {
        let mut vmcb = Vmcb::unknown();
        for row in TABLE.iter().filter(|row| row.area != Area::Vmsa && row.size <= 8) {
            let size = row.size as u8;
            let halves = || {
                let low = self.value(row.offset, size / 2)?;
                let high = self.value(row.offset + row.size / 2, size / 2);
                // Linux prints 32 bits of these two; the manual has 64, all ones for VMEXIT_INVALID.
                let extended = matches!(row.offset, 0x068 | 0x070) && size == 8;
                let high =
                    if extended { high.or(Some(if low == 0xffff_ffff { low } else { 0 })) } else { high };
                Some(high? << (u32::from(size) * 4) | low)
            };
            if let Some(value) = self.value(row.offset, size).or_else(halves) {
                vmcb.set(row.field, value);
            }
        }
        vmcb
    }

    /// The one field of an encrypted guest's VMSA that VMRUN checks, SEV_FEATURES, if the text shows it; all others are
    /// unknown.
    pub fn to_vmsa(&self) -> Option<Vmsa> {
        let row = rootmode_svm::Field::SevFeatures.row();
        let features = self.value(SAVE_AREA + row.offset, row.size as u8)?;
        let mut vmsa = Vmsa::unknown();
        vmsa.set(row.field, features);
        Some(vmsa)
    }
}

/// Where the save area starts in a VMCB; a VMSA is one.
const SAVE_AREA: u16 = 0x400;

/// The control structure that a dump shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpState {
    /// Intel.
    Vmcs(DumpedVmcs),
    /// AMD.
    Vmcb(DumpedVmcb),
}

/// One failed entry: a control structure and what was said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// First and last line that belong to it, counted from 1.
    pub lines: (u32, u32),
    /// What could be read.
    pub state: DumpState,
    /// What the processor or KVM reported about this entry outside the control structure:
    /// `hardware_entry_failure_reason` or QEMU's `hardware error`. For Intel an exit reason with bit 31 set, or a
    /// VM-instruction error number (1 to 28); for AMD an exit code (all ones: VMEXIT_INVALID).
    pub failure: Option<Sourced<u64>>,
    /// The physical processor on which KVM tried the entry ("last attempted VM-entry on CPU n"), where printed.
    pub host_cpu: Option<u32>,
}

impl Dump {
    /// Whose extension this is.
    pub fn vendor(&self) -> Vendor {
        match self.state {
            DumpState::Vmcs(_) => Vendor::Intel,
            DumpState::Vmcb(_) => Vendor::Amd,
        }
    }

    /// The VMCS, if this is Intel's.
    pub fn vmcs(&self) -> Option<&DumpedVmcs> {
        match &self.state {
            DumpState::Vmcs(v) => Some(v),
            DumpState::Vmcb(_) => None,
        }
    }

    /// The VMCB, if this is AMD's.
    pub fn vmcb(&self) -> Option<&DumpedVmcb> {
        match &self.state {
            DumpState::Vmcb(v) => Some(v),
            DumpState::Vmcs(_) => None,
        }
    }
}

/// What the text says about the processor, for all of its dumps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `cpu = NAME`: a processor model by name.
    pub cpu: Option<Sourced<String>>,
    /// `maxphyaddr = BITS`.
    pub max_phys_addr: Option<Sourced<u64>>,
    /// `vendor = intel` or `vendor = amd`.
    pub vendor: Option<Sourced<Vendor>>,
    /// MSRs by index: `MSR 0x480 = value`, `IA32_VMX_BASIC = value`.
    pub msrs: BTreeMap<u32, Sourced<u64>>,
}

/// The outcome of reading a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// In order of their first line.
    pub dumps: Vec<Dump>,
    /// What the text says about the processor.
    pub settings: Settings,
    /// Every failure code in the text, with or without a dump: see [`Dump::failure`].
    pub failures: Vec<Sourced<u64>>,
    /// What looked like a part of a dump and could not be read, in order of line.
    pub unreadable: Vec<Unreadable>,
    /// Number of lines in the text.
    pub lines: u32,
}

/// A line, or a value in a line, that looked like a part of a dump and could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Line in the input, counted from 1.
    pub line: u32,
    /// The key or field in the words of the text, empty where the whole line is meant.
    pub what: String,
    /// Why.
    pub reason: Reason,
}

/// Why a line or value could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The key is there, its value is not a number.
    NotANumber {
        /// What stands where the number should be, at most 24 characters.
        found: String,
    },
    /// The line ends inside the number: fewer digits than this kernel line always has.
    CutOff {
        /// Digits found.
        digits: u8,
        /// Digits that the format has.
        expected: u8,
    },
    /// The number does not fit the field.
    TooWide {
        /// Width of the field in bits.
        bits: u8,
    },
    /// The line begins like a line of a dump, but this part of it is missing.
    Missing,
    /// The line occurs in the guest's and in the host's state, and no heading says which this is.
    SectionUnknown,
    /// The field occurred before with another value; the first one is kept.
    Conflict {
        /// Line of the value that is kept.
        first: u32,
    },
    /// A `FIELD = value` line whose name looks like a field's but is none.
    UnknownField,
    /// The kernel log says that it dropped messages here.
    Dropped,
    /// KVM refused to dump: the module parameter `dump_invalid_vmcs` or `dump_invalid_vmcb` is off.
    DumpDisabled,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotANumber { found } => write!(f, "`{found}` is not a number"),
            Self::CutOff { digits, expected } => {
                write!(f, "the line ends inside the number ({digits} of {expected} digits)")
            }
            Self::TooWide { bits } => write!(f, "the number does not fit the field's {bits} bits"),
            Self::Missing => f.write_str("this part of the line is missing"),
            Self::SectionUnknown => {
                f.write_str("guest or host state? the heading `*** Guest State ***` or `*** Host State ***` is missing")
            }
            Self::Conflict { first } => write!(f, "differs from line {first}, which is used"),
            Self::UnknownField => f.write_str("no field has this name"),
            Self::Dropped => f.write_str("the kernel log dropped messages here"),
            Self::DumpDisabled => f.write_str(
                "KVM did not dump: load kvm_intel with dump_invalid_vmcs=1, or kvm_amd with dump_invalid_vmcb=1",
            ),
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.what.is_empty() {
            write!(f, "line {}: {}", self.line, self.reason)
        } else {
            write!(f, "line {}: {}: {}", self.line, self.what, self.reason)
        }
    }
}
