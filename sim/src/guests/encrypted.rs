//! An SEV-ES guest of our own, and the hypervisor that runs it without seeing its registers: GHCB MSR protocol, #VC, and the
//! GHCB page for CPUID, MSRs and ports.
//!
//! Facts of the protocol are those of "SEV-ES Guest-Hypervisor Communication Block Standardization" (56421 rev. 2.03),
//! "GHCB MSR Protocol" and "GHCB Layout". The guest checks every answer, and ends with the number of the first one that is
//! wrong, or 0.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use rootmode_arch::{DescriptorTable, Efer, Feature, FeatureSet, SegmentName, Vendor, encryption, msr};
use rootmode_cpu::Model;
use rootmode_svm::vmcb::{Field, Intercept, Intercepts, NestedControl, VirtExt, Vmcb, Vmsa};
use rootmode_svm::{Access, Msrpm};

use super::emit::L1;
use super::layout::*;
use super::{GuestError, GuestImage, l2, tables};

/// The VMSA, in L1's memory.
const VMSA: u64 = HOST_VMCB + 0x1000;
/// The GHCB, in the guest's: the one page that is not encrypted.
const GHCB: u64 = 0xa000;
/// What the guest prints.
pub const TEXT: &str = "Hello from an SEV-ES guest\n";
/// What L1 answers to IN.
const INPUT: i32 = 0x5a;
/// An MSR of L1's making, which keeps what is written to it.
const KEPT_MSR: u32 = msr::IA32_STAR;

/// Codes that L1 stops with: an exit that it does not know; a request without what the protocol demands.
const UNKNOWN: u32 = 0xf2;
const MALFORMED: u32 = 0xf3;

/// The guest's ends that are not 0.
#[derive(Clone, Copy)]
enum Wrong {
    Protocol = 1,
    Status,
    Vendor,
    Leaf,
    Msr,
    Input,
    Answer,
    Event,
}

/// GHCB MSR protocol, bits 11:0.
const INFORMATION: i32 = 0x001;
const INFORMATION_REQUEST: i32 = 0x002;
const CPUID_REQUEST: i32 = 0x004;
const CPUID_ANSWER: i32 = 0x005;
const TERMINATE: i32 = 0x100;

/// GHCB fields: byte offsets. A field is valid if the bit of its quadword is set in the bitmap.
mod ghcb {
    pub(super) const RAX: i32 = 0x1f8;
    pub(super) const RCX: i32 = 0x308;
    pub(super) const RDX: i32 = 0x310;
    pub(super) const RBX: i32 = 0x318;
    pub(super) const EXITCODE: i32 = 0x390;
    pub(super) const EXITINFO1: i32 = 0x398;
    pub(super) const EXITINFO2: i32 = 0x3a0;
    pub(super) const VALID: i32 = 0x3f0;
    pub(super) const VERSION: i32 = 0xffa;
    pub(super) const USAGE: i32 = 0xffc;
    /// The quadwords of EXITCODE, EXITINFO1 and EXITINFO2, in the bitmap's upper half.
    pub(super) const REQUEST: u64 = 0b111 << (EXITCODE / 8 - 64);
    /// Those of RCX, RDX and RBX.
    pub(super) const REGISTERS: u64 = 0b111 << (RCX / 8 - 64);
    /// RAX, in the lower half.
    pub(super) const LOW: u64 = 1 << (RAX / 8);
}

/// The processor that the guest needs: `max-amd,+sev-es`.
pub fn model() -> Model {
    let features = [Feature::Sme, Feature::Sev, Feature::SevEs];
    let all: FeatureSet = Model::max_amd().features().with_all(&features);
    Model::new(Vendor::Amd, all)
}

