//! VMCALL and VMMCALL (Linux 6.12, Documentation/virt/kvm/x86/hypercalls.rst; arch/x86/kvm/x86.c,
//! `____kvm_emulate_hypercall`; arch/x86/kvm/lapic.c, `kvm_pv_send_ipi`).

use rootmode_arch::{AccessRights, Efer, Gpr, SegmentName};
use rootmode_cpu::{DeliveryMode, InterruptMessage};

use super::exit::ClientExit;
use super::run::{Flow, Pending};
use super::vcpu::Vcpu;
use super::{Failure, Shared};

/// `-KVM_ENOSYS`, `-KVM_EPERM`, `-KVM_EINVAL`.
const NO_SUCH_HYPERCALL: u64 = -1000_i64 as u64;
const NOT_PERMITTED: u64 = -1_i64 as u64;
const INVALID: u64 = -22_i64 as u64;
/// `KVM_HC_VAPIC_POLL_IRQ`, `KVM_HC_KICK_CPU`, `KVM_HC_SEND_IPI`, `KVM_HC_SCHED_YIELD`, `KVM_HC_MAP_GPA_RANGE`.
const POLL_IRQ: u64 = 1;
const KICK_CPU: u64 = 5;
const SEND_IPI: u64 = 10;
const SCHED_YIELD: u64 = 11;
const MAP_GPA_RANGE: u64 = 12;
/// Of the interrupt command register: a logical destination, and a shorthand. Neither goes with a list.
const LOGICAL: u64 = 0x800;
const SHORTHAND: u64 = 0xc_0000;

impl Vcpu {
    /// A hypercall: completed here, or for the client to answer.
    pub(super) fn hypercall(&mut self, shared: &Shared) -> Result<Flow, Failure> {
        let state = self.backend.save()?;
        let long = Efer(state.efer).contains(Efer::LMA)
            && state.segment(SegmentName::Cs).rights.contains(AccessRights::L);
        let mask = if long { u64::MAX } else { u32::MAX.into() };
        let [nr, a0, a1, a2, a3] =
            self.gprs([Gpr::Rax, Gpr::Rbx, Gpr::Rcx, Gpr::Rdx, Gpr::Rsi])?.map(|value| value & mask);
        let asked = shared.with(self.processor, |_, rooms| rooms.hypercall_exits >> MAP_GPA_RANGE & 1 != 0);
        let answer = match nr {
            _ if state.cpl != 0 => NOT_PERMITTED,
            MAP_GPA_RANGE if asked => {
                self.pending = Pending::Hypercall;
                let args = [a0, a1, a2, a3, 0, 0];
                return Ok(self.ask(ClientExit::Hypercall { nr, args, ret: 0, flags: long.into() }));
            }
            // The scheduler is fair without being asked.
            POLL_IRQ | SCHED_YIELD => 0,
            KICK_CPU => {
                shared.with(self.processor, |machine, rooms| rooms.irqchip.kick(machine, a1 as u32));
                0
            }
            SEND_IPI if self.has_apic(shared) => {
                self.send_ipis(shared, [a0, a1], a2, a3, if long { 64 } else { 32 })
            }
            _ => NO_SUCH_HYPERCALL,
        };
        self.backend.set_gpr(Gpr::Rax, answer & mask)?;
        self.skip()?;
        Ok(Flow::Guest)
    }

    /// Sends an interrupt to the local APICs whose IDs two words of bits list, from `least` on: to how many it was news.
    fn send_ipis(&self, shared: &Shared, words: [u64; 2], least: u64, command: u64, width: u64) -> u64 {
        if command & (LOGICAL | SHORTHAND) != 0 {
            return INVALID;
        }
        let mode = match DeliveryMode::from_bits((command >> 8) as u8) {
            None | Some(DeliveryMode::Smi | DeliveryMode::ExtInt) => return 0,
            Some(mode) => mode,
        };
        let bits = (0..2 * width).filter(|bit| words[(bit / width) as usize] >> (bit % width) & 1 != 0);
        let least = least & u64::from(u32::MAX);
        let destinations: Vec<u32> = bits.filter_map(|bit| u32::try_from(least + bit).ok()).collect();
        shared.with(self.processor, |machine, rooms| {
            let message = |destination| InterruptMessage {
                destination,
                logical: false,
                mode,
                vector: command as u8,
                level_triggered: command >> 15 & 1 != 0,
                asserted: command >> 14 & 1 != 0 || mode != DeliveryMode::Init,
            };
            let messages = destinations.into_iter().map(message);
            rooms.irqchip.send_each(machine, self.processor.into(), messages)
        })
    }
}
