//! The bytes of a vCPU's nested state: `KVM_GET_NESTED_STATE`, `KVM_SET_NESTED_STATE`.
//!
//! A head, and behind it, on VMX, L1's current VMCS in this model's own layout of a region, which is that of L1's memory, too;
//! on SVM, while L2 runs, a VMCB of L1's controls and of L1's own state.

use rootmode_arch::{HostPhysical, Vendor};
use rootmode_svm::Vmcb;
use rootmode_vmx::drive::offered::REVISION;
use rootmode_vmx::drive::region::field_address;
use rootmode_vmx::{Field, Vmcs};

use crate::kvm::Errno;
use crate::kvm::abi::{NestedStateHead, PAGE, Plain, SvmNestedStateHdr, VmxNestedStateHdr};
use crate::kvm::host::{NestedState, SvmState, VmxState};
use crate::kvm::vm::{ClientMemory, Failure, Vm};

/// `KVM_STATE_NESTED_FORMAT_VMX`, `KVM_STATE_NESTED_FORMAT_SVM`.
const FORMAT_VMX: u16 = 0;
const FORMAT_SVM: u16 = 1;
/// `KVM_STATE_NESTED_*`.
const GUEST_MODE: u16 = 1;
const RUN_PENDING: u16 = 2;
const EVMCS: u16 = 4;
const MTF_PENDING: u16 = 8;
const GIF_SET: u16 = 1 << 8;
/// `KVM_STATE_VMX_PREEMPTION_TIMER_DEADLINE`.
const TIMER_DEADLINE: u32 = 1;
/// No address.
const NOWHERE: u64 = u64::MAX;
/// Bytes of a VMCS or a VMCB.
const DATA: usize = PAGE as usize;
/// Where a region says whether the VMCS was launched.
const LAUNCH_STATE: usize = 8;

fn region_of(vmcs: &Vmcs, launched: bool) -> Vec<u8> {
    let mut bytes = vec![0; DATA];
    bytes[..4].copy_from_slice(&REVISION.to_le_bytes());
    bytes[LAUNCH_STATE] = launched.into();
    for field in Field::ALL {
        let at = field_address(HostPhysical(0), field).0 as usize;
        bytes[at..at + 8].copy_from_slice(&vmcs.value(field).to_le_bytes());
    }
    bytes
}

/// A VMCS and whether it was launched; `None` for another revision.
fn vmcs_of(bytes: &[u8]) -> Option<(Box<Vmcs>, bool)> {
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    if word(0)? as u32 != REVISION {
        return None;
    }
    let vmcs = Vmcs::read(|field| word(field_address(HostPhysical(0), field).0 as usize));
    Some((Box::new(vmcs), word(LAUNCH_STATE)? as u32 == 1))
}

/// The head and what follows it.
fn bytes_of(state: NestedState) -> (NestedStateHead, Vec<u8>) {
    let (format, flags, header, data) = match state {
        NestedState::Vmx(state) => {
            let mut header =
                VmxNestedStateHdr { vmxon_pa: NOWHERE, vmcs12_pa: NOWHERE, ..Default::default() };
            let (mut flags, mut data) = (0, Vec::new());
            if let Some(VmxState { vmxon, current, running, trap }) = state {
                header.vmxon_pa = vmxon;
                if let Some((at, vmcs, launched)) = current {
                    header.vmcs12_pa = at;
                    data = region_of(&vmcs, launched);
                }
                flags = mode(running) | if trap { MTF_PENDING } else { 0 };
            }
            (FORMAT_VMX, flags, header.to_bytes(), data)
        }
        NestedState::Svm(SvmState { gif, running }) => {
            let mut header = SvmNestedStateHdr::default();
            let (mut flags, mut data) = (if gif { GIF_SET } else { 0 }, Vec::new());
            if let Some((at, vmcb, pending)) = running {
                header.vmcb_pa = at;
                flags |= mode(Some(pending));
                data = vmcb.as_bytes().to_vec();
            }
            (FORMAT_SVM, flags, header.to_bytes(), data)
        }
    };
    let size = (NestedStateHead::SIZE + data.len()) as u32;
    let mut head = NestedStateHead { flags, format, size, ..Default::default() };
    head.hdr[..header.len()].copy_from_slice(&header);
    (head, data)
}

/// Flags of an L2 that runs; `Some(true)`: its entry is still to come.
const fn mode(running: Option<bool>) -> u16 {
    match running {
        None => 0,
        Some(false) => GUEST_MODE,
        Some(true) => GUEST_MODE | RUN_PENDING,
    }
}

