//! [`Condition`]: what a row asks for beyond single control bits.

use super::access::{apic_access_is_virtualized, converts_to_virtualization_exception};
use super::view::{Controls, Processor, View};
use crate::bitmap::{Access, BitmapPage, Bitmaps, IoBitmaps, MsrBitmapLayout, VmcsLayout};
use crate::information::Interruptibility;
use crate::{PinControls, SecondaryControls};
use rootmode_arch::event::{Exception, TableInstruction, VmxInstruction};
use rootmode_arch::{Cr0, Cr4, Event, RFlags, vector};

/// What must hold, beyond the gates, for a row to apply. Section titles are of SDM Vol. 3C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// The vector's bit in the exception bitmap; for #PF the error-code mask and match choose whether the bit counts
    /// as it is or inverted ("Exceptions").
    ExceptionBitmap,
    /// The interrupt is not the posted-interrupt notification ("Posted-Interrupt Processing").
    NotPosted,
    /// RFLAGS.IF = 1, no blocking by STI or MOV SS.
    InterruptsOpen,
    /// No blocking by (virtual) NMI or MOV SS; STI is the model's choice.
    NmisOpen,
    /// The last VM entry made an MTF VM exit pending.
    PendingMtf,
    /// TPR threshold bits 3:0 are greater than VTPR bits 7:4 ("TPR Virtualization").
    TprBelowThreshold,
    /// An EPT violation that does not become a virtualization exception.
    EptViolation,
    /// An EPT misconfiguration.
    EptMisconfiguration,
    /// An access to the APIC-access page that is not virtualized.
    ApicAccess,
    /// The vector's bit in the EOI-exit bitmap ("EOI Virtualization").
    EoiExitBitmap,
    /// CR4.SMXE = 1 (else GETSEC is #UD, which has priority).
    SmxEnabled,
    /// This instruction of VMX operation, whatever the mode.
    Instruction(VmxInstruction),
    /// This instruction of VMX operation, in a mode that does not make it #UD: CR0.PE = 1, RFLAGS.VM = 0, and CS.L = 1
    /// if IA32_EFER.LMA = 1.
    InstructionInMode(VmxInstruction),
    /// VMREAD in such a mode whose field encoding has a bit in 63:15 set, or its bit in the VMREAD bitmap.
    VmreadBitmap,
    /// VMWRITE likewise.
    VmwriteBitmap,
    /// VMFUNC of a function below 64 that the VM-function controls do not enable, or EPTP switching with ECX above 511.
    VmFunction,
    /// The control register with this number.
    Register(u8),
    /// MOV to CR0 of a value that differs from the read shadow in a bit of the guest/host mask.
    Cr0Differs,
    /// MOV to CR4 likewise.
    Cr4Differs,
    /// MOV to CR3 of a value that is none of the CR3-target values.
    Cr3NotTarget,
    /// CR0.TS is set in the CR0 guest/host mask and in the read shadow.
    Clts,
    /// LMSW would write, in a bit of the low 4 of the CR0 guest/host mask, another value than the read shadow's;
    /// it never clears CR0.PE.
    Lmsw,
    /// A bit of the access in the I/O bitmaps, or wrap-around.
    IoBitmap,
    /// The bit for this access in the MSR bitmap, or an index outside both ranges.
    MsrBitmap(Access),
    /// CPL 0, and a loop of PAUSEs longer than PLE_Window.
    PauseLoop,
    /// LGDT, LIDT, SGDT or SIDT.
    GdtrOrIdtr,
    /// LLDT, LTR, SLDT or STR.
    LdtrOrTr,
    /// EDX:EAX, IA32_XSS and the XSS-exiting bitmap have a bit in common.
    XssBitmap,
    /// The leaf's bit in the ENCLS-exiting bitmap.
    EnclsBitmap,
    /// The leaf's bit in the ENCLV-exiting bitmap.
    EnclvBitmap,
    /// The leaf's bit in the PCONFIG-exiting bitmap.
    PconfigBitmap,
    /// ENQCMDS (true) or ENQCMD (false) whose PASID could not be translated.
    PasidFailed(bool),
    /// SEAMCALL in 64-bit mode.
    Seamcall,
    /// TDCALL in 64-bit mode.
    Tdcall,
}

fn mode_allows_vmx(processor: &Processor) -> bool {
    processor.cr0.contains(Cr0::PE)
        && !processor.rflags.contains(RFlags::VM)
        && (!processor.efer.contains(rootmode_arch::Efer::LMA) || processor.cs_long)
}

/// "Exceptions" of "Other Causes of VM Exits": the vector's bit decides; for #PF it is inverted unless the error code,
/// masked, equals the match.
fn exception_exits(controls: &Controls, exception: &Exception) -> bool {
    let bit = controls.exception_bitmap >> (exception.vector & 31) & 1 != 0;
    if exception.vector != vector::PF {
        return bit;
    }
    let code = exception.error_code.unwrap_or(0);
    (code & controls.page_fault_mask == controls.page_fault_match) == bit
}

