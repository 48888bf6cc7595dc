//! The chipset as a guest sees it: through ports, windows and the effects on the processors.

use super::*;
use rootmode_cpu::{Bus, DeliveryMode};
use rootmode_mmu::{Digest, PhysicalMemory};

fn pc() -> Pc {
    Pc::new(&Configuration { processors: 2, ..Configuration::default() })
}

fn write(pc: &mut Pc, port: u16, size: u8, value: u32) -> Effects {
    let mut effects = Effects::default();
    pc.write_port(port, size, value, 0, &mut effects);
    effects
}

fn read(pc: &mut Pc, port: u16, size: u8) -> u32 {
    pc.read_port(port, size, 0, &mut Effects::default())
}

fn ioapic(pc: &mut Pc, register: u8, value: u32) {
    let mut effects = Effects::default();
    pc.write_mmio(HostPhysical(0xfec0_0000), 4, u64::from(register), 0, &mut effects);
    pc.write_mmio(HostPhysical(0xfec0_0010), 4, u64::from(value), 0, &mut effects);
}

/// Runs the deadlines of `effects` and of those that follow, until `end`, as a board does; what they caused, with its tick.
fn run(pc: &mut Pc, effects: Effects, end: u64) -> Vec<(u64, Effects)> {
    let mut memory = PhysicalMemory::new();
    let mut queue: std::collections::BTreeSet<(u64, u32)> = effects.deadlines.into_iter().collect();
    let mut seen = Vec::new();
    while let Some((tick, source)) = queue.pop_first().filter(|(tick, _)| *tick <= end) {
        let mut effects = Effects::default();
        pc.deadline(source, tick, &mut memory, &mut effects);
        queue.extend(effects.deadlines.drain(..));
        if !effects.is_empty() {
            seen.push((tick, effects));
        }
    }
    seen
}

#[test]
fn absent_ports_answer_ones_and_diagnostic_codes_cause_nothing() {
    let mut pc = pc();
    assert_eq!(
        (read(&mut pc, 0x1234, 1), read(&mut pc, 0x1234, 2), read(&mut pc, 0x1234, 4)),
        (0xff, 0xffff, !0)
    );
    assert!(write(&mut pc, 0x80, 1, 0x55).is_empty());
    assert!(write(&mut pc, 0x1234, 4, 0x55).is_empty());
}

#[test]
fn the_guest_stops_the_machine_in_each_way() {
    let mut pc = pc();
    assert_eq!(write(&mut pc, 0xf4, 4, 0x1234_5678).stop, Some(Stop::Requested(0x1234_5678)));
    assert_eq!(write(&mut pc, 0xf4, 1, 0x21).stop, Some(Stop::Requested(0x21)));
    assert_eq!(write(&mut pc, 0x604, 2, 0x2000).stop, Some(Stop::PowerOff));
    assert_eq!(write(&mut pc, 0x64, 1, 0xfe).stop, Some(Stop::Reset));
    assert_eq!(write(&mut pc, 0x92, 1, 0x03).stop, Some(Stop::Reset));
    write(&mut pc, 0xcf9, 1, 0x02);
    assert_eq!(write(&mut pc, 0xcf9, 1, 0x06).stop, Some(Stop::Reset));
    let mut stop = None;
    for byte in b"ShutShutdown" {
        assert_eq!(stop, None);
        stop = write(&mut pc, 0x8900, 1, u32::from(*byte)).stop;
    }
    assert_eq!(stop, Some(Stop::PowerOff));
}

#[test]
fn with_firmware_a_soft_reset_is_an_init_of_every_processor() {
    let mut pc = Pc::new(&Configuration { processors: 2, firmware: 0x2_0000, ..Configuration::default() });
    write(&mut pc, 0xcf9, 1, 0);
    let effects = write(&mut pc, 0xcf9, 1, 4);
    assert_eq!(effects.messages, [(0, Message::Init), (1, Message::Init)]);
    assert_eq!(effects.stop, None);
    assert_eq!(write(&mut pc, 0xcf9, 1, 4), Effects::default(), "only a rising bit resets");
}

