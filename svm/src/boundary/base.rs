//! Valid guests in every mode, with every combination of features that makes sense.

use crate::capabilities::{MAX_AMD, Processor};
use crate::rules::{EntryContext, Host, PhysicalMemory};
use crate::vmcb::{Area, Field, IntCtl, Intercept, NestedControl, VirtExt, Vmcb, Vmsa};
use rootmode_arch::{Choices, Cr0, Cr4, Efer, HostPhysical, RFlags, Site};

/// The four PDPEs of legacy PAE paging, at the address that CR3 holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pdpes {
    /// Address of the first.
    pub base: u64,
    /// The entries.
    pub entries: [u64; 4],
}

impl PhysicalMemory for Pdpes {
    /// Outside the four entries memory reads as zero.
    fn read_u64(&self, address: HostPhysical) -> Option<u64> {
        let index = address.0.wrapping_sub(self.base) / 8;
        Some(self.entries.get(usize::try_from(index).ok()?).copied().unwrap_or(0))
    }
}

/// One entry: everything that VMRUN's checks read, by value.
#[derive(Clone)]
pub struct Case {
    /// The processor model.
    pub processor: Processor,
    /// The VMCB.
    pub vmcb: Vmcb,
    /// The VMSA; it counts only with `encrypted`.
    pub vmsa: Vmsa,
    /// The guest's state is in the VMSA.
    pub encrypted: bool,
    /// The host's state.
    pub host: Host,
    /// Physical memory.
    pub memory: Pdpes,
}

impl Case {
    /// What the rules read.
    pub fn context(&self) -> EntryContext<'_> {
        EntryContext {
            processor: &self.processor,
            vmcb: &self.vmcb,
            vmsa: self.encrypted.then_some(&self.vmsa),
            host: self.host,
            memory: &self.memory,
        }
    }
    /// The value of a field where it counts: guest state of an encrypted guest in the VMSA, all else in the VMCB.
    pub fn value(&self, field: Field) -> u64 {
        let value = if self.is_in_vmsa(field) { self.vmsa.get(field) } else { self.vmcb.get(field) };
        value.unwrap_or(0)
    }
    /// Changes a field where it counts.
    pub fn change(&mut self, field: Field, how: impl FnOnce(u64) -> u64) {
        let value = how(self.value(field));
        self.put(field, value);
    }
    /// Stores a field where it counts.
    pub fn put(&mut self, field: Field, value: u64) {
        if self.is_in_vmsa(field) {
            self.vmsa.set(field, value);
        } else {
            self.vmcb.set(field, value);
        }
    }
    /// Sets bits of a field.
    pub fn set(&mut self, field: Field, bits: u64) {
        self.change(field, |value| value | bits);
    }
    /// Clears bits of a field.
    pub fn clear(&mut self, field: Field, bits: u64) {
        self.change(field, |value| value & !bits);
    }
    fn is_in_vmsa(&self, field: Field) -> bool {
        match field.row().area {
            Area::Control => false,
            Area::Save => self.encrypted,
            Area::Vmsa => true,
        }
    }
}

impl core::fmt::Debug for Case {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut shown = f.debug_struct("Case");
        shown.field("processor", &self.processor.name).field("host", &self.host).field("vmcb", &self.vmcb);
        if self.encrypted {
            shown.field("vmsa", &self.vmsa);
        }
        shown.field("memory", &self.memory).finish()
    }
}

/// The guest's operating mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// 64-bit mode.
    Long,
    /// Compatibility mode.
    Compatibility,
    /// Legacy PAE paging.
    Pae,
    /// Legacy 32-bit paging.
    Legacy,
    /// Protected mode without paging.
    Protected,
    /// Virtual-8086 mode.
    Virtual8086,
    /// Real mode.
    Real,
    /// Real mode with paging, which only VMRUN and RSM can enter.
    PagedReal,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 8] = [
        Self::Long,
        Self::Compatibility,
        Self::Pae,
        Self::Legacy,
        Self::Protected,
        Self::Virtual8086,
        Self::Real,
        Self::PagedReal,
    ];
}

