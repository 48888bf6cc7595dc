//! User-return MSRs: several vCPUs on two processors, compared with what each would see alone.

use rootmode_arch::{Choices, Site};
use rootmode_models::kvm::Regressions;
use rootmode_models::kvm::user_return::{
    EferSwitch, GuestModes, MsrAccess, Processor, SLOTS, UserReturn, slot,
};

use crate::campaign::{Counterexample, Property, Verdict};

pub(crate) const PROPERTIES: &[Property] = &[Property {
    name: "user-return-msrs",
    about: "A guest finds its own values in the MSRs that it needs, user mode finds the host's, the kernel knows what the hardware has, and nothing is written twice.",
    source: "catalogue 4.2; P-4.1 to P-4.6",
    cost: 3,
    check,
}];

const NXE: u64 = 1 << 11;
const LMA: u64 = 1 << 10;
const LME: u64 = 1 << 8;
const SCE: u64 = 1;

/// A physical processor.
struct Hardware {
    msrs: [u64; 7],
    writes: u32,
}

impl MsrAccess for Hardware {
    fn rdmsr(&mut self, index: u32) -> u64 {
        SLOTS.iter().position(|slot| *slot == index).map_or(0, |slot| self.msrs[slot])
    }

    fn wrmsr(&mut self, index: u32, value: u64) -> bool {
        let Some(slot) = SLOTS.iter().position(|slot| *slot == index) else { return false };
        self.writes += 1;
        let legal = slot != slot::TSX || value < 4;
        if legal {
            self.msrs[slot] = value;
        }
        legal
    }
}

/// A vCPU with what it should find.
struct Guest {
    vcpu: UserReturn,
    modes: GuestModes,
    values: [u64; 7],
    /// The processor on which it is loaded.
    on: Option<usize>,
    changed: bool,
}

struct World {
    hardware: Vec<Hardware>,
    processors: Vec<Processor>,
    host: Vec<[u64; 7]>,
    guests: Vec<Guest>,
}

fn modes(c: &mut dyn Choices, of: GuestModes) -> GuestModes {
    let efer = [LMA | LME | SCE | NXE, LMA | LME | SCE, LMA | LME | NXE, NXE, SCE | NXE, 0, LME];
    GuestModes { efer: efer[c.choose(Site::State, 7) as usize], tsc_aux: c.flip(Site::State), ..of }
}

fn check(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let efer_controls = c.flip(Site::Swarm);
    let ept = efer_controls || c.flip(Site::Swarm);
    let host = |cpu: u64| [0x4_7700, 0xffff_8000, 0, LMA | LME | SCE | NXE, 0x100 + cpu, 0x23_0010, 2];
    let mut world =
        World { hardware: Vec::new(), processors: Vec::new(), host: Vec::new(), guests: Vec::new() };
    for cpu in 0..2 {
        let mut hardware = Hardware { msrs: host(cpu), writes: 0 };
        world.processors.push(Processor::online(&mut hardware, bugs));
        world.hardware.push(hardware);
        world.host.push(host(cpu));
    }
    for _ in 0..2 + c.choose(Site::Swarm, 2) {
        let plain = GuestModes { efer: LMA | LME | SCE | NXE, tsc_aux: true, efer_controls, ept };
        let modes = modes(c, plain);
        let mut vcpu = UserReturn::new(bugs);
        vcpu.rebuild(modes, &world.processors[0]);
        world.guests.push(Guest { vcpu, modes, values: [0; 7], on: None, changed: true });
    }
    let mut story = Vec::new();
    for _ in 0..4 + c.choose(Site::Sequence, 24) {
        if let Some(example) = step(&mut world, &mut story, c) {
            return story
                .iter()
                .enumerate()
                .fold(example, |example, (n, step)| example.with(format!("step {}", n + 1), step))
                .into();
        }
    }
    Verdict::Holds
}

fn step(world: &mut World, story: &mut Vec<String>, c: &mut dyn Choices) -> Option<Counterexample> {
    let number = c.choose(Site::Sequence, world.guests.len() as u64) as usize;
    let cpu = c.choose(Site::Sequence, 2) as usize;
    let loaded = world.guests[number].on;
    match (c.choose(Site::Sequence, 8), loaded) {
        (0, Some(cpu)) => {
            let slot = [slot::FMASK, slot::LSTAR, slot::CSTAR, slot::TSC_AUX, slot::STAR, slot::TSX]
                [c.choose(Site::Sequence, 6) as usize];
            let host = world.host[cpu][slot];
            let value = [host, 1, 0, 3, 4, 0x1_0000_0007][c.choose(Site::State, 6) as usize];
            story.push(format!("guest {number} writes {value:#x} to {:#x}", SLOTS[slot]));
            write(world, number, cpu, slot, value)
        }
        (1 | 2, Some(cpu)) => {
            let guest = &mut world.guests[number];
            guest.modes = modes(c, guest.modes);
            guest.changed = true;
            story.push(format!("guest {number} is now {:x?}", guest.modes));
            guest.vcpu.rebuild(guest.modes, &world.processors[cpu]);
            None
        }
        (3, _) => {
            let task = [number as u32, 9][c.choose(Site::Sequence, 2) as usize];
            story.push(format!("task {task} returns to user mode on processor {cpu}"));
            unload(world, cpu);
            world.processors[cpu].user_return(&mut world.hardware[cpu], task);
            (world.hardware[cpu].msrs != world.host[cpu])
                .then(|| Counterexample::new("user mode runs with a guest's values"))
        }
        _ => {
            let cpu = loaded.filter(|_| c.choose(Site::Sequence, 3) != 2).unwrap_or(cpu);
            story.push(format!("guest {number} runs on processor {cpu}"));
            run(world, number, cpu)
        }
    }
    .or_else(|| kernel_knows(world))
}

