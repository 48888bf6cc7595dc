//! A second Linux: a bzImage by the 64-bit boot protocol, KVM's interrupt controllers, a serial port, power-off, and nothing else
//! (Linux 6.12, Documentation/arch/x86/boot.rst "64-bit Boot Protocol").

use std::collections::HashMap;
use std::process::exit;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::kvm_regs;

use crate::acpi;
use crate::kvm::{Exit, Kvm, Mapping, Vcpu, Vm};
use crate::machine::{Checked, enter_long_mode, kernel};
use crate::uart::{Effect, Uart};

/// Bytes of the guest's memory.
const MEMORY: usize = 256 << 20;
/// Below the first megabyte: GDT, boot parameters, tables of translations, command line.
const GDT: usize = 0x500;
const PARAMETERS: usize = 0x7000;
const TABLES: usize = 0x1_0000;
const LINE: usize = 0x2_0000;
/// Where the first part of memory ends.
const LOW_END: u64 = 0x9_fc00;
/// CPUID.1:ECX: leaves from 0x40000000 on tell about KVM.
const HYPERVISOR: u32 = 1 << 31;
/// IA32_MISC_ENABLE, and its fast-strings enable, which is on after a reset but not in what KVM starts with.
const MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
/// COM1's ports and line.
const UART: std::ops::Range<u16> = 0x3f8..0x400;
const UART_LINE: u32 = 4;

struct Devices {
    vm: Vm,
    uart: Uart,
    /// PM1's enables, of events that never come.
    enabled_events: u32,
    printed: String,
    marked: bool,
}

/// Boots `image` with `disk` on `count` processors until it powers itself off, with a marker printed before.
pub(crate) fn run(image: &str, disk: &str, count: &str, line: &str) -> Checked {
    let count: u8 = count.parse().map_err(|error| format!("processors: {error}"))?;
    let read = |path: &str| std::fs::read(path).map_err(|error| format!("{path}: {error}"));
    let (image, disk) = (read(image)?, read(disk)?);
    let kvm = Kvm::open().map_err(kernel("/dev/kvm"))?;
    let mut vm = kvm.create().map_err(kernel("KVM_CREATE_VM"))?;
    vm.set_tss().map_err(kernel("KVM_SET_TSS_ADDR"))?;
    vm.create_irqchip().map_err(kernel("KVM_CREATE_IRQCHIP"))?;
    vm.create_pit().map_err(kernel("KVM_CREATE_PIT2"))?;
    let memory = Arc::new(Mapping::memory(MEMORY).map_err(kernel("mmap"))?);
    vm.slot(0, 0, &memory, 0).map_err(kernel("KVM_SET_USER_MEMORY_REGION"))?;
    let entry = load(&memory, &image, &disk, line)?;
    acpi::write(&memory, count);
    let vcpus: Result<Vec<Vcpu>, _> = (0..count).map(|id| vm.vcpu(id)).collect();
    let vcpus = vcpus.map_err(kernel("KVM_CREATE_VCPU"))?;
    for (id, vcpu) in (0_u32..).zip(&vcpus) {
        let mut cpuid = kvm.supported_cpuid().map_err(kernel("KVM_GET_SUPPORTED_CPUID"))?;
        for leaf in cpuid.entries() {
            match leaf.function {
                1 => {
                    leaf.ebx = leaf.ebx & 0xffff | u32::from(count) << 16 | id << 24;
                    leaf.ecx |= HYPERVISOR;
                }
                0xb | 0x1f => leaf.edx = id,
                _ => {}
            }
        }
        vcpu.set_cpuid(&mut cpuid).map_err(kernel("KVM_SET_CPUID2"))?;
        // Without it Linux takes ERMS away and leaves FSRM, for which its memmove moves short lengths by REP MOVSB that is not there
        // then (Linux 6.1, early_init_intel in arch/x86/kernel/cpu/intel.c, arch/x86/lib/memmove_64.S).
        let enabled = vcpu.msr(MISC_ENABLE).map_err(kernel("KVM_GET_MSRS"))?;
        vcpu.set_msr(MISC_ENABLE, enabled | FAST_STRINGS).map_err(kernel("KVM_SET_MSRS"))?;
    }
    long_mode(&vcpus[0])?;
    let registers = kvm_regs { rip: entry, rsi: PARAMETERS as u64, rflags: 2, ..Default::default() };
    vcpus[0].set_registers(registers).map_err(kernel("KVM_SET_REGS"))?;
    let (uart, printed) = (Uart::default(), String::new());
    let devices = Mutex::new(Devices { vm, uart, enabled_events: 0, printed, marked: false });
    std::thread::scope(|scope| {
        for vcpu in &vcpus {
            scope.spawn(|| {
                if let Err(why) = serve(vcpu, &devices) {
                    println!("ROOTMODE failed linux: {why}");
                    exit(1);
                }
            });
        }
    });
    Ok(())
}

