//! Guests, each about one bit of the VMCB: with the bit as the scenario sets it the guest exits as written here, with the bit
//! alone the other way round something else happens.

use super::bench::*;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use rootmode_arch::{Cr0, Cr4, DebugCtl, Gpr, RFlags, msr};
use rootmode_cpu::{Instruction, Message};
use rootmode_svm::vmcb::{EventInfo, EventKind, IntCtl, NestedControl, VirtExt};
use rootmode_svm::{Field, Intercept};

/// A bit of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bit(pub(crate) Field, pub(crate) u8);

impl From<Intercept> for Bit {
    fn from(intercept: Intercept) -> Self {
        Self(intercept.field().unwrap(), intercept.bit_in_field())
    }
}
impl From<IntCtl> for Bit {
    fn from(bits: IntCtl) -> Self {
        Self(Field::IntCtl, bits.0.trailing_zeros() as u8)
    }
}
impl From<NestedControl> for Bit {
    fn from(bits: NestedControl) -> Self {
        Self(Field::NestedControl, bits.0.trailing_zeros() as u8)
    }
}
impl From<VirtExt> for Bit {
    fn from(bits: VirtExt) -> Self {
        Self(Field::VirtExt, bits.0.trailing_zeros() as u8)
    }
}

type Prepare = Box<dyn Fn(&mut Bench)>;

pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) bit: Bit,
    pub(crate) expected: Exit,
    code: Vec<u8>,
    steps: Vec<Prepare>,
}