#[test]
fn output_ports_keep_what_the_guest_wrote() {
    let mut pc = pc();
    for byte in b"hello" {
        write(&mut pc, 0x3f8, 1, u32::from(*byte));
        write(&mut pc, 0xe9, 1, u32::from(byte.to_ascii_uppercase()));
    }
    assert_eq!(read(&mut pc, 0xe9, 1), 0xe9);
    assert_eq!((pc.take_serial_output(), pc.take_console_output()), (b"hello".to_vec(), b"HELLO".to_vec()));
    assert!(pc.take_serial_output().is_empty());
}

#[test]
fn the_test_devices_register_is_written_and_read_by_any_size() {
    let mut pc = pc();
    write(&mut pc, 0xe0, 4, 0x1234_5678);
    assert_eq!(
        (read(&mut pc, 0xe0, 4), read(&mut pc, 0xe1, 1), read(&mut pc, 0xe2, 2)),
        (0x1234_5678, 0x56, 0x1234)
    );
    write(&mut pc, 0xe0, 2, 0x9999);
    assert_eq!(read(&mut pc, 0xe0, 4), 0x1234_9999);
    assert!(write(&mut pc, 0xe4, 4, 0x1000).is_empty());
}

#[test]
fn a_test_line_reaches_both_interrupt_controllers() {
    let mut pc = pc();
    // Vector 0x50 from the master's input 5, 0x35 from input 5 of the I/O APIC to processor 1.
    write(&mut pc, 0x21, 1, 0xdf);
    ioapic(&mut pc, 0x1b, 0x0100_0000);
    ioapic(&mut pc, 0x1a, 0x35);
    let effects = write(&mut pc, 0x2005, 1, 1);
    assert_eq!(effects.intr, Some(true));
    let message = effects.interrupts[0];
    assert_eq!((message.vector, message.destination, message.mode), (0x35, 1, DeliveryMode::Fixed));
    let mut effects = Effects::default();
    assert_eq!(pc.acknowledge(0, &mut effects), 0x0d);
    assert_eq!(effects.intr, Some(false));
    assert!(write(&mut pc, 0x2005, 1, 0).is_empty());
}

#[test]
fn a_wide_write_to_the_test_lines_sets_one_line_a_byte() {
    let mut pc = pc();
    for line in [11, 12] {
        ioapic(&mut pc, 0x10 + 2 * line, 0x40 + u32::from(line));
    }
    let effects = write(&mut pc, 0x200b, 4, 0x0000_0101);
    let vectors: Vec<u8> = effects.interrupts.iter().map(|m| m.vector).collect();
    assert_eq!(vectors, [0x4b, 0x4c]);
}

#[test]
fn an_end_of_interrupt_broadcast_reaches_the_io_apic() {
    let mut pc = pc();
    ioapic(&mut pc, 0x2c, 0x8077);
    assert_eq!(write(&mut pc, 0x200e, 1, 1).interrupts.len(), 1);
    let mut effects = Effects::default();
    pc.end_of_interrupt(0x77, 0, &mut effects);
    assert_eq!(effects.interrupts.len(), 1, "the level is still high");
    write(&mut pc, 0x200e, 1, 0);
    pc.end_of_interrupt(0x77, 0, &mut effects);
    assert_eq!(effects.interrupts.len(), 1);
}

#[test]
fn the_timer_ticks_as_firmware_set_it_through_input_2_of_the_io_apic() {
    let mut pc = pc();
    let mut effects = Effects::default();
    pc.start(0, &mut effects);
    write(&mut pc, 0x21, 1, 0xff);
    ioapic(&mut pc, 0x14, 0x30);
    let second = 1_000_000_000;
    let interrupts = run(&mut pc, effects, second);
    let ticks: Vec<u64> =
        interrupts.iter().filter(|(_, e)| !e.interrupts.is_empty()).map(|(tick, _)| *tick).collect();
    assert_eq!(ticks.len(), 18, "18.2 a second");
    // 65 536 periods of 1.193182 MHz.
    assert!(ticks.windows(2).all(|w| (54_925_400..54_925_600).contains(&(w[1] - w[0]))));
    assert!(interrupts.iter().all(|(_, e)| e.interrupts.iter().all(|m| m.vector == 0x30)));
}

