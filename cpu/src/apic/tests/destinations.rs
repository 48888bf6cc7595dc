//! Whom a message reaches, against the manual's words taken literally, over all IDs
//! (SDM Vol. 3A "Physical Destination Mode", "Logical Destination Mode", "Logical Destination Mode in x2APIC Mode").

use super::*;
use crate::{DeliveryMode, InterruptMessage};

fn message(destination: u32, logical: bool) -> InterruptMessage {
    InterruptMessage {
        destination,
        logical,
        mode: DeliveryMode::Fixed,
        vector: 0x40,
        level_triggered: false,
        asserted: true,
    }
}

#[test]
fn physical_destinations_name_one_id_or_everybody() {
    for id in 0..=254 {
        let (xapic, mut x2) = (fresh(INTEL, id), fresh(INTEL, id));
        x2.set_mode(Mode::X2Apic);
        for destination in 0..=255 {
            let expected = destination == id || destination == 255;
            assert_eq!(xapic.is_destination(&message(destination, false), false), expected);
            assert_eq!(x2.is_destination(&message(destination, false), false), expected);
        }
        for (destination, expected) in [(id, true), (id + 256, false), (255, false), (u32::MAX, true)] {
            assert_eq!(
                x2.is_destination(&message(destination, false), true),
                expected,
                "{id} {destination:#x}"
            );
        }
    }
}

#[test]
fn an_id_that_software_wrote_counts_in_xapic_mode() {
    let mut apic = xapic();
    write(&mut apic, ID, 0x2a00_0000);
    assert!(apic.is_destination(&message(0x2a, false), false));
    assert!(!apic.is_destination(&message(3, false), false));
}

/// The set of (cluster, place) pairs that an 8-bit logical address in the cluster model names.
fn members(address: u32) -> Vec<(u32, u32)> {
    let places = (0..4).filter(|place| address & 1 << place != 0);
    places.map(|place| (address / 16, place)).collect()
}

#[test]
fn logical_xapic_destinations_match_bits_or_members_of_a_cluster() {
    let mut apic = xapic();
    for own in 0..=255 {
        write(&mut apic, LDR, own << 24);
        for destination in 0..=255 {
            write(&mut apic, DFR, 0xffff_ffff);
            let flat = (0..8).any(|bit| own & 1 << bit != 0 && destination & 1 << bit != 0);
            let answer = apic.is_destination(&message(destination, true), false);
            assert_eq!(answer, flat || destination == 255, "flat {own:#x} {destination:#x}");

            write(&mut apic, DFR, 0x0fff_ffff);
            let cluster = members(own).iter().any(|member| members(destination).contains(member));
            let answer = apic.is_destination(&message(destination, true), false);
            assert_eq!(answer, cluster || destination == 255, "cluster {own:#x} {destination:#x}");
        }
    }
}

#[test]
fn logical_x2apic_destinations_match_members_of_a_cluster_of_sixteen() {
    for id in 0..600 {
        let mut apic = fresh(INTEL, id);
        apic.set_mode(Mode::X2Apic);
        for cluster in 0..40 {
            for mask in [0, 1, 1 << (id % 16), 0xffff, 0xffff ^ 1 << (id % 16), 0x8001] {
                let named: Vec<u32> =
                    (0..16).filter(|n| mask >> n & 1 != 0).map(|n| cluster * 16 + n).collect();
                let answer = apic.is_destination(&message(cluster << 16 | mask, true), true);
                assert_eq!(answer, named.contains(&id), "{id} {cluster:#x} {mask:#x}");
            }
        }
        assert!(apic.is_destination(&message(u32::MAX, true), true));
        // From an I/O APIC: eight bits, the first half of cluster 0.
        for destination in 0..=255 {
            let answer = apic.is_destination(&message(destination, true), false);
            assert_eq!(answer, id < 8 && destination >> id & 1 != 0);
        }
    }
}

#[test]
fn a_disabled_apic_is_nobodys_destination() {
    let mut apic = xapic();
    apic.set_mode(Mode::Disabled);
    for (destination, logical, wide) in
        [(3, false, false), (255, false, false), (255, true, false), (u32::MAX, true, true)]
    {
        assert!(!apic.is_destination(&message(destination, logical), wide));
    }
}