/// Serves one processor's exits; the process ends when the guest does.
fn serve(vcpu: &Vcpu, devices: &Mutex<Devices>) -> Checked {
    let mut reasons: HashMap<&str, u64> = HashMap::new();
    loop {
        let exit_of = vcpu.run().map_err(kernel("KVM_RUN"))?;
        let mut devices = devices.lock().unwrap_or_else(PoisonError::into_inner);
        match exit_of {
            Exit::Out { port, size: 1, count: 1, value } if UART.contains(&port) => {
                *reasons.entry("uart").or_default() += 1;
                if let Effect::Sent(byte) = devices.uart.write(port - UART.start, value as u8) {
                    devices.print(byte);
                }
                devices.request().map_err(kernel("KVM_IRQ_LINE"))?;
            }
            Exit::In { port, size: 1, count: 1 } if UART.contains(&port) => {
                *reasons.entry("uart").or_default() += 1;
                let value = devices.uart.read(port - UART.start);
                vcpu.answer(value.into());
            }
            Exit::Out { port: acpi::ENABLES, value, .. } => devices.enabled_events = value,
            Exit::In { port: acpi::ENABLES, .. } => vcpu.answer(devices.enabled_events.into()),
            // No event; ACPI is on.
            Exit::In { port, .. } if acpi::EVENTS.contains(&port) => vcpu.answer(0),
            Exit::In { port: acpi::CONTROL, .. } => vcpu.answer(1),
            // The clock: no date, and not busy.
            Exit::In { port: 0x71, .. } => vcpu.answer(0),
            Exit::In { .. } | Exit::Read { .. } => {
                *reasons.entry("nobody").or_default() += 1;
                vcpu.answer(u64::MAX);
            }
            Exit::Out { port: acpi::CONTROL, value, .. }
                if value & acpi::OFF == acpi::OFF && devices.marked =>
            {
                let mut reasons: Vec<_> = reasons.into_iter().collect();
                reasons.sort_unstable();
                println!("ROOTMODE guest ended, exits to the client {reasons:?}");
                exit(0);
            }
            Exit::Out { .. } | Exit::Write { .. } | Exit::Interrupted => {
                *reasons.entry("nobody").or_default() += 1;
            }
            other => {
                let rip = vcpu.registers().map_err(kernel("KVM_GET_REGS"))?.rip;
                return Err(format!("{other:x?} at {rip:#x}"));
            }
        }
    }
}

impl Devices {
    fn print(&mut self, byte: u8) {
        match byte {
            b'\n' => {
                println!("L2 {}", self.printed);
                self.marked |= self.printed.contains("ROOTMODE marker");
                self.printed.clear();
            }
            b'\r' => {}
            byte => self.printed.push(byte.into()),
        }
    }

    /// An edge for each request.
    fn request(&self) -> std::io::Result<()> {
        if self.uart.requests() {
            self.vm.irq_line(UART_LINE, 1)?;
            self.vm.irq_line(UART_LINE, 0)?;
        }
        Ok(())
    }
}

/// Puts kernel, disk, parameters and tables into memory; yields the entry.
fn load(memory: &Mapping, image: &[u8], disk: &[u8], line: &str) -> Result<u64, String> {
    let number = |at: usize, size: usize| {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&image[at..at + size]);
        u64::from_le_bytes(bytes)
    };
    if image.len() < 0x264 || image[0x202..0x206] != *b"HdrS" || number(0x236, 2) & 1 == 0 {
        return Err("not a Linux kernel with a 64-bit entry".into());
    }
    let kernel = (number(0x1f1, 1).max(1) as usize + 1) * 512;
    let (start, needed) = (number(0x258, 8) as usize, number(0x260, 4) as usize);
    let disk_at = (MEMORY - disk.len()) & !0xfff;
    if start + needed > disk_at {
        return Err("kernel and disk do not fit".into());
    }
    memory.write(start, &image[kernel..]);
    memory.write(disk_at, disk);
    memory.write(LINE, line.as_bytes());
    let end = 0x202 + usize::from(image[0x201]);
    memory.write(PARAMETERS + 0x1f1, &image[0x1f1..end]);
    memory.write(PARAMETERS + 0x210, &[0xff]);
    memory.write(PARAMETERS + 0x70, &acpi::ADDRESS.to_le_bytes());
    for (offset, value) in [(0x218, disk_at), (0x21c, disk.len()), (0x228, LINE)] {
        memory.write(PARAMETERS + offset, &(value as u32).to_le_bytes());
    }
    let map = [(0, LOW_END), (1 << 20, MEMORY as u64 - (1 << 20))];
    memory.write(PARAMETERS + 0x1e8, &[map.len() as u8]);
    for (index, (address, bytes)) in map.iter().enumerate() {
        let at = PARAMETERS + 0x2d0 + 20 * index;
        memory.write(at, &u64::to_le_bytes(*address));
        memory.write(at + 8, &u64::to_le_bytes(*bytes));
        memory.write(at + 16, &1_u32.to_le_bytes());
    }
    // The first gigabyte by 2-MByte pages.
    memory.write(TABLES, &(TABLES as u64 + 0x1003).to_le_bytes());
    memory.write(TABLES + 0x1000, &(TABLES as u64 + 0x2003).to_le_bytes());
    for entry in 0..512_u64 {
        memory.write(TABLES + 0x2000 + 8 * entry as usize, &(entry << 21 | 0x83).to_le_bytes());
    }
    for (index, descriptor) in [0_u64, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff].iter().enumerate() {
        memory.write(GDT + 8 * index, &descriptor.to_le_bytes());
    }
    Ok(start as u64 + 0x200)
}

fn long_mode(vcpu: &Vcpu) -> Checked {
    let mut system = vcpu.system().map_err(kernel("KVM_GET_SREGS"))?;
    enter_long_mode(&mut system, 0x10, TABLES as u64);
    (system.gdt.base, system.gdt.limit) = (GDT as u64, 0x1f);
    vcpu.set_system(system).map_err(kernel("KVM_SET_SREGS"))
}