#[test]
fn legacy_replacement_silences_the_interval_timer_and_pulses_in_its_place() {
    let mut pc = pc();
    let mut effects = Effects::default();
    pc.start(0, &mut effects);
    ioapic(&mut pc, 0x14, 0x30);
    // Timer 0, periodic, 10 ms from 10 ms on; then on, in place of the interval timer.
    for (offset, value) in [(0x100, 0x4c), (0x108, 1_000_000), (0x010, 3)] {
        pc.write_mmio(HostPhysical(0xfed0_0000 + offset), 8, value, 0, &mut effects);
    }
    let interrupts = run(&mut pc, effects, 100_000_000);
    let ticks: Vec<u64> =
        interrupts.iter().filter(|(_, e)| !e.interrupts.is_empty()).map(|(tick, _)| *tick).collect();
    assert_eq!(ticks, (1..=10).map(|n| 10_000_000 * n).collect::<Vec<u64>>());
    let counter = pc.read_mmio(HostPhysical(0xfed0_00f0), 8, 100_000_000, &mut Effects::default());
    assert_eq!(counter, 10_000_000);
}

#[test]
fn a_level_of_an_event_timer_holds_its_line_until_its_status_is_cleared() {
    let mut pc = pc();
    // Input 20: level-triggered, high-active.
    ioapic(&mut pc, 0x10 + 2 * 20, 0x8040);
    let mut effects = Effects::default();
    for (offset, value) in [(0x100, 0x6 | 20 << 9), (0x108, 1000), (0x010, 1)] {
        pc.write_mmio(HostPhysical(0xfed0_0000 + offset), 8, value, 0, &mut effects);
    }
    let sent = |seen: Vec<(u64, Effects)>| seen.iter().map(|(_, e)| e.interrupts.len()).sum::<usize>();
    assert_eq!(sent(run(&mut pc, effects, 20_000)), 1);
    // The line is still high, so an end of interrupt sends it again; not behind its acknowledgement.
    let mut effects = Effects::default();
    pc.end_of_interrupt(0x40, 20_000, &mut effects);
    assert_eq!(effects.interrupts.len(), 1);
    let mut effects = Effects::default();
    pc.write_mmio(HostPhysical(0xfed0_0020), 8, 1, 20_000, &mut effects);
    pc.end_of_interrupt(0x40, 20_000, &mut effects);
    assert_eq!(effects.interrupts.len(), 0);
}

#[test]
fn a_short_timer_pulse_is_not_lost_when_the_deadline_is_late() {
    let mut pc = pc();
    ioapic(&mut pc, 0x14, 0x30);
    // Rate generator with a period of 20 input clocks, 16.8 us.
    let mut effects = Effects::default();
    for (port, value) in [(0x43, 0x34), (0x40, 20), (0x40, 0)] {
        pc.write_port(port, 1, value, 0, &mut effects);
    }
    let (tick, source) = effects.deadlines.into_iter().min().expect("the timer wants to be called");
    let mut late = Effects::default();
    pc.deadline(source, tick + 2000, &mut PhysicalMemory::new(), &mut late);
    assert_eq!(late.interrupts.len(), 1);
}

#[test]
fn a_masked_timer_asks_for_no_deadlines_and_unmasking_it_does() {
    let mut pc = pc();
    let mut effects = Effects::default();
    pc.start(0, &mut effects);
    assert_eq!(effects.deadlines.len(), 1);
    write(&mut pc, 0x21, 1, 0xff);
    assert_eq!(run(&mut pc, effects, u64::MAX), [], "the deadline that was outstanding is the last");
    assert_eq!(write(&mut pc, 0x21, 1, 0xfe).deadlines.len(), 1);
}

