//! Ioctls of `/dev/kvm`.

use rootmode_cpu::Model;

use super::{Answer, DONE, Outcome, copy_in, copy_list, copy_out, write_list};
use crate::kvm::Errno;
use crate::kvm::abi::request as r;
use crate::kvm::abi::{
    Cpuid2Head, CpuidEntry2, MsrEntry, MsrListHead, MsrsHead, Object, Plain, VCPU_MMAP_SIZE, absent,
    capability,
};
use crate::kvm::vm::{
    ClientMemory, MOST_ENTRIES, feature_msr, feature_msrs, guest_model, saved_msrs, supported,
};

/// `KVM_API_VERSION`.
const API_VERSION: i32 = 12;

/// An ioctl of `/dev/kvm` on a host with processors of this model.
///
/// # Errors
/// Linux's.
pub fn system(host: &Model, number: u32, argument: u64, client: &mut dyn ClientMemory) -> Outcome {
    match number {
        r::GET_API_VERSION if argument == 0 => Ok(Answer::Value(API_VERSION)),
        r::GET_VCPU_MMAP_SIZE if argument == 0 => Ok(Answer::Value(VCPU_MMAP_SIZE as i32)),
        // Type 0 is all there is.
        r::CREATE_VM if argument == 0 => Ok(Answer::NewVm),
        r::CHECK_EXTENSION => {
            let answer = |number| capability(number, host.vendor());
            Ok(Answer::Value(u32::try_from(argument).map_or(0, answer)))
        }
        r::GET_SUPPORTED_CPUID => cpuid(&supported(&guest_model(host)), argument, client),
        r::GET_EMULATED_CPUID => cpuid(&emulated(), argument, client),
        r::GET_MSR_INDEX_LIST => msr_list(&saved_msrs(host.vendor()), argument, client),
        r::GET_MSR_FEATURE_INDEX_LIST => msr_list(&feature_msrs(host.vendor()), argument, client),
        r::GET_MSRS => read_features(host, argument, client),
        _ => Err(absent(Object::System, number)),
    }
}

/// What the emulator completes although the processor may not have it: nothing beyond the highest leaf's number.
fn emulated() -> Vec<CpuidEntry2> {
    vec![CpuidEntry2 { eax: 7, ..CpuidEntry2::default() }]
}

fn cpuid(entries: &[CpuidEntry2], address: u64, client: &mut dyn ClientMemory) -> Outcome {
    let head: Cpuid2Head = copy_in(client, address)?;
    if (head.nent as usize) < entries.len() {
        return Err(Errno::E2big);
    }
    if head.nent as usize > 10 * MOST_ENTRIES {
        return Err(Errno::Einval);
    }
    write_list(client, address + Cpuid2Head::SIZE as u64, entries)?;
    copy_out(client, address, &Cpuid2Head { nent: entries.len() as u32, padding: 0 })?;
    Ok(DONE)
}

/// The number of indices goes back even if there is too little room for them.
fn msr_list(indices: &[u32], address: u64, client: &mut dyn ClientMemory) -> Outcome {
    let head: MsrListHead = copy_in(client, address)?;
    copy_out(client, address, &MsrListHead { nmsrs: indices.len() as u32 })?;
    if (head.nmsrs as usize) < indices.len() {
        return Err(Errno::E2big);
    }
    write_list(client, address + MsrListHead::SIZE as u64, indices)?;
    Ok(DONE)
}

/// How many MSRs one call takes at most.
pub(super) const MOST_MSRS: u32 = 256;

fn read_features(host: &Model, address: u64, client: &mut dyn ClientMemory) -> Outcome {
    let head: MsrsHead = copy_in(client, address)?;
    if head.nmsrs >= MOST_MSRS {
        return Err(Errno::E2big);
    }
    let at = address + MsrsHead::SIZE as u64;
    let mut entries: Vec<MsrEntry> = copy_list(client, at, head.nmsrs as usize)?;
    let guest = guest_model(host);
    let read = |entry: &mut MsrEntry| feature_msr(&guest, entry.index).map(|value| entry.data = value);
    let count = entries.iter_mut().map(read).take_while(Option::is_some).count();
    write_list(client, at, &entries)?;
    Ok(Answer::Value(count as i32))
}
