//! [`Instruction`]: instructions as values. Decoded code and a Rust host run the same semantic functions on them.

use rootmode_arch::Linear;

/// An instruction with its operands already fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// VMXON.
    Vmxon {
        /// Physical address of the VMXON region.
        region: u64,
    },
    /// VMXOFF.
    Vmxoff,
    /// VMCLEAR.
    Vmclear {
        /// Physical address of the VMCS region.
        region: u64,
    },
    /// VMPTRLD.
    Vmptrld {
        /// Physical address of the VMCS region.
        region: u64,
    },
    /// VMPTRST; yields the current-VMCS pointer.
    Vmptrst,
    /// VMREAD; yields the field.
    Vmread {
        /// Field encoding.
        encoding: u64,
    },
    /// VMWRITE.
    Vmwrite {
        /// Field encoding.
        encoding: u64,
        /// The value.
        value: u64,
    },
    /// VMLAUNCH.
    Vmlaunch,
    /// VMRESUME.
    Vmresume,
    /// VMCALL.
    Vmcall,
    /// VMFUNC.
    Vmfunc {
        /// EAX.
        function: u32,
        /// ECX.
        index: u32,
    },
    /// INVEPT.
    Invept {
        /// Type.
        kind: u64,
        /// Low and high half of the descriptor.
        descriptor: [u64; 2],
    },
    /// INVVPID.
    Invvpid {
        /// Type.
        kind: u64,
        /// Low and high half of the descriptor.
        descriptor: [u64; 2],
    },
    /// VMRUN.
    Vmrun {
        /// Physical address of the VMCB.
        vmcb: u64,
    },
    /// VMLOAD.
    Vmload {
        /// Physical address of the VMCB.
        vmcb: u64,
    },
    /// VMSAVE.
    Vmsave {
        /// Physical address of the VMCB.
        vmcb: u64,
    },
    /// VMMCALL.
    Vmmcall,
    /// STGI.
    Stgi,
    /// CLGI.
    Clgi,
    /// INVLPGA.
    Invlpga {
        /// RAX.
        linear: Linear,
        /// ECX.
        asid: u32,
    },
    /// SKINIT.
    Skinit {
        /// EAX.
        block: u32,
    },
    /// RDMSR; yields the value.
    Rdmsr {
        /// ECX.
        index: u32,
    },
    /// WRMSR.
    Wrmsr {
        /// ECX.
        index: u32,
        /// EDX:EAX.
        value: u64,
    },
    /// MOV from CR0, CR2, CR3, CR4 or CR8; yields the value.
    ReadCr {
        /// Which.
        cr: u8,
    },
    /// MOV to CR0, CR2, CR3, CR4 or CR8.
    WriteCr {
        /// Which.
        cr: u8,
        /// The value.
        value: u64,
    },
    /// MOV from a debug register; yields the value.
    ReadDr {
        /// Which, 0 to 7.
        dr: u8,
    },
    /// MOV to a debug register.
    WriteDr {
        /// Which, 0 to 7.
        dr: u8,
        /// The value.
        value: u64,
    },
    /// INVLPG.
    Invlpg {
        /// The address.
        linear: Linear,
    },
    /// INVPCID.
    Invpcid {
        /// Type.
        kind: u64,
        /// Low and high half of the descriptor.
        descriptor: [u64; 2],
    },
    /// XSETBV.
    Xsetbv {
        /// ECX.
        index: u32,
        /// EDX:EAX.
        value: u64,
    },
    /// CPUID.
    Cpuid {
        /// EAX.
        leaf: u32,
        /// ECX.
        subleaf: u32,
    },
}

impl Instruction {
    /// Whether the virtualization extension executes it, not the core.
    pub const fn is_extension(&self) -> bool {
        use Instruction as I;
        matches!(
            self,
            I::Vmxon { .. }
                | I::Vmxoff
                | I::Vmclear { .. }
                | I::Vmptrld { .. }
                | I::Vmptrst
                | I::Vmread { .. }
                | I::Vmwrite { .. }
                | I::Vmlaunch
                | I::Vmresume
                | I::Vmcall
                | I::Vmfunc { .. }
                | I::Invept { .. }
                | I::Invvpid { .. }
                | I::Vmrun { .. }
                | I::Vmload { .. }
                | I::Vmsave { .. }
                | I::Vmmcall
                | I::Stgi
                | I::Clgi
                | I::Invlpga { .. }
                | I::Skinit { .. }
        )
    }
}

/// What an [`Instruction`] left behind, besides processor state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Complete, no result. VMX instructions have set VMsucceed or VMfail in RFLAGS.
    Done,
    /// Complete, with this result.
    Value(u64),
    /// CPUID's EAX, EBX, ECX, EDX.
    Registers([u32; 4]),
    /// A guest was entered, or the entry failed with a VM exit: RIP is already where execution goes on.
    /// Costs no tick; the instruction's successor was not reached.
    Entered,
}