#[test]
fn reprogramming_a_timer_in_a_loop_does_not_fill_the_deadline_queue() {
    let mut pc = pc();
    let mut effects = Effects::default();
    pc.start(0, &mut effects);
    for tick in 0..10_000 {
        for (port, value) in [(0x43, 0x34), (0x40, 0), (0x40, tick as u32 & 0xff)] {
            pc.write_port(port, 1, value, tick, &mut effects);
        }
    }
    assert!(effects.deadlines.len() < 300, "{}", effects.deadlines.len());
}

#[test]
fn serial_input_interrupts_when_enabled() {
    let mut pc = pc();
    write(&mut pc, 0x21, 1, 0x00);
    write(&mut pc, 0x3fc, 1, 0x08);
    write(&mut pc, 0x3f9, 1, 0x01);
    let mut effects = Effects::default();
    pc.serial_input(b"k", 0, &mut effects);
    assert_eq!(effects.intr, Some(true));
    assert_eq!(pc.acknowledge(0, &mut Effects::default()), 0x0c);
    assert_eq!(read(&mut pc, 0x3f8, 1), u32::from(b'k'));
}

#[test]
fn the_configuration_device_tells_processors_memory_and_command_line() {
    let mut pc = Pc::new(&Configuration {
        processors: 3,
        memory: 5 << 30,
        command_line: "a b".to_string(),
        ..Configuration::default()
    });
    let mut item = |number: u16, count: usize| -> Vec<u8> {
        write(&mut pc, 0x510, 2, u32::from(number));
        (0..count).map(|_| read(&mut pc, 0x511, 1) as u8).collect()
    };
    assert_eq!(item(0, 4), b"QEMU");
    assert_eq!(item(0x05, 2), [3, 0]);
    assert_eq!(item(0x0f, 2), [3, 0]);
    assert_eq!(item(0x03, 8), (5_u64 << 30).to_le_bytes());
    assert_eq!((item(0x14, 4), item(0x15, 4)), (vec![4, 0, 0, 0], b"a b\0".to_vec()));
}

#[test]
fn a_transfer_of_the_configuration_device_happens_at_its_deadline() {
    let mut pc = pc();
    let mut memory = PhysicalMemory::new();
    memory.add_ram(HostPhysical(0), 0x1_0000).unwrap();
    // Select item 0, read 4 bytes to 0x2000.
    memory.write(HostPhysical(0x100), &[0, 0, 0, 0x0a, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0x20, 0]);
    write(&mut pc, 0x514, 4, 0);
    let effects = write(&mut pc, 0x518, 4, 0x100_u32.swap_bytes());
    let [(tick, source)] = effects.deadlines[..] else { panic!("one deadline") };
    pc.deadline(source, tick, &mut memory, &mut Effects::default());
    assert_eq!(memory.read_u32(HostPhysical(0x2000)), u32::from_le_bytes(*b"QEMU"));
    assert_eq!(memory.read_u32(HostPhysical(0x100)), 0);
    // A second call with the same source is stale.
    memory.write_u32(HostPhysical(0x100), 1);
    pc.deadline(source, tick, &mut memory, &mut Effects::default());
    assert_eq!(memory.read_u32(HostPhysical(0x100)), 1);
}

#[test]
fn configuration_space_and_the_reset_register_share_their_ports() {
    let mut pc = pc();
    write(&mut pc, 0xcf8, 4, 0x8000_0000);
    assert_eq!(read(&mut pc, 0xcfc, 4), 0x1237_8086);
    write(&mut pc, 0xcf9, 1, 0x02);
    assert_eq!((read(&mut pc, 0xcf9, 1), read(&mut pc, 0xcf8, 4)), (0x02, 0x8000_0000));
}

