//! Rules of the data sheet, each as a short session with the ports.

use super::*;

/// Vectors 0x20 to 0x2f, nothing masked.
fn initialized(icw4: u8) -> PicPair {
    let mut pics = PicPair::new();
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 0x04),
        (0x21, icw4),
        (0xa0, 0x11),
        (0xa1, 0x28),
        (0xa1, 0x02),
        (0xa1, icw4),
    ] {
        pics.write(port, value);
    }
    pics
}

fn in_service(pics: &mut PicPair, port: u16) -> u8 {
    pics.write(port, 0x0b);
    pics.read(port)
}

#[test]
fn nothing_is_delivered_before_the_last_initialization_word() {
    let mut pics = PicPair::new();
    pics.set_line(3, true);
    assert!(!pics.output());
    pics.write(0x20, 0x11);
    pics.set_line(4, true);
    pics.write(0x21, 0x20);
    pics.write(0x21, 0x04);
    assert!(!pics.output());
    pics.write(0x21, 0x01);
    assert!(pics.output());
    // Line 3 rose before ICW1, which resets the edge-sense circuit.
    assert_eq!(pics.acknowledge(), 0x24);
    assert!(!pics.output());
}

#[test]
fn a_single_controller_without_icw4_is_ready_after_icw2() {
    let mut pics = PicPair::new();
    pics.write(0x20, 0x12);
    pics.write(0x21, 0x60);
    pics.set_line(5, true);
    assert_eq!(pics.acknowledge(), 0x65);
    // The next write at A0 = 1 is the mask.
    pics.write(0x21, 0xa5);
    assert_eq!(pics.read(0x21), 0xa5);
}

#[test]
fn lower_inputs_have_priority_and_in_service_blocks_equals_and_lower() {
    let mut pics = initialized(1);
    pics.set_line(5, true);
    pics.set_line(3, true);
    assert_eq!(pics.acknowledge(), 0x23);
    assert_eq!(in_service(&mut pics, 0x20), 0x08);
    assert!(!pics.output(), "5 waits for the end of 3");
    pics.set_line(1, true);
    assert_eq!(pics.acknowledge(), 0x21);
    assert_eq!(in_service(&mut pics, 0x20), 0x0a);
    pics.write(0x20, 0x20);
    assert_eq!(in_service(&mut pics, 0x20), 0x08, "a non-specific EOI ends the highest");
    assert!(!pics.output());
    pics.write(0x20, 0x63);
    assert_eq!(pics.acknowledge(), 0x25);
}

#[test]
fn the_slave_sits_between_inputs_1_and_3_of_the_master() {
    let mut pics = initialized(1);
    pics.set_line(3, true);
    pics.set_line(8, true);
    assert_eq!(pics.acknowledge(), 0x28);
    assert_eq!((in_service(&mut pics, 0x20), in_service(&mut pics, 0xa0)), (0x04, 0x01));
    assert!(!pics.output());
    pics.set_line(12, true);
    assert!(!pics.output());
    pics.write(0xa0, 0x20);
    assert!(!pics.output(), "the master's bit 2 is still in service");
    pics.write(0x20, 0x20);
    assert_eq!(pics.acknowledge(), 0x2c);
    pics.write(0xa0, 0x20);
    pics.write(0x20, 0x20);
    assert_eq!(pics.acknowledge(), 0x23);
}

#[test]
fn a_slave_request_of_higher_priority_interrupts_its_own_slave_only_in_special_fully_nested_mode() {
    for (icw4, nested) in [(0x01, false), (0x11, true)] {
        let mut pics = initialized(icw4);
        pics.set_line(12, true);
        assert_eq!(pics.acknowledge(), 0x2c);
        pics.set_line(9, true);
        assert_eq!(pics.output(), nested);
        if nested {
            assert_eq!(pics.acknowledge(), 0x29);
        }
    }
}

#[test]
fn an_edge_is_delivered_once_and_a_level_until_it_falls() {
    let mut pics = initialized(1);
    pics.write(0x4d0, 0xff);
    pics.write(0x4d1, 0xff);
    assert_eq!((pics.read(0x4d0), pics.read(0x4d1)), (0xf8, 0xde), "0, 1, 2, 8 and 13 stay edges");
    pics.set_line(1, true);
    assert_eq!(pics.acknowledge(), 0x21);
    pics.write(0x20, 0x20);
    assert!(!pics.output());
    pics.set_line(5, true);
    assert_eq!(pics.acknowledge(), 0x25);
    pics.write(0x20, 0x20);
    assert_eq!(pics.acknowledge(), 0x25);
    pics.set_line(5, false);
    pics.write(0x20, 0x20);
    assert!(!pics.output());
}

