//! The layout against lists typed independently: sizes and gaps in order, from which offsets follow by addition.

use super::*;

/// `name:size` or a gap in bytes, in order, from the start of the control area.
const CONTROL: &str = "INTERCEPT_VECTOR_0:4 INTERCEPT_VECTOR_1:4 INTERCEPT_VECTOR_2:4 INTERCEPT_VECTOR_3:4 \
    INTERCEPT_VECTOR_4:4 INTERCEPT_VECTOR_5:4 36 PAUSE_FILTER_THRESHOLD:2 PAUSE_FILTER_COUNT:2 IOPM_BASE_PA:8 \
    MSRPM_BASE_PA:8 TSC_OFFSET:8 GUEST_ASID:4 TLB_CONTROL:1 ERAP_CONTROL:1 2 VINTR_CONTROL:4 V_INTR_VECTOR:4 \
    INTERRUPT_SHADOW:8 EXITCODE:8 EXITINFO1:8 EXITINFO2:8 EXITINTINFO:4 EXITINTINFO.ERRORCODE:4 NP_ENABLE:8 \
    AVIC_APIC_BAR:8 GHCB_PA:8 EVENTINJ:4 EVENTINJ.ERRORCODE:4 N_CR3:8 LBR_VIRTUALIZATION_ENABLE:8 VMCB_CLEAN:4 4 NRIP:8 \
    NUMBER_OF_BYTES_FETCHED:1 GUEST_INSTRUCTION_BYTES:15 AVIC_BACKING_PAGE:8 8 AVIC_LOGICAL_TABLE:8 \
    AVIC_PHYSICAL_TABLE:8 8 VMSA_POINTER:8 VMGEXIT_RAX:8 VMGEXIT_CPL:1 7 BUS_LOCK_THRESHOLD_COUNTER:2 18 UPDATE_IRR:1 3 \
    ALLOWED_SEV_FEATURES:8 GUEST_SEV_FEATURES:8 8 REQUESTED_IRR:32 624 HOST_USAGE:32";

/// What VMCB and VMSA have in common, with the VMSA's own fields marked by a star.
const SAVE: &str = "ES.SELECTOR:2 ES.ATTRIB:2 ES.LIMIT:4 ES.BASE:8 CS.SELECTOR:2 CS.ATTRIB:2 CS.LIMIT:4 CS.BASE:8 \
    SS.SELECTOR:2 SS.ATTRIB:2 SS.LIMIT:4 SS.BASE:8 DS.SELECTOR:2 DS.ATTRIB:2 DS.LIMIT:4 DS.BASE:8 FS.SELECTOR:2 \
    FS.ATTRIB:2 FS.LIMIT:4 FS.BASE:8 GS.SELECTOR:2 GS.ATTRIB:2 GS.LIMIT:4 GS.BASE:8 GDTR.SELECTOR:2 GDTR.ATTRIB:2 \
    GDTR.LIMIT:4 GDTR.BASE:8 LDTR.SELECTOR:2 LDTR.ATTRIB:2 LDTR.LIMIT:4 LDTR.BASE:8 IDTR.SELECTOR:2 IDTR.ATTRIB:2 \
    IDTR.LIMIT:4 IDTR.BASE:8 TR.SELECTOR:2 TR.ATTRIB:2 TR.LIMIT:4 TR.BASE:8 *PL0_SSP:8 *PL1_SSP:8 *PL2_SSP:8 \
    *PL3_SSP:8 *U_CET:8 2 *VMPL:1 CPL:1 4 EFER:8 8 PERF_CTL0:8 PERF_CTR0:8 PERF_CTL1:8 PERF_CTR1:8 PERF_CTL2:8 \
    PERF_CTR2:8 PERF_CTL3:8 PERF_CTR3:8 PERF_CTL4:8 PERF_CTR4:8 PERF_CTL5:8 PERF_CTR5:8 *XSS:8 CR4:8 CR3:8 CR0:8 \
    DR7:8 DR6:8 RFLAGS:8 RIP:8 *DR0:8 *DR1:8 *DR2:8 *DR3:8 *DR0_ADDR_MASK:8 *DR1_ADDR_MASK:8 *DR2_ADDR_MASK:8 \
    *DR3_ADDR_MASK:8 INSTR_RETIRED_CTR:8 PERF_CTR_GLOBAL_STS:8 PERF_CTR_GLOBAL_CTL:4 4 RSP:8 S_CET:8 SSP:8 \
    ISST_ADDR:8 RAX:8 STAR:8 LSTAR:8 CSTAR:8 SFMASK:8 KernelGsBase:8 SYSENTER_CS:8 SYSENTER_ESP:8 SYSENTER_EIP:8 \
    CR2:8 32 G_PAT:8 DBGCTL:8 BR_FROM:8 BR_TO:8 LASTEXCPFROM:8 LASTEXCPTO:8 DBGEXTNCTL:8 64 SPEC_CTRL:8 *PKRU:4 \
    *TSC_AUX:4 *GUEST_TSC_SCALE:8 *GUEST_TSC_OFFSET:8 *REG_PROT_NONCE:8 *RCX:8 *RDX:8 *RBX:8 *SECURE_AVIC_CTL:8 \
    *RBP:8 *RSI:8 *RDI:8 *R8:8 *R9:8 *R10:8 *R11:8 *R12:8 *R13:8 *R14:8 *R15:8 16 *GUEST_EXITINFO1:8 \
    *GUEST_EXITINFO2:8 *GUEST_EXITINTINFO:8 *GUEST_NRIP:8 *SEV_FEATURES:8 *VINTR_CTRL:8 *GUEST_EXITCODE:8 \
    *VIRTUAL_TOM:8 *TLB_ID:8 *PCPU_ID:8 *EVENTINJ:8 *XCR0:8 16 *X87_DP:8 *MXCSR:4 *X87_FTW:2 *X87_FSW:2 *X87_FCW:2 \
    *X87_FOP:2 *X87_DS:2 *X87_CS:2 *X87_RIP:8 *FPREG_X87:80 *FPREG_XMM:256 *FPREG_YMM:256 LBR_STACK:256 LBR_SELECT:8 \
    IBS_FETCH_CTL:8 IBS_FETCH_LINADDR:8 IBS_OP_CTL:8 IBS_OP_RIP:8 IBS_OP_DATA:8 IBS_OP_DATA2:8 IBS_OP_DATA3:8 \
    IBS_DC_LINADDR:8 BP_IBSTGT_RIP:8 IC_IBS_EXTD_CTL:8 312 *INTERCEPT_VEC_0:4 *INTERCEPT_VEC_1:4 *INTERCEPT_VEC_2:4 \
    *INTERCEPT_VEC_3:4 *INTERCEPT_VEC_4:4 *INTERCEPT_VEC_5:4 *INTERCEPT_VEC_6:4 *INTERCEPT_VEC_7:4 \
    *INTERCEPT_MSR_VEC_0:8 *INTERCEPT_MSR_VEC_1:8 *INTERCEPT_MSR_VEC_2:8 *INTERCEPT_MSR_VEC_3:8 64 *FPREG_K:64 \
    *FPREG_ZMMHI:512 *FPREG_HIZMM:1024";