/// What the VMCB enables beyond the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Extras {
    /// Nested paging.
    pub nested_paging: bool,
    /// AVIC; needs nested paging.
    pub avic: bool,
    /// x2AVIC; needs AVIC.
    pub x2avic: bool,
    /// NMI virtualization.
    pub vnmi: bool,
    /// CR4.CET.
    pub cet: bool,
    /// SEV; needs nested paging.
    pub sev: bool,
    /// SEV-ES; needs SEV.
    pub sev_es: bool,
    /// SEV-SNP; needs SEV-ES.
    pub snp: bool,
}

impl Extras {
    /// Nothing.
    pub const NONE: Self = Self {
        nested_paging: false,
        avic: false,
        x2avic: false,
        vnmi: false,
        cet: false,
        sev: false,
        sev_es: false,
        snp: false,
    };
    /// Nested paging.
    pub const NESTED: Self = Self { nested_paging: true, ..Self::NONE };
    /// AVIC.
    pub const AVIC: Self = Self { avic: true, ..Self::NESTED };
    /// x2AVIC.
    pub const X2AVIC: Self = Self { x2avic: true, ..Self::AVIC };
    /// SEV.
    pub const SEV: Self = Self { sev: true, ..Self::NESTED };
    /// SEV-ES.
    pub const SEV_ES: Self = Self { sev_es: true, ..Self::SEV };
    /// SEV-SNP.
    pub const SNP: Self = Self { snp: true, ..Self::SEV_ES };

    /// Some combination; each needs what it stands on.
    pub fn draw(choices: &mut dyn Choices) -> Self {
        let mut flip = |ground: bool| ground && choices.flip(Site::State);
        let nested_paging = flip(true);
        let avic = flip(nested_paging);
        let x2avic = flip(avic);
        let sev = flip(nested_paging);
        let sev_es = flip(sev);
        let snp = flip(sev_es);
        Self { nested_paging, avic, x2avic, vnmi: flip(true), cet: flip(true), sev, sev_es, snp }
    }
}

const CR3: u64 = 0x0010_0000;

/// A valid guest on [`MAX_AMD`].
pub fn base(mode: Mode, extras: Extras) -> Case {
    let mut case = Case {
        processor: MAX_AMD,
        vmcb: Vmcb::zeroed(),
        vmsa: Vmsa::zeroed(),
        encrypted: extras.sev_es,
        host: if extras.sev { Host::ENCRYPTING } else { Host::LONG_MODE },
        memory: Pdpes { base: CR3, entries: [0x0020_1001, 0, 0, 0] },
    };
    put_controls(&mut case, extras);
    put_guest(&mut case, mode);
    if extras.cet {
        case.set(Field::Cr4, Cr4::CET.0);
        case.set(Field::Cr0, Cr0::WP.0);
        case.put(Field::SCet, 3);
    }
    if extras.snp {
        case.put(Field::SevFeatures, 1);
    }
    case
}