const fn running(flags: u16) -> Option<bool> {
    if flags & GUEST_MODE == 0 { None } else { Some(flags & RUN_PENDING != 0) }
}

fn vmx_of(head: &NestedStateHead, data: &[u8]) -> Result<NestedState, Errno> {
    let header = VmxNestedStateHdr::from_bytes(&head.hdr[..VmxNestedStateHdr::SIZE]);
    let refused =
        head.flags & (EVMCS | GIF_SET) != 0 || header.smm_flags != 0 || header.flags & !TIMER_DEADLINE != 0;
    if head.format != FORMAT_VMX || refused {
        return Err(Errno::Einval);
    }
    if header.vmxon_pa == NOWHERE {
        let idle = header.vmcs12_pa == NOWHERE && head.flags == 0;
        return if idle { Ok(NestedState::Vmx(None)) } else { Err(Errno::Einval) };
    }
    let mut state = VmxState { vmxon: header.vmxon_pa, current: None, running: None, trap: false };
    if (head.size as usize) < NestedStateHead::SIZE + DATA {
        let empty = head.flags & GUEST_MODE == 0 && header.vmcs12_pa == NOWHERE;
        return if empty { Ok(NestedState::Vmx(Some(state))) } else { Err(Errno::Einval) };
    }
    if header.vmcs12_pa == NOWHERE {
        return Err(Errno::Einval);
    }
    let (vmcs, launched) = vmcs_of(data).ok_or(Errno::Einval)?;
    state.current = Some((header.vmcs12_pa, vmcs, launched));
    (state.running, state.trap) = (running(head.flags), head.flags & MTF_PENDING != 0);
    Ok(NestedState::Vmx(Some(state)))
}

fn svm_of(head: &NestedStateHead, data: &[u8]) -> Result<NestedState, Errno> {
    let header = SvmNestedStateHdr::from_bytes(&head.hdr[..SvmNestedStateHdr::SIZE]);
    if head.format != FORMAT_SVM || head.flags & (EVMCS | MTF_PENDING) != 0 {
        return Err(Errno::Einval);
    }
    let gif = head.flags & GIF_SET != 0;
    let Some(pending) = running(head.flags) else {
        return Ok(NestedState::Svm(SvmState { gif, running: None }));
    };
    let image = <[u8; DATA]>::try_from(data).map_err(|_| Errno::Einval)?;
    let vmcb = Box::new(Vmcb::from_bytes(image));
    if header.vmcb_pa % PAGE != 0 {
        return Err(Errno::Einval);
    }
    Ok(NestedState::Svm(SvmState { gif, running: Some((header.vmcb_pa, vmcb, pending)) }))
}

/// `KVM_GET_NESTED_STATE`.
///
/// # Errors
/// [`Errno::E2big`] if the client has too little room; it is told how much it needs.
pub(super) fn get(
    vm: &mut Vm,
    vcpu: usize,
    address: u64,
    client: &mut dyn ClientMemory,
) -> Result<(), Failure> {
    let NestedStateHead { size, .. } = super::copy_in(client, address)?;
    let (head, data) = bytes_of(vm.nested_state(vcpu)?);
    if size < head.size {
        let place = core::mem::offset_of!(NestedStateHead, size) as u64;
        super::copy_out(client, address + place, &head.size)?;
        return Err(Errno::E2big.into());
    }
    super::copy_out(client, address, &head)?;
    Ok(client.write(address + NestedStateHead::SIZE as u64, &data)?)
}

/// `KVM_SET_NESTED_STATE`.
///
/// # Errors
/// [`Errno::Einval`].
pub(super) fn set(
    vm: &mut Vm,
    vcpu: usize,
    address: u64,
    client: &mut dyn ClientMemory,
) -> Result<(), Failure> {
    let head: NestedStateHead = super::copy_in(client, address)?;
    let known = GUEST_MODE | RUN_PENDING | EVMCS | MTF_PENDING | GIF_SET;
    let small = (head.size as usize) < NestedStateHead::SIZE;
    if small || head.flags & !known != 0 || head.flags & (GUEST_MODE | RUN_PENDING) == RUN_PENDING {
        return Err(Errno::Einval.into());
    }
    let mut data = Vec::new();
    if head.size as usize >= NestedStateHead::SIZE + DATA {
        data.resize(DATA, 0);
        client.read(address + NestedStateHead::SIZE as u64, &mut data)?;
    }
    let state = match vm.host().vendor() {
        Vendor::Intel => vmx_of(&head, &data)?,
        Vendor::Amd => svm_of(&head, &data)?,
    };
    vm.set_nested_state(vcpu, state)
}
