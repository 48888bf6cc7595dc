//! Between [`State`] and the interface's register structures.

use rootmode_arch::{
    AccessRights, Cr0, Cr4, DescriptorTable, Efer, Gpr, RFlags, Segment, SegmentName, Selector,
};

use crate::kvm::Errno;
use crate::kvm::abi;
use crate::kvm::host::State;

/// The order of `struct kvm_regs`.
const ORDER: [Gpr; 16] = [
    Gpr::Rax,
    Gpr::Rbx,
    Gpr::Rcx,
    Gpr::Rdx,
    Gpr::Rsi,
    Gpr::Rdi,
    Gpr::Rsp,
    Gpr::Rbp,
    Gpr::R8,
    Gpr::R9,
    Gpr::R10,
    Gpr::R11,
    Gpr::R12,
    Gpr::R13,
    Gpr::R14,
    Gpr::R15,
];

/// `KVM_GET_REGS`.
pub(super) fn regs(state: &State) -> abi::Regs {
    let [rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15] =
        ORDER.map(|gpr| state.gpr[gpr as usize]);
    let (rip, rflags) = (state.rip, state.rflags);
    abi::Regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags }
}

/// `KVM_SET_REGS`.
pub(super) fn set_regs(state: &mut State, regs: &abi::Regs) {
    let values = [
        regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rsp, regs.rbp, regs.r8, regs.r9,
        regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
    ];
    for (gpr, value) in ORDER.into_iter().zip(values) {
        state.gpr[gpr as usize] = value;
    }
    state.rip = regs.rip;
    state.rflags = regs.rflags & DEFINED_FLAGS | RFlags::ONE.0;
}

/// Bits of RFLAGS that exist.
const DEFINED_FLAGS: u64 = 0x3f_7fd5;

fn segment(from: &Segment) -> abi::Segment {
    let rights = from.rights;
    let flag = |bit: AccessRights| u8::from(rights.contains(bit));
    abi::Segment {
        base: from.base,
        limit: from.limit,
        selector: from.selector.0,
        type_: rights.kind(),
        present: u8::from(rights.contains(AccessRights::P) && rights.is_usable()),
        dpl: rights.dpl(),
        db: flag(AccessRights::DB),
        s: flag(AccessRights::S),
        l: flag(AccessRights::L),
        g: flag(AccessRights::G),
        avl: flag(AccessRights::AVL),
        unusable: u8::from(!rights.is_usable()),
        padding: 0,
    }
}

fn from_segment(from: &abi::Segment) -> Segment {
    let bit = |value: u8, at: u32| u32::from(value & 1) << at;
    let unusable = from.unusable != 0 || from.present & 1 == 0;
    let rights = u32::from(from.type_ & 15)
        | bit(from.s, 4)
        | u32::from(from.dpl & 3) << 5
        | bit(from.present, 7)
        | bit(from.avl, 12)
        | bit(from.l, 13)
        | bit(from.db, 14)
        | bit(from.g, 15)
        | if unusable { AccessRights::UNUSABLE.0 } else { 0 };
    Segment {
        selector: Selector(from.selector),
        rights: AccessRights(rights),
        limit: from.limit,
        base: from.base,
    }
}

const fn dtable(from: &DescriptorTable) -> abi::Dtable {
    abi::Dtable { base: from.base, limit: from.limit, padding: [0; 3] }
}

/// What of `struct kvm_sregs` the processor's state does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beside {
    pub(super) cr8: u64,
    pub(super) apic_base: u64,
}

/// `KVM_GET_SREGS`; `interrupt` is the vector that waits for the next entry.
pub(super) fn sregs(state: &State, beside: Beside, interrupt: Option<u8>) -> abi::Sregs {
    let named = |name| segment(state.segment(name));
    let mut interrupt_bitmap = [0; 4];
    if let Some(vector) = interrupt {
        interrupt_bitmap[usize::from(vector / 64)] = 1 << (vector % 64);
    }
    abi::Sregs {
        cs: named(SegmentName::Cs),
        ds: named(SegmentName::Ds),
        es: named(SegmentName::Es),
        fs: named(SegmentName::Fs),
        gs: named(SegmentName::Gs),
        ss: named(SegmentName::Ss),
        tr: named(SegmentName::Tr),
        ldt: named(SegmentName::Ldtr),
        gdt: dtable(&state.gdtr),
        idt: dtable(&state.idtr),
        cr0: state.cr0,
        cr2: state.cr2,
        cr3: state.cr3,
        cr4: state.cr4,
        cr8: beside.cr8,
        efer: state.efer,
        apic_base: beside.apic_base,
        interrupt_bitmap,
    }
}

