//! Generated VMX guests: a VMCS with random controls, events and registers.
//!
//! Controls are drawn from what both processors have. No interrupt comes from outside, and the preemption timer is 0 where it is on.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::Peers;
use super::code::{Form, Guest, Mode, start};
use super::layout::*;
use crate::judges::controls::*;
use crate::judges::layout::VIRTUAL_APIC;
use crate::judges::random::Random;
use crate::judges::vmcs::*;
use crate::judges::vmx_bases::{PAT, host_state};

/// VMX's own instructions, and others whose exits VMX has of its own.
const INSTRUCTIONS: &[Form] = &[
    ("vmcall", true, true, |a, _| a.vmcall()),
    ("vmclear", false, true, |a, _| a.vmclear(qword_ptr(rdi))),
    ("vmclear", true, false, |a, _| a.vmclear(qword_ptr(edi + ecx * 4 + 0x10))),
    ("vmptrld", false, true, |a, _| a.vmptrld(qword_ptr(rdi + 8))),
    ("vmptrst", false, true, |a, _| a.vmptrst(qword_ptr(rdi + rcx * 2 - 8))),
    ("vmlaunch", true, true, |a, _| a.vmlaunch()),
    ("vmresume", true, true, |a, _| a.vmresume()),
    ("vmread", false, true, |a, _| a.vmread(qword_ptr(rdi), rbx)),
    ("vmread", false, true, |a, _| a.vmread(r9, rbx)),
    ("vmwrite", false, true, |a, _| a.vmwrite(rdx, qword_ptr(rdi + 0x40))),
    ("vmwrite", true, false, |a, _| a.vmwrite(edx, ecx)),
    ("vmxoff", true, true, |a, _| a.vmxoff()),
    ("vmxon", false, true, |a, _| a.vmxon(qword_ptr(rdi))),
    ("invept", false, true, |a, _| a.invept(rbx, xmmword_ptr(rdi))),
    ("invvpid", false, true, |a, _| a.invvpid(r10, xmmword_ptr(rdi + 0x20))),
    ("invpcid", false, true, |a, r| {
        a.mov(ebx, r.below(5) as u32).and_then(|()| a.invpcid(rbx, xmmword_ptr(rdi)))
    }),
    ("rdtscp", true, true, |a, _| a.rdtscp()),
    ("invd", true, true, |a, _| a.invd()),
    ("monitor", true, true, |a, _| a.monitor()),
    ("mwait", true, true, |a, _| a.mwait()),
    ("ltr", true, true, |a, r| a.mov(ebx, r.pick(&[0, 0x30, 0x10])).and_then(|()| a.ltr(bx))),
    ("sgdt", true, false, |a, _| a.sgdt(ptr(edi + 4))),
    ("sidt", false, true, |a, _| a.sidt(ptr(rdi + rcx * 8 + 2))),
    ("sldt", false, true, |a, _| a.sldt(word_ptr(rdi))),
    ("str", false, true, |a, _| a.str(word_ptr(rdi - 4))),
    ("lmsw", false, true, |a, _| a.lmsw(word_ptr(rdi))),
    ("outs", true, false, |a, _| {
        a.mov(esi, DATA_PAGE as u32).and_then(|()| a.mov(dx, 0x80)).and_then(|()| a.outsb())
    }),
    ("wrmsr", true, true, |a, r| {
        a.mov(ecx, r.pick(&[0x174_u32, 0x175, 0x176, 0xc000_0103]))?;
        a.mov(eax, r.word() as u32 & 0x7fff_ffff)?;
        a.xor(edx, edx)?;
        a.wrmsr()
    }),
];

/// Primary controls that are drawn together; the others follow rules of their own.
const CPU_DRAWN: u64 = CPU_INTERRUPT_WINDOW
    | CPU_TSC_OFFSETTING
    | CPU_INVLPG
    | CPU_RDPMC
    | CPU_CR3_LOAD
    | CPU_CR3_STORE
    | CPU_CR8_LOAD
    | CPU_CR8_STORE
    | CPU_TPR_SHADOW
    | CPU_MOV_DR
    | CPU_UNCONDITIONAL_IO
    | CPU_IO_BITMAPS
    | CPU_MSR_BITMAPS
    | CPU_PAUSE;