/// The guest and its hypervisor.
///
/// # Errors
/// [`GuestError`] if the programs did not fit their places.
pub fn image() -> Result<GuestImage, GuestError> {
    let mut image = GuestImage {
        vendor: Vendor::Amd,
        segments: Vec::new(),
        entry: L1_CODE,
        stack: L1_STACK,
        cr3: L1_PML4,
        gdt: DescriptorTable { base: L1_GDT, limit: 39 },
        idt: DescriptorTable { base: L1_IDT, limit: 511 },
        tss: L1_TSS,
        memory: L1_MEMORY,
    };
    image.place("L1's page tables", L1_PML4, tables::l1_paging(), 0x4000)?;
    image.place("L1's GDT", L1_GDT, tables::gdt(L1_TSS), 0x800)?;
    image.place("the nested page tables", SECOND_STAGE, second_stage(), 0x4000)?;
    image.place("the VMCB", CONTROL, vmcb().as_bytes().to_vec(), 0x1000)?;
    image.place("the VMSA", VMSA, vmsa().as_bytes().to_vec(), 0x1000)?;
    image.place("the MSR permission map", MSR_MAP, msr_map(), 0x2000)?;
    image.place("the I/O permission map", IO_MAP, vec![0xff; 0x3000], 0x3000)?;
    image.place("L1's code", L1_CODE, hypervisor()?, (VMXON_REGION - L1_CODE) as usize)?;
    image.place("the guest's page tables", L2_BASE + L2_PML4, guest_paging(), 0x4000)?;
    image.place("the guest's GDT", L2_BASE + L2_GDT, tables::gdt(L2_TSS), 0x1000)?;
    image.place("the guest's IDT", L2_BASE + L2_IDT, tables::idt(&[(29, L2_HANDLERS)]), 0x1000)?;
    image.place("the #VC handler", L2_BASE + L2_HANDLERS, handler()?, 0x1000)?;
    image.place("the guest's program", L2_BASE + L2_CODE, program()?, (WINDOW - L2_CODE) as usize)?;
    Ok(image)
}

/// The guest's tables, all of it encrypted but for the GHCB.
fn guest_paging() -> Vec<u8> {
    let mut bytes = tables::l2_paging();
    for (n, entry) in bytes.chunks_exact_mut(8).enumerate() {
        let shared = n == 3 * 512 + (GHCB >> 12) as usize;
        // Bit 51 is bit 3 of byte 6.
        if entry[0] & 1 != 0 && !shared {
            entry[6] |= 1 << (encryption::C_BIT - 48);
        }
    }
    bytes
}

/// The first page of the window is mapped when it is touched.
fn second_stage() -> Vec<u8> {
    let mut bytes = Vec::new();
    for level in 1..4 {
        let mut page = vec![0; 4096];
        page[..8].copy_from_slice(&(SECOND_STAGE + level * 0x1000 | 7).to_le_bytes());
        bytes.extend(page);
    }
    for page in 0..L2_MEMORY >> 12 {
        let entry = if page == WINDOW >> 12 { 0 } else { L2_BASE + (page << 12) | 7 };
        bytes.extend(entry.to_le_bytes());
    }
    bytes
}

fn vmcb() -> Vmcb {
    let mut vmcb = Vmcb::zeroed();
    let intercepts = [
        Intercept::CPUID,
        Intercept::HLT,
        Intercept::IOIO_PROT,
        Intercept::MSR_PROT,
        Intercept::VMRUN,
        Intercept::VMMCALL,
        Intercept::SHUTDOWN,
    ];
    vmcb.set_intercepts(intercepts.into_iter().fold(Intercepts::NONE, Intercepts::with));
    let paging = NestedControl::NP_ENABLE | NestedControl::SEV_ENABLE | NestedControl::SEV_ES_ENABLE;
    for (field, value) in [
        (Field::IopmBase, IO_MAP),
        (Field::MsrpmBase, MSR_MAP),
        (Field::Asid, 1),
        (Field::NestedControl, paging.0),
        (Field::NestedCr3, SECOND_STAGE),
        (Field::VirtExt, VirtExt::LBR_ENABLE.0),
        (Field::VmsaPointer, VMSA),
    ] {
        vmcb.set(field, value);
    }
    vmcb
}

