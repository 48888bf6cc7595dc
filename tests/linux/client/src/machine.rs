//! A guest of one program: two megabytes in long mode, its tables, and expectations about its exits.

use std::sync::Arc;

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

use crate::kvm::{Exit, Kvm, Mapping, Vcpu, Vm};
use crate::programs::{BASE, Program, REPORT, code};

/// Bytes of memory at guest-physical 0.
pub(crate) const MEMORY: usize = 2 << 20;
/// Tables of translations: the first level, of which the second also maps 0x100000, to another page.
const PML4: u64 = 0x1000;
const OTHER_PML4: u64 = 0xa000;
/// Behind them.
const GDT: usize = 0x6000;
/// What real mode loads as GDTR.
const GDT_POINTER: usize = 0x6800;
const IDT: usize = 0x7000;
const STACK: u64 = 0x8_0000;
/// Present, writable.
const TABLE: u64 = 3;
/// A large page as well.
const LARGE: u64 = 0x83;

/// 64-bit mode with flat segments, the data's behind the code's in the GDT, and translations at `cr3`.
pub(crate) fn enter_long_mode(system: &mut kvm_sregs, code: u16, cr3: u64) {
    let segment = |selector, type_, l, db| kvm_segment {
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        s: 1,
        l,
        db,
        g: 1,
        ..Default::default()
    };
    system.cs = segment(code, 0xb, 1, 0);
    for data in [&mut system.ds, &mut system.es, &mut system.fs, &mut system.gs, &mut system.ss] {
        *data = segment(code + 8, 3, 0, 1);
    }
    system.cr0 = 0x8000_0033;
    system.cr3 = cr3;
    system.cr4 = 0x20;
    system.efer = 0x500;
}

/// A virtual machine with one processor, or with a second one that waits to be started.
pub(crate) struct Machine {
    pub(crate) vm: Vm,
    pub(crate) vcpu: Vcpu,
    pub(crate) memory: Arc<Mapping>,
}

/// What a check yields: nothing, or what went wrong.
pub(crate) type Checked = Result<(), String>;

/// Words for an error of the kernel.
pub(crate) fn kernel(what: &'static str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{what}: {error}")
}

impl Machine {
    /// Everything in place, with interrupt controllers in the kernel or without.
    pub(crate) fn new(kvm: &Kvm, irqchip: bool) -> Result<Self, String> {
        let mut vm = kvm.create().map_err(kernel("KVM_CREATE_VM"))?;
        vm.set_tss().map_err(kernel("KVM_SET_TSS_ADDR"))?;
        if irqchip {
            vm.create_irqchip().map_err(kernel("KVM_CREATE_IRQCHIP"))?;
        }
        let memory = Arc::new(Mapping::memory(MEMORY).map_err(kernel("mmap"))?);
        vm.slot(0, 0, &memory, 0).map_err(kernel("KVM_SET_USER_MEMORY_REGION"))?;
        let vcpu = vm.vcpu(0).map_err(kernel("KVM_CREATE_VCPU"))?;
        let machine = Self { vm, vcpu, memory };
        let mut cpuid = kvm.supported_cpuid().map_err(kernel("KVM_GET_SUPPORTED_CPUID"))?;
        machine.vcpu.set_cpuid(&mut cpuid).map_err(kernel("KVM_SET_CPUID2"))?;
        machine.write_tables();
        machine.long_mode()?;
        Ok(machine)
    }

    fn write_u64(&self, address: u64, value: u64) {
        self.memory.write(address as usize, &value.to_le_bytes());
    }