/// In an entry of EPT: a large page, write-back, all accesses.
const EPT_PAGE: u64 = 0xb7;

/// The names of what is printed, in order.
pub(super) fn names() -> Vec<&'static str> {
    let fields = VMCS_FIELDS.iter().map(|(_, name)| *name);
    let states = VMX_STATE.iter().map(|(_, name)| *name);
    ["REASON"].into_iter().chain(fields).chain(states).chain(RESULT_NAMES.iter().copied()).collect()
}

impl Peers {
    /// `wanted` as far as both processors allow, with the bits that one of them demands.
    fn allowed(&self, capability: u32, wanted: u64) -> u64 {
        let [(must, may), (also, and)] = [&self.ours, &self.theirs].map(|peer| peer.settings(capability));
        wanted & may & and | must | also
    }

    /// Whether both processors have these secondary controls.
    fn has(&self, secondary: u64) -> bool {
        self.allowed(0x48b, secondary) & secondary == secondary
            && self.allowed(0x482, CPU_SECONDARY) & CPU_SECONDARY != 0
    }

    /// The bits that a control register must have.
    fn fixed(&self, index: u32) -> u64 {
        self.ours.msr(index) | self.theirs.msr(index)
    }
}

/// Makes guest `number` of the run with `seed`.
pub(super) fn generate(peers: &Peers, seed: u64, number: u64) -> Result<Guest, IcedError> {
    let r = Random::of_case(seed, number);
    let mut mode = Mode::draw(&r);
    if mode == Mode::Unpaged && !peers.has(SEC_EPT | SEC_UNRESTRICTED) {
        mode = Mode::Pae;
    }
    let mut facts = vec![mode.name()];
    let mut pokes = start(mode, INSTRUCTIONS, [0x0f, 0x01, 0xc1], EPT_PAGE, &r, &mut facts)?;
    let mut vmcs = Vmcs::zeroed();
    host_state(&mut vmcs, peers.fixed(0x486), peers.fixed(0x488));
    registers(peers, mode, &r, &mut vmcs, &mut facts);
    controls(peers, mode, &r, &mut vmcs, &mut facts);
    events(&r, &mut vmcs, &mut facts);
    // VTPR, not below the threshold.
    let vtpr = r.below(16);
    vmcs.set(TPR_THRESHOLD, if vmcs.get(PROCESSOR) & CPU_TPR_SHADOW != 0 { r.below(vtpr + 1) } else { 0 });
    pokes.push((VIRTUAL_APIC + 0x80, vtpr << 4));
    pokes.extend([(RAX_VALUE, r.word()), (CR2_VALUE, r.below(0x1_0000))]);
    let values = vmcs.fields().into_iter().zip(0..).filter(|((_, value), _)| *value != 0);
    pokes.extend(values.map(|((_, value), n)| (FIELD_VALUES + 8 * n, value)));
    // Bochs remembers that virtual NMIs are blocked, and no VM entry makes it forget.
    let is_last = vmcs.get(PIN) & PIN_VIRTUAL_NMI != 0
        && (vmcs.get(INTERRUPTIBILITY) & 8 != 0 || vmcs.get(INTERRUPTION) >> 8 & 7 == 2);
    Ok(Guest { is_last, ..Guest::new(pokes, facts) })
}

