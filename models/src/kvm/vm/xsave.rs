//! Between a processor's vector registers and the interface's memory images of them.

use rootmode_arch::Vendor;
use rootmode_cpu::vectors::{MXCSR_MASK, Vectors};
use rootmode_cpu::{Cpu, F80};

use crate::kvm::Errno;
use crate::kvm::abi::Fpu;

/// Bytes of `struct kvm_xsave`.
pub(super) const BYTES: usize = 4096;
/// Offsets in the legacy region and of the header (SDM Vol. 1 "XSAVE Area").
const MXCSR: usize = 24;
const ST: usize = 32;
const XMM: usize = 160;
const HEADER: usize = 512;
const AVX_STATE: usize = 576;
/// Components: x87, SSE, AVX, PKRU.
const X87: u64 = 1;
const SSE: u64 = 2;
const AVX: u64 = 4;
const PKRU: u64 = 1 << 9;

const fn pkru_offset(vendor: Vendor) -> usize {
    match vendor {
        Vendor::Intel => 0xa80,
        Vendor::Amd => 0x980,
    }
}

fn st(vectors: &Vectors, n: usize) -> [u8; 16] {
    let register = vectors.x87.registers[(usize::from(vectors.x87.top()) + n) & 7];
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&register.significand.to_le_bytes());
    bytes[8..10].copy_from_slice(&register.exponent.to_le_bytes());
    bytes
}

fn set_st(vectors: &mut Vectors, n: usize, bytes: &[u8]) {
    let significand = number(bytes, 0, 8);
    let exponent = number(bytes, 8, 2) as u16;
    let top = usize::from(vectors.x87.top());
    vectors.x87.registers[(top + n) & 7] = F80 { significand, exponent };
}

fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    bytes[at..at + size].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// `KVM_GET_FPU`.
pub(super) fn fpu(vectors: &Vectors) -> Fpu {
    let x87 = &vectors.x87;
    Fpu {
        fpr: core::array::from_fn(|n| st(vectors, n)),
        fcw: x87.control,
        fsw: x87.status,
        ftwx: x87.used,
        pad1: 0,
        last_opcode: x87.opcode,
        last_ip: x87.instruction,
        last_dp: x87.operand,
        xmm: core::array::from_fn(|n| vectors.xmm(n as u8).to_le_bytes()),
        mxcsr: vectors.mxcsr,
        pad2: 0,
    }
}

/// `KVM_SET_FPU`.
pub(super) fn set_fpu(vectors: &mut Vectors, fpu: &Fpu) {
    vectors.x87.control = fpu.fcw;
    vectors.x87.status = fpu.fsw;
    vectors.x87.used = fpu.ftwx;
    vectors.x87.opcode = fpu.last_opcode & 0x7ff;
    (vectors.x87.instruction, vectors.x87.operand) = (fpu.last_ip, fpu.last_dp);
    for (n, bytes) in fpu.fpr.iter().enumerate() {
        set_st(vectors, n, bytes);
    }
    for (n, bytes) in fpu.xmm.iter().enumerate() {
        vectors.set_xmm(n as u8, u128::from_le_bytes(*bytes));
    }
    vectors.mxcsr = fpu.mxcsr & MXCSR_MASK;
    vectors.x87.summarize();
}

/// `KVM_GET_XSAVE`: the standard format, with every component that XCR0 may enable.
pub(super) fn save(cpu: &Cpu) -> Vec<u8> {
    let mut bytes = vec![0; BYTES];
    let fpu = fpu(&cpu.vectors);
    bytes[0..2].copy_from_slice(&fpu.fcw.to_le_bytes());
    bytes[2..4].copy_from_slice(&fpu.fsw.to_le_bytes());
    bytes[4] = fpu.ftwx;
    bytes[6..8].copy_from_slice(&fpu.last_opcode.to_le_bytes());
    bytes[8..16].copy_from_slice(&fpu.last_ip.to_le_bytes());
    bytes[16..24].copy_from_slice(&fpu.last_dp.to_le_bytes());
    bytes[MXCSR..MXCSR + 4].copy_from_slice(&fpu.mxcsr.to_le_bytes());
    bytes[MXCSR + 4..MXCSR + 8].copy_from_slice(&MXCSR_MASK.to_le_bytes());
    for (n, register) in fpu.fpr.iter().enumerate() {
        bytes[ST + 16 * n..][..16].copy_from_slice(register);
    }
    for (n, register) in fpu.xmm.iter().enumerate() {
        bytes[XMM + 16 * n..][..16].copy_from_slice(register);
    }
    let mut components = X87 | SSE;
    let upper: [[u8; 16]; 16] = core::array::from_fn(|n| cpu.vectors.halves(n as u8)[1].to_le_bytes());
    if upper.as_flattened().iter().any(|byte| *byte != 0) {
        components |= AVX;
        bytes[AVX_STATE..][..256].copy_from_slice(upper.as_flattened());
    }
    if cpu.pkru != 0 {
        components |= PKRU;
        bytes[pkru_offset(cpu.model.vendor())..][..4].copy_from_slice(&cpu.pkru.to_le_bytes());
    }
    bytes[HEADER..HEADER + 8].copy_from_slice(&components.to_le_bytes());
    bytes
}

/// `KVM_SET_XSAVE`: components that the header does not name take their initial values.
///
/// # Errors
/// [`Errno::Einval`]: a component or MXCSR bit that does not exist, or the compacted format.
pub(super) fn restore(cpu: &mut Cpu, bytes: &[u8], supported: u64) -> Result<(), Errno> {
    let components = number(bytes, HEADER, 8);
    let mxcsr = number(bytes, MXCSR, 4) as u32;
    if components & !supported != 0 || number(bytes, HEADER + 8, 8) != 0 || mxcsr & !MXCSR_MASK != 0 {
        return Err(Errno::Einval);
    }
    let mut fpu = fpu(&Vectors::RESET);
    fpu.fcw = 0x37f;
    fpu.ftwx = 0;
    if components & X87 != 0 {
        fpu.fcw = number(bytes, 0, 2) as u16;
        fpu.fsw = number(bytes, 2, 2) as u16;
        fpu.ftwx = bytes[4];
        fpu.last_opcode = number(bytes, 6, 2) as u16;
        (fpu.last_ip, fpu.last_dp) = (number(bytes, 8, 8), number(bytes, 16, 8));
        for (n, register) in fpu.fpr.iter_mut().enumerate() {
            register.copy_from_slice(&bytes[ST + 16 * n..][..16]);
        }
    }
    if components & SSE != 0 {
        for (n, register) in fpu.xmm.iter_mut().enumerate() {
            register.copy_from_slice(&bytes[XMM + 16 * n..][..16]);
        }
    }
    fpu.mxcsr = mxcsr;
    set_fpu(&mut cpu.vectors, &fpu);
    for n in 0..16_u8 {
        let at = AVX_STATE + 16 * usize::from(n);
        let saved = [number(bytes, at, 8), number(bytes, at + 8, 8)].map(u128::from);
        let upper = if components & AVX != 0 { saved[0] | saved[1] << 64 } else { 0 };
        let [lower, _] = cpu.vectors.halves(n);
        cpu.vectors.set_halves(n, [lower, upper]);
    }
    let at = pkru_offset(cpu.model.vendor());
    cpu.pkru = if components & PKRU != 0 { number(bytes, at, 4) as u32 } else { 0 };
    cpu.refresh();
    Ok(())
}