/// A few offsets as the manual prints them, so that a slip in a gap above cannot hide.
const ANCHORS: &[(&str, usize)] = &[
    ("PAUSE_FILTER_THRESHOLD", 0x03c),
    ("EXITCODE", 0x070),
    ("EVENTINJ", 0x0a8),
    ("VMSA_POINTER", 0x108),
    ("BUS_LOCK_THRESHOLD_COUNTER", 0x120),
    ("UPDATE_IRR", 0x134),
    ("ALLOWED_SEV_FEATURES", 0x138),
    ("REQUESTED_IRR", 0x150),
    ("HOST_USAGE", 0x3e0),
    ("CPL", 0x4cb),
    ("EFER", 0x4d0),
    ("CR4", 0x548),
    ("RIP", 0x578),
    ("RSP", 0x5d8),
    ("RAX", 0x5f8),
    ("CR2", 0x640),
    ("G_PAT", 0x668),
    ("SPEC_CTRL", 0x6e0),
    ("LBR_STACK", 0xa70),
    ("LBR_SELECT", 0xb70),
    ("IC_IBS_EXTD_CTL", 0xbc0),
    ("XCR0", 0x3e8),
    ("INTERCEPT_VEC_0", 0x900),
    ("FPREG_HIZMM", 0xbc0),
];

#[test]
fn every_field_has_the_offset_and_size_that_follow_from_the_sizes_and_gaps_before_it() {
    let mut expected = Vec::new();
    let mut at = 0;
    for item in CONTROL.split_whitespace() {
        match item.split_once(':') {
            Some((name, size)) => {
                let size: usize = size.parse().unwrap();
                expected.push((name, Area::Control, at, size));
                at += size;
            }
            None => at += item.parse::<usize>().unwrap(),
        }
    }
    assert_eq!(at, 0x400, "the control area fills 1024 bytes");
    at = 0;
    for item in SAVE.split_whitespace() {
        match item.split_once(':') {
            Some((name, size)) => {
                let size: usize = size.parse().unwrap();
                match name.strip_prefix('*') {
                    Some(name) => expected.push((name, Area::Vmsa, at, size)),
                    None => expected.push((name, Area::Save, at + 0x400, size)),
                }
                at += size;
            }
            None => at += item.parse::<usize>().unwrap(),
        }
    }
    assert_eq!(at, 0xfc0, "the VMSA ends with the ZMM registers");
    let mut table: Vec<_> =
        TABLE.iter().map(|row| (row.name, row.area, row.offset as usize, row.size as usize)).collect();
    expected.sort_unstable();
    table.sort_unstable();
    for (got, wanted) in table.iter().zip(&expected) {
        assert_eq!(got, wanted);
    }
    assert_eq!(table.len(), expected.len());
    for (name, offset) in ANCHORS {
        let row = Field::from_name(name).unwrap().row();
        assert_eq!(row.offset as usize, *offset, "{name}");
    }
}

