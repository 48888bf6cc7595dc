//! Ioctls of a vCPU, `KVM_RUN` aside.

use rootmode_cpu::time;

use super::nested;
use super::system::MOST_MSRS;
use super::{Answer, DONE, Instance, Outcome, copy_in, copy_list, copy_out, write_list};
use crate::kvm::Errno;
use crate::kvm::abi::request as r;
use crate::kvm::abi::{
    Cpuid2Head, CpuidEntry2, Interrupt, MsrEntry, MsrsHead, Object, Plain, Translation, Xsave, absent,
};
use crate::kvm::vm::{ClientMemory, EntryPoint, Failure, MOST_ENTRIES};

impl Instance {
    /// An ioctl of vCPU number `vcpu`.
    ///
    /// # Errors
    /// Linux's.
    pub fn vcpu_ioctl(
        &mut self,
        vcpu: usize,
        number: u32,
        argument: u64,
        client: &mut dyn ClientMemory,
    ) -> Outcome {
        self.vm.alive(EntryPoint::Native)?;
        self.vcpu_call(vcpu, number, argument, client).map_err(Failure::errno)
    }

    /// The same by a 32-bit client.
    ///
    /// # Errors
    /// Linux's.
    pub fn vcpu_compat_ioctl(
        &mut self,
        vcpu: usize,
        number: u32,
        argument: u64,
        client: &mut dyn ClientMemory,
    ) -> Outcome {
        self.vm.alive(EntryPoint::Compat)?;
        self.vcpu_call(vcpu, number, argument, client).map_err(Failure::errno)
    }

    fn vcpu_call(
        &mut self,
        vcpu: usize,
        number: u32,
        argument: u64,
        client: &mut dyn ClientMemory,
    ) -> Result<Answer, Failure> {
        let vm = &mut self.vm;
        match number {
            r::GET_REGS => copy_out(client, argument, &vm.regs(vcpu)?)?,
            r::SET_REGS => vm.set_regs(vcpu, &copy_in(client, argument)?)?,
            r::GET_SREGS => copy_out(client, argument, &vm.sregs(vcpu)?)?,
            r::SET_SREGS => vm.set_sregs(vcpu, &copy_in(client, argument)?)?,
            r::GET_SREGS2 => copy_out(client, argument, &vm.sregs2(vcpu)?)?,
            r::SET_SREGS2 => vm.set_sregs2(vcpu, &copy_in(client, argument)?)?,
            r::GET_FPU => copy_out(client, argument, &vm.fpu(vcpu)?)?,
            r::SET_FPU => vm.set_fpu(vcpu, &copy_in(client, argument)?)?,
            r::GET_XSAVE | r::GET_XSAVE2 => {
                let bytes = vm.xsave(vcpu)?;
                client.write(argument, &bytes)?;
            }
            r::SET_XSAVE => {
                let image: Xsave = copy_in(client, argument)?;
                vm.set_xsave(vcpu, &image.to_bytes())?;
            }
            r::GET_XCRS => copy_out(client, argument, &vm.xcrs(vcpu)?)?,
            r::SET_XCRS => vm.set_xcrs(vcpu, &copy_in(client, argument)?)?,
            r::GET_DEBUGREGS => copy_out(client, argument, &vm.debug_regs(vcpu)?)?,
            r::SET_DEBUGREGS => vm.set_debug_regs(vcpu, &copy_in(client, argument)?)?,
            r::GET_VCPU_EVENTS => copy_out(client, argument, &vm.vcpu_events(vcpu)?)?,
            r::SET_VCPU_EVENTS => vm.set_vcpu_events(vcpu, &copy_in(client, argument)?)?,
            r::GET_MP_STATE => copy_out(client, argument, &vm.mp_state(vcpu)?)?,
            r::SET_MP_STATE => vm.set_mp_state(vcpu, &copy_in(client, argument)?)?,
            r::GET_LAPIC => copy_out(client, argument, &vm.lapic(vcpu)?)?,
            r::SET_LAPIC => vm.set_lapic(vcpu, &copy_in(client, argument)?)?,
            r::INTERRUPT => {
                let Interrupt { irq } = copy_in(client, argument)?;
                vm.interrupt(vcpu, irq)?;
            }
            r::SET_GUEST_DEBUG => vm.set_guest_debug(vcpu, &copy_in(client, argument)?)?,
            r::GET_NESTED_STATE => nested::get(vm, vcpu, argument, client)?,
            r::SET_NESTED_STATE => nested::set(vm, vcpu, argument, client)?,
            r::GET_STATS_FD => return Ok(Answer::NewStatistics),
            r::NMI => vm.nmi(vcpu)?,
            r::GET_TSC_KHZ => return Ok(Answer::Value((time::TSC.hertz() / 1000) as i32)),
            // Without scaling there is one frequency.
            r::SET_TSC_KHZ => {
                if argument != time::TSC.hertz() / 1000 {
                    return Err(Errno::Einval.into());
                }
            }
            r::TRANSLATE => {
                let asked: Translation = copy_in(client, argument)?;
                copy_out(client, argument, &vm.translate(vcpu, asked.linear_address)?)?;
            }
            r::GET_CPUID2 => return self.get_cpuid(vcpu, argument, client),
            r::SET_CPUID2 => {
                let head: Cpuid2Head = copy_in(client, argument)?;
                if head.nent as usize > MOST_ENTRIES {
                    return Err(Errno::E2big.into());
                }
                let at = argument + Cpuid2Head::SIZE as u64;
                let entries: Vec<CpuidEntry2> = copy_list(client, at, head.nent as usize)?;
                vm.set_cpuid2(vcpu, &entries)?;
            }
            r::GET_MSRS | r::SET_MSRS => return self.msrs(vcpu, number, argument, client),
            r::ENABLE_CAP => return Err(Errno::Einval.into()),
            _ => return Err(absent(Object::Vcpu, number).into()),
        }
        Ok(DONE)
    }

    fn get_cpuid(
        &mut self,
        vcpu: usize,
        address: u64,
        client: &mut dyn ClientMemory,
    ) -> Result<Answer, Failure> {
        let head: Cpuid2Head = copy_in(client, address)?;
        let entries = self.vm.cpuid2(vcpu)?;
        copy_out(client, address, &Cpuid2Head { nent: entries.len() as u32, padding: 0 })?;
        if (head.nent as usize) < entries.len() {
            return Err(Errno::E2big.into());
        }
        write_list(client, address + Cpuid2Head::SIZE as u64, &entries)?;
        Ok(DONE)
    }

    /// Answers how many were read or written.
    fn msrs(
        &mut self,
        vcpu: usize,
        number: u32,
        address: u64,
        client: &mut dyn ClientMemory,
    ) -> Result<Answer, Failure> {
        let head: MsrsHead = copy_in(client, address)?;
        if head.nmsrs >= MOST_MSRS {
            return Err(Errno::E2big.into());
        }
        let at = address + MsrsHead::SIZE as u64;
        let mut entries: Vec<MsrEntry> = copy_list(client, at, head.nmsrs as usize)?;
        let count = if number == r::GET_MSRS {
            let count = self.vm.get_msrs(vcpu, &mut entries)?;
            write_list(client, at, &entries)?;
            count
        } else {
            self.vm.set_msrs(vcpu, &entries)?
        };
        Ok(Answer::Value(count as i32))
    }
}
