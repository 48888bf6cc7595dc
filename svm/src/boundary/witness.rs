//! For every rule: what breaks it and nothing else, and what stays just inside.

use super::base::{Case, Extras, Mode, base};
use crate::rules::Host;
use crate::vmcb::{EventInfo, EventKind, Field as F, IntCtl, Intercept, NestedControl, VirtExt};
use rootmode_arch::{Cr0, Cr4, Efer, Feature, RFlags};

type Edit = fn(&mut Case);

/// States around the boundary of one rule.
pub struct Witness {
    /// The rule's identifier.
    pub rule: &'static str,
    start: fn() -> Case,
    violate: &'static [Edit],
    edge: &'static [Edit],
}

impl Witness {
    /// The witness of a rule.
    pub fn of(rule: &str) -> Option<&'static Witness> {
        WITNESSES.iter().find(|witness| witness.rule == rule)
    }
    /// The valid state that the others are edits of.
    pub fn start(&self) -> Case {
        (self.start)()
    }
    /// How many violations there are; at least one.
    pub const fn violations(&self) -> usize {
        self.violate.len()
    }
    /// How many edge states there are; at least one.
    pub const fn edges(&self) -> usize {
        self.edge.len()
    }
    /// State number `index` (modulo how many there are) that violates the rule and no other.
    pub fn violation(&self, index: usize) -> Case {
        self.edited(index, true)
    }
    /// State number `index` (modulo how many there are) at the edge: no rule is violated.
    pub fn edge(&self, index: usize) -> Case {
        self.edited(index, false)
    }
    /// The change that makes a violation or an edge state; on another start it may break other rules too, or none.
    pub(super) const fn edit(&self, index: usize, violate: bool) -> Edit {
        let edits = if violate { self.violate } else { self.edge };
        edits[index % edits.len()]
    }
    fn edited(&self, index: usize, violate: bool) -> Case {
        let mut case = self.start();
        self.edit(index, violate)(&mut case);
        case
    }
}

impl core::fmt::Debug for Witness {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Witness({})", self.rule)
    }
}

fn long() -> Case {
    base(Mode::Long, Extras::NONE)
}
fn compatibility() -> Case {
    base(Mode::Compatibility, Extras::NONE)
}
fn protected() -> Case {
    base(Mode::Protected, Extras::NONE)
}
fn pae() -> Case {
    base(Mode::Pae, Extras::NONE)
}
fn cet() -> Case {
    base(Mode::Long, Extras { cet: true, ..Extras::NONE })
}
fn cet_virtual_8086() -> Case {
    base(Mode::Virtual8086, Extras { cet: true, ..Extras::NONE })
}
fn nested() -> Case {
    base(Mode::Long, Extras::NESTED)
}
fn avic() -> Case {
    base(Mode::Long, Extras::AVIC)
}
fn x2avic() -> Case {
    base(Mode::Long, Extras::X2AVIC)
}
fn sev() -> Case {
    base(Mode::Long, Extras::SEV)
}
fn sev_es() -> Case {
    base(Mode::Long, Extras::SEV_ES)
}
fn snp() -> Case {
    base(Mode::Long, Extras::SNP)
}
fn snp_avic() -> Case {
    base(Mode::Long, Extras { avic: true, ..Extras::SNP })
}
fn limit(c: &Case) -> u64 {
    c.processor.physical_limit()
}
const fn bit(intercept: Intercept) -> u64 {
    1 << intercept.bit_in_field()
}
/// A valid event in EVENTINJ; types and vectors as raw numbers, so that reserved ones can be said.
fn inject(c: &mut Case, kind: u64, vector: u64) {
    c.put(F::EventInj, EventInfo::VALID | kind << 8 | vector);
}
const EXCEPTION: u64 = EventKind::Exception as u64;
const RESTRICTED: u64 = 1 << 3;
const ALTERNATE: u64 = 1 << 4;
/// SEV features 61:0 allowed and the mask enabled.
const ALL_ALLOWED: u64 = 1 << 63 | (1 << 62) - 1;