#[test]
fn a_request_that_falls_before_its_acknowledge_is_spurious() {
    let mut pics = initialized(1);
    pics.set_line(4, true);
    pics.set_line(4, false);
    assert!(!pics.output());
    assert_eq!(pics.acknowledge(), 0x27);
    assert_eq!(in_service(&mut pics, 0x20), 0, "a spurious interrupt needs no EOI");
}

#[test]
fn a_spurious_interrupt_of_the_slave_leaves_the_master_in_service() {
    let mut pics = initialized(1);
    // The slave's request vanishes between the master's decision and the slave's cycle.
    pics.master.set_line(CASCADE, true);
    assert_eq!(pics.acknowledge(), 0x2f);
    assert_eq!((in_service(&mut pics, 0x20), in_service(&mut pics, 0xa0)), (0x04, 0));
}

#[test]
fn automatic_eoi_never_sets_in_service_and_may_rotate() {
    let mut pics = initialized(3);
    pics.set_line(3, true);
    pics.set_line(4, true);
    assert_eq!(pics.acknowledge(), 0x23);
    assert_eq!(in_service(&mut pics, 0x20), 0);
    assert_eq!(pics.acknowledge(), 0x24);
    pics.write(0x20, 0x80);
    for (irq, high) in [(3, false), (4, false), (3, true)] {
        pics.set_line(irq, high);
    }
    assert_eq!(pics.acknowledge(), 0x23);
    // 3 is now lowest, so 4 comes first.
    for (irq, high) in [(3, false), (3, true), (4, true)] {
        pics.set_line(irq, high);
    }
    assert_eq!(pics.acknowledge(), 0x24);
}

#[test]
fn rotation_on_eoi_and_set_priority_move_the_lowest_input() {
    let mut pics = initialized(1);
    pics.set_line(4, true);
    pics.acknowledge();
    pics.write(0x20, 0xa0);
    pics.set_line(0, true);
    pics.set_line(5, true);
    assert_eq!(pics.acknowledge(), 0x25, "after 4 became lowest, 5 is highest");
    pics.write(0x20, 0xe5);
    pics.write(0x20, 0xc0 | 7);
    pics.set_line(6, true);
    assert_eq!(pics.acknowledge(), 0x20);
}

#[test]
fn special_mask_mode_lets_lower_inputs_through_a_masked_one_in_service() {
    let mut pics = initialized(1);
    pics.set_line(3, true);
    pics.acknowledge();
    pics.set_line(6, true);
    pics.write(0x21, 0x08);
    assert!(!pics.output());
    pics.write(0x20, 0x68);
    assert_eq!(pics.acknowledge(), 0x26);
    // A non-specific EOI does not end the masked one.
    pics.write(0x20, 0x20);
    pics.write(0x20, 0x20);
    assert_eq!(in_service(&mut pics, 0x20), 0x08);
    pics.write(0x20, 0x48);
    pics.write(0x20, 0x20);
    assert_eq!(in_service(&mut pics, 0x20), 0);
}

#[test]
fn a_poll_acknowledges_and_names_the_input() {
    let mut pics = initialized(1);
    pics.write(0x20, 0x0c);
    assert_eq!(pics.read(0x20) & 0x80, 0);
    pics.set_line(6, true);
    pics.write(0x20, 0x0c);
    assert_eq!(pics.read(0x20), 0x86);
    assert_eq!(in_service(&mut pics, 0x20), 0x40);
    pics.write(0x20, 0x20);
    pics.set_line(11, true);
    pics.write(0xa0, 0x0c);
    assert_eq!(pics.read(0xa1), 0x83);
    assert!(!pics.output());
}

#[test]
fn the_request_register_is_readable_after_ocw3_and_masks_do_not_hide_requests() {
    let mut pics = initialized(1);
    pics.write(0x21, 0xff);
    pics.set_line(7, true);
    assert!(!pics.output());
    assert_eq!(pics.read(0x20), 0x80);
    assert_eq!(in_service(&mut pics, 0x20), 0);
    pics.write(0x20, 0x0a);
    assert_eq!(pics.read(0x20), 0x80);
}

#[test]
fn two_requests_of_one_slave_are_both_delivered() {
    let mut pics = initialized(3);
    pics.set_line(9, true);
    pics.set_line(10, true);
    assert_eq!(pics.acknowledge(), 0x29);
    assert_eq!(pics.acknowledge(), 0x2a);
    assert!(!pics.output());
}
