//! The ioctls as bytes: numbers and addresses in, an answer or an error number out, as a kernel sees them.
//!
//! Whoever serves clients owns descriptors and decides which object one stands for; structures are copied from and to the
//! client's memory. [`Instance`] is a VM with what only its descriptors know.

mod chips;
mod device;
mod nested;
mod page;
mod system;
mod vcpu;
mod vm;

use crate::kvm::Errno;
use crate::kvm::abi::Plain;
use crate::kvm::vm::{ClientMemory, Failure, HostFault, Vm};

pub use system::system;

impl From<HostFault> for Failure {
    fn from(fault: HostFault) -> Self {
        Errno::from(fault).into()
    }
}

/// What an ioctl answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its value.
    Value(i32),
    /// A descriptor of a new VM.
    NewVm,
    /// A descriptor of a new vCPU, by its number in [`Vm`].
    NewVcpu(usize),
    /// The rings of all vCPUs are to be reset: [`Instance::reset_ring`] of each, and the sum.
    ResetRings,
    /// A descriptor to read statistics by.
    NewStatistics,
    /// A descriptor of a new device, whose number goes to the client in [`Instance::show_device`].
    NewDevice {
        /// Where the client's `struct kvm_create_device` is.
        structure: u64,
    },
}

/// What came of an ioctl.
pub type Outcome = Result<Answer, Errno>;

/// Nothing to say.
const DONE: Answer = Answer::Value(0);

/// A VM behind a descriptor.
pub struct Instance {
    /// The machine.
    pub vm: Vm,
    /// Added to the time of the board for `KVM_GET_CLOCK`, in nanoseconds.
    clock: u64,
    mmu_pages: u64,
    has_vfio: bool,
}

impl Instance {
    /// A VM whose descriptor was just made.
    pub const fn new(vm: Vm) -> Self {
        Self { vm, clock: 0, mmu_pages: 0, has_vfio: false }
    }
}

fn copy_in<T: Plain>(client: &mut dyn ClientMemory, address: u64) -> Result<T, HostFault> {
    let mut bytes = vec![0; T::SIZE];
    client.read(address, &mut bytes)?;
    Ok(T::from_bytes(&bytes))
}

fn copy_out(client: &mut dyn ClientMemory, address: u64, value: &impl Plain) -> Result<(), HostFault> {
    client.write(address, &value.to_bytes())
}

/// Elements that follow a head in the client's memory.
fn copy_list<T: Plain>(
    client: &mut dyn ClientMemory,
    address: u64,
    count: usize,
) -> Result<Vec<T>, HostFault> {
    let mut bytes = vec![0; T::SIZE * count];
    client.read(address, &mut bytes)?;
    Ok(bytes.chunks_exact(T::SIZE).map(T::from_bytes).collect())
}

fn write_list<T: Plain>(
    client: &mut dyn ClientMemory,
    address: u64,
    elements: &[T],
) -> Result<(), HostFault> {
    let mut bytes = Vec::with_capacity(T::SIZE * elements.len());
    for element in elements {
        element.put(&mut bytes);
    }
    client.write(address, &bytes)
}
