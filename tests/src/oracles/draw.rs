//! Random events of every class, with operands at the boundaries that bitmaps, masks and ranges have.

use rootmode_arch::choices::Seeded;
use rootmode_arch::event::{
    Exception, ExceptionSource, GuestPhysicalAccess, MemoryOperand, Operand, PortAccess, TableInstruction,
    TaskSwitchSource, VmxInstruction,
};
use rootmode_arch::{Event, EventClass, Gpr, GuestPhysical, Linear, SegmentName, Selector};

/// Draws from a seed.
#[derive(Clone, Debug)]
pub struct Draw(Seeded);

/// What of the processor's state the operands of an event depend on.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// CR0.PE.
    pub protected: bool,
    /// 64-bit mode.
    pub long: bool,
    /// Values that make comparisons equal: masks' shadows, targets, PASIDs, page-fault codes.
    pub near: [u64; 8],
    /// Moves name any of the 16 control and debug registers that SVM has intercepts for, not only those that exist.
    pub all_registers: bool,
}

impl Draw {
    /// Draws that `seed` determines.
    pub const fn new(seed: u64) -> Self {
        Self(Seeded::new(seed))
    }
    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0.next()
    }
    /// One of `0..n`.
    pub const fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }
    /// True once in `n`.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    /// One of `items`.
    pub fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
    /// A word whose bits are mostly 0, evenly mixed, or mostly 1.
    pub fn word(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => self.bits() & self.bits() & self.bits(),
            2 => self.bits() | self.bits() | self.bits(),
            3 => u64::MAX,
            _ => self.bits(),
        }
    }
    /// A number that is small, around a power of two, or anything.
    pub fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(80),
            1 => (1u64 << self.below(64)).wrapping_sub(self.below(3)),
            2 => self.word(),
            _ => self.bits(),
        }
    }
    /// `values` mostly as one of them is or with one bit flipped.
    pub fn near(&mut self, values: &[u64]) -> u64 {
        match self.below(4) {
            0 => self.of(values),
            1 | 2 => self.of(values) ^ 1 << self.below(64),
            _ => self.number(),
        }
    }

    fn gpr(&mut self, mode: &Mode) -> Gpr {
        Gpr::ALL[self.below(if mode.long { 16 } else { 8 }) as usize]
    }

    /// A linear address: 32 bits outside 64-bit mode.
    fn linear(&mut self, mode: &Mode) -> Linear {
        let bits = self.number();
        Linear(if mode.long { bits } else { bits & 0xffff_ffff })
    }

    fn address_size(&mut self, mode: &Mode) -> u8 {
        self.of(if mode.long { &[4, 8] } else { &[2, 4] })
    }

    fn segment(&mut self) -> SegmentName {
        use SegmentName as S;
        self.of(&[S::Es, S::Cs, S::Ss, S::Ds, S::Fs, S::Gs])
    }

    fn memory(&mut self, mode: &Mode) -> MemoryOperand {
        let (base, index) = (self.gpr(mode), self.gpr(mode));
        let small = self.number() as i32;
        MemoryOperand {
            segment: self.segment(),
            base: (!self.one_in(4)).then_some(base),
            index: self.one_in(2).then_some(index),
            scale: self.below(4) as u8,
            address_size: self.address_size(mode),
            displacement: i64::from(small) as u64,
            linear: self.linear(mode),
        }
    }

    fn operand(&mut self, mode: &Mode) -> Operand {
        if self.one_in(3) { Operand::Register(self.gpr(mode)) } else { Operand::Memory(self.memory(mode)) }
    }

    /// An MSR index, often at an edge of a range that a bitmap covers.
    fn msr(&mut self) -> u32 {
        let edges = [
            0u32,
            0x1fff,
            0x2000,
            0xbfff_ffff,
            0xc000_0000,
            0xc000_1fff,
            0xc000_2000,
            0xc000_ffff,
            0xc001_0000,
            0xc001_0131,
            0xc001_1fff,
            0xc001_2000,
            0x800,
            0x83f,
            u32::MAX,
        ];
        match self.below(4) {
            0 => self.of(&edges),
            1 => self.of(&[0, 0xc000_0000, 0xc001_0000]) + self.below(0x2000) as u32,
            2 => self.of(&edges).wrapping_add(self.below(16) as u32).wrapping_sub(8),
            _ => self.bits() as u32,
        }
    }

    fn port(&mut self, mode: &Mode) -> PortAccess {
        let string = self.one_in(2);
        let input = self.one_in(2);
        let near =
            self.of(&[0u16, 0x7fff, 0x8000, 0xffff]).wrapping_add(self.below(9) as u16).wrapping_sub(4);
        let port = if self.one_in(2) { near } else { self.bits() as u16 };
        let immediate = !string && self.one_in(2);
        PortAccess {
            port: if immediate { port & 0xff } else { port },
            size: self.of(&[1, 2, 4]),
            input,
            string,
            rep: string && self.one_in(2),
            immediate,
            address_size: if string { self.address_size(mode) } else { 0 },
            segment: if string && input { SegmentName::Es } else { self.segment() },
            linear: if string { self.linear(mode) } else { Linear(0) },
        }
    }

    fn exception(&mut self, mode: &Mode) -> Exception {
        let vector = match self.below(4) {
            0 if mode.protected => 14,
            1 => self.of(&[1, 3, 4, 8]),
            _ => loop {
                let vector = self.below(32) as u8;
                if vector != 2 && (vector != 14 || mode.protected) {
                    break vector;
                }
            },
        };
        let source = match vector {
            1 if self.one_in(2) => ExceptionSource::Privileged,
            3 | 4 => ExceptionSource::Software,
            _ => ExceptionSource::Hardware,
        };
        let with_code = matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30) && mode.protected;
        let detail = match (vector, source) {
            (1, ExceptionSource::Hardware) => self.bits() & 0x1_680f,
            (14, _) => self.linear(mode).0,
            _ => 0,
        };
        Exception {
            vector,
            error_code: with_code.then(|| {
                let code = self.near(&mode.near) as u32;
                if vector == 14 { code & 0x8000_80ff } else { code & 0xffff }
            }),
            detail,
            source,
            instruction_length: if source == ExceptionSource::Hardware { 0 } else { 1 },
        }
    }

    fn access(&mut self, mode: &Mode) -> GuestPhysicalAccess {
        let kind = self.below(4);
        let table_walk = self.one_in(3);
        let present = !self.one_in(3);
        let misconfigured = self.one_in(4);
        let permissions = if present { self.below(8) as u8 * 2 | 1 } else { 0 };
        // A leaf entry as it is reported: bit 63 is #VE suppression for EPT and no-execute for NPT.
        let entry = if present || misconfigured { self.bits() & 0x8000_000f_ffff_f000 | 1 } else { 0 };
        let linear = self.linear(mode);
        GuestPhysicalAccess {
            address: GuestPhysical(self.bits() >> 16),
            linear: (table_walk || !self.one_in(6)).then_some(linear),
            read: kind == 0 || kind == 3 || table_walk,
            write: kind == 1 || kind == 3 || table_walk,
            fetch: kind == 2 && !table_walk,
            table_walk,
            user: self.one_in(2),
            supervisor_fetch: kind == 2 && !table_walk && self.one_in(2),
            linear_writable: self.one_in(2),
            linear_execute_disable: self.one_in(2),
            permissions,
            entry,
            misconfigured,
        }
    }

    /// An access to the APIC page: mostly at a register, sometimes crossing it.
    fn apic_access(&mut self, mode: &Mode) -> (GuestPhysicalAccess, u8) {
        let register = match self.below(4) {
            0 => self.of(&[0x20, 0x30, 0x80, 0xb0, 0x300, 0x310]),
            1 => self.below(0x100) << 4,
            _ => self.below(0x54) << 4,
        };
        let within = if self.one_in(6) { self.below(16) } else { 0 };
        let mut access = self.access(mode);
        if self.one_in(2) {
            access.table_walk = false;
            access.linear = Some(Linear(0xfee0_0000 | register | within));
            (access.write, access.fetch) = (self.one_in(2), false);
            access.read = !access.write;
        }
        access.address = GuestPhysical(0xfee0_0000 | register | within);
        (access, self.of(&[1, 2, 4, 4, 4, 4, 8]))
    }

    fn vmx(&mut self, mode: &Mode) -> Event {
        use VmxInstruction as V;
        let instruction = self.of(&[
            V::Vmcall,
            V::Vmclear,
            V::Vmlaunch,
            V::Vmptrld,
            V::Vmptrst,
            V::Vmread,
            V::Vmread,
            V::Vmresume,
            V::Vmwrite,
            V::Vmwrite,
            V::Vmxoff,
            V::Vmxon,
            V::Invept,
            V::Invvpid,
            V::Vmfunc,
        ]);
        let operand = match instruction {
            V::Vmread | V::Vmwrite => Some(self.operand(mode)),
            V::Vmclear | V::Vmptrld | V::Vmptrst | V::Vmxon | V::Invept | V::Invvpid => {
                Some(Operand::Memory(self.memory(mode)))
            }
            _ => None,
        };
        let has_register = matches!(instruction, V::Vmread | V::Vmwrite | V::Invept | V::Invvpid);
        let register = has_register.then(|| self.gpr(mode));
        let value = match instruction {
            V::Vmfunc => {
                self.below(70) * self.below(2) | self.of(&[0, 1, 511, 512, 513, u32::MAX.into()]) << 32
            }
            V::Vmread | V::Vmwrite if !self.one_in(4) => {
                self.bits() & 0x7fff | u64::from(self.one_in(8)) << 15
            }
            _ if has_register => self.number(),
            _ => 0,
        };
        let value = if mode.long || instruction == V::Vmfunc { value } else { value & 0xffff_ffff };
        Event::Vmx { instruction, operand, register, value }
    }

    fn control_register(&mut self, mode: &Mode) -> u8 {
        if mode.all_registers && self.one_in(9) {
            return self.below(16) as u8;
        }
        self.of(&[0, 0, 2, 3, 3, 4, 4, 8])
    }

    fn debug_register(&mut self, mode: &Mode) -> u8 {
        self.below(if mode.all_registers { 16 } else { 8 }) as u8
    }

    /// An event of `class`.
    pub fn event(&mut self, class: EventClass, mode: &Mode) -> Event {
        use EventClass as C;
        let wide = |value: u64| if mode.long { value } else { value & 0xffff_ffff };
        let byte = self.bits() as u8;
        let leaf = if self.one_in(2) { self.below(70) as u32 } else { self.number() as u32 };
        match class {
            C::Exception => Event::Exception(self.exception(mode)),
            C::ExternalInterrupt => {
                Event::ExternalInterrupt { vector: if self.one_in(4) { mode.near[7] as u8 } else { byte } }
            }
            C::Nmi => Event::Nmi,
            C::Smi => Event::Smi,
            C::Init => Event::Init,
            C::Sipi => Event::Sipi { vector: byte },
            C::TripleFault => Event::TripleFault,
            C::TaskSwitch => Event::TaskSwitch {
                selector: Selector(self.bits() as u16),
                source: self.of(&[
                    TaskSwitchSource::Call,
                    TaskSwitchSource::Iret,
                    TaskSwitchSource::Jmp,
                    TaskSwitchSource::IdtGate,
                ]),
                error_code: self.one_in(2).then_some(self.0.next() as u32),
            },
            C::InterruptWindow => Event::InterruptWindow,
            C::NmiWindow => Event::NmiWindow,
            C::VirtualInterrupt => Event::VirtualInterrupt { vector: byte },
            C::PreemptionTimer => Event::PreemptionTimer,
            C::MonitorTrap => Event::MonitorTrap,
            C::TprBelowThreshold => Event::TprBelowThreshold,
            C::FerrFreeze => Event::FerrFreeze,
            C::BusLock => Event::BusLock,
            C::SecondStage => Event::SecondStage(self.access(mode)),
            C::ApicAccess => {
                let (access, size) = self.apic_access(mode);
                Event::ApicAccess { access, size, in_delivery: mode.near[6] != 0 }
            }
            C::ApicWrite => Event::ApicWrite { offset: (self.below(0x54) << 4) as u16 },
            C::VirtualizedEoi => Event::VirtualizedEoi { vector: byte },
            C::PageModificationLogFull => Event::PageModificationLogFull,
            C::Cpuid => Event::Cpuid { leaf, subleaf: byte.into() },
            C::Getsec => Event::Getsec,
            C::Hlt => Event::Hlt,
            C::IdleHlt => Event::IdleHlt,
            C::Invd => Event::Invd,
            C::Wbinvd => Event::Wbinvd { no_invalidate: self.one_in(2) },
            C::Invlpg => Event::Invlpg { linear: self.linear(mode) },
            C::Invlpga => Event::Invlpga { linear: self.linear(mode), asid: leaf },
            C::Invlpgb => Event::Invlpgb,
            C::Tlbsync => Event::Tlbsync,
            C::Invpcid => Event::Invpcid { kind: self.gpr(mode), operand: self.memory(mode) },
            C::Rdpmc => Event::Rdpmc { counter: leaf },
            C::Rdtsc => Event::Rdtsc,
            C::Rdtscp => Event::Rdtscp,
            C::Rsm => Event::Rsm,
            C::Vmx => self.vmx(mode),
            C::CrRead => Event::CrRead { cr: self.control_register(mode), gpr: self.gpr(mode) },
            C::CrWrite => Event::CrWrite {
                cr: self.control_register(mode),
                gpr: self.gpr(mode),
                value: wide(self.near(&mode.near[..6])),
            },
            C::Clts => Event::Clts,
            C::Lmsw => Event::Lmsw {
                source: self.near(&mode.near[..2]) as u16,
                memory: self.one_in(2).then(|| Linear(wide(self.0.next()))),
            },
            C::Smsw => {
                let gpr = self.gpr(mode);
                Event::Smsw { register: self.one_in(2).then_some(gpr) }
            }
            C::DrRead => Event::DrRead { dr: self.debug_register(mode), gpr: self.gpr(mode) },
            C::DrWrite => Event::DrWrite {
                dr: self.debug_register(mode),
                gpr: self.gpr(mode),
                value: wide(self.bits()),
            },
            C::PortIo => Event::PortIo(self.port(mode)),
            C::Rdmsr => Event::Rdmsr { index: self.msr() },
            C::Wrmsr => Event::Wrmsr { index: self.msr(), value: self.bits() },
            C::Mwait => Event::Mwait { armed: self.one_in(2) },
            C::Monitor => Event::Monitor,
            C::Pause => Event::Pause { cpl: byte & 3 & (byte >> 2), tsc: 1_000_000 + self.below(3000) },
            C::DescriptorTable => self.descriptor_table(mode),
            C::Rdrand => Event::Rdrand { gpr: self.gpr(mode), size: self.of(&[2, 4, 8]) },
            C::Rdseed => Event::Rdseed { gpr: self.gpr(mode), size: self.of(&[2, 4, 8]) },
            C::Xsetbv => Event::Xsetbv { index: leaf, value: self.bits() },
            C::Xsaves => {
                Event::Xsaves { mask: self.word(), enabled: self.word(), operand: self.memory(mode) }
            }
            C::Xrstors => {
                Event::Xrstors { mask: self.word(), enabled: self.word(), operand: self.memory(mode) }
            }
            C::Umwait => Event::Umwait { gpr: self.gpr(mode) },
            C::Tpause => Event::Tpause { gpr: self.gpr(mode) },
            C::Encls => Event::Encls { leaf },
            C::Enclv => Event::Enclv { leaf },
            C::Pconfig => Event::Pconfig { leaf },
            C::Enqcmd => Event::Enqcmd { supervisor: self.one_in(2), pasid: leaf & 0xf_ffff },
            C::Loadiwkey => Event::Loadiwkey { eax: leaf, first: byte & 15, second: byte >> 4 },
            C::Seam => Event::Seam { tdcall: self.one_in(2) },
            C::SoftwareInterrupt => Event::SoftwareInterrupt { vector: byte, instruction_length: 2 },
            C::Iret => Event::Iret,
            C::Pushf => Event::Pushf,
            C::Popf => Event::Popf,
            C::Vmrun => Event::Vmrun { vmcb: self.bits() },
            C::Vmload => Event::Vmload { vmcb: self.bits() },
            C::Vmsave => Event::Vmsave { vmcb: self.bits() },
            C::Vmmcall => Event::Vmmcall,
            C::Vmgexit => Event::Vmgexit,
            C::Stgi => Event::Stgi,
            C::Clgi => Event::Clgi,
            C::Skinit => Event::Skinit { block: leaf },
            C::Rdpru => Event::Rdpru { register: leaf },
            C::Mcommit => Event::Mcommit,
            C::EferWritten => Event::EferWritten { value: self.bits() },
            C::CrWritten => Event::CrWritten { cr: byte & 15, value: self.bits() },
        }
    }

    fn descriptor_table(&mut self, mode: &Mode) -> Event {
        use TableInstruction as T;
        let instruction = self.of(&[T::Sgdt, T::Sidt, T::Lgdt, T::Lidt, T::Sldt, T::Str, T::Lldt, T::Ltr]);
        let only_memory = matches!(instruction, T::Sgdt | T::Sidt | T::Lgdt | T::Lidt);
        let operand = if only_memory { Operand::Memory(self.memory(mode)) } else { self.operand(mode) };
        let operand_size = self.of(if mode.long { &[8] } else { &[2, 4] });
        Event::DescriptorTable { instruction, operand, operand_size }
    }
}
