//! The one table of rules: for reports a slice of rows, for VM entry the same rows as straight-line code.

use super::look::Look;
use super::{Basis, Citation, EntryContext, Rule, Verdict, control, guest, nested, sev};
use crate::encode::ExitCode;
use crate::vmcb::Field;

/// The edition in which every cited section was read.
const APM2: &str = "APM Vol. 2 (24593 rev. 3.43)";

const CHECKS: &str = "Canonicalization and Consistency Checks";
const PROTECTION: &str = "Side-Channel Protection";
const INJECTION: &str = "Interrupt Injection Restrictions";

macro_rules! rules {
    ($($row:ident $id:literal $demand:literal
        $basis:ident $section:expr; [$($field:ident)*] $report:ident $check:path, $propose:path;)*) => {
        /// Every rule, in the order in which [`check_entry`] asks.
        pub const RULES: &[Rule] = &[$(Rule {
            id: $id,
            demand: $demand,
            citation: Citation { manual: APM2, section: $section },
            basis: Basis::$basis,
            fields: &[$(Field::$field),*],
            report: ExitCode::$report,
            check: $check,
            propose: $propose,
        },)*];

        enum Row { $($row,)* }

        /// What VMRUN does: the first violated rule refuses. Rules that cannot be judged count only if none is violated.
        pub fn check_entry(cx: &EntryContext) -> Verdict {
            let look = Look::new(cx);
            let mut undecided = None;
            $(match $check(&look) {
                Ok(true) => {}
                Ok(false) => return Verdict::Refused(&RULES[Row::$row as usize]),
                Err(missing) => undecided = undecided.or(Some((Row::$row as usize, missing))),
            })*
            match undecided {
                None => Verdict::Enters,
                Some((row, missing)) => Verdict::Undecided(&RULES[row], missing),
            }
        }
    };
}