/// What the launch commands of a security processor would have encrypted and measured.
fn vmsa() -> Vmsa {
    let mut vmsa = Vmsa::zeroed();
    for (field, value) in [
        (Field::GdtrBase, L2_GDT),
        (Field::GdtrLimit, 39),
        (Field::IdtrBase, L2_IDT),
        (Field::IdtrLimit, 511),
        (Field::Efer, (Efer::SVME | Efer::LME | Efer::LMA | Efer::NXE).0),
        (Field::Cr0, 0x8000_0031),
        (Field::Cr3, L2_PML4 | 1 << encryption::C_BIT),
        (Field::Cr4, 0x20),
        (Field::Dr6, 0xffff_0ff0),
        (Field::Dr7, 0x400),
        (Field::Rflags, 2),
        (Field::Rip, L2_CODE),
        (Field::Rsp, L2_STACK),
        (Field::GPat, 0x0007_0406_0007_0406),
        (Field::Xcr0, 1),
        (Field::Mxcsr, 0x1f80),
        (Field::X87Fcw, 0x37f),
        (Field::X87Ftw, 0xffff),
    ] {
        vmsa.set(field, value);
    }
    for name in SegmentName::ALL {
        let segment = l2::segment(name);
        let [selector, attrib, limit, base] = rootmode_svm::vmcb::segment_fields(name);
        vmsa.set(selector, segment.selector.0.into());
        vmsa.set(attrib, segment.rights.to_vmcb().into());
        vmsa.set(limit, segment.limit.into());
        vmsa.set(base, segment.base);
    }
    vmsa
}

/// Every MSR but the one that the guest talks through.
fn msr_map() -> Vec<u8> {
    let mut map = Msrpm::filled(true);
    for access in [Access::Read, Access::Write] {
        map.assign(msr::SEV_ES_GHCB, access, false);
    }
    map.as_bytes().to_vec()
}

/// A field of the VMCB whose address is in RSI.
fn control(field: Field) -> AsmMemoryOperand {
    let at = rsi + i32::from(field.row().offset);
    if field.size() == 1 { byte_ptr(at) } else { qword_ptr(at) }
}

/// A field of the GHCB whose address is in RDI.
fn shared(field: i32) -> AsmMemoryOperand {
    qword_ptr(rdi + field)
}

/// Sets bits of an MSR's low half.
fn set_bits(a: &mut CodeAssembler, index: u32, bits: u32) -> Result<(), IcedError> {
    a.mov(ecx, index)?;
    a.rdmsr()?;
    a.or(eax, bits as i32)?;
    a.wrmsr()
}

/// Goes to `next` unless `register` is `value`.
fn case(
    a: &mut CodeAssembler,
    next: &mut CodeLabel,
    register: AsmRegister32,
    value: i32,
) -> Result<(), IcedError> {
    a.set_label(next)?;
    *next = a.create_label();
    a.cmp(register, value)?;
    a.jne(*next)
}

