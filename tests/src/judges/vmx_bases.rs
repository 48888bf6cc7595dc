//! Valid guests to start from: six modes, each with a random set of features that the processor has.

use super::batch::Way;
use super::controls::*;
use super::layout::*;
use super::random::Random;
use super::rom::{CODE32, CODE64, DATA, GDT_ADDRESS, TSS};
use super::rom_vmx::{ExitHandlers, HOST_CR4 as RUNNING_CR4};
use super::transcript::Processor;
use super::vmcs::*;

/// What a launch consists of beside the fields: words of memory that the case decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The VMCS.
    pub vmcs: Vmcs,
    /// Revision identifier in the region that a link pointer may name.
    pub link_revision: u64,
    /// The 64-bit word of the virtual-APIC page that holds VTPR in its low byte.
    pub virtual_tpr: u64,
    /// The PDPTEs in memory of a PAE guest without EPT.
    pub pdptes: [u64; 4],
    /// VM-entry MSR-load entries: index word and value.
    pub entry_msrs: [(u64, u64); 2],
    /// How the guest is launched.
    pub way: Way,
}

/// Mode of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Long,
    Compatibility,
    Pae,
    Paging32,
    Virtual8086,
    /// Protected mode without paging; needs unrestricted guest.
    Unpaged,
    /// Real-address mode; needs unrestricted guest.
    Real,
}

/// Valid data, write-back everywhere.
pub const PAT: u64 = 0x0007_0406_0007_0406;

/// The host as the ROM runs in 64-bit mode, with the bits that CR0 and CR4 must have; not where it goes on.
pub(super) fn host_state(v: &mut Vmcs, cr0: u64, cr4: u64) {
    v.set(HOST_CR0, 0x8000_0021 | cr0);
    v.set(HOST_CR3, HOST_PML4);
    v.set(HOST_CR4, RUNNING_CR4 | cr4);
    v.set(HOST_CS, u64::from(CODE64));
    for selector in [HOST_ES, HOST_SS, HOST_DS, HOST_FS, HOST_GS] {
        v.set(selector, u64::from(DATA));
    }
    v.set(HOST_TR, u64::from(TSS));
    v.set(HOST_GDTR_BASE, GDT_ADDRESS);
    v.set(HOST_RSP, STACK_TOP);
    v.set(HOST_PAT, PAT);
    v.set(HOST_EFER, 0x500);
}

/// Makes valid launches for one processor.
pub struct Bases<'a> {
    processor: &'a Processor,
    exits: ExitHandlers,
}

impl<'a> Bases<'a> {
    /// For `processor`, with VM exits arriving at `exits`.
    #[must_use]
    pub fn new(processor: &'a Processor, exits: ExitHandlers) -> Bases<'a> {
        Bases { processor, exits }
    }

    /// The processor.
    #[must_use]
    pub fn processor(&self) -> &'a Processor {
        self.processor
    }

    /// Where VM exits arrive in the mode of the host.
    #[must_use]
    pub fn exit_handler(&self, way: Way) -> u64 {
        if way == Way::Legacy { self.exits.legacy } else { self.exits.long }
    }

    /// Whether secondary controls may have all of `bits` set.
    fn has(&self, bits: u64) -> bool {
        self.processor.msr(0x48B) >> 32 & bits == bits && self.processor.msr(0x482) >> 32 & CPU_SECONDARY != 0
    }

    /// `wanted` as far as the capability register allows, with the bits that it demands.
    fn allowed(&self, capability: u32, wanted: u64) -> u64 {
        let (must, may) = self.processor.settings(capability);
        // Default-1 bits are kept at 1: what they would bring is not the subject of these guests.
        wanted & may | must | self.processor.msr(capability) & 0xffff_ffff & may
    }

