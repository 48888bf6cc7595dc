//! [`Events`]: what waits to be injected into a vCPU, and `KVM_GET/SET_VCPU_EVENTS`.

use rootmode_cpu::DeliveryKind;

use crate::kvm::Errno;
use crate::kvm::abi;
use crate::kvm::host::Injection;

/// Which parts of `struct kvm_vcpu_events` are meant (`KVM_VCPUEVENT_VALID_*`).
const NMI_PENDING: u32 = 1;
const SIPI_VECTOR: u32 = 2;
const SHADOW: u32 = 4;
const SMM: u32 = 8;
const PAYLOAD: u32 = 16;
const TRIPLE_FAULT: u32 = 32;
/// `KVM_X86_SHADOW_INT_MOV_SS`, `KVM_X86_SHADOW_INT_STI`.
const MOV_SS: u8 = 1;
const STI: u8 = 2;

/// What waits, and what was on its way when the guest was left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Events {
    /// Goes in with the next entry, before everything else: its delivery had begun, or L0 queued it.
    pub(super) injected: Option<Injection>,
    /// An exception that waits.
    pub(super) exception: Option<Injection>,
    /// A vector that the client's interrupt controller gave (`KVM_INTERRUPT`).
    pub(super) interrupt: Option<u8>,
    /// An NMI waits.
    pub(super) nmi: bool,
    /// The vector of the last start-up IPI.
    pub(super) sipi: u32,
}

/// A hardware exception.
pub(super) const fn exception(vector: u8, error_code: Option<u32>) -> Injection {
    Injection { kind: DeliveryKind::Hardware, vector, error_code, length: 0 }
}

impl Events {
    /// Takes what the next entry injects. `accepts`: an interrupt, an NMI.
    pub(super) fn take(&mut self, accepts: (bool, bool)) -> Option<Injection> {
        if let Some(event) = self.injected.take().or_else(|| self.exception.take()) {
            return Some(event);
        }
        if self.nmi && accepts.1 {
            self.nmi = false;
            return Some(Injection { kind: DeliveryKind::Nmi, vector: 2, error_code: None, length: 0 });
        }
        if accepts.0 {
            let kind = DeliveryKind::External;
            return self.interrupt.take().map(|vector| Injection {
                kind,
                vector,
                error_code: None,
                length: 0,
            });
        }
        None
    }

    /// Whether what [`Self::take`] answers next is a fault that goes in for the first time.
    pub(super) fn raises_fault(&self) -> bool {
        self.injected.is_none() && self.exception.is_some_and(|event| event.is_fault())
    }

    /// Whether something waits that wakes a vCPU, interrupts aside. `accepts`: an interrupt, an NMI.
    pub(super) const fn waits(&self, accepts: (bool, bool)) -> bool {
        self.injected.is_some() || self.exception.is_some() || self.nmi && accepts.1
    }

    /// `KVM_GET_VCPU_EVENTS`.
    pub(super) fn get(&self, shadows: (bool, bool), nmi_masked: bool) -> abi::VcpuEvents {
        let mut events = abi::VcpuEvents { flags: NMI_PENDING | SHADOW | SMM, ..Default::default() };
        match self.injected {
            Some(Injection { kind: DeliveryKind::External, vector, .. }) => {
                (events.interrupt.injected, events.interrupt.nr) = (1, vector);
            }
            Some(Injection { kind: DeliveryKind::Software, vector, .. }) => {
                (events.interrupt.injected, events.interrupt.nr, events.interrupt.soft) = (1, vector, 1);
            }
            Some(Injection { kind: DeliveryKind::Nmi, .. }) => events.nmi.injected = 1,
            Some(event) => events.exception = record(&event, 1, 0),
            None => {}
        }
        if let Some(event) = self.exception {
            // Without KVM_CAP_EXCEPTION_PAYLOAD an exception that waits is told as an injected one too.
            events.exception = record(&event, 1, 1);
        }
        if let Some(vector) = self.interrupt.filter(|_| events.interrupt.injected == 0) {
            (events.interrupt.injected, events.interrupt.nr) = (1, vector);
        }
        events.interrupt.shadow = u8::from(shadows.1) * MOV_SS | u8::from(shadows.0) * STI;
        (events.nmi.pending, events.nmi.masked) = (u8::from(self.nmi), u8::from(nmi_masked));
        events.sipi_vector = self.sipi;
        events
    }

