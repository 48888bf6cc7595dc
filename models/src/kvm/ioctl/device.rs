//! Devices of a VM: `KVM_CREATE_DEVICE` and what can be asked of what it makes.
//!
//! There is one type, `KVM_DEV_TYPE_VFIO`, which tells KVM of assigned devices. None can be assigned here.

use super::{Answer, DONE, Instance, Outcome, copy_in, copy_out};
use crate::kvm::Errno;
use crate::kvm::abi::request as r;
use crate::kvm::abi::{CreateDevice, DeviceAttr, Object, absent};
use crate::kvm::vm::{ClientMemory, EntryPoint, Failure};

/// `KVM_DEV_TYPE_VFIO`.
const VFIO: u32 = 4;
/// `KVM_CREATE_DEVICE_TEST`.
const TEST: u32 = 1;
/// `KVM_DEV_VFIO_FILE`, its attributes `KVM_DEV_VFIO_FILE_ADD` and `KVM_DEV_VFIO_FILE_DEL`.
const FILE: u32 = 1;
const ADD: u64 = 1;
const DELETE: u64 = 2;

impl Instance {
    pub(super) fn create_device(
        &mut self,
        address: u64,
        client: &mut dyn ClientMemory,
    ) -> Result<Answer, Failure> {
        let wanted: CreateDevice = copy_in(client, address)?;
        if wanted.type_ != VFIO {
            return Err(Errno::Enodev.into());
        }
        if wanted.flags & TEST != 0 {
            return Ok(DONE);
        }
        if std::mem::replace(&mut self.has_vfio, true) {
            return Err(Errno::Ebusy.into());
        }
        Ok(Answer::NewDevice { structure: address })
    }

    /// Puts the new descriptor where the client looks for it.
    ///
    /// # Errors
    /// If the client's memory cannot be written.
    pub fn show_device(fd: u32, structure: u64, client: &mut dyn ClientMemory) -> Outcome {
        let wanted: CreateDevice = copy_in(client, structure)?;
        copy_out(client, structure, &CreateDevice { fd, ..wanted })?;
        Ok(DONE)
    }

    /// An ioctl of a device's descriptor, also of a 32-bit client.
    ///
    /// # Errors
    /// Linux's.
    pub fn device_ioctl(&mut self, number: u32, argument: u64, client: &mut dyn ClientMemory) -> Outcome {
        self.vm.alive(EntryPoint::Device)?;
        match number {
            r::HAS_DEVICE_ATTR | r::SET_DEVICE_ATTR => {
                let attr: DeviceAttr = copy_in(client, argument)?;
                if attr.group != FILE || !matches!(attr.attr, ADD | DELETE) {
                    return Err(Errno::Enxio);
                }
                if number == r::HAS_DEVICE_ATTR {
                    return Ok(DONE);
                }
                let _: u32 = copy_in(client, attr.addr)?;
                Err(Errno::Ebadf)
            }
            // The type has nothing to get.
            r::GET_DEVICE_ATTR => Err(Errno::Eperm),
            _ => Err(absent(Object::Device, number)),
        }
    }
}