fn shadowed_access_exits<B: Bitmaps + ?Sized>(view: &View<'_, B>, page: BitmapPage, encoding: u64) -> bool {
    VmcsLayout::PROCESSOR.exits(view.bitmaps, page, encoding)
}

impl Condition {
    /// Whether the condition holds for `event`. For an event of a class that it is not about, it does not.
    #[inline]
    pub fn holds<B: Bitmaps + ?Sized>(self, view: &View<'_, B>, event: &Event) -> bool {
        match self {
            Self::Always => true,
            Self::Instruction(which) => {
                matches!(event, Event::Vmx { instruction, .. } if *instruction == which)
            }
            Self::InstructionInMode(which) => {
                matches!(event, Event::Vmx { instruction, .. } if *instruction == which)
                    && mode_allows_vmx(view.processor)
            }
            _ => self.holds_beyond(view, event),
        }
    }

    /// The one instruction of VMX operation that the condition is about.
    pub(super) const fn instruction(self) -> Option<VmxInstruction> {
        match self {
            Self::Instruction(which) | Self::InstructionInMode(which) => Some(which),
            Self::VmreadBitmap => Some(VmxInstruction::Vmread),
            Self::VmwriteBitmap => Some(VmxInstruction::Vmwrite),
            Self::VmFunction => Some(VmxInstruction::Vmfunc),
            _ => None,
        }
    }

    /// The rest of [`Self::holds`], apart so that the rows before the one that applies cost little. The condition is
    /// looked at before the event: the other way round, the compiler computes every condition on every event.
    #[inline(never)]
    fn holds_beyond<B: Bitmaps + ?Sized>(self, view: &View<'_, B>, event: &Event) -> bool {
        self.holds_inlined(view, event)
    }