    /// A launch that every rule should accept.
    #[must_use]
    pub fn launch(&self, random: &Random) -> Launch {
        let mut mode = random.pick(&[
            Mode::Long,
            Mode::Long,
            Mode::Long,
            Mode::Compatibility,
            Mode::Pae,
            Mode::Pae,
            Mode::Paging32,
            Mode::Virtual8086,
            Mode::Unpaged,
            Mode::Real,
        ]);
        if matches!(mode, Mode::Unpaged | Mode::Real) && !self.has(SEC_EPT | SEC_UNRESTRICTED) {
            mode = Mode::Long;
        }
        let way = match random.below(40) {
            0..=5 => Way::Legacy,
            6 => random.pick(&[Way::Resume, Way::AfterMovSs, Way::WithoutVmcs]),
            _ => Way::Launch,
        };
        if way == Way::Legacy && matches!(mode, Mode::Long | Mode::Compatibility) {
            mode = random.pick(&[Mode::Pae, Mode::Paging32, Mode::Virtual8086]);
        }
        let mut launch = Launch {
            vmcs: Vmcs::zeroed(),
            link_revision: self.processor.msr(0x480) & 0x7fff_ffff,
            virtual_tpr: 0x80,
            pdptes: [GUEST_PD | 1, 0, 0, 0],
            entry_msrs: [(0x174, 8), (0x175, 0x1000)],
            way,
        };
        self.host(&mut launch.vmcs, way);
        self.guest(&mut launch.vmcs, mode);
        self.controls(&mut launch, mode, random);
        self.non_register_state(&mut launch, mode, random);
        launch
    }

    fn host(&self, v: &mut Vmcs, way: Way) {
        host_state(v, self.processor.msr(0x486), self.processor.msr(0x488));
        if way == Way::Legacy {
            v.set(HOST_CR3, HOST_PAE_TABLE);
            v.set(HOST_CS, u64::from(CODE32));
            v.set(HOST_EFER, 0);
        }
        v.set(HOST_RIP, self.exit_handler(way));
        v.set(HOST_SYSENTER_CS, 8);
        v.set(HOST_SYSENTER_ESP, 0x2000);
        v.set(HOST_SYSENTER_EIP, 0x3000);
    }

    fn guest(&self, v: &mut Vmcs, mode: Mode) {
        let fixed_cr0 = self.processor.msr(0x486);
        let cr0 = match mode {
            Mode::Real => fixed_cr0 & !0x8000_0001 | 0x10,
            Mode::Unpaged => fixed_cr0 & !0x8000_0000 | 0x11,
            _ => fixed_cr0 | 0x8000_0011,
        };
        v.set(GUEST_CR0, cr0);
        let (cr3, pae) = match mode {
            Mode::Long | Mode::Compatibility => (GUEST_PML4, 0x20),
            Mode::Pae => (GUEST_PAE_TABLE, 0x20),
            _ => (GUEST_PD32, 0),
        };
        v.set(GUEST_CR3, cr3);
        v.set(GUEST_CR4, self.processor.msr(0x488) | pae);
        v.set(GUEST_EFER, if matches!(mode, Mode::Long | Mode::Compatibility) { 0x500 } else { 0 });
        v.set(GUEST_PDPTE0, GUEST_PD | 1);

        for (n, selector) in SEGMENTS.into_iter().enumerate() {
            let n = 2 * n as u32;
            let code = selector == GUEST_CS;
            let (value, limit, rights) = match mode {
                Mode::Real => (0, 0xffff, if code { 0x9b } else { 0x93 }),
                Mode::Virtual8086 => (0, 0xffff, 0xf3),
                Mode::Long if code => (8, 0xffff_ffff, 0xa09b),
                _ => (if code { 8 } else { 0x10 }, 0xffff_ffff, if code { 0xc09b } else { 0xc093 }),
            };
            v.set(selector, value);
            v.set(ES_LIMIT + n, limit);
            v.set(ES_RIGHTS + n, rights);
        }
        if matches!(mode, Mode::Real | Mode::Virtual8086) {
            v.set(GUEST_CS, GUEST_CODE >> 4);
            v.set(CS_BASE, GUEST_CODE);
        }
        v.set(GUEST_RIP, if matches!(mode, Mode::Real | Mode::Virtual8086) { 0 } else { GUEST_CODE });
        v.set(GUEST_RSP, 0x6000);
        v.set(LDTR_RIGHTS, 0x1_0000);
        v.set(GUEST_TR, 0x18);
        v.set(TR_LIMIT, 0x67);
        v.set(TR_RIGHTS, 0x8b);
        v.set(GDTR_LIMIT, 0x2f);
        v.set(GDTR_BASE, GDT_ADDRESS);
        v.set(GUEST_RFLAGS, if mode == Mode::Virtual8086 { 0x2_3002 } else { 2 });
        v.set(GUEST_DR7, 0x400);
        v.set(GUEST_PAT, PAT);
        v.set(LINK_POINTER, u64::MAX);
    }