fn hypervisor() -> Result<Vec<u8>, IcedError> {
    let mut l1 = L1::new()?;
    let stop = l1.stop;
    let a = &mut l1.a;
    // SmmLock and MemEncryptionModEn, without which there is no SEV.
    set_bits(a, msr::HWCR, 1)?;
    set_bits(a, msr::SYSCFG, 1 << 23)?;
    set_bits(a, msr::IA32_EFER, Efer::SVME.0 as u32)?;
    a.mov(ecx, msr::VM_HSAVE_PA)?;
    a.mov(eax, VMXON_REGION as u32)?;
    a.xor(edx, edx)?;
    a.wrmsr()?;
    // What #VMEXIT loads from there and VMRUN does not save: the segments of VMSAVE, XCR0.
    a.mov(rax, VMXON_REGION)?;
    a.vmsave()?;
    let xcr0 = Field::Xcr0.row().offset;
    a.mov(qword_ptr(rax + 0x400 + i32::from(xcr0)), 1)?;
    a.mov(rsp, L1_EXIT_STACK)?;

    let mut enter = a.create_label();
    a.set_label(&mut enter)?;
    a.mov(rax, CONTROL)?;
    a.vmrun()?;
    a.mov(rsi, CONTROL)?;
    a.mov(r12, control(Field::ExitCode))?;
    let (mut next, mut known) = (a.create_label(), a.create_label());
    a.cmp(r12, COUNTED as i32)?;
    a.jb(known)?;
    a.mov(eax, UNKNOWN)?;
    a.jmp(stop)?;
    a.set_label(&mut known)?;
    a.mov(rcx, COUNTS)?;
    a.inc(qword_ptr(rcx + r12 * 8))?;

    case(a, &mut next, r12d, 0x78)?;
    a.jmp(enter)?;
    // Maps the page of EXITINFO2.
    case(a, &mut next, r12d, 0x400)?;
    a.mov(rcx, control(Field::ExitInfo2))?;
    a.shr(rcx, 12_u32)?;
    a.mov(rax, rcx)?;
    a.shl(rax, 12_u32)?;
    a.add(rax, L2_BASE as i32 | 7)?;
    a.lea(rcx, qword_ptr(rcx * 8 + SECOND_STAGE_LEAVES as i32))?;
    a.mov(qword_ptr(rcx), rax)?;
    a.mov(control(Field::TlbControl), 1)?;
    a.jmp(enter)?;
    case(a, &mut next, r12d, 0x403)?;
    serve(a, enter, stop)?;
    a.set_label(&mut next)?;
    a.mov(eax, UNKNOWN)?;
    a.jmp(stop)?;
    Ok(l1.assemble(L1_CODE, enter)?.0)
}

/// VMGEXIT: what the GHCB MSR asks for, or, if it is an address, the GHCB.
fn serve(a: &mut CodeAssembler, enter: CodeLabel, stop: CodeLabel) -> Result<(), IcedError> {
    let mut next = a.create_label();
    a.mov(rdi, control(Field::GhcbAddress))?;
    a.mov(ebx, edi)?;
    a.and(ebx, 0xfff)?;
    // Versions 1 to 1 of the protocol, and the C-bit.
    case(a, &mut next, ebx, INFORMATION_REQUEST)?;
    a.mov(rax, 1_u64 << 48 | 1 << 32 | u64::from(encryption::C_BIT) << 24 | INFORMATION as u64)?;
    a.mov(control(Field::GhcbAddress), rax)?;
    a.jmp(enter)?;
    // Bits 63:32 the function, 31:30 the register; EBX, as this guest asks for no other.
    case(a, &mut next, ebx, CPUID_REQUEST)?;
    a.mov(rax, rdi)?;
    a.shr(rax, 32_u32)?;
    a.xor(ecx, ecx)?;
    a.cpuid()?;
    a.mov(eax, ebx)?;
    a.shl(rax, 32_u32)?;
    a.or(rax, 1 << 30 | CPUID_ANSWER)?;
    a.mov(control(Field::GhcbAddress), rax)?;
    a.jmp(enter)?;
    // Bits 23:16 the reason.
    case(a, &mut next, ebx, TERMINATE)?;
    a.mov(eax, edi)?;
    a.shr(eax, 16_u32)?;
    a.jmp(stop)?;
    case(a, &mut next, ebx, 0)?;
    a.add(rdi, L2_BASE as i32)?;
    let mut complete = a.create_label();
    a.mov(rax, ghcb::REQUEST)?;
    a.mov(rcx, shared(ghcb::VALID + 8))?;
    a.and(rcx, rax)?;
    a.cmp(rcx, rax)?;
    a.je(complete)?;
    a.set_label(&mut next)?;
    a.mov(eax, MALFORMED)?;
    a.jmp(stop)?;
    a.set_label(&mut complete)?;
    request(a, enter, stop)
}