fn put_controls(case: &mut Case, extras: Extras) {
    for intercept in
        [Intercept::VMRUN, Intercept::INTR, Intercept::NMI, Intercept::MSR_PROT, Intercept::IOIO_PROT]
    {
        if let Some(field) = intercept.field() {
            case.set(field, 1 << intercept.bit_in_field());
        }
    }
    // The least ASID that SEV allows without SEV-ES; any other guest may have it too.
    case.put(Field::Asid, case.processor.sev.min_asid_without_es.into());
    case.put(Field::IopmBase, 0x0003_0000);
    case.put(Field::MsrpmBase, 0x0003_4000);
    if extras.nested_paging {
        case.set(Field::NestedControl, NestedControl::NP_ENABLE.0);
        case.put(Field::NestedCr3, 0x0004_0000);
        case.put(Field::GPat, 0x0007_0406_0007_0406);
    }
    if extras.avic {
        case.set(Field::IntCtl, IntCtl::AVIC_ENABLE.0.into());
        case.put(Field::AvicApicBar, 0xfee0_0000);
        case.put(Field::AvicBackingPage, 0x0005_0000);
        case.put(Field::AvicLogicalTable, 0x0005_1000);
        case.put(Field::AvicPhysicalTable, 0x0005_20ff);
    }
    if extras.x2avic {
        case.set(Field::IntCtl, IntCtl::X2AVIC_ENABLE.0.into());
    }
    if extras.vnmi {
        case.set(Field::IntCtl, IntCtl::V_NMI_ENABLE.0.into());
    }
    if extras.sev {
        case.set(Field::NestedControl, NestedControl::SEV_ENABLE.0);
    }
    if extras.sev_es {
        case.set(Field::NestedControl, NestedControl::SEV_ES_ENABLE.0);
        case.set(Field::VirtExt, VirtExt::LBR_ENABLE.0);
        case.put(Field::VmsaPointer, 0x0006_0000);
    }
}

fn put_guest(case: &mut Case, mode: Mode) {
    let paging = !matches!(mode, Mode::Protected | Mode::Real);
    let protected = !matches!(mode, Mode::Real | Mode::PagedReal);
    let long = matches!(mode, Mode::Long | Mode::Compatibility);
    let pae = long || mode == Mode::Pae;
    let cr0 =
        Cr0::ET.set(Cr0::PE, protected).set(Cr0::PG, paging).set(Cr0::WP, paging).set(Cr0::NE, protected);
    let cr4 = (Cr4::OSFXSR | Cr4::OSXMMEXCPT).set(Cr4::PAE, pae).set(Cr4::PSE, paging && !pae);
    let efer = (Efer::SVME | Efer::SCE).set(Efer::LME, long).set(Efer::LMA, long).set(Efer::NXE, pae);
    let rflags = RFlags::ONE.set(RFlags::VM, mode == Mode::Virtual8086);
    let code = match mode {
        Mode::Long => 0xa9b,
        Mode::Compatibility | Mode::Pae | Mode::Legacy | Mode::Protected => 0xc9b,
        Mode::Virtual8086 => 0x0f3,
        Mode::Real | Mode::PagedReal => 0x09b,
    };
    let data = match mode {
        Mode::Virtual8086 => 0x0f3,
        Mode::Real | Mode::PagedReal => 0x093,
        _ => 0xc93,
    };
    let limit = if data == 0xc93 { 0xffff_ffff } else { 0xffff };
    for (field, value) in [
        (Field::Cr0, cr0.0),
        (Field::Cr3, CR3),
        (Field::Cr4, cr4.0),
        (Field::Efer, efer.0),
        (Field::Rflags, rflags.0),
        (Field::Dr6, 0xffff_0ff0),
        (Field::Dr7, 0x400),
        (Field::Rip, 0x1000),
        (Field::Rsp, 0x7000),
        (Field::Cpl, if mode == Mode::Virtual8086 { 3 } else { 0 }),
        (Field::CsSelector, 0x10),
        (Field::CsAttrib, code),
        (Field::CsLimit, limit),
        (Field::SsSelector, 0x18),
        (Field::SsAttrib, data),
        (Field::SsLimit, limit),
        (Field::DsSelector, 0x18),
        (Field::DsAttrib, data),
        (Field::DsLimit, limit),
        (Field::EsSelector, 0x18),
        (Field::EsAttrib, data),
        (Field::EsLimit, limit),
        (Field::TrSelector, 0x20),
        (Field::TrAttrib, 0x08b),
        (Field::TrLimit, 0x67),
        (Field::GdtrLimit, 0x2f),
        (Field::IdtrLimit, 0xfff),
    ] {
        case.put(field, value);
    }
}
