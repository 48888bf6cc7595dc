//! What surrounds the processor: KVM as an executable model, devices.