impl Scenario {
    /// A guest of `bits`-bit code about `bit`, which is set; it exits with `code` at its first instruction, of which the
    /// exit says nothing.
    fn new(
        bit: impl Into<Bit>,
        bits: u32,
        code: u64,
        build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> Self {
        let bit = bit.into();
        let bytes = assemble(bits, CODE, build);
        let expected =
            Exit { code, info1: 0, info2: 0, interrupted: 0, next_rip: 0, rip: CODE, bytes: Vec::new() };
        let mut steps: Vec<Prepare> = vec![Box::new(move |b| b.or(bit.0, 1 << bit.1))];
        if bits == 32 {
            steps.push(Box::new(Bench::legacy));
        }
        Self {
            name: format!("{:?} bit {}, exit code {code:#x}", bit.0, bit.1),
            bit,
            expected,
            code: bytes,
            steps,
        }
    }
    fn info(mut self, info1: u64, info2: u64) -> Self {
        self.expected.info1 = info1;
        self.expected.info2 = info2;
        self
    }
    /// nRIP is saved: behind the first instruction.
    fn next(mut self) -> Self {
        let bits = if self.steps.len() > 1 { 32 } else { 64 };
        self.expected.next_rip = CODE + length(bits, &self.code);
        self
    }
    fn at(mut self, rip: u64) -> Self {
        self.expected.rip = rip;
        self
    }
    fn interrupting(mut self, event: EventInfo) -> Self {
        self.expected.interrupted = event.0;
        self
    }
    /// Guest instruction bytes: the first are these, and there are always 15; behind the code lie zeros.
    fn shows(mut self, bytes: &[u8]) -> Self {
        self.expected.bytes = [bytes, &[0; 15]].concat();
        self.expected.bytes.truncate(15);
        self
    }
    fn with(mut self, step: impl Fn(&mut Bench) + 'static) -> Self {
        self.steps.push(Box::new(step));
        self
    }
    /// The scenario is about the bit being clear.
    fn cleared(self) -> Self {
        let bit = self.bit;
        self.with(move |b| b.clear(bit.0, 1 << bit.1))
    }

    /// Runs the guest with the bits of `flipped` the other way round.
    pub(crate) fn run(&self, flipped: &[Bit]) -> End {
        let mut bench = Bench::new();
        self.prepare(&mut bench);
        for bit in flipped {
            bench.set(bit.0, bench.field(bit.0) ^ 1 << bit.1);
        }
        bench.run()
    }

    /// Sets `bench` up for the guest.
    pub(crate) fn prepare(&self, bench: &mut Bench) {
        bench.code(&self.code);
        for step in &self.steps {
            step(bench);
        }
    }
}

/// An instruction intercept: nRIP behind the instruction, no information.
fn instruction(
    intercept: Intercept,
    build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Scenario {
    Scenario::new(intercept, 64, intercept.0.into(), build).next()
}

/// An exception intercept.
fn exception(
    number: u8,
    error_code: u64,
    build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Scenario {
    let intercept = Intercept::exception(number);
    Scenario::new(intercept, 64, intercept.0.into(), build).info(error_code, 0)
}

/// An address whose bits 63:47 differ.
const NOT_CANONICAL: u64 = 1 << 63;

pub(crate) fn all() -> Vec<Scenario> {
    let mut all = control_registers();
    all.extend(debug_registers());
    all.extend(exceptions());
    all.extend(events());
    all.extend(instructions());
    all.extend(maps());
    all.extend(interrupt_control());
    all.extend(paging());
    all.extend(extensions());
    all
}

/// "Instruction Intercepts", "MOV CRx": EXITINFO1 names the general-purpose register.
fn control_registers() -> Vec<Scenario> {
    let (mov, rbx_value) = (1_u64 << 63, 3);
    let mut all = Vec::new();
    for (n, register) in [(0, cr0), (2, cr2), (3, cr3), (4, cr4), (8, cr8)] {
        all.push(instruction(Intercept::cr_read(n), |a| a.mov(rbx, register)).info(mov | rbx_value, 0));
        all.push(
            instruction(Intercept::cr_write(n), |a| a.mov(register, rbx)).info(mov | rbx_value, 0).with(
                move |b| {
                    let value = match n {
                        0 => b.field(Field::Cr0) ^ Cr0::TS.0,
                        3 => CR3,
                        4 => b.field(Field::Cr4),
                        _ => 1,
                    };
                    b.register(Gpr::Rbx, value);
                },
            ),
        );
    }
    all.push(instruction(Intercept::cr_read(0), |a| a.smsw(ax)));
    all.push(instruction(Intercept::cr_write(0), |a| a.clts()));
    all.push(instruction(Intercept::cr_write(0), |a| a.lmsw(ax)).with(|b| b.register(Gpr::Rax, 1)));
    let changes_wp = |b: &mut Bench| {
        let value = b.field(Field::Cr0) ^ Cr0::WP.0;
        b.register(Gpr::Rbx, value);
    };
    all.push(
        instruction(Intercept::CR0_SEL_WRITE, |a| a.mov(cr0, rbx)).info(mov | rbx_value, 0).with(changes_wp),
    );
    // LMSW always: it could change EM.
    all.push(instruction(Intercept::CR0_SEL_WRITE, |a| a.lmsw(ax)).with(|b| b.register(Gpr::Rax, 1)));
    all
}

/// "MOV DRx". With CR4.DE clear DR4 and DR5 exist, as other names of DR6 and DR7.
fn debug_registers() -> Vec<Scenario> {
    let mut all = Vec::new();
    for (n, register) in [(0, dr0), (1, dr1), (2, dr2), (3, dr3), (4, dr4), (5, dr5), (6, dr6), (7, dr7)] {
        all.push(instruction(Intercept::dr_read(n), |a| a.mov(r9, register)).info(9, 0));
        all.push(
            instruction(Intercept::dr_write(n), |a| a.mov(register, r9))
                .info(9, 0)
                .with(|b| b.register(Gpr::R9, 0x400)),
        );
    }
    all
}

/// "Exception Intercepts".
fn exceptions() -> Vec<Scenario> {
    let gp = |build: fn(&mut CodeAssembler) -> Result<(), IcedError>| exception(13, 0, build);
    let mut all = vec![
        exception(0, 0, |a| a.div(ebx)).with(|b| b.register(Gpr::Rbx, 0)),
        // A trap: the next instruction waits.
        exception(1, 0, |a| a.nop()).at(CODE + 1).with(|b| b.or(Field::Rflags, RFlags::TF.0)),
        exception(3, 0, |a| a.int3()).next(),
        exception(6, 0, |a| a.ud2()),
        exception(7, 0, |a| a.fninit()).with(|b| b.or(Field::Cr0, Cr0::TS.0)),
        // The handler of #GP is absent: #NP during its delivery.
        exception(8, 0, |a| a.mov(al, byte_ptr(rbx))).with(|b| {
            b.register(Gpr::Rbx, NOT_CANONICAL);
            b.handler(13, 0x0e);
        }),
        exception(11, ABSENT.into(), |a| a.mov(ds, ebx)).with(|b| b.register(Gpr::Rbx, ABSENT.into())),
        exception(12, 0, |a| a.push(rax)).with(|b| b.register(Gpr::Rsp, NOT_CANONICAL)),
        gp(|a| a.mov(al, byte_ptr(rbx))).with(|b| b.register(Gpr::Rbx, NOT_CANONICAL)),
        exception(14, 0, |a| a.mov(al, byte_ptr(rbx)))
            .info(0, UNMAPPED + 5)
            .shows(&[0x8a, 0x03])
            .with(|b| b.register(Gpr::Rbx, UNMAPPED + 5)),
        exception(14, 2, |a| a.mov(byte_ptr(rbx), al))
            .info(2, UNMAPPED)
            .shows(&[0x88, 0x03])
            .with(|b| b.register(Gpr::Rbx, UNMAPPED)),
        // A fetch shows no bytes.
        exception(14, 0x10, |a| a.nop())
            .info(0x10, UNMAPPED)
            .at(UNMAPPED)
            .with(|b| b.set(Field::Rip, UNMAPPED)),
        // A pending x87 exception comes at the next waiting instruction.
        exception(16, 0, |a| a.wait()).with(|b| {
            b.cpu().vectors.x87.control &= !4;
            b.cpu().vectors.x87.status |= 0x8084;
        }),
        exception(17, 0, |a| a.mov(eax, dword_ptr(rbx))).with(|b| {
            b.user();
            b.or(Field::Cr0, Cr0::AM.0);
            b.or(Field::Rflags, RFlags::AC.0);
            b.register(Gpr::Rbx, DATA + 1);
        }),
        exception(19, 0, |a| a.divss(xmm0, xmm1)).with(|b| b.cpu().vectors.mxcsr = 0),
        // The return address is not the shadow stack's. The second 2 MBytes are the first ones as a shadow stack.
        exception(21, 1, |a| a.ret()).with(|b| {
            b.put(0x3008, 0xe1);
            b.or(Field::Cr4, Cr4::CET.0);
            b.set(Field::SCet, 1);
            b.set(Field::Ssp, 0x20_0000 + DATA);
            b.put(STACK, HANDLER);
        }),
        // INIT redirected by VM_CR.R_INIT: #SX with error code 1.
        exception(30, 1, |a| a.nop()).with(|b| {
            let index = msr::VM_CR;
            b.execute(Instruction::Wrmsr { index, value: 2 }).unwrap();
            b.cpu().post(Message::Init);
        }),
    ];
    let legacy = |number: u8, build: fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        let intercept = Intercept::exception(number);
        Scenario::new(intercept, 32, intercept.0.into(), build)
    };
    all.push(legacy(4, |a| a.into()).next().with(|b| b.or(Field::Rflags, RFlags::OF.0)));
    all.push(legacy(5, |a| a.bound(eax, qword_ptr(ebx))).next().with(|b| {
        b.register(Gpr::Rax, 7);
        b.register(Gpr::Rbx, DATA);
    }));
    all.push(legacy(10, |a| a.db(&[0xea, 0, 0, 0, 0, SHORT_TASK as u8, 0])).info(SHORT_TASK.into(), 0));
    all
}

/// "Interrupt Intercepts", "Miscellaneous Intercepts".
fn events() -> Vec<Scenario> {
    let nop = |intercept: Intercept| Scenario::new(intercept, 64, intercept.0.into(), |a| a.nop());
    vec![
        nop(Intercept::INTR).with(|b| {
            b.interrupts_on();
            b.cpu().post(Message::Interrupt(0x55));
        }),
        nop(Intercept::NMI).with(|b| b.cpu().post(Message::Nmi)),
        nop(Intercept::SMI).info(1, 0).with(|b| b.cpu().post(Message::Smi)),
        nop(Intercept::INIT).with(|b| b.cpu().post(Message::Init)),
        nop(Intercept::VINTR).with(|b| {
            b.interrupts_on();
            b.int_ctl(IntCtl::V_IRQ | IntCtl::V_IGN_TPR);
            b.set(Field::IntVector, 0x66);
        }),
        // XCHG is always locked; it exits before it happens.
        Scenario::new(Intercept::BUSLOCK, 64, 0xa5, |a| a.xchg(dword_ptr(rbx), eax))
            .with(|b| b.register(Gpr::Rbx, DATA + 62)),
        // No handler of anything: #UD, #DF, shutdown.
        Scenario::new(Intercept::SHUTDOWN, 64, 0x7f, |a| a.ud2()).with(|b| b.set(Field::IdtrLimit, 0)),
        // A far jump to a TSS. EXITINFO2 bit 38: a jump.
        Scenario::new(Intercept::TASK_SWITCH, 32, 0x7d, |a| a.db(&[0xea, 0, 0, 0, 0, TASK as u8, 0]))
            .info(TASK.into(), 1 << 38),
        // The interrupted event is in EXITINTINFO, with its error code.
        exception(14, 0, |a| a.mov(al, byte_ptr(rbx)))
            .info(2, STACK_BELOW)
            .interrupting(EventInfo::new(EventKind::Exception, 13, Some(0)))
            .with(|b| {
                b.register(Gpr::Rbx, NOT_CANONICAL);
                b.register(Gpr::Rsp, UNMAPPED + 0x1000);
            }),
    ]
}

/// The first push of a frame below UNMAPPED + 0x1000.
const STACK_BELOW: u64 = UNMAPPED + 0x1000 - 48;

/// "Instruction Intercepts": those without information, and INVLPG, INT n.
fn instructions() -> Vec<Scenario> {
    use Intercept as I;
    let data = |b: &mut Bench| b.register(Gpr::Rbx, DATA);
    vec![
        instruction(I::IDTR_READ, |a| a.sidt(ptr(rbx))).with(data),
        instruction(I::GDTR_READ, |a| a.sgdt(ptr(rbx))).with(data),
        instruction(I::LDTR_READ, |a| a.sldt(eax)),
        instruction(I::TR_READ, |a| a.str(eax)),
        instruction(I::IDTR_WRITE, |a| a.lidt(ptr(rbx))).with(data),
        instruction(I::GDTR_WRITE, |a| a.lgdt(ptr(rbx))).with(data),
        instruction(I::LDTR_WRITE, |a| a.lldt(cx)),
        instruction(I::TR_WRITE, |a| a.ltr(cx)).with(|b| b.register(Gpr::Rcx, TASK.into())),
        instruction(I::RDTSC, |a| a.rdtsc()),
        instruction(I::RDTSCP, |a| a.rdtscp()),
        instruction(I::RDPMC, |a| a.rdpmc()),
        instruction(I::PUSHF, |a| a.pushfq()),
        instruction(I::POPF, |a| a.popfq()),
        instruction(I::CPUID, |a| a.cpuid()),
        instruction(I::RSM, |a| a.rsm()),
        instruction(I::IRET, |a| a.iretq()),
        instruction(I::SWINT, |a| a.int(0x80)).info(0x80, 0),
        instruction(I::INVD, |a| a.invd()),
        instruction(I::WBINVD, |a| a.wbinvd()),
        instruction(I::PAUSE, |a| a.pause()),
        instruction(I::HLT, |a| a.hlt()),
        instruction(I::IDLE_HLT, |a| a.hlt()),
        instruction(I::INVLPG, |a| a.invlpg(byte_ptr(rbx))).info(DATA, 0).with(data),
        instruction(I::INVLPGA, |a| a.invlpga()),
        instruction(I::INVPCID, |a| a.invpcid(rax, ptr(rbx))).with(data),
        instruction(I::VMMCALL, |a| a.vmmcall()),
        instruction(I::VMLOAD, |a| a.vmload()).with(|b| b.register(Gpr::Rax, 0x1_8000)),
        instruction(I::VMSAVE, |a| a.vmsave()).with(|b| b.register(Gpr::Rax, 0x1_8000)),
        instruction(I::STGI, |a| a.stgi()),
        instruction(I::CLGI, |a| a.clgi()),
        instruction(I::SKINIT, |a| a.skinit()),
        // VMRUN's intercept cannot be clear: then the guest does not run at all.
        instruction(I::VMRUN, |a| a.vmrun()).with(|b| b.register(Gpr::Rax, 0x1_8000)),
        instruction(I::ICEBP, |a| a.int1()),
        instruction(I::XSETBV, |a| a.xsetbv()).with(|b| b.or(Field::Cr4, Cr4::OSXSAVE.0)),
        // The entry fails before the guest's first instruction.
        Scenario::new(I::VMRUN, 64, u64::MAX, |a| a.nop()).cleared(),
    ]
}

/// "IN and OUT Behavior", "MSR Intercepts".
fn maps() -> Vec<Scenario> {
    let ports = |build: fn(&mut CodeAssembler) -> Result<(), IcedError>, info: u64| {
        let scenario = instruction(Intercept::IOIO_PROT, build);
        let next = scenario.expected.next_rip;
        scenario.info(info, next).with(|b| {
            b.fill(IOPM, 0x3000, 0xff);
            b.register(Gpr::Rdx, 0x3f8);
            b.register(Gpr::Rsi, DATA);
            b.register(Gpr::Rdi, DATA);
            b.register(Gpr::Rcx, 1);
        })
    };
    let msrs = |build: fn(&mut CodeAssembler) -> Result<(), IcedError>, info: u64| {
        instruction(Intercept::MSR_PROT, build).info(info, 0).with(|b| {
            b.fill(MSRPM, 0x2000, 0xff);
            b.register(Gpr::Rcx, msr::IA32_STAR.into());
        })
    };
    vec![
        // IN: bit 0; 8 bits wide: bit 4; 64-bit addresses: bit 9; the port in bits 31:16.
        ports(|a| a.in_(al, dx), 0x3f8 << 16 | 1 << 9 | 1 << 4 | 1),
        ports(|a| a.out(dx, eax), 0x3f8 << 16 | 1 << 9 | 1 << 6),
        // String: bit 2; REP: bit 3; 16 bits wide: bit 5; ES is segment 0.
        ports(|a| a.rep().insw(), 0x3f8 << 16 | 1 << 9 | 1 << 5 | 1 << 3 | 1 << 2 | 1),
        // DS is segment 3, in bits 12:10.
        ports(|a| a.outsb(), 0x3f8 << 16 | 3 << 10 | 1 << 9 | 1 << 4 | 1 << 2),
        msrs(|a| a.rdmsr(), 0),
        msrs(|a| a.wrmsr(), 1),
    ]
}

/// "Injecting Virtual (INTR) Interrupts", "Physical (INTR) Interrupt Masking in EFLAGS", "Virtual GIF", "NMI Virtualization".
fn interrupt_control() -> Vec<Scenario> {
    let vmmcall = 0x81;
    // The guest's handler says that the interrupt was taken.
    let taken = |bit: Bit| {
        let mut scenario = Scenario::new(bit, 64, vmmcall, |a| a.nop()).at(HANDLER);
        scenario.expected.next_rip = HANDLER + 3;
        scenario
    };
    // Or it goes past three NOPs.
    let not_taken = |bit: Bit| {
        let mut scenario = Scenario::new(bit, 64, vmmcall, |a| {
            a.nop()?;
            a.nop()?;
            a.nop()?;
            a.vmmcall()
        });
        scenario.expected.rip = CODE + 3;
        scenario.expected.next_rip = CODE + 6;
        scenario
    };
    let pending = |b: &mut Bench| {
        b.interrupts_on();
        b.int_ctl(IntCtl::V_IRQ | IntCtl::V_IGN_TPR);
        b.set(Field::IntVector, 0x66);
    };
    // ICR: a vector that is too low. EXITINFO2 bits 63:32 are the cause.
    let ipi = Scenario::new(IntCtl::AVIC_ENABLE, 64, 0x401, |a| a.mov(dword_ptr(rbx), 5))
        .info(5, 4 << 32)
        .at(CODE + 6)
        .with(|b| {
            b.avic();
            b.register(Gpr::Rbx, APIC + 0x300);
        });
    // The arbitration priority cannot be read.
    let register = Scenario::new(IntCtl::AVIC_ENABLE, 64, 0x402, |a| a.mov(eax, dword_ptr(rbx)))
        .info(0x90, 0)
        .with(|b| {
            b.avic();
            b.register(Gpr::Rbx, APIC + 0x90);
        });
    // The spurious vector in x2APIC mode: a trap.
    let msr = Scenario::new(IntCtl::X2AVIC_ENABLE, 64, 0x402, |a| a.wrmsr())
        .info(1 << 32 | 0xf0, 0)
        .at(CODE + 2)
        .with(|b| {
            b.avic();
            b.register(Gpr::Rcx, msr::IA32_X2APIC_SIVR.into());
            b.register(Gpr::Rdx, 0);
        });
    let control = |bit: u8| Bit(Field::IntCtl, bit);
    let mut all = vec![
        ipi,
        register,
        msr,
        taken(IntCtl::V_IRQ.into()).with(pending),
        taken(IntCtl::V_IGN_TPR.into()).with(move |b| {
            pending(b);
            b.or(Field::IntCtl, 0xf);
        }),
        // The virtual GIF lets it in, or, clear, keeps it out.
        taken(IntCtl::V_GIF.into()).with(move |b| {
            pending(b);
            b.int_ctl(IntCtl::V_GIF_ENABLE);
        }),
        not_taken(IntCtl::V_GIF_ENABLE.into()).with(pending),
        // With V_INTR_MASKING the host's RFLAGS.IF, here clear, keeps physical interrupts away from an intercept.
        not_taken(IntCtl::V_INTR_MASKING.into()).with(|b| {
            b.interrupts_on();
            b.intercept(Intercept::INTR);
            b.cpu().post(Message::Interrupt(0x55));
        }),
        taken(IntCtl::V_NMI.into()).with(|b| {
            b.int_ctl(IntCtl::V_NMI_ENABLE);
            b.intercept(Intercept::NMI);
        }),
        not_taken(IntCtl::V_NMI_MASK.into()).with(|b| {
            b.int_ctl(IntCtl::V_NMI_ENABLE | IntCtl::V_NMI);
            b.intercept(Intercept::NMI);
        }),
        taken(IntCtl::V_NMI_ENABLE.into()).with(|b| {
            b.int_ctl(IntCtl::V_NMI);
            b.intercept(Intercept::NMI);
        }),
        // The interrupt shadow lasts one instruction.
        Scenario::new(Bit(Field::InterruptState, 0), 64, 0x64, |a| {
            a.nop()?;
            a.nop()
        })
        .at(CODE + 1)
        .with(move |b| {
            pending(b);
            b.intercept(Intercept::VINTR);
        }),
    ];
    // V_TPR is compared with V_INTR_PRIO bit by bit.
    for bit in 0..4 {
        all.push(not_taken(control(bit)).with(move |b| {
            b.interrupts_on();
            b.int_ctl(IntCtl::V_IRQ);
            b.or(Field::IntCtl, (1 << bit) << 16);
        }));
        all.push(taken(control(16 + bit)).with(move |b| {
            b.interrupts_on();
            b.int_ctl(IntCtl::V_IRQ);
            b.or(Field::IntCtl, (1 << bit) - 1);
        }));
    }
    all
}

/// "Nested Paging", "Nested versus Guest Page Faults, Fault Ordering", "Guest Mode Execute Trap Extension".
fn paging() -> Vec<Scenario> {
    let read = |a: &mut CodeAssembler| a.mov(al, byte_ptr(rbx));
    let missing = |info: u64, entry: u64| {
        Scenario::new(NestedControl::NP_ENABLE, 64, 0x400, read)
            .info(info, DATA + 7)
            .shows(&[0x8a, 0x03])
            .with(move |b| {
                b.nested_paging();
                b.put(Bench::nested_entry(DATA), entry);
                b.register(Gpr::Rbx, DATA + 7);
            })
    };
    vec![
        // Bit 32: the final address; bit 2: user; bit 3: reserved bits; bit 0: present.
        missing(1 << 32 | 4, 0),
        missing(1 << 32 | 5, DATA | 3),
        missing(1 << 32 | 0xd, DATA | 7 | 1 << 50),
        Scenario::new(NestedControl::NP_ENABLE, 64, 0x400, |a| a.mov(byte_ptr(rbx), al))
            .info(1 << 32 | 7, DATA)
            .shows(&[0x88, 0x03])
            .with(|b| {
                b.nested_paging();
                b.put(Bench::nested_entry(DATA), DATA | 5);
                b.register(Gpr::Rbx, DATA);
            }),
        // Bit 33: a page table of the guest's, whose walk is a user write.
        Scenario::new(NestedControl::NP_ENABLE, 64, 0x400, |a| a.nop()).info(1 << 33 | 7, CR3).with(|b| {
            b.nested_paging();
            b.put(Bench::nested_entry(CR3), CR3 | 5);
        }),
        // A fetch at CPL 0 from a page that is CPL 3's.
        Scenario::new(NestedControl::GMET_ENABLE, 64, 0x400, |a| a.nop())
            .info(1 << 32 | 0x11, CODE)
            .with(Bench::nested_paging),
    ]
}

/// "LBR Virtualization", "VMSAVE and VMLOAD Virtualization".
fn extensions() -> Vec<Scenario> {
    // The guest finds DEBUGCTL as its VMCB has it, and goes to the handler if branches are recorded.
    let mut lbr = Scenario::new(VirtExt::LBR_ENABLE, 64, 0x81, |a| {
        let mut off = a.create_label();
        a.rdmsr()?;
        a.test(eax, 1)?;
        a.jz(off)?;
        a.mov(rbx, HANDLER)?;
        a.jmp(rbx)?;
        a.set_label(&mut off)?;
        a.vmmcall()
    })
    .at(HANDLER)
    .with(|b| {
        b.set(Field::Dbgctl, DebugCtl::LBR.0);
        b.register(Gpr::Rcx, msr::IA32_DEBUGCTL.into());
    });
    lbr.expected.next_rip = HANDLER + 3;
    // A guest-physical address that nested paging does not map.
    let vmload = Scenario::new(VirtExt::VMLOAD_VMSAVE_ENABLE, 64, 0x400, |a| a.vmload())
        .info(1 << 32 | 4, 0x1_8000)
        .shows(&[0x0f, 0x01, 0xda])
        .with(|b| {
            b.nested_paging();
            b.put(Bench::nested_entry(0x1_8000), 0);
            b.register(Gpr::Rax, 0x1_8000);
        });
    vec![lbr, vmload]
}
