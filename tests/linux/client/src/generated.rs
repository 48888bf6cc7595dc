//! Generated hypervisors as guests: programs and what they have to do, from a file that `rootmode-tests linux` writes
//! (`tests/src/linux/programs.rs` has its format).

use std::sync::Arc;

use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_segment};

use crate::kvm::{Cpuid, Exit, Kvm, Mapping, Vcpu};
use crate::machine::{Checked, enter_long_mode, kernel};

/// Where a program ends: 4 bytes to this port.
const SHUTDOWN: u16 = 0xf4;
/// The port that reads as its number; all others as ones.
const PRINT: u16 = 0xe9;
/// Parts of what is seen, in the file's order.
const PARTS: [&str; 4] = ["port", "log", "register", "page"];

/// The rest of the file.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("the file ends early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn word(&mut self) -> Result<u64, String> {
        let bytes = self.bytes(8)?;
        Ok(bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
    }

    fn words(&mut self) -> Result<Vec<u64>, String> {
        (0..self.word()?).map(|_| self.word()).collect()
    }

    /// Addresses and bytes.
    fn segments(&mut self) -> Result<Vec<(usize, &'a [u8])>, String> {
        (0..self.word()?)
            .map(|_| {
                let (address, count) = (self.word()? as usize, self.word()? as usize);
                Ok((address, self.bytes(count)?))
            })
            .collect()
    }
}

/// How every program starts.
struct Start {
    rip: u64,
    rsp: u64,
    cr0: u64,
    cr3: u64,
    cr4: u64,
    efer: u64,
    gdt: (u64, u64),
    idt: (u64, u64),
    tss: u64,
}

/// What a program did: the parts, and how often KVM came back.
struct Seen {
    parts: [Vec<u64>; 4],
    exits: u64,
    /// The exit that ended it, if it did not end itself.
    stopped: Option<Exit>,
}

/// Runs the programs of `file`, and says where one does not do what it has to.
pub(crate) fn run(file: &str) -> Checked {
    let contents = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    let mut reader = Reader(&contents);
    let [rip, rsp, cr0, cr3, cr4, efer] = fixed(&mut reader)?;
    let [gdt, gdt_limit, idt, idt_limit, tss, memory, count_at, log_at] = fixed(&mut reader)?;
    let start = Start { rip, rsp, cr0, cr3, cr4, efer, gdt: (gdt, gdt_limit), idt: (idt, idt_limit), tss };
    let cpuid = reader.words()?;
    let pages = reader.words()?;
    let base = reader.segments()?;
    let kvm = Kvm::open().map_err(kernel("/dev/kvm"))?;
    let memory = Arc::new(Mapping::memory(memory as usize).map_err(kernel("mmap"))?);
    let (mut same, mut exits) = (0, 0);
    let programs = reader.word()?;
    for number in 0..programs {
        let changes = reader.segments()?;
        for (address, bytes) in base.iter().chain(&changes) {
            memory.write(*address, bytes);
        }
        let mut vm = kvm.create().map_err(kernel("KVM_CREATE_VM"))?;
        vm.set_tss().map_err(kernel("KVM_SET_TSS_ADDR"))?;
        vm.slot(0, 0, &memory, 0).map_err(kernel("KVM_SET_USER_MEMORY_REGION"))?;
        let vcpu = vm.vcpu(0).map_err(kernel("KVM_CREATE_VCPU"))?;
        prepare(&kvm, &vcpu, &start, &cpuid)?;
        let mut seen = observe(&vcpu)?;
        let word = |at: usize| u64::from_le_bytes(memory.read(at));
        seen.parts[1] = (0..word(count_at as usize)).map(|n| word((log_at + 8 * n) as usize)).collect();
        seen.parts[3] = pages.iter().map(|page| digest(&memory.read(*page as usize))).collect();
        exits += seen.exits;
        let mut differs = false;
        if let Some(exit) = seen.stopped {
            let rip = vcpu.registers().map_err(kernel("KVM_GET_REGS"))?.rip;
            println!("ROOTMODE differs {number} stop {exit:x?} at {rip:#x}");
            differs = true;
        }
        for (name, seen) in PARTS.iter().zip(&seen.parts) {
            let wanted = reader.words()?;
            let longer = wanted.len().max(seen.len());
            if let Some(at) = (0..longer).find(|&at| wanted.get(at) != seen.get(at)) {
                let show = |word: Option<&u64>| word.map_or("nothing".into(), |word| format!("{word:#x}"));
                let (wanted, seen) = (show(wanted.get(at)), show(seen.get(at)));
                println!("ROOTMODE differs {number} {name} {at} {seen} instead of {wanted}");
                differs = true;
            }
        }
        same += u64::from(!differs);
    }
    println!("ROOTMODE generated {programs} same {same} exits {exits}");
    Ok(())
}