macro_rules! witnesses {
    ($($rule:literal $start:ident [$($violate:expr),+ $(,)?] [$($edge:expr),+ $(,)?];)*) => {
        /// A witness for every rule, in the order of the table of rules.
        pub const WITNESSES: &[Witness] =
            &[$(Witness { rule: $rule, start: $start, violate: &[$($violate),+], edge: &[$($edge),+] }),*];
    };
}

witnesses! {
    "svm.intercept.vmrun-clear" long
        [|c| c.clear(F::Intercept4, bit(Intercept::VMRUN)), |c| c.put(F::Intercept4, 0xffff_fffe)]
        [|c| c.put(F::Intercept4, bit(Intercept::VMRUN)), |c| c.put(F::Intercept4, 0xffff_ffff)];
    "svm.asid.zero" long
        [
            |c| c.put(F::Asid, 0),
            |c| {
                c.host = Host::ENCRYPTING;
                c.set(F::NestedControl, (NestedControl::NP_ENABLE | NestedControl::SEV_ENABLE).0);
                c.put(F::Asid, 0);
            },
        ]
        [|c| c.put(F::Asid, 1), |c| c.put(F::Asid, 0xffff_ffff)];
    "svm.iopm.beyond-physical" long
        [|c| c.put(F::IopmBase, limit(c) - 0x2000), |c| c.put(F::IopmBase, limit(c)), |c| c.put(F::IopmBase, !0)]
        [|c| c.put(F::IopmBase, limit(c) - 0x3000), |c| c.put(F::IopmBase, limit(c) - 0x2001), |c| c.put(F::IopmBase, 0)];
    "svm.msrpm.beyond-physical" long
        [|c| c.put(F::MsrpmBase, limit(c) - 0x2000), |c| c.put(F::MsrpmBase, limit(c)), |c| c.put(F::MsrpmBase, !0)]
        [|c| c.put(F::MsrpmBase, limit(c) - 0x3000), |c| c.put(F::MsrpmBase, limit(c) - 0x2001), |c| c.put(F::MsrpmBase, 0)];
    "svm.tlb-control.reserved" long
        [
            |c| c.put(F::TlbControl, 2),
            |c| c.put(F::TlbControl, 4),
            |c| c.put(F::TlbControl, 5),
            |c| c.put(F::TlbControl, 6),
            |c| c.put(F::TlbControl, 8),
            |c| c.put(F::TlbControl, 0xff),
            |c| { c.put(F::TlbControl, 3); drop_feature(c, Feature::FlushByAsid); },
            |c| { c.put(F::TlbControl, 7); drop_feature(c, Feature::FlushByAsid); },
        ]
        [
            |c| c.put(F::TlbControl, 1),
            |c| c.put(F::TlbControl, 3),
            |c| c.put(F::TlbControl, 7),
            |c| { c.put(F::TlbControl, 1); drop_feature(c, Feature::FlushByAsid); },
        ];
    "svm.vnmi.without-nmi-intercept" long
        [|c| { c.set(F::IntCtl, IntCtl::V_NMI_ENABLE.0.into()); c.clear(F::Intercept3, bit(Intercept::NMI)); }]
        [
            |c| c.set(F::IntCtl, IntCtl::V_NMI_ENABLE.0.into()),
            |c| c.clear(F::Intercept3, bit(Intercept::NMI)),
            |c| {
                c.set(F::IntCtl, IntCtl::V_NMI_ENABLE.0.into());
                c.clear(F::Intercept3, bit(Intercept::NMI));
                drop_feature(c, Feature::VirtualNmi);
            },
        ];

    "svm.efer.svme-clear" long
        [|c| c.clear(F::Efer, Efer::SVME.0)]
        [|c| c.set(F::Efer, Efer::SVME.0)];
    "svm.efer.reserved" long
        [
            |c| c.set(F::Efer, 1 << 1),
            |c| c.set(F::Efer, 1 << 9),
            |c| c.set(F::Efer, Efer::LMSLE.0),
            |c| c.set(F::Efer, 1 << 16),
            |c| c.set(F::Efer, 1 << 19),
            |c| c.set(F::Efer, 1 << 22),
            |c| c.set(F::Efer, 1 << 63),
            |c| { c.set(F::Efer, Efer::NXE.0); drop_feature(c, Feature::Nx); },
        ]
        [|c| c.set(F::Efer, c.processor.efer_allowed()), |c| { c.clear(F::Efer, Efer::NXE.0); drop_feature(c, Feature::Nx); }];
    "svm.efer.no-long-mode" protected
        [
            |c| { drop_feature(c, Feature::LongMode); c.set(F::Efer, Efer::LME.0); },
            |c| { drop_feature(c, Feature::LongMode); c.set(F::Efer, Efer::LMA.0); },
        ]
        [|c| { drop_feature(c, Feature::LongMode); c.set(F::Efer, c.processor.efer_allowed()); }];
    "svm.cr0.nw-without-cd" long
        [|c| c.set(F::Cr0, Cr0::NW.0)]
        [|c| c.set(F::Cr0, Cr0::NW.0 | Cr0::CD.0), |c| c.set(F::Cr0, Cr0::CD.0)];
    "svm.cr0.high-half" long
        [|c| c.set(F::Cr0, 1 << 32), |c| c.set(F::Cr0, 1 << 63)]
        [|c| c.set(F::Cr0, 0xffff_ffff)];
    "svm.cr3.reserved" long
        [|c| c.put(F::Cr3, limit(c)), |c| { c.put(F::Cr3, limit(c)); c.clear(F::Cr0, Cr0::PG.0); }, |c| c.set(F::Cr3, 1 << 51), |c| c.set(F::Cr3, 1 << 63)]
        [|c| c.put(F::Cr3, limit(c) - 1), |c| { c.put(F::Cr3, limit(c) - 1); c.clear(F::Efer, Efer::LME.0); }, |c| { c.put(F::Cr3, limit(c) - 1); c.clear(F::Cr0, Cr0::PG.0); }];
    "svm.cr4.reserved" long
        [
            |c| c.set(F::Cr4, Cr4::VMXE.0),
            |c| c.set(F::Cr4, 1 << 15),
            |c| c.set(F::Cr4, Cr4::PKS.0),
            |c| c.set(F::Cr4, 1 << 32),
            |c| c.set(F::Cr4, 1 << 63),
            |c| { c.set(F::Cr4, Cr4::UMIP.0); drop_feature(c, Feature::Umip); },
        ]
        [|c| c.set(F::Cr4, c.processor.cr4_allowed()), |c| c.set(F::Cr4, Cr4::UMIP.0)];
    "svm.dr6.high-half" long
        [|c| c.set(F::Dr6, 1 << 32), |c| c.set(F::Dr6, 1 << 63)]
        [|c| c.put(F::Dr6, 0xffff_ffff)];
    "svm.dr7.high-half" long
        [|c| c.set(F::Dr7, 1 << 32), |c| c.set(F::Dr7, 1 << 63)]
        [|c| c.put(F::Dr7, 0xffff_ffff)];
    "svm.long-mode.without-pae" compatibility
        [
            |c| c.clear(F::Cr4, Cr4::PAE.0),
            |c| { c.clear(F::Cr4, Cr4::PAE.0); c.clear(F::Efer, Efer::LMA.0); },
            |c| { c.clear(F::Cr4, Cr4::PAE.0); c.set(F::CsAttrib, 1 << 9 | 1 << 10); },
        ]
        [|c| { c.clear(F::Cr4, Cr4::PAE.0); c.clear(F::Cr0, Cr0::PG.0); }, |c| { c.clear(F::Cr4, Cr4::PAE.0); c.clear(F::Efer, Efer::LME.0); }];
    "svm.long-mode.without-pe" compatibility
        [|c| c.clear(F::Cr0, Cr0::PE.0)]
        [|c| c.clear(F::Cr0, Cr0::PE.0 | Cr0::PG.0), |c| { c.clear(F::Cr0, Cr0::PE.0); c.clear(F::Efer, Efer::LME.0); }];
    "svm.cs.long-and-default" long
        [|c| c.set(F::CsAttrib, 1 << 10)]
        [
            |c| { c.set(F::CsAttrib, 1 << 10); c.clear(F::CsAttrib, 1 << 9); },
            |c| { c.set(F::CsAttrib, 1 << 10); c.clear(F::Cr0, Cr0::PG.0); },
            |c| { c.set(F::CsAttrib, 1 << 10); c.clear(F::Efer, Efer::LME.0); },
        ];
    "svm.s-cet.reserved" long
        [|c| c.put(F::SCet, 1 << 2), |c| c.put(F::SCet, 1 << 63)]
        [|c| c.put(F::SCet, 3), |c| { c.put(F::SCet, !0); drop_feature(c, Feature::Shstk); }];
    "svm.cet.without-wp" cet
        [|c| c.clear(F::Cr0, Cr0::WP.0)]
        [|c| { c.clear(F::Cr0, Cr0::WP.0); c.clear(F::Cr4, Cr4::CET.0); }, |c| c.set(F::Cr0, Cr0::WP.0)];
    "svm.cet.virtual-8086" cet_virtual_8086
        [|c| c.host.u_cet = Some(1), |c| c.host.u_cet = Some(!0)]
        [
            |c| c.host.u_cet = Some(!1),
            |c| { c.host.u_cet = Some(1); c.clear(F::Rflags, RFlags::VM.0); },
            |c| { c.host.u_cet = Some(1); c.clear(F::Cr4, Cr4::CET.0); },
        ];
    "svm.sev-es.u-cet-reserved" sev_es
        [|c| c.put(F::UCet, 1 << 2), |c| c.put(F::UCet, 1 << 63)]
        [|c| c.put(F::UCet, 3), |c| { c.put(F::UCet, !0); drop_feature(c, Feature::Shstk); }];
    "svm.pdpe.reserved" pae
        [
            |c| c.memory.entries[0] = 0x0020_1003,
            |c| c.memory.entries[1] = 0x0020_1005,
            |c| c.memory.entries[2] = 0x0020_1021,
            |c| c.memory.entries[3] = 0x0020_1101,
            |c| c.memory.entries[3] = limit(c) | 1,
            |c| c.memory.entries[3] = 1 << 63 | 1,
        ]
        [
            |c| c.memory.entries = [limit(c) - 1 & !0x1e6; 4],
            |c| c.memory.entries = [!1; 4],
            |c| { c.memory.entries = [!0; 4]; c.clear(F::Cr0, Cr0::PG.0); },
            |c| { c.memory.entries = [!0; 4]; c.clear(F::Cr4, Cr4::PAE.0); },
            |c| {
                c.memory.entries = [!0; 4];
                c.set(F::NestedControl, NestedControl::NP_ENABLE.0);
            },
        ];

    "svm.eventinj.type-reserved" long
        [|c| inject(c, 1, 0x20), |c| inject(c, 5, 0x20), |c| inject(c, 6, 0x20), |c| inject(c, 7, 0x20)]
        [|c| inject(c, 0, 0x20), |c| inject(c, 2, 0xff), |c| inject(c, 4, 0x20), |c| c.put(F::EventInj, 1 << 8 | 0x20)];
    "svm.eventinj.not-an-exception" long
        [|c| inject(c, EXCEPTION, 2), |c| inject(c, EXCEPTION, 32), |c| inject(c, EXCEPTION, 255)]
        [|c| inject(c, EXCEPTION, 1), |c| inject(c, EXCEPTION, 31), |c| inject(c, 0, 2), |c| c.put(F::EventInj, EXCEPTION << 8 | 2)];
    "svm.eventinj.impossible-in-64-bit-mode" long
        [|c| inject(c, EXCEPTION, 4), |c| inject(c, EXCEPTION, 5)]
        [
            |c| inject(c, EXCEPTION, 3),
            |c| inject(c, EXCEPTION, 6),
            |c| inject(c, 0, 5),
            |c| { inject(c, EXCEPTION, 5); c.clear(F::CsAttrib, 1 << 9); },
            |c| { inject(c, EXCEPTION, 4); c.clear(F::Cr0, Cr0::PG.0); },
            |c| { inject(c, EXCEPTION, 4); c.clear(F::Efer, Efer::LME.0); },
        ];

    "svm.nested-paging.host-paging-off" nested
        [|c| c.host.cr0 = Some(Cr0::PE)]
        [
            |c| c.host.cr0 = Some(Cr0::PE | Cr0::PG),
            |c| { c.host.cr0 = Some(Cr0::PE); c.clear(F::NestedControl, NestedControl::NP_ENABLE.0); },
            |c| { c.host.cr0 = Some(Cr0::PE); drop_feature(c, Feature::NestedPaging); },
        ];
    "svm.ncr3.reserved" nested
        [|c| c.put(F::NestedCr3, limit(c)), |c| c.set(F::NestedCr3, 1 << 63)]
        [|c| c.put(F::NestedCr3, limit(c) - 1), |c| { c.put(F::NestedCr3, !0); c.clear(F::NestedControl, NestedControl::NP_ENABLE.0); }];
    "svm.g-pat.type" nested
        [
            |c| c.put(F::GPat, 2),
            |c| c.put(F::GPat, 3 << 32),
            |c| c.put(F::GPat, 8 << 56),
            |c| c.put(F::GPat, 0x80 << 8),
            |c| c.put(F::GPat, 0x0e << 24),
        ]
        [|c| c.put(F::GPat, 0x0706_0504_0100_0706), |c| { c.put(F::GPat, !0); c.clear(F::NestedControl, NestedControl::NP_ENABLE.0); }];
    "svm.sss.without-nested-paging" long
        [|c| c.set(F::NestedControl, NestedControl::SSS_CHECK_ENABLE.0)]
        [
            |c| c.set(F::NestedControl, (NestedControl::SSS_CHECK_ENABLE | NestedControl::NP_ENABLE).0),
            |c| { c.set(F::NestedControl, NestedControl::SSS_CHECK_ENABLE.0); drop_feature(c, Feature::SupervisorShadowStack); },
        ];

    "svm.avic.without-nested-paging" avic
        [|c| c.clear(F::NestedControl, NestedControl::NP_ENABLE.0)]
        [
            |c| { c.clear(F::NestedControl, NestedControl::NP_ENABLE.0); c.clear(F::IntCtl, IntCtl::AVIC_ENABLE.0.into()); },
            |c| { c.clear(F::NestedControl, NestedControl::NP_ENABLE.0); drop_feature(c, Feature::Avic); },
        ];
    "svm.x2avic.without-avic" nested
        [|c| c.set(F::IntCtl, IntCtl::X2AVIC_ENABLE.0.into())]
        [
            |c| c.set(F::IntCtl, (IntCtl::X2AVIC_ENABLE | IntCtl::AVIC_ENABLE).0.into()),
            |c| { c.set(F::IntCtl, IntCtl::X2AVIC_ENABLE.0.into()); drop_feature(c, Feature::X2Avic); },
        ];
    "svm.avic.backing-page" avic
        [|c| c.put(F::AvicBackingPage, limit(c)), |c| c.set(F::AvicBackingPage, 1 << 51)]
        [|c| c.put(F::AvicBackingPage, limit(c) - 1), |c| c.set(F::AvicBackingPage, 1 << 52), |c| { c.put(F::AvicBackingPage, !0); c.clear(F::IntCtl, IntCtl::AVIC_ENABLE.0.into()); }];
    "svm.avic.physical-table" avic
        [|c| c.put(F::AvicPhysicalTable, limit(c)), |c| c.set(F::AvicPhysicalTable, 1 << 51)]
        [|c| c.put(F::AvicPhysicalTable, limit(c) - 0x1000), |c| c.set(F::AvicPhysicalTable, 1 << 52), |c| { c.put(F::AvicPhysicalTable, !0); c.clear(F::IntCtl, IntCtl::AVIC_ENABLE.0.into()); }];
    "svm.avic.logical-table" avic
        [|c| c.put(F::AvicLogicalTable, limit(c)), |c| c.set(F::AvicLogicalTable, 1 << 51)]
        [|c| c.put(F::AvicLogicalTable, limit(c) - 1), |c| { c.put(F::AvicLogicalTable, !0); c.set(F::IntCtl, IntCtl::X2AVIC_ENABLE.0.into()); }];
    "svm.avic.apic-bar" avic
        [|c| c.put(F::AvicApicBar, limit(c)), |c| c.set(F::AvicApicBar, 1 << 51)]
        [|c| c.put(F::AvicApicBar, limit(c) - 1), |c| { c.put(F::AvicApicBar, !0); c.set(F::IntCtl, IntCtl::X2AVIC_ENABLE.0.into()); }];
    "svm.avic.max-index" x2avic
        [
            |c| c.put(F::AvicPhysicalTable, 0x5_2200),
            |c| { c.put(F::AvicPhysicalTable, 0x5_2100); c.clear(F::IntCtl, IntCtl::X2AVIC_ENABLE.0.into()); },
            |c| { c.put(F::AvicPhysicalTable, 0x5_2100); c.clear(F::IntCtl, IntCtl::X2AVIC_ENABLE.0.into()); c.processor.x2avic_extended = true; },
        ]
        [
            |c| c.put(F::AvicPhysicalTable, 0x5_21ff),
            |c| { c.put(F::AvicPhysicalTable, 0x5_20ff); c.clear(F::IntCtl, IntCtl::X2AVIC_ENABLE.0.into()); },
            |c| { c.put(F::AvicPhysicalTable, 0x5_2fff); c.processor.x2avic_extended = true; },
        ];

    "svm.sev.without-nested-paging" sev
        [|c| c.clear(F::NestedControl, NestedControl::NP_ENABLE.0)]
        [
            |c| { c.clear(F::NestedControl, NestedControl::NP_ENABLE.0); c.host.memory_encryption = Some(false); },
            |c| c.clear(F::NestedControl, (NestedControl::NP_ENABLE | NestedControl::SEV_ENABLE).0),
        ];
    "svm.sev.smm-unlocked" sev
        [|c| c.host.smm_locked = Some(false)]
        [|c| { c.host.smm_locked = Some(false); c.clear(F::NestedControl, NestedControl::SEV_ENABLE.0); }];
    "svm.sev.asid-range" sev
        [|c| c.put(F::Asid, u64::from(c.processor.sev.encrypted_guests) + 1)]
        [|c| c.put(F::Asid, c.processor.sev.encrypted_guests.into())];
    "svm.sev.asid-needs-es" sev
        [|c| c.put(F::Asid, u64::from(c.processor.sev.min_asid_without_es) - 1), |c| c.put(F::Asid, 1)]
        [|c| c.put(F::Asid, c.processor.sev.min_asid_without_es.into())];
    "svm.sev.host-not-64-bit" sev
        [|c| c.host.in_64_bit_mode = Some(false)]
        [|c| { c.host.in_64_bit_mode = Some(false); c.processor.sev.host_64_bit_only = false; }];
    "svm.sev-es.without-sev" nested
        [|c| { c.host = Host::ENCRYPTING; c.set(F::NestedControl, NestedControl::SEV_ES_ENABLE.0); }]
        [
            |c| c.set(F::NestedControl, NestedControl::SEV_ES_ENABLE.0),
            |c| { c.host = Host::ENCRYPTING; c.set(F::NestedControl, NestedControl::SEV_ES_ENABLE.0); drop_feature(c, Feature::SevEs); },
        ];
    "svm.sev-es.without-lbr" sev_es
        [|c| c.clear(F::VirtExt, VirtExt::LBR_ENABLE.0)]
        [|c| c.put(F::VirtExt, VirtExt::LBR_ENABLE.0)];
    "svm.sev-es.vmsa-pointer" sev_es
        [|c| c.put(F::VmsaPointer, limit(c)), |c| c.set(F::VmsaPointer, 1 << 63)]
        [|c| c.put(F::VmsaPointer, limit(c) - 1)];
    "svm.sev-es.software-event" sev_es
        [|c| inject(c, 4, 0x80), |c| inject(c, EXCEPTION, 3), |c| { inject(c, EXCEPTION, 4); c.clear(F::CsAttrib, 1 << 9); }]
        [|c| inject(c, 0, 3), |c| inject(c, EXCEPTION, 14), |c| inject(c, 2, 2), |c| c.put(F::EventInj, 4 << 8 | 0x80)];
    "svm.sev-es.hv-not-restricted" snp
        [|c| inject(c, EXCEPTION, 28)]
        [|c| { inject(c, EXCEPTION, 28); c.set(F::SevFeatures, RESTRICTED); }, |c| inject(c, EXCEPTION, 27), |c| inject(c, 0, 28)];
    "svm.sev-es.busy" snp
        [|c| c.set(F::VintrCtrl, 1 << 63)]
        [|c| c.put(F::VintrCtrl, !(1 << 63)), |c| { c.set(F::VintrCtrl, 1 << 63); drop_feature(c, Feature::SevSnp); }];

    "svm.snp.not-enabled" snp
        [|c| c.host.secure_nested_paging = Some(false)]
        [|c| { c.host.secure_nested_paging = Some(false); c.put(F::SevFeatures, 0); }];
    "svm.snp.restricted-and-alternate" snp
        [|c| c.set(F::SevFeatures, RESTRICTED | ALTERNATE)]
        [|c| c.set(F::SevFeatures, RESTRICTED), |c| c.set(F::SevFeatures, ALTERNATE)];
    "svm.snp.restricted-event" snp
        [
            |c| { c.set(F::SevFeatures, RESTRICTED); inject(c, 0, 0x20); },
            |c| { c.set(F::SevFeatures, RESTRICTED); inject(c, EXCEPTION, 14); },
            |c| { c.set(F::SevFeatures, RESTRICTED); inject(c, EXCEPTION, 28); c.set(F::EventInj, EventInfo::ERROR_CODE_VALID); },
            |c| { c.set(F::SevFeatures, RESTRICTED); inject(c, 0, 28); },
        ]
        [
            |c| { c.set(F::SevFeatures, RESTRICTED); inject(c, EXCEPTION, 28); },
            |c| { c.set(F::SevFeatures, RESTRICTED); c.put(F::EventInj, 0x20); },
            |c| inject(c, 0, 0x20),
        ];
    "svm.snp.restricted-avic" snp_avic
        [|c| c.set(F::SevFeatures, RESTRICTED)]
        [|c| { c.set(F::SevFeatures, RESTRICTED); c.clear(F::IntCtl, IntCtl::AVIC_ENABLE.0.into()); }];
    "svm.snp.alternate-avic" snp_avic
        [|c| c.set(F::SevFeatures, ALTERNATE)]
        [|c| { c.set(F::SevFeatures, ALTERNATE); c.clear(F::IntCtl, IntCtl::AVIC_ENABLE.0.into()); }];
    "svm.snp.feature-not-allowed" snp
        [
            |c| c.put(F::AllowedSevFeatures, 1 << 63),
            |c| { c.put(F::AllowedSevFeatures, ALL_ALLOWED & !(1 << 5)); c.set(F::SevFeatures, 1 << 5); },
            |c| { c.put(F::AllowedSevFeatures, !(1 << 62)); c.set(F::SevFeatures, 1 << 62); },
        ]
        [
            |c| c.put(F::AllowedSevFeatures, 1 << 63 | 1),
            |c| { c.put(F::AllowedSevFeatures, 0); c.set(F::SevFeatures, 1 << 5); },
        ];
    "svm.snp.feature-needs-mask" snp
        [|c| c.set(F::SevFeatures, 1 << 11), |c| c.set(F::SevFeatures, 1 << 13), |c| c.set(F::SevFeatures, 1 << 16)]
        [
            |c| { c.set(F::SevFeatures, 1 << 11); c.put(F::AllowedSevFeatures, ALL_ALLOWED); },
            |c| { c.set(F::SevFeatures, 1 << 13); c.put(F::AllowedSevFeatures, ALL_ALLOWED); },
            |c| c.set(F::SevFeatures, 1 << 12),
        ];
    "svm.snp.host-ibs" snp
        [|c| { c.set(F::SevFeatures, 1 << 6); c.host.ibs_enabled = Some(true); }]
        [|c| c.set(F::SevFeatures, 1 << 6), |c| c.host.ibs_enabled = Some(true)];
    "svm.snp.ibs-virtualization" snp
        [|c| { c.set(F::SevFeatures, 1 << 12); c.host.ibs_enabled = Some(true); }]
        [|c| c.set(F::SevFeatures, 1 << 12), |c| c.host.ibs_enabled = Some(true)];
    "svm.secure-avic.exclusive" snp
        [
            |c| { secure_avic(c); c.set(F::IntCtl, IntCtl::AVIC_ENABLE.0.into()); },
            |c| { secure_avic(c); c.set(F::SevFeatures, RESTRICTED); },
            |c| { secure_avic(c); c.set(F::SevFeatures, ALTERNATE); },
        ]
        [|c| secure_avic(c)];
    "svm.secure-avic.backing-page" snp
        [|c| { secure_avic(c); c.put(F::SecureAvicCtl, limit(c) | 1); }]
        [|c| { secure_avic(c); c.put(F::SecureAvicCtl, limit(c) - 1); }, |c| { secure_avic(c); c.put(F::SecureAvicCtl, limit(c)); }];
    "svm.snp.sibling-not-idle" snp
        [|c| { c.set(F::SevFeatures, 1 << 15); c.host.sibling_idle = Some(false); }]
        [|c| c.set(F::SevFeatures, 1 << 15), |c| c.host.sibling_idle = Some(false)];
    "svm.snp.pmc-state" snp
        [
            |c| { pmc(c); c.put(F::PerfCtl0, 1 << 22); },
            |c| { pmc(c); c.put(F::PerfCtl5, 1 << 22); },
            |c| { pmc(c); c.put(F::PerfCtrGlobalCtl, 1); },
            |c| { pmc(c); c.put(F::PerfCtrGlobalCtl, 1 << 5); },
        ]
        [
            |c| { pmc(c); c.put(F::PerfCtl0, !(1 << 22)); c.put(F::PerfCtrGlobalCtl, !0x3f); },
            |c| { pmc(c); c.put(F::PerfCtl0, 1 << 22); c.set(F::VirtExt, VirtExt::PMC_ENABLE.0); },
            |c| c.put(F::PerfCtl0, 1 << 22),
        ];
}

fn drop_feature(c: &mut Case, feature: Feature) {
    c.processor = c.processor.with_features(c.processor.features().without(feature));
}
fn secure_avic(c: &mut Case) {
    c.set(F::SevFeatures, 1 << 16);
    c.put(F::AllowedSevFeatures, ALL_ALLOWED);
}
fn pmc(c: &mut Case) {
    c.set(F::SevFeatures, 1 << 11);
    c.put(F::AllowedSevFeatures, ALL_ALLOWED);
}