fn registers(peers: &Peers, mode: Mode, r: &Random, v: &mut Vmcs, facts: &mut Vec<&'static str>) {
    let unpaged = mode == Mode::Unpaged;
    let fixed = peers.fixed(0x486) & if unpaged { !0x8000_0001 } else { u64::MAX };
    v.set(GUEST_CR0, fixed | if unpaged { 0x11 } else { 0x8000_0011 } | r.pick(&[0, 0x1_0000, 8, 0x1_0008]));
    v.set(GUEST_CR4, peers.fixed(0x488) | 0x600 | if unpaged { 0 } else { 0x20 });
    v.set(
        GUEST_CR3,
        match mode {
            Mode::Kernel | Mode::User => PML4,
            Mode::Pae => PAE_TABLE,
            Mode::Unpaged => 0,
        },
    );
    if mode == Mode::Pae {
        v.set(GUEST_PDPTE0, (PML4 + 0x2000) | 1);
    }
    v.set(GUEST_EFER, if mode.is_wide() { 0x500 | r.below(2) } else { 0 });
    v.set(GUEST_PAT, PAT);
    let user = mode == Mode::User;
    for (n, selector) in SEGMENTS.into_iter().enumerate() {
        let step = 2 * n as u32;
        let code = selector == GUEST_CS;
        v.set(selector, if code { mode.code_selector() } else { mode.data_selector() }.into());
        v.set(ES_LIMIT + step, 0xffff_ffff);
        v.set(
            ES_RIGHTS + step,
            match (code, mode) {
                (true, Mode::Kernel) => 0xa09b,
                (true, Mode::User) => 0xa0fb,
                (true, _) => 0xc09b,
                (false, _) => {
                    if user {
                        0xc0f3
                    } else {
                        0xc093
                    }
                }
            },
        );
    }
    for base in [FS_BASE, GS_BASE, GUEST_SYSENTER_ESP, GUEST_SYSENTER_EIP, GUEST_SYSENTER_CS] {
        v.set(base, r.word() & 0x7fff_ffff);
    }
    v.set(LDTR_RIGHTS, 0x1_0000);
    v.set(GUEST_TR, TASK.into());
    v.set(TR_BASE, TSS);
    v.set(TR_LIMIT, 0x67);
    v.set(TR_RIGHTS, 0x8b);
    v.set(GDTR_BASE, GDT);
    v.set(GDTR_LIMIT, 0x3f);
    let (idt, limit) = if mode.is_wide() { (IDT64, 0xfff) } else { (IDT32, 0x7ff) };
    v.set(IDTR_BASE, idt);
    v.set(IDTR_LIMIT, limit);
    v.set(GUEST_RIP, CODE);
    v.set(GUEST_RSP, STACK - 0x100);
    v.set(GUEST_DR7, 0x400);
    let mut flags = 2 | r.below(2) << 9;
    if r.chance(10) {
        facts.push("trap-flag");
        flags |= 1 << 8;
    }
    v.set(GUEST_RFLAGS, flags);
    v.set(LINK_POINTER, u64::MAX);
}