/// `KVM_SET_SREGS`, the interrupt bitmap aside. What CR4 may have is `cr4_bits`.
///
/// # Errors
/// [`Errno::Einval`]: no processor could be in this state.
pub(super) fn set_sregs(state: &mut State, sregs: &abi::Sregs, cr4_bits: Cr4) -> Result<(), Errno> {
    let (cr0, cr4, efer) = (Cr0(sregs.cr0), Cr4(sregs.cr4), Efer(sregs.efer));
    let known_efer = Efer::SCE | Efer::LME | Efer::LMA | Efer::NXE | Efer::SVME | Efer::FFXSR;
    let paging = cr0.contains(Cr0::PG);
    let long = efer.contains(Efer::LME) && paging;
    let legal = cr4.0 & !cr4_bits.0 == 0
        && efer.0 & !known_efer.0 == 0
        && cr0.0 >> 32 == 0
        && (!paging || cr0.contains(Cr0::PE))
        && (!cr0.contains(Cr0::NW) || cr0.contains(Cr0::CD))
        && if long {
            cr4.contains(Cr4::PAE) && efer.contains(Efer::LMA)
        } else {
            !efer.contains(Efer::LMA) && sregs.cs.l == 0
        };
    if !legal || sregs.cr8 > 15 {
        return Err(Errno::Einval);
    }
    for (name, from) in [
        (SegmentName::Cs, &sregs.cs),
        (SegmentName::Ds, &sregs.ds),
        (SegmentName::Es, &sregs.es),
        (SegmentName::Fs, &sregs.fs),
        (SegmentName::Gs, &sregs.gs),
        (SegmentName::Ss, &sregs.ss),
        (SegmentName::Tr, &sregs.tr),
        (SegmentName::Ldtr, &sregs.ldt),
    ] {
        state.segments[name as usize] = from_segment(from);
    }
    state.cpl = state.segment(SegmentName::Ss).rights.dpl();
    state.gdtr = DescriptorTable { base: sregs.gdt.base, limit: sregs.gdt.limit };
    state.idtr = DescriptorTable { base: sregs.idt.base, limit: sregs.idt.limit };
    (state.cr0, state.cr2, state.cr3, state.cr4) = (sregs.cr0 | Cr0::ET.0, sregs.cr2, sregs.cr3, sregs.cr4);
    state.efer = sregs.efer;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read_back() {
        let mut state = State::reset(0);
        let regs = abi::Regs { rsp: 7, r15: 9, rip: 0x1234, rflags: 0x202, ..Default::default() };
        set_regs(&mut state, &regs);
        assert_eq!(super::regs(&state), regs);
        let beside = Beside { cr8: 0, apic_base: 0xfee0_0900 };
        let mut sregs = sregs(&state, beside, Some(0x41));
        assert_eq!((sregs.cs.selector, sregs.cs.base), (0xf000, 0xffff_0000), "the state after reset");
        assert_eq!(sregs.interrupt_bitmap, [0, 2, 0, 0]);
        sregs.cs.base = 0;
        sregs.ds.unusable = 1;
        sregs.ds.present = 0;
        sregs.interrupt_bitmap = [0; 4];
        set_sregs(&mut state, &sregs, Cr4(0)).unwrap();
        assert_eq!(super::sregs(&state, beside, None), sregs);
    }

    #[test]
    fn states_that_no_processor_can_be_in_are_refused() {
        let state = State::reset(0);
        let good = sregs(&state, Beside { cr8: 0, apic_base: 0 }, None);
        let long = |sregs: &mut abi::Sregs| {
            sregs.cr0 = (Cr0::PE | Cr0::PG).0;
            sregs.cr4 = Cr4::PAE.0;
            sregs.efer = (Efer::LME | Efer::LMA).0;
        };
        let refused = |change: &dyn Fn(&mut abi::Sregs)| {
            let mut sregs = good;
            change(&mut sregs);
            set_sregs(&mut state.clone(), &sregs, Cr4::PAE).is_err()
        };
        assert!(!refused(&long));
        assert!(refused(&|s| s.cr0 = Cr0::PG.0), "paging without protection");
        assert!(refused(&|s| s.cr4 = Cr4::VMXE.0), "a bit that the guest's processor does not have");
        assert!(refused(&|s| s.efer = Efer::LMA.0), "LMA without paging");
        assert!(
            refused(&|s| {
                long(s);
                s.cr4 = 0;
            }),
            "long mode without PAE"
        );
        assert!(
            refused(&|s| {
                long(s);
                s.efer = Efer::LME.0;
            }),
            "LME with paging but not LMA"
        );
        assert!(refused(&|s| s.cr8 = 16));
    }
}
