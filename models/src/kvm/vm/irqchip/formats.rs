//! Between the chips and the interface's structures of them.

use rootmode_cpu::apic::Registers;

use crate::devices::{ioapic, pic, pit};
use crate::kvm::abi::{IoapicState, LapicState, PicState, PitChannelState};

/// A register in every 16 bytes.
impl From<&Registers> for LapicState {
    fn from(registers: &Registers) -> Self {
        let mut state = Self::default();
        for (place, register) in state.regs.chunks_exact_mut(16).zip(registers) {
            place[..4].copy_from_slice(&register.to_le_bytes());
        }
        state
    }
}

/// The registers of `struct kvm_lapic_state`.
pub(super) fn registers(state: &LapicState) -> Registers {
    let mut registers = [0; 64];
    for (register, place) in registers.iter_mut().zip(state.regs.chunks_exact(16)) {
        *register = u32::from_le_bytes([place[0], place[1], place[2], place[3]]);
    }
    registers
}

impl From<&pic::Saved> for PicState {
    fn from(saved: &pic::Saved) -> Self {
        Self {
            last_irr: saved.last_irr,
            irr: saved.irr,
            imr: saved.imr,
            isr: saved.isr,
            priority_add: saved.priority_add,
            irq_base: saved.irq_base,
            read_reg_select: saved.read_reg_select.into(),
            poll: saved.poll.into(),
            special_mask: saved.special_mask.into(),
            init_state: saved.init_state,
            auto_eoi: saved.auto_eoi.into(),
            rotate_on_auto_eoi: saved.rotate_on_auto_eoi.into(),
            special_fully_nested_mode: saved.special_fully_nested_mode.into(),
            init4: saved.init4.into(),
            elcr: saved.elcr,
            elcr_mask: saved.elcr_mask,
        }
    }
}

/// What `struct kvm_pic_state` says.
pub(super) const fn saved_pic(state: &PicState) -> pic::Saved {
    pic::Saved {
        last_irr: state.last_irr,
        irr: state.irr,
        imr: state.imr,
        isr: state.isr,
        priority_add: state.priority_add,
        irq_base: state.irq_base,
        read_reg_select: state.read_reg_select != 0,
        poll: state.poll != 0,
        special_mask: state.special_mask != 0,
        init_state: state.init_state,
        auto_eoi: state.auto_eoi != 0,
        rotate_on_auto_eoi: state.rotate_on_auto_eoi != 0,
        special_fully_nested_mode: state.special_fully_nested_mode != 0,
        init4: state.init4 != 0,
        elcr: state.elcr,
        elcr_mask: state.elcr_mask,
    }
}

impl From<&ioapic::Saved> for IoapicState {
    fn from(saved: &ioapic::Saved) -> Self {
        Self {
            base_address: ioapic::BASE,
            ioregsel: saved.select.into(),
            id: saved.id >> 24,
            irr: saved.lines,
            pad: 0,
            redirtbl: saved.entries,
        }
    }
}

/// What `struct kvm_ioapic_state` says; the base is fixed.
pub(super) const fn saved_ioapic(state: &IoapicState) -> ioapic::Saved {
    ioapic::Saved {
        id: (state.id & 0xf) << 24,
        select: state.ioregsel as u8,
        entries: state.redirtbl,
        lines: state.irr & 0xff_ffff,
    }
}

impl From<&pit::Saved> for PitChannelState {
    fn from(saved: &pit::Saved) -> Self {
        Self {
            count: saved.count,
            latched_count: saved.latched_count,
            count_latched: saved.count_latched,
            status_latched: saved.status_latched.into(),
            status: saved.status,
            read_state: saved.read_state,
            write_state: saved.write_state,
            write_latch: saved.write_latch,
            rw_mode: saved.rw_mode,
            mode: saved.mode,
            bcd: saved.bcd.into(),
            gate: saved.gate.into(),
            count_load_time: pit::Pit::tick_of(saved.loaded) as i64,
        }
    }
}

/// What `struct kvm_pit_channel_state` says; its count is loaded anew.
pub(super) const fn saved_channel(state: &PitChannelState) -> pit::Saved {
    pit::Saved {
        count: state.count,
        latched_count: state.latched_count,
        count_latched: state.count_latched,
        status_latched: state.status_latched != 0,
        status: state.status,
        read_state: state.read_state,
        write_state: state.write_state,
        write_latch: state.write_latch,
        rw_mode: state.rw_mode,
        mode: state.mode,
        bcd: state.bcd != 0,
        gate: state.gate != 0,
        loaded: 0,
    }
}