/// A request in the GHCB. Registers of the host's are lost at every exit: all is in memory.
fn request(a: &mut CodeAssembler, enter: CodeLabel, stop: CodeLabel) -> Result<(), IcedError> {
    let (mut next, mut done, mut other) = (a.create_label(), a.create_label(), a.create_label());
    a.mov(rbp, shared(ghcb::EXITCODE))?;
    a.mov(r13, shared(ghcb::EXITINFO1))?;
    case(a, &mut next, ebp, Intercept::CPUID.0.into())?;
    a.mov(rax, shared(ghcb::RAX))?;
    a.mov(rcx, shared(ghcb::RCX))?;
    a.cpuid()?;
    for (field, register) in [(ghcb::RAX, rax), (ghcb::RBX, rbx), (ghcb::RCX, rcx), (ghcb::RDX, rdx)] {
        a.mov(shared(field), register)?;
    }
    a.jmp(done)?;
    // EXITINFO1: bit 0 IN, bits 31:16 the port.
    case(a, &mut next, ebp, Intercept::IOIO_PROT.0.into())?;
    a.mov(rdx, r13)?;
    a.shr(edx, 16_u32)?;
    a.test(r13b, 1)?;
    a.jnz(other)?;
    a.mov(rax, shared(ghcb::RAX))?;
    a.out(dx, al)?;
    a.jmp(done)?;
    a.set_label(&mut other)?;
    a.mov(shared(ghcb::RAX), INPUT)?;
    a.jmp(done)?;
    // EXITINFO1: 1 for WRMSR.
    case(a, &mut next, ebp, Intercept::MSR_PROT.0.into())?;
    let mut read = a.create_label();
    a.mov(rcx, L1_DATA)?;
    a.test(r13d, r13d)?;
    a.jz(read)?;
    for (at, field) in [(0, ghcb::RAX), (8, ghcb::RDX)] {
        a.mov(rax, shared(field))?;
        a.mov(qword_ptr(rcx + at), rax)?;
    }
    a.jmp(done)?;
    a.set_label(&mut read)?;
    for (at, field) in [(0, ghcb::RAX), (8, ghcb::RDX)] {
        a.mov(rax, qword_ptr(rcx + at))?;
        a.mov(shared(field), rax)?;
    }
    a.set_label(&mut done)?;
    a.mov(shared(ghcb::EXITINFO1), 0)?;
    a.mov(shared(ghcb::EXITINFO2), 0)?;
    a.jmp(enter)?;
    a.set_label(&mut next)?;
    a.mov(eax, MALFORMED)?;
    a.jmp(stop)
}

fn vmgexit(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.db(&[0xf3, 0x0f, 0x01, 0xd9])
}

/// Writes RAX to the GHCB MSR. Changes RCX, RDX.
fn write_ghcb(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(ecx, msr::SEV_ES_GHCB)?;
    a.mov(rdx, rax)?;
    a.shr(rdx, 32_u32)?;
    a.wrmsr()
}

/// Ends with the termination request.
fn terminate(a: &mut CodeAssembler, reason: u32) -> Result<(), IcedError> {
    a.mov(eax, reason << 16 | TERMINATE as u32)?;
    write_ghcb(a)?;
    vmgexit(a)?;
    a.hlt()
}

/// Ends with `wrong` unless the last comparison found its operands equal.
fn expect_equal(a: &mut CodeAssembler, wrong: Wrong) -> Result<(), IcedError> {
    let mut right = a.create_label();
    a.je(right)?;
    terminate(a, wrong as u32)?;
    a.set_label(&mut right)?;
    // A label needs an instruction of its own.
    a.nop()
}