#[test]
fn names_are_unique_in_their_area_and_rows_stand_at_their_own_index() {
    for (index, row) in TABLE.iter().enumerate() {
        assert_eq!(row.field as usize, index);
        for other in &TABLE[..index] {
            assert!(other.area != row.area || other.name != row.name, "{}", row.name);
            assert!(other.area != row.area || other.linux != row.linux, "{}", row.linux);
            let apart = other.area != row.area
                || other.offset + other.size <= row.offset
                || row.offset + row.size <= other.offset;
            assert!(apart, "{} overlaps {}", other.name, row.name);
        }
    }
    assert_eq!(Field::from_linux("int_ctl"), Some(Field::IntCtl));
    assert_eq!(Field::from_linux("cs.attrib"), Some(Field::CsAttrib));
    assert_eq!(Field::from_name("eventinj"), Some(Field::EventInj));
}

#[test]
fn a_store_changes_exactly_the_bytes_of_its_field_in_little_endian_order() {
    for field in Field::all() {
        let mut vmcb = Vmcb::unknown();
        let value = 0x8877_6655_4433_2211_u64;
        let Some(at) = field.vmcb_offset() else {
            assert!(!vmcb.set(field, value) && !vmcb.set_bytes(field, &[]));
            continue;
        };
        let size = field.size();
        if size <= 8 {
            assert!(vmcb.set(field, value));
            assert_eq!(vmcb.get(field), Some(value & field.mask()), "{field:?}");
        } else {
            assert!(!vmcb.set(field, value));
            assert!(vmcb.set_bytes(field, &vec![0xa5; size]));
            assert_eq!(vmcb.get(field), None, "longer than a quadword");
        }
        for (index, byte) in vmcb.as_bytes().iter().enumerate() {
            let inside = index >= at && index < at + size;
            let wanted = match (inside, size <= 8) {
                (false, _) => 0,
                (true, true) => 0x11 * (index - at + 1) as u8,
                (true, false) => 0xa5,
            };
            assert_eq!(*byte, wanted, "{field:?} byte {index:#x}");
        }
        assert_eq!(Field::all().filter(|f| vmcb.known().has(*f)).collect::<Vec<_>>(), [field]);
        vmcb.forget(field);
        assert_eq!(vmcb, Vmcb::unknown());
    }
}

#[test]
fn a_page_from_memory_is_known_in_full() {
    let mut bytes = [0; SIZE];
    bytes[0x70..0x78].fill(0xff);
    let vmcb = Vmcb::from_bytes(bytes);
    assert_eq!(vmcb.get(Field::ExitCode), Some(u64::MAX));
    assert_eq!(vmcb.get(Field::Cr0), Some(0));
}

#[test]
fn intercepts_lie_where_their_number_says() {
    let mut vmcb = Vmcb::zeroed();
    for row in INTERCEPTS {
        vmcb.set_intercepts(Intercepts::NONE.with(row.bit));
        let n = row.bit.0 as usize;
        assert_eq!(vmcb.as_bytes()[n / 8], 1 << (n % 8), "{}", row.name);
        assert_eq!(vmcb.intercepts().unwrap().iter().collect::<Vec<_>>(), [row.bit]);
        assert_eq!(Intercept::from_name(row.name), Some(row.bit));
        assert!(Intercepts::NAMED.has(row.bit));
    }
    assert_eq!(INTERCEPTS.len(), Intercepts::NAMED.iter().count());
    for (intercept, word, bit) in [
        (Intercept::CR8_WRITE, 0x000, 24),
        (Intercept::DR7_WRITE, 0x004, 23),
        (Intercept::EXCP_PF, 0x008, 14),
        (Intercept::VINTR, 0x00c, 4),
        (Intercept::MSR_PROT, 0x00c, 28),
        (Intercept::SHUTDOWN, 0x00c, 31),
        (Intercept::MWAIT_CONDITIONAL, 0x010, 12),
        (Intercept::EFER_WRITE_TRAP, 0x010, 15),
        (Intercept::CR4_WRITE_TRAP, 0x010, 20),
        (Intercept::IDLE_HLT, 0x014, 6),
    ] {
        assert_eq!(intercept.0 as usize, word * 8 + bit, "{intercept:?}");
    }
}