    fn controls(&self, launch: &mut Launch, mode: Mode, random: &Random) {
        let legacy = launch.way == Way::Legacy;
        let v = &mut launch.vmcs;
        let mut pin = PIN_TIMER;
        let mut cpu = CPU_HLT | CPU_SECONDARY;
        let mut secondary = 0;
        let mut exit = if legacy { 0 } else { EXIT_HOST64 };
        let mut entry = 0;
        if matches!(mode, Mode::Long | Mode::Compatibility) {
            entry |= ENTRY_GUEST64;
        }

        // Second stage, and what lives on it.
        if matches!(mode, Mode::Unpaged | Mode::Real) {
            secondary |= SEC_EPT | SEC_UNRESTRICTED;
        } else if random.chance(50) {
            secondary |= SEC_EPT;
            if random.chance(40) {
                secondary |= SEC_UNRESTRICTED;
            }
        }
        if secondary & SEC_EPT != 0 {
            for (bit, percent) in
                [(SEC_PML, 25), (SEC_VE, 25), (SEC_MBE, 15), (SEC_SPP, 15), (SEC_VMFUNC, 30)]
            {
                if random.chance(percent) {
                    secondary |= bit;
                }
            }
        }
        for (bit, percent) in [(SEC_VPID, 40), (SEC_SHADOWING, 15), (SEC_TSC_SCALING, 15)] {
            if random.chance(percent) {
                secondary |= bit;
            }
        }

        // APIC virtualization.
        match random.below(6) {
            0 => cpu |= CPU_TPR_SHADOW,
            1 => secondary |= SEC_APIC_ACCESS,
            2 => {
                cpu |= CPU_TPR_SHADOW;
                secondary |= random.pick(&[SEC_APIC_ACCESS, SEC_X2APIC]);
                if self.has(SEC_APIC_REGISTERS | SEC_INTERRUPT_DELIVERY) {
                    secondary |= random.pick(&[0, SEC_APIC_REGISTERS, SEC_INTERRUPT_DELIVERY]);
                    if secondary & SEC_INTERRUPT_DELIVERY != 0 {
                        pin |= PIN_EXTERNAL;
                    }
                }
            }
            3 if self.has(SEC_INTERRUPT_DELIVERY) => {
                cpu |= CPU_TPR_SHADOW;
                secondary |= SEC_INTERRUPT_DELIVERY | SEC_APIC_ACCESS;
                pin |= PIN_EXTERNAL | PIN_POSTED;
                exit |= EXIT_ACK;
            }
            _ => {}
        }
        if random.chance(30) {
            pin |= PIN_NMI | PIN_VIRTUAL_NMI;
            if random.chance(30) {
                cpu |= CPU_NMI_WINDOW;
            }
        }
        for (bit, percent) in [(CPU_IO_BITMAPS, 20), (CPU_MSR_BITMAPS, 20)] {
            if random.chance(percent) {
                cpu |= bit;
            }
        }
        for (bit, percent) in [
            (EXIT_LOAD_PAT, 25),
            (EXIT_LOAD_EFER, 30),
            (EXIT_SAVE_TIMER, 20),
            (EXIT_LOAD_CET, 25),
            (EXIT_LOAD_PKRS, 25),
        ] {
            if random.chance(percent) {
                exit |= bit;
            }
        }
        for (bit, percent) in [
            (ENTRY_LOAD_DEBUG, 60),
            (ENTRY_LOAD_PAT, 25),
            (ENTRY_LOAD_EFER, 40),
            (ENTRY_LOAD_CET, 25),
            (ENTRY_LOAD_PKRS, 25),
        ] {
            if random.chance(percent) {
                entry |= bit;
            }
        }
        v.set(PIN, self.allowed(0x481, pin));
        v.set(PROCESSOR, self.allowed(0x482, cpu));
        v.set(SECONDARY, if self.has(0) { self.allowed(0x48B, secondary) } else { 0 });
        v.set(EXIT, self.allowed(0x483, exit));
        v.set(ENTRY, self.allowed(0x484, entry));
        self.addresses(v);
        if v.get(SECONDARY) & SEC_SHADOWING != 0 {
            launch.link_revision |= 0x8000_0000;
        }
    }