fn controls(peers: &Peers, mode: Mode, r: &Random, v: &mut Vmcs, facts: &mut Vec<&'static str>) {
    let mut pin = r.some_of(PIN_EXTERNAL);
    let mut cpu = r.some_of(CPU_DRAWN);
    if r.chance(30) {
        pin |= PIN_NMI;
        if r.chance(50) {
            facts.push("virtual-nmis");
            pin |= PIN_VIRTUAL_NMI;
            cpu |= r.some_of(CPU_NMI_WINDOW);
        }
    }
    if r.chance(4) {
        facts.push("timer");
        pin |= PIN_TIMER;
    }
    if r.chance(8) {
        facts.push("mtf");
        cpu |= CPU_MTF;
    }
    let mut secondary = r.some_of(SEC_DESCRIPTORS | SEC_RDTSCP | SEC_VPID | SEC_WBINVD | SEC_INVPCID);
    let unpaged = mode == Mode::Unpaged;
    if unpaged || r.chance(50) {
        facts.push("ept");
        secondary |= SEC_EPT | if unpaged { SEC_UNRESTRICTED } else { r.some_of(SEC_UNRESTRICTED) };
    }
    v.set(PIN, peers.allowed(0x481, pin));
    v.set(
        PROCESSOR,
        peers.allowed(0x482, cpu | CPU_HLT | CPU_MWAIT | CPU_RDTSC | CPU_MONITOR | CPU_SECONDARY),
    );
    v.set(SECONDARY, peers.allowed(0x48b, secondary));
    let wide = if mode.is_wide() { ENTRY_GUEST64 } else { 0 };
    let efer = if r.chance(50) { ENTRY_LOAD_EFER } else { 0 };
    v.set(ENTRY, peers.allowed(0x484, wide | efer | r.some_of(ENTRY_LOAD_DEBUG | ENTRY_LOAD_PAT)));
    let saved = r.some_of(EXIT_SAVE_DEBUG | EXIT_SAVE_PAT | EXIT_SAVE_EFER);
    v.set(EXIT, peers.allowed(0x483, EXIT_HOST64 | EXIT_LOAD_PAT | EXIT_LOAD_EFER | saved));

    v.set(VPID, 1);
    v.set(EPTP, NESTED | 0x1e);
    let maps = if r.chance(50) { OPEN_MAPS } else { CLOSED_MAPS };
    v.set(IO_BITMAP_A, maps);
    v.set(IO_BITMAP_B, maps + 0x1000);
    v.set(MSR_BITMAPS, maps + MSR_MAP);
    v.set(VIRTUAL_APIC_ADDRESS, VIRTUAL_APIC);
    v.set(TSC_OFFSET, r.word());
    v.set(EXCEPTIONS, r.some_of(0x000f_7dff));
    if r.chance(50) {
        v.set(PAGE_FAULT_MASK, r.below(8));
        v.set(PAGE_FAULT_MATCH, r.below(8));
    }
    // WP, NE, TS, AM and others; PGE, OSFXSR, UMIP and others.
    v.set(CR0_MASK, r.some_of(0xe005_003f));
    v.set(CR0_SHADOW, r.some_of(0xe005_003f));
    v.set(CR4_MASK, r.some_of(0x2fff));
    v.set(CR4_SHADOW, r.some_of(0x2fff));
    v.set(CR3_TARGETS, r.below(5));
    v.set(CR3_TARGET_0 + 2 * r.below(4) as u32, PML4);
}

fn events(r: &Random, v: &mut Vmcs, facts: &mut Vec<&'static str>) {
    const VALID: u64 = 1 << 31;
    if r.chance(25) {
        let (name, event, length) = r.pick(&[
            ("inject-interrupt", 0x30, 0),
            ("inject-nmi", 2 << 8 | 2, 0),
            ("inject-ud", 3 << 8 | 6, 0),
            ("inject-gp", 3 << 8 | 1 << 11 | 13, 0),
            ("inject-pf", 3 << 8 | 1 << 11 | 14, 0),
            ("inject-de", 3 << 8, 0),
            ("inject-int-n", 4 << 8 | 0x80, 2),
            ("inject-icebp", 5 << 8 | 1, 1),
            ("inject-int3", 6 << 8 | 3, 1),
        ]);
        facts.push(name);
        v.set(INTERRUPTION, VALID | event);
        v.set(INTERRUPTION_ERROR, if event & 1 << 11 != 0 { 2 } else { 0 });
        v.set(INSTRUCTION_LENGTH, length);
        if event == 0x30 {
            v.or(GUEST_RFLAGS, 0x200);
        }
        return;
    }
    match r.below(8) {
        0 => {
            facts.push("shadow");
            v.or(GUEST_RFLAGS, 0x200);
            v.set(INTERRUPTIBILITY, 1);
        }
        1 => {
            facts.push("shadow");
            v.set(INTERRUPTIBILITY, 2);
        }
        2 => {
            facts.push("nmi-blocking");
            v.set(INTERRUPTIBILITY, 8);
        }
        _ => {}
    }
    // A trap in a shadow is pending already.
    if v.get(INTERRUPTIBILITY) & 3 != 0 && v.get(GUEST_RFLAGS) & 0x100 != 0 {
        v.set(PENDING_DEBUG, 1 << 14);
    }
}

