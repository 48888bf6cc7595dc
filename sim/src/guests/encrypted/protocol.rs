//! What the guest and its hypervisor agree upon: the GHCB MSR protocol, the GHCB's layout.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// GHCB MSR protocol, bits 11:0.
pub(super) const INFORMATION: i32 = 0x001;
pub(super) const INFORMATION_REQUEST: i32 = 0x002;
pub(super) const CPUID_REQUEST: i32 = 0x004;
pub(super) const CPUID_ANSWER: i32 = 0x005;
pub(super) const TERMINATE: i32 = 0x100;

/// GHCB fields: byte offsets. A field is valid if the bit of its quadword is set in the bitmap.
pub(super) mod ghcb {
    pub(crate) const RAX: i32 = 0x1f8;
    pub(crate) const RCX: i32 = 0x308;
    pub(crate) const RDX: i32 = 0x310;
    pub(crate) const RBX: i32 = 0x318;
    pub(crate) const EXITCODE: i32 = 0x390;
    pub(crate) const EXITINFO1: i32 = 0x398;
    pub(crate) const EXITINFO2: i32 = 0x3a0;
    pub(crate) const VALID: i32 = 0x3f0;
    pub(crate) const VERSION: i32 = 0xffa;
    pub(crate) const USAGE: i32 = 0xffc;
    /// The quadwords of EXITCODE, EXITINFO1 and EXITINFO2, in the bitmap's upper half.
    pub(crate) const REQUEST: u64 = 0b111 << (EXITCODE / 8 - 64);
    /// Those of RCX, RDX and RBX.
    pub(crate) const REGISTERS: u64 = 0b111 << (RCX / 8 - 64);
    /// RAX, in the lower half.
    pub(crate) const LOW: u64 = 1 << (RAX / 8);
}

/// A field of the GHCB whose address is in RDI.
pub(super) fn shared(field: i32) -> AsmMemoryOperand {
    qword_ptr(rdi + field)
}

/// Goes to `next` unless `register` is `value`.
pub(super) fn case(
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