    /// `KVM_SET_VCPU_EVENTS`. Answers the shadows, if they are meant: STI, MOV SS.
    ///
    /// # Errors
    /// [`Errno::Einval`]: an undefined flag, a vector that is no exception, or SMM, which is not modelled.
    pub(super) fn set(&mut self, events: &abi::VcpuEvents) -> Result<Option<(bool, bool)>, Errno> {
        let known = NMI_PENDING | SIPI_VECTOR | SHADOW | SMM | PAYLOAD | TRIPLE_FAULT;
        let exception = &events.exception;
        let has_exception = exception.injected != 0 || exception.pending != 0;
        let smm = events.flags & SMM != 0 && (events.smi.smm != 0 || events.smi.pending != 0);
        if events.flags & !known & !TRIPLE_FAULT != 0
            || events.flags & (PAYLOAD | TRIPLE_FAULT) != 0
            || has_exception && (exception.nr > 31 || exception.nr == 2)
            || smm
        {
            return Err(Errno::Einval);
        }
        *self = Self { sipi: self.sipi, nmi: self.nmi, ..Self::default() };
        if has_exception {
            let code = (exception.has_error_code != 0).then_some(exception.error_code);
            self.injected = Some(self::exception(exception.nr, code));
        } else if events.interrupt.injected != 0 && events.interrupt.soft != 0 {
            let (kind, vector) = (DeliveryKind::Software, events.interrupt.nr);
            self.injected = Some(Injection { kind, vector, error_code: None, length: 2 });
        } else if events.interrupt.injected != 0 {
            self.interrupt = Some(events.interrupt.nr);
        } else if events.nmi.injected != 0 {
            let kind = DeliveryKind::Nmi;
            self.injected = Some(Injection { kind, vector: 2, error_code: None, length: 0 });
        }
        if events.flags & NMI_PENDING != 0 {
            self.nmi = events.nmi.pending != 0;
        }
        if events.flags & SIPI_VECTOR != 0 {
            self.sipi = events.sipi_vector;
        }
        let shadow = events.interrupt.shadow;
        Ok((events.flags & SHADOW != 0).then_some((shadow & STI != 0, shadow & MOV_SS != 0)))
    }
}

fn record(event: &Injection, injected: u8, pending: u8) -> abi::EventException {
    abi::EventException {
        injected,
        nr: event.vector,
        has_error_code: u8::from(event.error_code.is_some()),
        pending,
        error_code: event.error_code.unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_go_in_one_at_a_time_and_in_their_order() {
        let mut events = Events {
            injected: Some(exception(14, Some(2))),
            exception: Some(exception(6, None)),
            interrupt: Some(0x30),
            nmi: true,
            sipi: 0,
        };
        let order: Vec<_> = (0..5).map(|_| events.take((true, true)).map(|event| event.vector)).collect();
        assert_eq!(order, [Some(14), Some(6), Some(2), Some(0x30), None]);
    }

    #[test]
    fn what_cannot_be_taken_now_waits() {
        let mut events = Events { interrupt: Some(0x30), nmi: true, ..Events::default() };
        assert_eq!(events.take((false, false)), None);
        assert_eq!(events.take((true, false)).map(|event| event.vector), Some(0x30));
        assert!(events.nmi);
    }

    #[test]
    fn saved_events_are_restored() {
        for events in [
            Events { injected: Some(exception(13, Some(0))), ..Events::default() },
            Events { interrupt: Some(0x41), nmi: true, ..Events::default() },
            Events::default(),
        ] {
            let saved = events.get((true, false), false);
            let mut restored = Events { nmi: true, ..Events::default() };
            assert_eq!(restored.set(&saved), Ok(Some((true, false))));
            assert_eq!(restored, events);
        }
        let bad = abi::VcpuEvents { flags: 1 << 9, ..Default::default() };
        assert_eq!(Events::default().set(&bad), Err(Errno::Einval));
    }
}
