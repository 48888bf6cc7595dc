//! Structures about interrupt controllers, timers, routing, and descriptors that carry events.

use super::plain::structures;

/// `KVM_PIT_SPEAKER_DUMMY`, a flag of [`PitConfig`]: port 0x61 is the kernel's.
pub const PIT_SPEAKER_DUMMY: u32 = 1;

structures! {
    LapicState = "kvm_lapic_state" { regs: [u8; 1024], }
    PicState = "kvm_pic_state" {
        last_irr: u8, irr: u8, imr: u8, isr: u8, priority_add: u8, irq_base: u8, read_reg_select: u8, poll: u8,
        special_mask: u8, init_state: u8, auto_eoi: u8, rotate_on_auto_eoi: u8, special_fully_nested_mode: u8,
        init4: u8, elcr: u8, elcr_mask: u8,
    }
    IoapicState = "kvm_ioapic_state" {
        base_address: u64, ioregsel: u32, id: u32, irr: u32, pad: u32, redirtbl: [u64; 24],
    }
    Irqchip = "kvm_irqchip" { chip_id: u32, pad: u32, chip: [u8; 512], }
    PitChannelState = "kvm_pit_channel_state" {
        count: u32, latched_count: u16, count_latched: u8, status_latched: u8, status: u8, read_state: u8,
        write_state: u8, write_latch: u8, rw_mode: u8, mode: u8, bcd: u8, gate: u8, count_load_time: i64,
    }
    PitState = "kvm_pit_state" { channels: [PitChannelState; 3], }
    PitState2 = "kvm_pit_state2" { channels: [PitChannelState; 3], flags: u32, reserved: [u32; 9], }
    PitConfig = "kvm_pit_config" { flags: u32, pad: [u32; 15], }
    ReinjectControl = "kvm_reinject_control" { pit_reinject: u8, reserved: [u8; 31], }
    IrqLevel = "kvm_irq_level" { irq: u32, level: u32, }
    Msi = "kvm_msi" {
        address_lo: u32, address_hi: u32, data: u32, flags: u32, devid: u32, pad: [u8; 12],
    }
    /// The head; entries follow.
    IrqRoutingHead = "kvm_irq_routing" { nr: u32, flags: u32, }
    IrqRoutingEntry = "kvm_irq_routing_entry" { gsi: u32, type_: u32, flags: u32, pad: u32, u: [u32; 8], }
    Irqfd = "kvm_irqfd" { fd: u32, gsi: u32, flags: u32, resamplefd: u32, pad: [u8; 16], }
    Ioeventfd = "kvm_ioeventfd" {
        datamatch: u64, addr: u64, len: u32, fd: i32, flags: u32, pad: [u8; 36],
    }
}