/// #VC: puts the request into the GHCB, and goes on behind the instruction with the answer.
fn handler() -> Result<Vec<u8>, IcedError> {
    const RIP: i32 = 0x18;
    let mut a = CodeAssembler::new(64)?;
    let (mut next, mut ask) = (a.create_label(), a.create_label());
    a.push(rdi)?;
    a.push(rsi)?;
    // The error code and RIP are behind the two.
    a.mov(edi, GHCB as u32)?;
    a.mov(rsi, qword_ptr(rsp + 0x10))?;
    a.mov(shared(ghcb::EXITCODE), rsi)?;
    a.mov(shared(ghcb::EXITINFO1), 0)?;
    a.mov(shared(ghcb::EXITINFO2), 0)?;
    for (field, register) in [(ghcb::RAX, rax), (ghcb::RBX, rbx), (ghcb::RCX, rcx), (ghcb::RDX, rdx)] {
        a.mov(shared(field), register)?;
    }
    case(&mut a, &mut next, esi, Intercept::CPUID.0.into())?;
    a.add(qword_ptr(rsp + RIP), 2)?;
    a.jmp(ask)?;
    // 0F 30 is WRMSR, 0F 32 RDMSR.
    case(&mut a, &mut next, esi, Intercept::MSR_PROT.0.into())?;
    a.mov(rsi, qword_ptr(rsp + RIP))?;
    a.xor(eax, eax)?;
    a.cmp(byte_ptr(rsi + 1), 0x30)?;
    a.sete(al)?;
    a.mov(shared(ghcb::EXITINFO1), rax)?;
    a.add(qword_ptr(rsp + RIP), 2)?;
    a.jmp(ask)?;
    // EC is IN AL, DX; EE is OUT DX, AL: 8 bits (bit 4), with 64-bit addresses (bit 9).
    case(&mut a, &mut next, esi, Intercept::IOIO_PROT.0.into())?;
    a.mov(rsi, qword_ptr(rsp + RIP))?;
    a.xor(eax, eax)?;
    a.cmp(byte_ptr(rsi), 0xec_u32 as i32)?;
    a.sete(al)?;
    a.or(eax, 1 << 4 | 1 << 9)?;
    a.movzx(edx, dx)?;
    a.shl(edx, 16_u32)?;
    a.or(eax, edx)?;
    a.mov(shared(ghcb::EXITINFO1), rax)?;
    a.inc(qword_ptr(rsp + RIP))?;
    a.jmp(ask)?;
    a.set_label(&mut next)?;
    terminate(&mut a, Wrong::Event as u32)?;

    a.set_label(&mut ask)?;
    a.mov(rax, ghcb::LOW)?;
    a.mov(shared(ghcb::VALID), rax)?;
    a.mov(rax, ghcb::REQUEST | ghcb::REGISTERS)?;
    a.mov(shared(ghcb::VALID + 8), rax)?;
    a.mov(word_ptr(rdi + ghcb::VERSION), 1)?;
    a.mov(dword_ptr(rdi + ghcb::USAGE), 0)?;
    vmgexit(&mut a)?;
    a.cmp(dword_ptr(rdi + ghcb::EXITINFO1), 0)?;
    expect_equal(&mut a, Wrong::Answer)?;
    for (field, register) in [(ghcb::RAX, rax), (ghcb::RBX, rbx), (ghcb::RCX, rcx), (ghcb::RDX, rdx)] {
        a.mov(register, shared(field))?;
    }
    a.pop(rsi)?;
    a.pop(rdi)?;
    a.add(rsp, 8)?;
    a.iretq()?;
    a.assemble(L2_HANDLERS)
}