/// The bits of each value that the architecture defines after an exit with `report` (SDM Vol. 3C "Recording VM-Exit
/// Information and Updating VM-Entry Control Fields", "Saving Guest State").
pub(super) fn defined(report: &[u64]) -> Vec<u64> {
    let all = u64::MAX;
    let names = names();
    let value = |name: &str| names.iter().position(|known| *known == name).map_or(0, |n| report[n]);
    let reason = report[0] & 0xffff_ffff;
    // VMfail, or an entry that failed: nothing of the guest is written.
    let state = if report[0] >> 32 != 0 || reason >> 31 != 0 { 0 } else { all };
    let interruption = value("INTERRUPTION-INFO");
    let vectoring = value("VECTORING-INFO");
    let event = |information: u64| if information >> 31 & 1 != 0 { 0xffff_ffff } else { 1 << 31 };
    let error = |information: u64| {
        if information >> 31 & 1 != 0 && information >> 11 & 1 != 0 { 0xffff_ffff } else { 0 }
    };
    let instruction = match reason {
        0 => matches!(interruption >> 8 & 7, 4..=6),
        9
        | 10
        | 11
        | 12
        | 13
        | 14
        | 15
        | 16
        | 18..=32
        | 36
        | 39
        | 40
        | 46
        | 47
        | 50
        | 51
        | 53
        | 54
        | 55
        | 57
        | 58
        | 59
        | 61 => true,
        _ => false,
    };
    // Instructions in IDT vectoring have a length as well.
    let software = vectoring >> 31 & 1 != 0 && matches!(vectoring >> 8 & 7, 4..=6);
    let length = instruction || software && matches!(reason, 0 | 8 | 9 | 44 | 48 | 49 | 56);
    let string = reason == 30 && value("QUALIFICATION") & 0x10 != 0;
    let information = match reason {
        // Address size and segment.
        30 if string => {
            if value("QUALIFICATION") & 8 != 0 {
                0x380
            } else {
                0x3_8380
            }
        }
        19 | 21 | 27 => defined_information(value("INSTRUCTION-INFO"), false),
        23 | 25 | 46 | 47 | 50 | 53 | 58 => defined_information(value("INSTRUCTION-INFO"), true),
        _ => 0,
    };
    let lmsw = reason == 28 && value("QUALIFICATION") >> 4 & 3 == 3 && value("QUALIFICATION") & 0x40 != 0;
    let linear = reason == 48 && value("QUALIFICATION") & 0x80 != 0 || string || lmsw;
    names
        .iter()
        .map(|name| match *name {
            "REASON" => all,
            // Bits 11:9 of an EPT violation come with a capability that Bochs does not have.
            "QUALIFICATION" => {
                if reason == 48 {
                    !0xe00 & state
                } else {
                    state
                }
            }
            "LINEAR-ADDRESS" => {
                if linear {
                    state
                } else {
                    0
                }
            }
            "PHYSICAL-ADDRESS" => {
                if matches!(reason, 48 | 49) {
                    state
                } else {
                    0
                }
            }
            "INTERRUPTION-INFO" => event(interruption) & state,
            "INTERRUPTION-ERROR" => error(interruption) & state,
            "VECTORING-INFO" => event(vectoring) & state,
            "VECTORING-ERROR" => error(vectoring) & state,
            "INSTRUCTION-LENGTH" => {
                if length {
                    state
                } else {
                    0
                }
            }
            "INSTRUCTION-INFO" => information & state,
            // A segment that is not usable has only that, SS its DPL as well.
            "SS.RIGHTS" if value(name) & 0x1_0000 != 0 => 0x1_0060 & state,
            name if name.ends_with(".RIGHTS") && value(name) & 0x1_0000 != 0 => 0x1_0000 & state,
            "SS.LIMIT" if value("SS.RIGHTS") & 0x1_0000 != 0 => 0,
            _ => state,
        })
        .collect()
}

/// The defined bits of VM-exit instruction information with a memory operand or, where `second` is true, a register beside it.
fn defined_information(value: u64, second: bool) -> u64 {
    let second = if second { 0xf000_0000 } else { 0 };
    if value & 0x400 != 0 {
        // A register.
        return 0x478 | second;
    }
    let index = if value & 1 << 22 != 0 { 0 } else { 0x3c_0003 };
    let base = if value & 1 << 27 != 0 { 0 } else { 0x0780_0000 };
    0x0842_8380 | 0x3_8000 | 1 << 22 | index | base | second
}