    /// [`Self::holds`] where the condition is known to the compiler, which then leaves nothing but that condition.
    #[inline(always)]
    pub(super) fn holds_inlined<B: Bitmaps + ?Sized>(self, view: &View<'_, B>, event: &Event) -> bool {
        let (controls, processor) = (view.controls, view.processor);
        match self {
            Self::Always => true,
            Self::Instruction(which) => {
                matches!(event, Event::Vmx { instruction, .. } if *instruction == which)
            }
            Self::InstructionInMode(which) => {
                matches!(event, Event::Vmx { instruction, .. } if *instruction == which)
                    && mode_allows_vmx(processor)
            }
            Self::InterruptsOpen => {
                processor.rflags.contains(RFlags::IF)
                    && !processor
                        .interruptibility
                        .intersects(Interruptibility::STI.with(Interruptibility::MOV_SS))
            }
            Self::NmisOpen => {
                let none = Interruptibility::default();
                let sti = if controls.traits.sti_blocks_nmi_window { Interruptibility::STI } else { none };
                let blocking = Interruptibility::NMI.with(Interruptibility::MOV_SS).with(sti);
                !processor.interruptibility.intersects(blocking)
            }
            Self::PendingMtf => processor.pending_mtf,
            Self::TprBelowThreshold => (controls.tpr_threshold & 15) as u8 > processor.vtpr >> 4,
            Self::SmxEnabled => processor.cr4.contains(Cr4::SMXE),
            Self::Clts => controls.cr0_mask & controls.cr0_shadow & Cr0::TS.0 != 0,
            Self::ExceptionBitmap => {
                matches!(event, Event::Exception(exception) if exception_exits(controls, exception))
            }
            Self::NotPosted => match event {
                Event::ExternalInterrupt { vector } => {
                    !controls.pin.contains(PinControls::POSTED_INTERRUPTS)
                        || *vector != controls.posted_interrupt_vector as u8
                }
                _ => false,
            },
            Self::EptViolation => match event {
                Event::SecondStage(access) => {
                    !access.misconfigured
                        && !converts_to_virtualization_exception(controls, processor, access)
                }
                _ => false,
            },
            Self::EptMisconfiguration => matches!(event, Event::SecondStage(access) if access.misconfigured),
            Self::ApicAccess => match event {
                Event::ApicAccess { access, size, .. } => {
                    !apic_access_is_virtualized(controls, processor, access, *size)
                }
                _ => false,
            },
            Self::EoiExitBitmap => match event {
                Event::VirtualizedEoi { vector } => {
                    controls.eoi_exit_bitmap[usize::from(vector >> 6)] >> (vector & 63) & 1 != 0
                }
                _ => false,
            },
            Self::VmreadBitmap => match event {
                Event::Vmx { instruction: VmxInstruction::Vmread, value, .. } => {
                    mode_allows_vmx(processor) && shadowed_access_exits(view, BitmapPage::Vmread, *value)
                }
                _ => false,
            },
            Self::VmwriteBitmap => match event {
                Event::Vmx { instruction: VmxInstruction::Vmwrite, value, .. } => {
                    mode_allows_vmx(processor) && shadowed_access_exits(view, BitmapPage::Vmwrite, *value)
                }
                _ => false,
            },
            Self::VmFunction => match event {
                Event::Vmx { instruction: VmxInstruction::Vmfunc, value, .. } => {
                    let (function, ecx) = (value & 0xffff_ffff, value >> 32);
                    function < 64
                        && (controls.vm_functions >> function & 1 == 0 || function == 0 && ecx > 511)
                }
                _ => false,
            },
            Self::Register(number) => {
                matches!(event, Event::CrRead { cr, .. } | Event::CrWrite { cr, .. } if *cr == number)
            }
            Self::Cr0Differs => match event {
                Event::CrWrite { cr: 0, value, .. } => (value ^ controls.cr0_shadow) & controls.cr0_mask != 0,
                _ => false,
            },
            Self::Cr4Differs => match event {
                Event::CrWrite { cr: 4, value, .. } => (value ^ controls.cr4_shadow) & controls.cr4_mask != 0,
                _ => false,
            },
            Self::Cr3NotTarget => match event {
                Event::CrWrite { cr: 3, value, .. } => {
                    let count = controls.cr3_target_count.min(4) as usize;
                    !controls.cr3_targets[..count].contains(value)
                }
                _ => false,
            },
            Self::Lmsw => match event {
                Event::Lmsw { source, .. } => {
                    let differs = (u64::from(*source) ^ controls.cr0_shadow) & controls.cr0_mask;
                    let sets_pe = differs & u64::from(*source) & Cr0::PE.0;
                    sets_pe | differs & 0xe != 0
                }
                _ => false,
            },
            Self::IoBitmap => {
                matches!(event, Event::PortIo(access) if IoBitmaps::access_exits(view.bitmaps, access.port, access.size))
            }
            Self::MsrBitmap(access) => match event {
                Event::Rdmsr { index } | Event::Wrmsr { index, .. } => {
                    MsrBitmapLayout::PROCESSOR.exits(view.bitmaps, *index, access)
                }
                _ => false,
            },
            Self::PauseLoop => match event {
                Event::Pause { cpl, tsc } => {
                    *cpl == 0 && processor.pause_loop.exits(controls.ple_gap, controls.ple_window, *tsc)
                }
                _ => false,
            },
            Self::GdtrOrIdtr => {
                use TableInstruction::{Lgdt, Lidt, Sgdt, Sidt};
                matches!(event, Event::DescriptorTable { instruction: Lgdt | Lidt | Sgdt | Sidt, .. })
            }
            Self::LdtrOrTr => {
                use TableInstruction::{Lldt, Ltr, Sldt, Str};
                matches!(event, Event::DescriptorTable { instruction: Lldt | Ltr | Sldt | Str, .. })
            }
            Self::XssBitmap => match event {
                Event::Xsaves { mask, .. } | Event::Xrstors { mask, .. } => {
                    controls.xss_bitmap.exits(*mask, processor.xss)
                }
                _ => false,
            },
            Self::EnclsBitmap => matches!(event, Event::Encls { leaf } if controls.encls_bitmap.test(*leaf)),
            Self::EnclvBitmap => matches!(event, Event::Enclv { leaf } if controls.enclv_bitmap.test(*leaf)),
            Self::PconfigBitmap => {
                matches!(event, Event::Pconfig { leaf } if controls.pconfig_bitmap.test(*leaf))
            }
            Self::PasidFailed(which) => {
                processor.pasid_translation_failed
                    && matches!(event, Event::Enqcmd { supervisor, .. } if *supervisor == which)
            }
            Self::Seamcall => processor.is_64_bit() && matches!(event, Event::Seam { tdcall: false }),
            Self::Tdcall => processor.is_64_bit() && matches!(event, Event::Seam { tdcall: true }),
        }
    }

    /// Whether the condition can hold for some event and processor state under `controls`.
    pub fn may_hold(self, controls: &Controls) -> bool {
        match self {
            Self::ExceptionBitmap => {
                // With #PF's bit clear, a code that does not match exits; only mask = match = 0 matches every code.
                controls.exception_bitmap != 0 || controls.page_fault_mask | controls.page_fault_match != 0
            }
            Self::TprBelowThreshold => controls.tpr_threshold & 15 != 0,
            Self::EoiExitBitmap => controls.eoi_exit_bitmap != [0; 4],
            Self::Cr0Differs => controls.cr0_mask != 0,
            Self::Cr4Differs => controls.cr4_mask != 0,
            Self::Clts => controls.cr0_mask & controls.cr0_shadow & Cr0::TS.0 != 0,
            Self::Lmsw => controls.cr0_mask & 15 != 0,
            Self::XssBitmap => controls.xss_bitmap.0 != 0,
            Self::EnclsBitmap => controls.encls_bitmap.0 != 0,
            Self::EnclvBitmap => controls.enclv_bitmap.0 != 0,
            Self::PconfigBitmap => controls.pconfig_bitmap.0 != 0,
            Self::EptViolation | Self::EptMisconfiguration => {
                controls.has_secondary(SecondaryControls::ENABLE_EPT)
            }
            _ => true,
        }
    }
}