rules! {
    VmrunIntercept "svm.intercept.vmrun-clear" "The VMRUN intercept bit is set."
        Stated CHECKS; [Intercept4] INVALID control::vmrun_intercept, control::fix_vmrun_intercept;
    Asid "svm.asid.zero" "The guest's ASID is not 0, the host's."
        Stated CHECKS; [Asid] INVALID control::asid, control::fix_asid;
    Iopm "svm.iopm.beyond-physical" "The last byte of the 12 KiB I/O permission map lies below the physical-address limit."
        Stated "I/O Permissions Map"; [IopmBase] INVALID control::iopm, control::fix_iopm;
    Msrpm "svm.msrpm.beyond-physical" "The last byte of the 8 KiB MSR permission map lies below the greatest physical address."
        Stated "MSR Intercepts"; [MsrpmBase] INVALID control::msrpm, control::fix_msrpm;
    TlbControl "svm.tlb-control.reserved" "TLB_CONTROL is 0 or 1, or with FlushByAsid also 3 or 7."
        Required "TLB Flush"; [TlbControl] INVALID control::tlb_control, control::fix_tlb_control;
    VnmiIntercept "svm.vnmi.without-nmi-intercept" "With V_NMI_ENABLE the NMI intercept is set."
        Stated "NMI Virtualization"; [IntCtl Intercept3] INVALID control::vnmi_intercept, control::fix_vnmi_intercept;

    Svme "svm.efer.svme-clear" "EFER.SVME is 1."
        Stated CHECKS; [Efer] INVALID guest::svme, guest::fix_svme;
    EferReserved "svm.efer.reserved" "No bit of EFER is set that must be zero on this processor."
        Stated CHECKS; [Efer] INVALID guest::efer_reserved, guest::fix_efer_reserved;
    EferLongMode "svm.efer.no-long-mode" "EFER.LME and EFER.LMA are 0 on a processor without long mode."
        Stated CHECKS; [Efer] INVALID guest::efer_long_mode, guest::fix_efer_long_mode;
    NwWithoutCd "svm.cr0.nw-without-cd" "CR0.NW is 1 only together with CR0.CD."
        Stated CHECKS; [Cr0] INVALID guest::nw_without_cd, guest::fix_nw_without_cd;
    Cr0High "svm.cr0.high-half" "CR0 bits 63:32 are 0."
        Stated CHECKS; [Cr0] INVALID guest::cr0_high, guest::fix_cr0_high;
    Cr3 "svm.cr3.reserved" "CR3 has no bit set above the physical-address width."
        Stated CHECKS; [Cr3] INVALID guest::cr3, guest::fix_cr3;
    Cr4 "svm.cr4.reserved" "No bit of CR4 is set that must be zero on this processor."
        Stated CHECKS; [Cr4] INVALID guest::cr4, guest::fix_cr4;
    Dr6High "svm.dr6.high-half" "DR6 bits 63:32 are 0."
        Stated CHECKS; [Dr6] INVALID guest::dr6_high, guest::fix_dr6_high;
    Dr7High "svm.dr7.high-half" "DR7 bits 63:32 are 0."
        Stated CHECKS; [Dr7] INVALID guest::dr7_high, guest::fix_dr7_high;
    LongModePae "svm.long-mode.without-pae" "With EFER.LME and CR0.PG set, CR4.PAE is set."
        Stated CHECKS; [Efer Cr0 Cr4] INVALID guest::long_mode_pae, guest::fix_long_mode_pae;
    LongModePe "svm.long-mode.without-pe" "With EFER.LME and CR0.PG set, CR0.PE is set."
        Stated CHECKS; [Efer Cr0] INVALID guest::long_mode_pe, guest::fix_long_mode_pe;
    CodeSegment "svm.cs.long-and-default" "With EFER.LME, CR0.PG and CR4.PAE set, CS.L and CS.D are not both set."
        Stated CHECKS; [CsAttrib Efer Cr0 Cr4] INVALID guest::code_segment, guest::fix_code_segment;
    SCet "svm.s-cet.reserved" "No reserved bit of S_CET is set."
        Stated CHECKS; [SCet] INVALID guest::s_cet, guest::fix_s_cet;
    CetWp "svm.cet.without-wp" "CR4.CET is 1 only together with CR0.WP."
        Stated CHECKS; [Cr4 Cr0] INVALID guest::cet_wp, guest::fix_cet_wp;
    CetVirtual8086 "svm.cet.virtual-8086" "With CR4.CET set and user shadow stacks enabled in U_CET, RFLAGS.VM is 0."
        Stated CHECKS; [Cr4 Rflags UCet] INVALID guest::cet_virtual_8086, guest::fix_cet_virtual_8086;
    UCet "svm.sev-es.u-cet-reserved" "No reserved bit of an SEV-ES guest's U_CET is set."
        Stated CHECKS; [UCet] INVALID guest::u_cet_reserved, guest::fix_u_cet_reserved;
    Pdpes "svm.pdpe.reserved" "In PAE paging without nested paging, no present PDPE at CR3 has a reserved bit set."
        Stated "Basic Operation"; [Cr3 Cr0 Cr4 Efer NestedControl] INVALID guest::pdpes, guest::fix_pdpes;

    EventType "svm.eventinj.type-reserved" "The injected event's type is 0, 2, 3 or 4."
        Stated "Event Injection"; [EventInj] INVALID control::event_type, control::fix_event;
    EventVector "svm.eventinj.not-an-exception" "An injected exception has a vector from 0 to 31 other than 2."
        Stated "Event Injection"; [EventInj] INVALID control::event_vector, control::fix_event;
    EventMode "svm.eventinj.impossible-in-64-bit-mode" "#OF and #BR are not injected into 64-bit mode."
        Stated "Event Injection"; [EventInj Efer Cr0 CsAttrib] INVALID control::event_mode, control::fix_event;

    HostPaging "svm.nested-paging.host-paging-off" "Nested paging is enabled only while the host's CR0.PG is 1."
        Stated "Enabling Nested Paging"; [NestedControl] INVALID nested::host_paging, nested::fix_host_paging;
    NestedCr3 "svm.ncr3.reserved" "With nested paging, N_CR3 has no bit set above the physical-address width."
        Stated "Nested Paging and VMRUN/#VMEXIT"; [NestedCr3 NestedControl] INVALID nested::nested_cr3, nested::fix_nested_cr3;
    GuestPat "svm.g-pat.type" "With nested paging, every field of G_PAT has a memory type: 0, 1, 4, 5, 6 or 7."
        Stated "Nested Paging and VMRUN/#VMEXIT"; [GPat NestedControl] INVALID nested::guest_pat, nested::fix_guest_pat;
    ShadowStackCheck "svm.sss.without-nested-paging" "The supervisor shadow-stack check is enabled only with nested paging."
        Stated "Supervisor Shadow Stacks"; [NestedControl] INVALID nested::shadow_stack_check, nested::fix_shadow_stack_check;

    AvicPaging "svm.avic.without-nested-paging" "AVIC is enabled only with nested paging."
        Required "VMCB Virtual Interrupt Control Word"; [IntCtl NestedControl] INVALID nested::avic_paging, nested::fix_avic_paging;
    X2avic "svm.x2avic.without-avic" "x2AVIC is enabled only together with AVIC."
        Stated "VMCB Virtual Interrupt Control Word"; [IntCtl] INVALID nested::x2avic, nested::fix_x2avic;
    AvicBackingPage "svm.avic.backing-page" "With AVIC, the backing page lies below the physical-address limit."
        Stated "Physical Address Pointer Restrictions"; [AvicBackingPage IntCtl] INVALID nested::avic_backing_page, nested::fix_avic_backing_page;
    AvicPhysicalTable "svm.avic.physical-table" "With AVIC, the physical APIC ID table lies below the physical-address limit."
        Stated "Physical Address Pointer Restrictions"; [AvicPhysicalTable IntCtl] INVALID nested::avic_physical_table, nested::fix_avic_physical_table;
    AvicLogicalTable "svm.avic.logical-table" "With AVIC and without x2AVIC, the logical APIC ID table lies below the physical-address limit."
        Stated "Physical Address Pointer Restrictions"; [AvicLogicalTable IntCtl] INVALID nested::avic_logical_table, nested::fix_avic_logical_table;
    AvicApicBar "svm.avic.apic-bar" "With AVIC and without x2AVIC, the APIC base address lies below the physical-address limit."
        Stated "Physical Address Pointer Restrictions"; [AvicApicBar IntCtl] INVALID nested::avic_apic_bar, nested::fix_avic_apic_bar;
    AvicMaxIndex "svm.avic.max-index" "AVIC_PHYSICAL_MAX_INDEX is at most 255; with x2AVIC 511, or 4095 on processors with extended x2AVIC."
        Stated "Physical Address Pointer Restrictions"; [AvicPhysicalTable IntCtl] INVALID nested::avic_max_index, nested::fix_avic_max_index;

    SevPaging "svm.sev.without-nested-paging" "SEV is enabled only with nested paging."
        Stated "Enabling SEV"; [NestedControl] INVALID sev::nested_paging, sev::fix_nested_paging;
    SevSmmLock "svm.sev.smm-unlocked" "SEV is enabled only while HWCR.SmmLock is 1."
        Stated "Enabling SEV"; [NestedControl] INVALID sev::smm_lock, sev::fix_host;
    SevAsid "svm.sev.asid-range" "The ASID of an encrypted guest is at most the number of encrypted guests that CPUID reports."
        Stated "Enabling SEV"; [NestedControl Asid] INVALID sev::asid_range, sev::fix_asid_range;
    SevAsidMin "svm.sev.asid-needs-es" "An encrypted guest without SEV-ES has no ASID that CPUID reserves for SEV-ES."
        Required "Enabling SEV-ES"; [NestedControl Asid] INVALID sev::asid_without_es, sev::fix_asid_without_es;
    SevHostMode "svm.sev.host-not-64-bit" "On processors that demand it, an encrypted guest is run from 64-bit mode."
        Stated "Enabling SEV"; [NestedControl] INVALID sev::host_mode, sev::fix_host;
    EsNeedsSev "svm.sev-es.without-sev" "SEV-ES is enabled only together with SEV."
        Required "Enabling SEV-ES"; [NestedControl] INVALID sev::es_needs_sev, sev::fix_es_needs_sev;
    EsNeedsLbr "svm.sev-es.without-lbr" "SEV-ES is enabled only together with LBR virtualization."
        Required "Enabling SEV-ES"; [NestedControl VirtExt] INVALID sev::es_needs_lbr, sev::fix_es_needs_lbr;
    VmsaPointer "svm.sev-es.vmsa-pointer" "The VMSA of an SEV-ES guest lies below the physical-address limit."
        Stated "VMRUN"; [NestedControl VmsaPointer] INVALID sev::vmsa_pointer, sev::fix_vmsa_pointer;
    EsSoftwareEvent "svm.sev-es.software-event" "Neither software interrupts nor exceptions 3 and 4 are injected into an SEV-ES guest."
        Stated "VMRUN"; [NestedControl EventInj] INVALID sev::es_software_event, sev::fix_es_event;
    HvEvent "svm.sev-es.hv-not-restricted" "#HV is injected only into a guest with restricted injection."
        Required INJECTION; [NestedControl EventInj SevFeatures] INVALID sev::hv_event, sev::fix_es_event;
    Busy "svm.sev-es.busy" "The BUSY bit of the VMSA's VINTR_CTRL is 0."
        Stated INJECTION; [NestedControl VintrCtrl] BUSY sev::busy, sev::fix_busy;

    SnpEnabled "svm.snp.not-enabled" "An SNP-active guest runs only while SEV-SNP is globally enabled."
        Stated "Running SNP-Active Virtual Machines"; [SevFeatures] INVALID sev::snp_enabled, sev::fix_snp_enabled;
    InjectionExclusive "svm.snp.restricted-and-alternate" "Restricted and alternate injection are not both enabled."
        Stated INJECTION; [SevFeatures] INVALID sev::injection_exclusive, sev::fix_injection_exclusive;
    RestrictedEvent "svm.snp.restricted-event" "With restricted injection, the only injected event is #HV without an error code."
        Stated INJECTION; [SevFeatures EventInj] INVALID sev::restricted_event, sev::fix_restricted_event;
    RestrictedAvic "svm.snp.restricted-avic" "With restricted injection, AVIC is off."
        Stated INJECTION; [SevFeatures IntCtl] INVALID sev::restricted_avic, sev::fix_avic;
    AlternateAvic "svm.snp.alternate-avic" "With alternate injection, AVIC is off."
        Stated INJECTION; [SevFeatures IntCtl] INVALID sev::alternate_avic, sev::fix_avic;
    AllowedFeatures "svm.snp.feature-not-allowed" "While the mask of allowed SEV features is enabled, the guest uses no other."
        Stated "Allowed SEV Features"; [SevFeatures AllowedSevFeatures] INVALID sev::allowed_features, sev::fix_allowed_features;
    FeaturesNeedMask "svm.snp.feature-needs-mask" "PMC virtualization, guest intercept control and secure AVIC are used only while the mask of allowed features is enabled."
        Required "Allowed SEV Features"; [SevFeatures AllowedSevFeatures] INVALID sev::features_need_mask, sev::fix_features_need_mask;
    PreventHostIbs "svm.snp.host-ibs" "A guest that prevents host IBS runs only while the host's IBS is off."
        Stated PROTECTION; [SevFeatures] INVALID sev::prevent_host_ibs, sev::fix_prevent_host_ibs;
    IbsVirtualization "svm.snp.ibs-virtualization" "An SEV-ES guest with IBS virtualization runs only while the host's IBS is off."
        Stated "Instruction-Based Sampling Virtualization"; [SevFeatures] INVALID sev::ibs_virtualization, sev::fix_ibs_virtualization;
    SecureAvic "svm.secure-avic.exclusive" "Secure AVIC is used without AVIC, restricted or alternate injection."
        Stated "Secure AVIC"; [SevFeatures IntCtl] INVALID sev::secure_avic, sev::fix_secure_avic;
    SecureAvicPage "svm.secure-avic.backing-page" "The backing page of an enabled secure AVIC is a legal guest-physical address."
        Stated "Secure AVIC"; [SevFeatures SecureAvicCtl] INVALID sev::secure_avic_page, sev::fix_secure_avic_page;
    SiblingIdle "svm.snp.sibling-not-idle" "A guest with SMT protection runs only while the sibling thread is idle in host mode."
        Stated PROTECTION; [SevFeatures] IDLE_REQUIRED sev::sibling_idle, sev::fix_sibling_idle;
    PmcState "svm.snp.pmc-state" "A guest with PMC virtualization that the hypervisor did not enable has all counters disabled."
        Stated "Performance Monitoring Counter Virtualization"; [SevFeatures VirtExt PerfCtl0 PerfCtl1 PerfCtl2 PerfCtl3 PerfCtl4 PerfCtl5 PerfCtrGlobalCtl] INVALID_PMC sev::pmc_state, sev::fix_pmc_state;
}
