//! A whole client of KVM: a guest in real mode prints through a port and halts.
//!
//! `cargo run -p kvm-ioctls --example tiny_vmm`

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod vmm {
    use kvm_bindings::kvm_userspace_memory_region;
    use kvm_ioctls::{Error, Kvm, VcpuExit};
    use std::io::Write;

    const LOADED_AT: u64 = 0x1000;
    /// mov si, 0x100e; next: lodsb; test al, al; jz end; out 0x10, al; jmp next; end: hlt; the text.
    const GUEST: &[u8] = b"\xbe\x0d\x10\xac\x84\xc0\x74\x04\xe6\x10\xeb\xf7\xf4hello from a guest\n\0";

    /// A page that stays where it is.
    #[repr(align(4096))]
    struct Memory([u8; 0x4000]);

    pub(super) fn main() -> Result<(), Error> {
        let mut memory = Box::new(Memory([0; 0x4000]));
        memory.0[..GUEST.len()].copy_from_slice(GUEST);
        let vm = Kvm::new()?.create_vm()?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: LOADED_AT,
            memory_size: memory.0.len() as u64,
            userspace_addr: memory.0.as_mut_ptr().expose_provenance() as u64,
        };
        #[allow(unsafe_code, reason = "kvm-ioctls says so")]
        // SAFETY: the memory outlives the VM, and nobody looks at it while the guest runs.
        unsafe {
            vm.set_user_memory_region(region)?;
        }
        let mut vcpu = vm.create_vcpu(0)?;
        let mut sregs = vcpu.get_sregs()?;
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        vcpu.set_sregs(&sregs)?;
        let mut regs = vcpu.get_regs()?;
        (regs.rip, regs.rflags) = (LOADED_AT, 2);
        vcpu.set_regs(&regs)?;
        loop {
            match vcpu.run()? {
                VcpuExit::IoOut(0x10, data) => {
                    // A closed pipe is no reason to stop the guest.
                    let _ = std::io::stdout().write_all(data);
                }
                VcpuExit::Hlt => return Ok(()),
                other => {
                    eprintln!("unexpected exit: {other:?}");
                    return Err(Error::new(5));
                }
            }
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() -> Result<(), kvm_ioctls::Error> {
    vmm::main()
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() {}
