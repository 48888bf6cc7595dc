//! A machine whose guest hypervisor gets its entries refused says why, once a place and rule.
#![cfg(feature = "tools")]
#![allow(clippy::unwrap_used, reason = "a test")]

use iced_x86::code_asm::*;
use rootmode::explain::{Refusals, Refused};
use rootmode::machine::{Machine, Parts};
use rootmode::processor::Processor;
use rootmode_arch::Hardware;
use rootmode_arch::choices::Tame;
use rootmode_arch::record::Stop;
use rootmode_models::devices::pc::Configuration;

/// Where the VMXON region, the VMCS and the VMCB are; the stack is below.
const REGION: u32 = 0x20_0000;

/// A Multiboot kernel in protected mode without paging, whose `body` ends the machine.
fn kernel(body: impl FnOnce(&mut CodeAssembler)) -> Vec<u8> {
    let mut a = CodeAssembler::new(32).unwrap();
    a.mov(esp, REGION).unwrap();
    body(&mut a);
    a.mov(eax, 0).unwrap();
    a.out(0xf4, eax).unwrap();
    a.hlt().unwrap();
    let code = a.assemble(0x10_0020).unwrap();
    let flags = 1_u32 << 16;
    let checksum = 0_u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags);
    let header = [0x1bad_b002, flags, checksum, 0x10_0000, 0x10_0000, 0, 0, 0x10_0020];
    [header.map(u32::to_le_bytes).concat(), code].concat()
}

fn run(cpu: &str, image: Vec<u8>) -> (Refusals, Vec<Refused>) {
    let refusals = Refusals::default();
    let parts = Parts {
        cpu: Processor::parse(cpu).unwrap(),
        configuration: Configuration::default(),
        firmware: None,
        hardware: Hardware::Tame,
        image: Some(image),
        watch: Some(refusals.watch()),
        name: "kernel".into(),
    };
    let mut machine = Machine::new(&parts, Box::new(Tame)).unwrap();
    assert_eq!(machine.run(1_000_000).stop, Stop::Requested(0));
    let refused = refusals.take();
    assert!(refusals.take().is_empty(), "each is told once");
    (refusals, refused)
}

#[test]
fn a_vmlaunch_of_an_empty_vmcs_names_its_controls() {
    let image = kernel(|a| {
        // SDM Vol. 3C "Enabling and Entering VMX Operation": the lock bit and VMX outside SMX, CR0.NE, CR4.VMXE.
        a.mov(ecx, 0x3a).unwrap();
        a.rdmsr().unwrap();
        a.test(eax, 1).unwrap();
        let mut locked = a.create_label();
        a.jnz(locked).unwrap();
        a.or(eax, 5).unwrap();
        a.wrmsr().unwrap();
        a.set_label(&mut locked).unwrap();
        a.mov(eax, cr4).unwrap();
        a.or(eax, 1 << 13).unwrap();
        a.mov(cr4, eax).unwrap();
        // VMX operation needs paging: one 4 MiB page that maps itself (CR4.PSE).
        a.or(eax, 1 << 4).unwrap();
        a.mov(cr4, eax).unwrap();
        a.mov(dword_ptr(REGION + 0x3000), 0x83).unwrap();
        a.mov(eax, REGION + 0x3000).unwrap();
        a.mov(cr3, eax).unwrap();
        a.mov(eax, cr0).unwrap();
        a.or(eax, 0x8000_0021_u32 as i32).unwrap();
        a.mov(cr0, eax).unwrap();
        a.mov(ecx, 0x480).unwrap();
        a.rdmsr().unwrap();
        a.mov(dword_ptr(REGION), eax).unwrap();
        a.mov(dword_ptr(REGION + 0x1000), eax).unwrap();
        for (at, region) in [(0x2000, REGION), (0x2008, REGION + 0x1000)] {
            a.mov(dword_ptr(REGION + at), region as i32).unwrap();
            a.mov(dword_ptr(REGION + at + 4), 0).unwrap();
        }
        a.vmxon(qword_ptr(REGION + 0x2000)).unwrap();
        a.vmclear(qword_ptr(REGION + 0x2008)).unwrap();
        a.vmptrld(qword_ptr(REGION + 0x2008)).unwrap();
        let mut again = a.create_label();
        a.mov(esi, 3).unwrap();
        a.set_label(&mut again).unwrap();
        a.vmlaunch().unwrap();
        a.dec(esi).unwrap();
        a.jnz(again).unwrap();
        // The same from elsewhere is told again.
        a.vmlaunch().unwrap();
    });
    let (refusals, refused) = run("max-intel", image);
    assert_eq!((refusals.count(), refused.len(), refusals.exits()), (4, 2, 0));
    let first = &refused[0];
    assert_eq!((first.extension, first.vcpu, first.tick > 20), ("VMX", 0, true));
    assert_eq!(first.report, "VMfailValid, VM-instruction error 7");
    assert!(
        first.broken[0].rule.starts_with("vmx.control.") || first.broken[0].rule.contains("pin"),
        "{first:?}"
    );
    assert!(first.broken.len() > 3 && first.broken[0].report == first.report);
    let line = first.line();
    assert!(line.starts_with(&format!("VMX entry refused: vCPU 0 at rip {:#x}, tick", first.rip)), "{line}");
    assert!(line.contains(first.broken[0].rule) && line.contains("; nearest valid: "), "{line}");
    assert!(line.ends_with(" more broken") && !line.contains('\n'), "{line}");
    assert_ne!(refused[1].rip, first.rip);
}

#[test]
fn a_vmrun_of_an_empty_vmcb_names_its_rules() {
    let image = kernel(|a| {
        a.mov(ecx, 0xc000_0080_u32).unwrap();
        a.rdmsr().unwrap();
        a.or(eax, 1 << 12).unwrap();
        a.wrmsr().unwrap();
        a.mov(ecx, 0xc001_0117_u32).unwrap();
        a.mov(eax, REGION).unwrap();
        a.xor(edx, edx).unwrap();
        a.wrmsr().unwrap();
        a.mov(eax, REGION + 0x1000).unwrap();
        a.vmrun().unwrap();
        // Intercept VMRUN (offset 010h, bit 0) and have an ASID (058h): what is broken changes.
        a.mov(dword_ptr(REGION + 0x1010), 1).unwrap();
        a.mov(dword_ptr(REGION + 0x1058), 1).unwrap();
        a.mov(eax, REGION + 0x1000).unwrap();
        a.vmrun().unwrap();
    });
    let (refusals, refused) = run("max-amd", image);
    assert_eq!((refusals.count(), refused.len()), (2, 2));
    assert!(
        refused.iter().all(|one| one.extension == "SVM" && one.report.contains("INVALID")),
        "{refused:?}"
    );
    let rules = |one: &Refused| one.broken.iter().map(|rule| rule.rule).collect::<Vec<_>>();
    let (first, second) = (rules(&refused[0]), rules(&refused[1]));
    assert!(
        first.len() > second.len() && second.iter().all(|rule| first.contains(rule)),
        "{first:?} {second:?}"
    );
    assert!(refused[1].line().contains(second[0]));
}