    /// Every address field valid, whether a control asks for it or not.
    fn addresses(&self, v: &mut Vmcs) {
        v.set(EXCEPTIONS, 0xffff_ffff);
        v.set(VPID, 1);
        v.set(POSTED_VECTOR, 0xf2);
        v.set(IO_BITMAP_A, IO_BITMAPS);
        v.set(IO_BITMAP_B, IO_BITMAPS + 0x1000);
        v.set(MSR_BITMAPS, MSR_BITMAP);
        v.set(EXIT_MSR_STORE_ADDRESS, EXIT_MSR_STORE);
        v.set(EXIT_MSR_LOAD_ADDRESS, EXIT_MSR_LOAD);
        v.set(ENTRY_MSR_LOAD_ADDRESS, ENTRY_MSR_LOAD);
        v.set(PML_ADDRESS, PML_LOG);
        v.set(PML_INDEX, 511);
        v.set(VIRTUAL_APIC_ADDRESS, VIRTUAL_APIC);
        v.set(APIC_ACCESS_ADDRESS, APIC_ACCESS);
        v.set(POSTED_DESCRIPTOR_ADDRESS, POSTED_DESCRIPTOR);
        if v.get(SECONDARY) & SEC_EPT != 0 {
            v.set(VMFUNC_CONTROLS, self.processor.msr(0x491) & 1);
        }
        v.set(EPTP, SECOND_STAGE | 0x1e); // four levels, write-back
        v.set(EPTP_LIST, SPARE);
        v.set(VMREAD_BITMAP, SHADOW_BITMAPS);
        v.set(VMWRITE_BITMAP, SHADOW_BITMAPS + 0x1000);
        v.set(VE_ADDRESS, VE_INFORMATION);
        v.set(SPPTP, SPARE);
        v.set(TSC_MULTIPLIER, 1 << 48);
    }

    fn non_register_state(&self, launch: &mut Launch, mode: Mode, random: &Random) {
        let v = &mut launch.vmcs;
        if random.chance(20) {
            v.set(LINK_POINTER, LINK_VMCS);
        }
        if random.chance(10) {
            v.set(ENTRY_MSR_LOAD_COUNT, 1 + random.below(2));
        }
        if random.chance(5) {
            v.set(EXIT_MSR_STORE_COUNT, 1 + random.below(2));
        }
        if random.chance(5) {
            v.set(EXIT_MSR_LOAD_COUNT, 1 + random.below(2));
        }
        match random.below(10) {
            0 => v.set(ACTIVITY, 1),
            1 => v.set(INTERRUPTIBILITY, random.pick(&[2, 8])),
            2 => {
                v.or(GUEST_RFLAGS, 0x200);
                v.set(INTERRUPTIBILITY, 1);
            }
            _ => {}
        }
        if mode == Mode::Virtual8086 {
            // CPL is 3, so HLT is not a state it can be in.
            v.set(ACTIVITY, 0);
        }
        if random.chance(35) {
            self.event(v, mode, random);
        }
    }

    /// A valid event to inject.
    fn event(&self, v: &mut Vmcs, mode: Mode, random: &Random) {
        const VALID: u64 = 1 << 31;
        v.set(INTERRUPTIBILITY, 0);
        match random.below(7) {
            0 => {
                v.or(GUEST_RFLAGS, 0x200);
                v.set(INTERRUPTION, VALID | 0x20 + random.below(0xe0));
            }
            1 => v.set(INTERRUPTION, VALID | 2 << 8 | 2),
            2 | 3 => {
                let vector = random.pick(&[0u64, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19]);
                let pushes = mode != Mode::Real && matches!(vector, 8 | 10..=14 | 17);
                v.set(INTERRUPTION, VALID | u64::from(pushes) << 11 | 3 << 8 | vector);
                v.set(INTERRUPTION_ERROR, random.below(0x1_0000) & !1);
            }
            4 => {
                v.set(INTERRUPTION, VALID | 4 << 8 | 0x80);
                v.set(INSTRUCTION_LENGTH, 2);
            }
            5 => {
                v.set(INTERRUPTION, VALID | random.pick(&[5 << 8 | 1, 6 << 8 | 3, 6 << 8 | 4]));
                v.set(INSTRUCTION_LENGTH, 1);
            }
            // Type 7 (monitor trap flag) is only allowed where the control exists.
            _ if self.processor.msr(0x482) >> 32 & (1 << 27) != 0 => v.set(INTERRUPTION, VALID | 7 << 8),
            _ => {}
        }
    }
}