#[test]
fn the_pci_test_device_answers_where_its_base_registers_are() {
    let mut pc = pc();
    let mut effects = Effects::default();
    pc.write_mmio(HostPhysical(0xfebf_0000), 1, 2, 0, &mut effects);
    assert_eq!(pc.read_mmio(HostPhysical(0xfebf_0004), 4, 0, &mut effects), 0x802);
    write(&mut pc, 0xc000, 1, 0);
    assert_eq!(read(&mut pc, 0xc004, 4), 0x83);
    // Moved, the old ports are nobody's.
    write(&mut pc, 0xcf8, 4, 0x8000_1814);
    write(&mut pc, 0xcfc, 4, 0xe000);
    assert_eq!((read(&mut pc, 0xc004, 4), read(&mut pc, 0xe004, 4)), (!0, 0x83));
    assert_eq!(pc.read_mmio(HostPhysical(0xd000_0000), 4, 0, &mut effects), 0xffff_ffff);
}

#[test]
fn the_power_timer_is_at_port_608_and_moves_with_its_function() {
    let mut pc = pc();
    let second = 1_000_000_000;
    assert_eq!(pc.read_port(0x608, 4, second, &mut Effects::default()), 3_579_545);
    write(&mut pc, 0xcf8, 4, 0x8000_0b40);
    write(&mut pc, 0xcfc, 4, 0xb001);
    assert_eq!(pc.read_port(0xb008, 4, second, &mut Effects::default()), 3_579_545);
    assert_eq!(read(&mut pc, 0x608, 4), !0);
}

#[test]
fn test_memory_is_a_window_that_remembers() {
    let mut pc = pc();
    let mut effects = Effects::default();
    pc.write_mmio(HostPhysical(0xff00_1000), 8, 0x0102_0304_0506_0708, 0, &mut effects);
    assert_eq!(pc.read_mmio(HostPhysical(0xff00_1002), 2, 0, &mut effects), 0x0506);
}

#[test]
fn windows_and_memory_of_any_size_do_not_overlap() {
    for memory in [1 << 20, 512 << 20, 3 << 30, 4 << 30, 9 << 30] {
        let configuration = Configuration { memory, ..Configuration::default() };
        let mut ranges = Pc::ram(&configuration);
        assert_eq!(ranges.iter().map(|(_, bytes)| bytes).sum::<u64>(), memory);
        ranges.extend(Pc::WINDOWS);
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|w| w[0].0.0 + w[0].1 <= w[1].0.0));
    }
}

#[test]
fn firmware_handlers_end_their_interrupts() {
    let remains = Pc::firmware_remains();
    let vectors = &remains[0].1;
    let target = |vector: usize| {
        let word = |at: usize| u64::from(u16::from_le_bytes([vectors[at], vectors[at + 1]]));
        word(4 * vector + 2) * 16 + word(4 * vector)
    };
    let code = |vector: usize| &remains.iter().find(|(at, _)| at.0 == target(vector)).expect("a handler").1;
    assert_eq!(code(0x03), &[0xcf]);
    assert!(code(0x08).windows(2).any(|w| w == [0xe6, 0x20]));
    assert!(code(0x70).windows(4).any(|w| w == [0xe6, 0xa0, 0xe6, 0x20]));
    assert!(remains.iter().all(|(_, bytes)| !bytes.is_empty()));
}

#[test]
fn a_clone_continues_as_the_original() {
    let mut original = pc();
    let mut effects = Effects::default();
    original.start(0, &mut effects);
    write(&mut original, 0x70, 1, 0x0b);
    write(&mut original, 0x71, 1, 0x42);
    let mut copy = original.clone();
    let fingerprint = |pc: &Pc| {
        let mut digest = Digest::new();
        pc.digest(&mut digest);
        digest.finish()
    };
    assert_eq!(fingerprint(&original), fingerprint(&copy));
    let seen = run(&mut original, effects.clone(), 200_000_000);
    assert!(!seen.is_empty());
    assert_ne!(fingerprint(&original), fingerprint(&copy));
    assert_eq!(seen, run(&mut copy, effects, 200_000_000));
    assert_eq!(fingerprint(&original), fingerprint(&copy));
}