fn program() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    // Protocol and C-bit.
    a.mov(eax, INFORMATION_REQUEST)?;
    write_ghcb(&mut a)?;
    vmgexit(&mut a)?;
    a.rdmsr()?;
    a.cmp(eax, (u32::from(encryption::C_BIT) << 24) as i32 | INFORMATION)?;
    expect_equal(&mut a, Wrong::Protocol)?;
    // SEV_STATUS: SEV and SEV-ES.
    a.mov(ecx, msr::SEV_STATUS)?;
    a.rdmsr()?;
    a.cmp(eax, 3)?;
    expect_equal(&mut a, Wrong::Status)?;
    // EBX of CPUID 0 by the MSR alone: "Auth".
    a.mov(eax, 1 << 30 | CPUID_REQUEST)?;
    write_ghcb(&mut a)?;
    vmgexit(&mut a)?;
    a.rdmsr()?;
    a.cmp(edx, i32::from_le_bytes(*b"Auth"))?;
    expect_equal(&mut a, Wrong::Vendor)?;
    // From here on by #VC.
    a.mov(eax, GHCB as u32)?;
    write_ghcb(&mut a)?;
    a.xor(eax, eax)?;
    a.xor(ecx, ecx)?;
    a.cpuid()?;
    a.cmp(ecx, i32::from_le_bytes(*b"cAMD"))?;
    expect_equal(&mut a, Wrong::Leaf)?;
    a.mov(ecx, KEPT_MSR)?;
    a.mov(eax, 0x1234)?;
    a.mov(edx, 0x77)?;
    a.wrmsr()?;
    a.xor(eax, eax)?;
    a.xor(edx, edx)?;
    a.rdmsr()?;
    a.shl(rdx, 32_u32)?;
    a.or(rax, rdx)?;
    a.mov(rdx, 0x77_0000_1234_u64)?;
    a.cmp(rax, rdx)?;
    expect_equal(&mut a, Wrong::Msr)?;
    a.mov(edx, 0x3f8)?;
    a.in_(al, dx)?;
    a.cmp(al, INPUT)?;
    expect_equal(&mut a, Wrong::Input)?;
    // Automatic exits: a page that comes when it is touched, HLT.
    a.mov(rdi, WINDOW)?;
    a.mov(qword_ptr(rdi), rdi)?;
    a.hlt()?;
    a.mov(edx, PRINT_PORT)?;
    for byte in TEXT.bytes() {
        a.mov(al, i32::from(byte))?;
        a.out(dx, al)?;
    }
    terminate(&mut a, 0)?;
    a.assemble(L2_CODE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transparency::board_of;
    use rootmode_arch::choices::Tame;
    use rootmode_arch::record::{Payload, Record, Stop};
    use rootmode_arch::{Hardware, HostPhysical};
    use rootmode_cpu::board::Board;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Ports(Arc<Mutex<Vec<u8>>>);
    impl rootmode_arch::record::Observer for Ports {
        fn observe(&mut self, record: &Record) {
            if let Payload::Port { port: 0xe9, value, .. } = record.payload {
                self.0.lock().unwrap().push(value as u8);
            }
        }
    }

    fn run(change: impl FnOnce(&mut Board)) -> (Stop, String, Vec<(u64, u64)>) {
        let mut board = board_of(&image().unwrap(), model(), Hardware::Tame, Box::new(Tame));
        let ports = Ports::default();
        board.set_observer(Some(Box::new(ports.clone())));
        change(&mut board);
        let stop = board.run(100_000).stop;
        let count = |code| board.memory.read_u64(HostPhysical(COUNTS + code * 8));
        let counts = (0..COUNTED).map(|code| (code, count(code))).filter(|(_, n)| *n != 0).collect();
        let text = String::from_utf8(ports.0.lock().unwrap().clone()).unwrap();
        (stop, text, counts)
    }

    #[test]
    fn the_guest_gets_every_answer_through_its_ghcb_and_ends_well() {
        let (stop, text, counts) = run(|_| {});
        assert_eq!((stop, text.as_str()), (Stop::Requested(0), TEXT));
        // CPUID, WRMSR, RDMSR, IN and each byte through the GHCB; three requests of the MSR protocol.
        let exits = 4 + TEXT.len() as u64 + 3;
        assert_eq!(counts, [(0x78, 1), (0x400, 1), (0x403, exits)]);
    }

    #[test]
    fn a_guest_without_its_ghcb_ends_with_what_it_missed() {
        // The request bits of the handler are gone: L1 refuses to guess.
        let (stop, ..) = run(|board| {
            let code = handler().unwrap();
            let bits = (ghcb::REQUEST | ghcb::REGISTERS).to_le_bytes();
            let at = code.windows(8).position(|bytes| bytes == bits).unwrap();
            board.memory.write_u64(HostPhysical(L2_BASE + L2_HANDLERS + at as u64), 0);
        });
        assert_eq!(stop, Stop::Requested(MALFORMED));
        // An IN that nobody intercepts reads no port at all.
        let (stop, ..) = run(|board| board.memory.write(HostPhysical(IO_MAP), &[0; 0x80]));
        assert_eq!(stop, Stop::Requested(Wrong::Input as u32));
    }
}