/// The vCPU that is loaded on `cpu` is put.
fn unload(world: &mut World, cpu: usize) {
    for guest in world.guests.iter_mut().filter(|guest| guest.on == Some(cpu)) {
        guest.vcpu.put();
        guest.on = None;
    }
}

fn write(world: &mut World, number: usize, cpu: usize, slot: usize, value: u64) -> Option<Counterexample> {
    let guest = &mut world.guests[number];
    guest.changed = true;
    let done = guest
        .vcpu
        .write(&mut world.processors[cpu], &mut world.hardware[cpu], number as u32, slot, value)
        .is_ok();
    if done {
        guest.values[slot] = value;
    }
    let kept = guest.vcpu.data(slot);
    (kept != guest.values[slot]).then(|| {
        Counterexample::new(format!("the guest's {:#x} is {kept:#x} after a WRMSR that faulted", SLOTS[slot]))
    })
}

fn run(world: &mut World, number: usize, cpu: usize) -> Option<Counterexample> {
    let again = world.guests[number].on == Some(cpu) && !world.guests[number].changed;
    if world.guests[number].on != Some(cpu) {
        unload(world, cpu);
        if world.guests[number].on.is_some() {
            world.guests[number].vcpu.put();
        }
    }
    let (guest, hardware) = (&mut world.guests[number], &mut world.hardware[cpu]);
    (guest.on, guest.changed) = (Some(cpu), false);
    let before = hardware.msrs;
    hardware.writes = 0;
    guest.vcpu.before_entry(&mut world.processors[cpu], hardware, number as u32);
    if again && hardware.writes != 0 {
        return Some(Counterexample::new("an entry without any change writes MSRs"));
    }
    let switch = guest.vcpu.efer();
    let in_kernel = hardware.msrs;
    if let EferSwitch::Atomic { guest, .. } = switch {
        hardware.msrs[slot::EFER] = guest;
    }
    let example = sees(guest, &hardware.msrs, &before, &world.host[cpu]);
    if let EferSwitch::Atomic { host, .. } = switch {
        hardware.msrs[slot::EFER] = host;
        if in_kernel[slot::EFER] != host {
            return Some(Counterexample::new("EFER is switched by the VMCS and stays behind as well"));
        }
    }
    example
}

/// What the guest needs is its own; the rest is as it was.
fn sees(guest: &Guest, now: &[u64; 7], before: &[u64; 7], host: &[u64; 7]) -> Option<Counterexample> {
    let GuestModes { efer, tsc_aux, ept, .. } = guest.modes;
    let syscalls = efer & LMA != 0 && efer & SCE != 0;
    for slot in [slot::FMASK, slot::LSTAR, slot::CSTAR, slot::TSC_AUX, slot::STAR, slot::TSX] {
        let needed = match slot {
            slot::CSTAR => false,
            slot::TSC_AUX => tsc_aux,
            slot::TSX => true,
            _ => syscalls,
        };
        let hidden = if slot == slot::TSX { 2 } else { 0 };
        let right = match needed {
            true => guest.values[slot] & !hidden | host[slot] & hidden,
            false => before[slot],
        };
        if now[slot] != right {
            return Some(Counterexample::new(format!(
                "the guest runs with {:#x} in {:#x} instead of {right:#x}",
                now[slot], SLOTS[slot]
            )));
        }
    }
    let nx = if ept { efer & NXE } else { NXE };
    let (mut right, mut matters) = (nx, NXE);
    if efer & LMA != 0 {
        (right, matters) = (right | efer & SCE, matters | SCE);
    }
    ((now[slot::EFER] ^ right) & matters != 0)
        .then(|| Counterexample::new(format!("the guest runs with {:#x} in EFER", now[slot::EFER])))
}

fn kernel_knows(world: &World) -> Option<Counterexample> {
    for (processor, hardware) in world.processors.iter().zip(&world.hardware) {
        if *processor.current() != hardware.msrs {
            return Some(Counterexample::new("the kernel does not know what the hardware has"));
        }
        if processor.notifiers() > 1 {
            return Some(Counterexample::new("the notifier is in the list twice"));
        }
    }
    None
}