#[test]
fn no_field_has_two_clean_bits_and_the_uncached_ones_have_none() {
    let covered: Vec<Field> = CLEAN_ROWS.iter().flat_map(|row| row.fields).copied().collect();
    for (index, field) in covered.iter().enumerate() {
        assert!(!covered[..index].contains(field), "{field:?}");
    }
    for field in [
        Field::Rip,
        Field::Rsp,
        Field::Rax,
        Field::Rflags,
        Field::EventInj,
        Field::InterruptState,
        Field::TlbControl,
        Field::ExitCode,
    ] {
        assert!(!covered.contains(&field), "{field:?} is read by every VMRUN");
    }
    assert_eq!(CLEAN_ROWS.iter().fold(0, |bits, row| bits | row.bit.0), 0x1fff);
}

#[test]
fn segments_keep_their_parts() {
    let mut vmcb = Vmcb::zeroed();
    let code = Segment {
        selector: Selector(0x10),
        rights: AccessRights::from_vmcb(0xa9b),
        limit: 0xffff_ffff,
        base: 0x1234_5678,
    };
    vmcb.set_segment(SegmentName::Cs, &code);
    assert_eq!(vmcb.segment(SegmentName::Cs), Some(code));
    assert_eq!(vmcb.get(Field::CsAttrib), Some(0xa9b));
    assert_eq!(vmcb.as_bytes()[0x410..0x418], [0x10, 0, 0x9b, 0x0a, 0xff, 0xff, 0xff, 0xff]);
    vmcb.forget(Field::CsBase);
    assert_eq!(vmcb.segment(SegmentName::Cs), None);
}

#[test]
fn injected_events_take_apart_as_they_were_put_together() {
    let event = EventInfo::new(EventKind::Exception, 14, Some(0x1_0002));
    assert_eq!(event.0, 0x0001_0002_8000_0b0e);
    assert_eq!((event.kind(), event.vector()), (Some(EventKind::Exception), 14));
    assert_eq!(event.error_code(), Some(0x1_0002));
    assert_eq!(EventInfo::from_halves(event.0 as u32, (event.0 >> 32) as u32), event);
    assert_eq!(EventInfo::new(EventKind::Nmi, 2, None).0, 0x8000_0202);
    assert!(!EventInfo::NONE.is_valid());
    for bits in 0..8 {
        assert_eq!(
            EventKind::from_bits(bits).map(|kind| kind as u8),
            [0, 2, 3, 4].contains(&bits).then_some(bits)
        );
    }
}

#[test]
fn typed_fields_are_the_same_bits() {
    let mut vmcb = Vmcb::unknown();
    assert_eq!((vmcb.int_ctl(), vmcb.event_injection(), vmcb.tlb_control()), (None, None, None));
    vmcb.set_int_ctl(IntCtl::V_IRQ.with_v_tpr(5).with_v_intr_prio(9));
    assert_eq!(vmcb.get(Field::IntCtl), Some(0x0009_0105));
    assert_eq!(vmcb.int_ctl().map(|control| (control.v_tpr(), control.v_intr_prio())), Some((5, 9)));
    let fault = EventInfo::new(EventKind::Exception, 14, Some(0xfffb));
    vmcb.set_event_injection(fault);
    assert_eq!(vmcb.as_bytes()[0xa8..0xb0], [14, 0x0b, 0, 0x80, 0xfb, 0xff, 0, 0]);
    assert_eq!(vmcb.event_injection(), Some(fault));
    vmcb.forget(Field::EventInjError);
    assert_eq!(vmcb.event_injection(), None, "its error code is missing");
    vmcb.set_event_injection(EventInfo::new(EventKind::Nmi, 2, None));
    vmcb.forget(Field::EventInjError);
    assert_eq!(vmcb.event_injection(), Some(EventInfo::new(EventKind::Nmi, 2, None)), "it has none");
    vmcb.set_exit_interruption(fault);
    assert_eq!((vmcb.exit_interruption(), vmcb.get(Field::ExitIntInfoError)), (Some(fault), Some(0xfffb)));
    vmcb.set_tlb_control(TlbControl::FlushGuest);
    assert_eq!((vmcb.tlb_control(), vmcb.get(Field::TlbControl)), (Some(TlbControl::FlushGuest), Some(3)));
    vmcb.set(Field::TlbControl, 2);
    assert_eq!(vmcb.tlb_control(), None, "reserved");
    vmcb.set_exit_code(crate::ExitCode::INVALID);
    assert_eq!(vmcb.get(Field::ExitCode), Some(u64::MAX));
}