fn fixed<const N: usize>(reader: &mut Reader<'_>) -> Result<[u64; N], String> {
    let mut words = [0; N];
    for word in &mut words {
        *word = reader.word()?;
    }
    Ok(words)
}

/// What `rootmode-tests` makes of a page as well.
fn digest(page: &[u8; 4096]) -> u64 {
    page.chunks_exact(8).fold(0xcbf2_9ce4_8422_2325, |digest: u64, word| {
        let word = word.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        (digest ^ word).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn prepare(kvm: &Kvm, vcpu: &Vcpu, start: &Start, leaves: &[u64]) -> Checked {
    let mut cpuid: Box<Cpuid> = kvm.supported_cpuid().map_err(kernel("KVM_GET_SUPPORTED_CPUID"))?;
    cpuid.clear();
    for leaf in leaves.chunks_exact(7) {
        let [function, index, flags, eax, ebx, ecx, edx] = std::array::from_fn(|at| leaf[at] as u32);
        cpuid.push(kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, ..Default::default() });
    }
    vcpu.set_cpuid(&mut cpuid).map_err(kernel("KVM_SET_CPUID2"))?;
    let mut system = vcpu.system().map_err(kernel("KVM_GET_SREGS"))?;
    enter_long_mode(&mut system, 8, start.cr3);
    (system.cr0, system.cr4, system.efer) = (start.cr0, start.cr4, start.efer);
    (system.gdt.base, system.gdt.limit) = (start.gdt.0, start.gdt.1 as u16);
    (system.idt.base, system.idt.limit) = (start.idt.0, start.idt.1 as u16);
    system.tr = kvm_segment {
        base: start.tss,
        limit: 0x67,
        selector: 0x18,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    system.ldt = kvm_segment { type_: 2, unusable: 1, ..Default::default() };
    vcpu.set_system(system).map_err(kernel("KVM_SET_SREGS"))?;
    let registers = kvm_regs { rip: start.rip, rsp: start.rsp, rflags: 2, ..Default::default() };
    vcpu.set_registers(registers).map_err(kernel("KVM_SET_REGS"))
}

/// Runs to the end. A port's word is the port, the size, whether it was written, and the value above.
fn observe(vcpu: &Vcpu) -> Result<Seen, String> {
    let mut seen = Seen { parts: Default::default(), exits: 0, stopped: None };
    loop {
        let exit = vcpu.run().map_err(kernel("KVM_RUN"))?;
        seen.exits += 1;
        let (port, size, write, value) = match exit {
            Exit::Out { port, size, count: 1, value } => (port, size, 1, value),
            Exit::In { port, size, count: 1 } => {
                let value = if port == PRINT { PRINT.into() } else { u32::MAX >> (32 - 8 * u32::from(size)) };
                vcpu.answer(value.into());
                (port, size, 0, value)
            }
            Exit::Interrupted => continue,
            other => {
                seen.stopped = Some(other);
                break;
            }
        };
        let word = u64::from(port) | u64::from(size) << 16 | write << 24 | u64::from(value) << 32;
        seen.parts[0].push(word);
        if (port, size, write) == (SHUTDOWN, 4, 1) {
            break;
        }
    }
    let r = vcpu.registers().map_err(kernel("KVM_GET_REGS"))?;
    // RIP is not among them: whether the last OUT is complete, KVM does not say.
    seen.parts[2] = vec![
        r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
        r.r14, r.r15,
    ];
    Ok(seen)
}