    fn write_tables(&self) {
        // The first gigabyte by 2-MByte pages, the first of them by 4-KByte pages without 0x100000; the last two by 2-MByte pages.
        for (pml4, pdpt, pd, pt) in [(PML4, 0x2000, 0x3000, 0x4000), (OTHER_PML4, 0xb000, 0xc000, 0xd000)] {
            self.write_u64(pml4, pdpt | TABLE);
            self.write_u64(pdpt, pd | TABLE);
            self.write_u64(pdpt + 8 * 3, 0x5000 | TABLE);
            self.write_u64(pd, pt | TABLE);
            for entry in 1..512 {
                self.write_u64(pd + 8 * entry, entry << 21 | LARGE);
            }
            for entry in 0..512 {
                self.write_u64(pt + 8 * entry, entry << 12 | TABLE);
            }
        }
        for entry in 0..512 {
            self.write_u64(0x5000 + 8 * entry, 3 << 30 | entry << 21 | LARGE);
        }
        self.write_u64(0x4000 + 8 * 0x100, 0);
        self.write_u64(0xd000 + 8 * 0x100, 0x10_2000 | TABLE);
        // The page that the first table gives 0x100000 in the end, and the other one's.
        self.memory.write(0x10_1008, &0x1111_u32.to_le_bytes());
        self.memory.write(0x10_2008, &0x2222_u32.to_le_bytes());
        // Nothing, 64-bit code, data, 32-bit code, 32-bit data.
        let descriptors = [
            0_u64,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
        ];
        for (index, descriptor) in descriptors.iter().enumerate() {
            self.memory.write(GDT + 8 * index, &descriptor.to_le_bytes());
        }
        self.memory.write(GDT_POINTER, &[0x27, 0]);
        self.memory.write(GDT_POINTER + 2, &(GDT as u32).to_le_bytes());
        for (vector, handler) in [
            (0, Program::on_divide),
            (2, Program::on_nmi),
            (6, Program::on_invalid),
            (13, Program::on_protection),
            (14, Program::on_page_fault),
            (0x40, Program::on_interrupt),
            (0x41, Program::on_apic),
            (0x42, Program::on_timer),
            (0x45, Program::on_message),
        ] {
            let address = handler.address();
            let low = address & 0xffff | 8 << 16 | 0x8e00 << 32 | (address >> 16 & 0xffff) << 48;
            self.memory.write(IDT + 16 * vector, &low.to_le_bytes());
            self.memory.write(IDT + 16 * vector + 8, &(address >> 32).to_le_bytes());
        }
        self.memory.write(BASE as usize, code());
    }

    fn long_mode(&self) -> Checked {
        let mut system = self.vcpu.system().map_err(kernel("KVM_GET_SREGS"))?;
        enter_long_mode(&mut system, 8, PML4);
        (system.gdt.base, system.gdt.limit) = (GDT as u64, 0x27);
        (system.idt.base, system.idt.limit) = (IDT as u64, 0xfff);
        system.efer |= 0x800;
        self.vcpu.set_system(system).map_err(kernel("KVM_SET_SREGS"))
    }

    /// The processor at the begin of `program`, with `count` in RCX.
    pub(crate) fn start(&self, program: Program, count: u64) -> Checked {
        let registers =
            kvm_regs { rip: program.address(), rsp: STACK, rcx: count, rflags: 2, ..Default::default() };
        self.vcpu.set_registers(registers).map_err(kernel("KVM_SET_REGS"))
    }

    /// The next exit that is not a signal's.
    pub(crate) fn exit(&self) -> Result<Exit, String> {
        loop {
            match self.vcpu.run().map_err(kernel("KVM_RUN"))? {
                Exit::Interrupted => {}
                exit => return Ok(exit),
            }
        }
    }

    /// The next exit is this one.
    pub(crate) fn expect(&self, wanted: Exit) -> Checked {
        let exit = self.exit()?;
        if exit == wanted {
            return Ok(());
        }
        let at = self.vcpu.registers().map_err(kernel("KVM_GET_REGS"))?.rip;
        Err(format!("{exit:x?} at {at:#x} instead of {wanted:x?}"))
    }

    /// The guest reports these values, one after the other.
    pub(crate) fn reports(&self, values: &[u32]) -> Checked {
        values.iter().try_for_each(|&value| self.expect(Exit::Out { port: REPORT, size: 4, count: 1, value }))
    }

    /// The guest reports a value, whichever.
    pub(crate) fn report(&self) -> Result<u32, String> {
        match self.exit()? {
            Exit::Out { port: REPORT, size: 4, count: 1, value } => Ok(value),
            other => Err(format!("{other:x?} instead of a report")),
        }
    }

    /// The next exit is this one, and is answered.
    pub(crate) fn serve(&self, wanted: Exit, answer: u64) -> Checked {
        self.expect(wanted)?;
        self.vcpu.answer(answer);
        Ok(())
    }
}
