//! Posted interrupts: the descriptor, what processors and devices do with it, and how KVM keeps it right while a vCPU
//! blocks, is preempted and migrates.
//!
//! Everybody is a task on L0's executor, and each step that the hardware makes atomic is one between two points, so that
//! a schedule can put any other step between any two. [`Posting`] is what they share.

use std::sync::{Arc, Mutex, MutexGuard};

use super::host::{Flag, Point, Tasks};
use super::{Regression, Regressions};

/// The vector of notifications to a running vCPU.
pub const NOTIFICATION: u8 = 0xf2;
/// The vector that wakes blocked vCPUs.
pub const WAKEUP: u8 = 0xf1;
/// Physical processors of the model.
pub const PROCESSORS: usize = 2;

/// 256 vectors, a bit each.
pub type Vectors = [u64; 4];

fn highest(vectors: &Vectors) -> Option<u8> {
    let word = vectors.iter().rposition(|word| *word != 0)?;
    Some((64 * word as u32 + vectors[word].ilog2()) as u8)
}

fn insert(vectors: &mut Vectors, vector: u8) -> bool {
    let (word, bit) = (usize::from(vector) / 64, vector % 64);
    let new = vectors[word] >> bit & 1 == 0;
    vectors[word] |= 1 << bit;
    new
}

/// The posted-interrupt descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// Posted-interrupt requests.
    pub pir: Vectors,
    /// Outstanding notification.
    pub on: bool,
    /// Suppress notification.
    pub sn: bool,
    /// Notification vector.
    pub nv: u8,
    /// Notification destination: an x2APIC ID, or an xAPIC ID in bits 15:8.
    pub ndst: u32,
}

/// What happened, for whoever judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// Somebody begins to post this vector.
    Posted(u8),
    /// ON became 1.
    NotificationDue,
    /// An IPI with this vector went to the processor with this number, if there is one; `own`: from it.
    Ipi {
        /// Vector.
        vector: u8,
        /// Number.
        to: Option<usize>,
        /// The vCPU's own thread sent it.
        own: bool,
    },
    /// The guest took this vector; these were requested.
    Delivered {
        /// Taken.
        vector: u8,
        /// Requested, this one included.
        requested: Vectors,
    },
}

/// Where the vCPU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In KVM's code, on a processor.
    Root,
    /// Its thread is about to enter, with interrupts off, or it is in the guest: notifications reach it.
    GuestMode,
    /// Not scheduled.
    Out,
}

/// A physical processor.
#[derive(Clone, Debug)]
struct Processor {
    /// Interrupts that its APIC holds.
    pending: Vec<u8>,
    interrupts_off: bool,
    /// It holds some and can take them.
    interrupted: Flag,
    in_guest: bool,
    /// The vCPU is on its list of blocked vCPUs; how often.
    wakeup_list: u32,
}

/// What all share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The descriptor.
    pub descriptor: Descriptor,
    /// The physical APICs are in x2APIC mode.
    pub x2apic: bool,
    /// The vCPU's processor.
    pub processor: usize,
    /// Where the vCPU is.
    pub place: Place,
    /// What happened so far.
    pub log: Vec<Happened>,
    processors: [Processor; PROCESSORS],
    /// Interrupts that the virtual APIC requests, and the highest one that the guest is offered.
    irr: Vectors,
    rvi: u8,
    masked: bool,
    blocking: bool,
    woken: Flag,
    bugs: Regressions,
}

impl Processor {
    fn new(tasks: &Tasks) -> Self {
        Self {
            pending: Vec::new(),
            interrupts_off: false,
            interrupted: tasks.new_flag(),
            in_guest: false,
            wakeup_list: 0,
        }
    }

    /// Its interrupts, or whether it takes them, have changed.
    fn refresh(&self) {
        self.interrupted.set(!self.interrupts_off && !self.pending.is_empty());
    }
}

impl Shared {
    /// The APIC ID of a processor.
    pub const fn apic_id(processor: usize) -> u32 {
        0x11 + processor as u32
    }

    /// Whether the guest is running.
    pub const fn in_guest(&self) -> bool {
        self.processors[self.processor].in_guest
    }

    /// Whether the vCPU is about to wait for an interrupt, or waits.
    pub const fn is_waiting(&self) -> bool {
        self.blocking
    }

    /// On how many lists of blocked vCPUs the vCPU is.
    pub fn listed(&self) -> u32 {
        self.processors.iter().map(|processor| processor.wakeup_list).sum()
    }

    const fn destination(&self, processor: usize) -> u32 {
        let id = Self::apic_id(processor);
        if self.x2apic || self.bugs.has(Regression::DestinationUnshifted) { id } else { id << 8 }
    }

    fn send(&mut self, vector: u8, to: Option<usize>, own: bool) {
        self.log.push(Happened::Ipi { vector, to, own });
        let Some(to) = to else { return };
        let processor = &mut self.processors[to];
        if !processor.pending.contains(&vector) {
            processor.pending.push(vector);
        }
        processor.refresh();
    }

    /// Where the hardware sends a notification.
    fn notified(&self) -> Option<usize> {
        let ndst = self.descriptor.ndst;
        let id = if self.x2apic { ndst } else { ndst >> 8 & 0xff };
        (0..PROCESSORS).find(|processor| Self::apic_id(*processor) == id)
    }

    fn set_on(&mut self) -> bool {
        let new = !std::mem::replace(&mut self.descriptor.on, true);
        if new {
            self.log.push(Happened::NotificationDue);
        }
        new
    }

    /// A device's interrupt, as the remapping hardware posts it: all of it is one atomic step.
    fn device_posts(&mut self, vector: u8, urgent: bool) {
        self.log.push(Happened::Posted(vector));
        insert(&mut self.descriptor.pir, vector);
        if !self.descriptor.on && (urgent || !self.descriptor.sn) {
            self.set_on();
            self.send(self.descriptor.nv, self.notified(), false);
        }
    }

    /// The processor's own part, uninterruptible, in the guest: SDM "Posted-Interrupt Processing".
    fn process_notification(&mut self) {
        self.descriptor.on = false;
        let posted = std::mem::take(&mut self.descriptor.pir);
        for (word, more) in self.irr.iter_mut().zip(posted) {
            *word |= more;
        }
        let Some(posted) = highest(&posted) else { return };
        self.rvi = if self.bugs.has(Regression::RviOverwritten) { posted } else { self.rvi.max(posted) };
    }

    /// The guest takes what it is offered.
    fn deliver(&mut self) {
        while self.rvi != 0 && !self.masked {
            let vector = self.rvi;
            self.log.push(Happened::Delivered { vector, requested: self.irr });
            self.irr[usize::from(vector) / 64] &= !(1 << (vector % 64));
            self.rvi = highest(&self.irr).unwrap_or(0);
        }
    }

    /// Wakes the vCPU, if it is about to wait or waits.
    pub fn wake(&self) {
        if self.blocking {
            self.woken.set(true);
        }
    }

    /// Whether the vCPU has something to do.
    pub fn has_pending(&self) -> bool {
        let Descriptor { on, sn, pir, .. } = self.descriptor;
        on || sn && pir != [0; 4] || highest(&self.irr).is_some()
    }
}

/// A VM with one vCPU, a descriptor, and processors.
#[derive(Clone, Debug)]
pub struct Posting {
    shared: Arc<Mutex<Shared>>,
    tasks: Tasks,
}

impl Posting {
    /// The vCPU is loaded on processor 0.
    pub fn new(tasks: Tasks, x2apic: bool, bugs: Regressions) -> Self {
        let mut shared = Shared {
            descriptor: Descriptor { nv: NOTIFICATION, ..Descriptor::default() },
            x2apic,
            processor: 0,
            place: Place::Root,
            log: Vec::new(),
            processors: core::array::from_fn(|_| Processor::new(&tasks)),
            irr: [0; 4],
            rvi: 0,
            masked: false,
            blocking: false,
            woken: tasks.new_flag(),
            bugs,
        };
        shared.descriptor.ndst = shared.destination(0);
        Self { shared: Arc::new(Mutex::new(shared)), tasks }
    }

    /// What all share.
    pub fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no task panics while it holds the descriptor")
    }

    fn has(&self, bug: Regression) -> bool {
        self.shared().bugs.has(bug)
    }

    async fn step(&self) {
        self.tasks.point(Point::PostedInterrupt).await;
    }

    /// A device posts: one step of the hardware's.
    pub async fn device(&self, vector: u8, urgent: bool) {
        self.step().await;
        self.shared().device_posts(vector, urgent);
    }

    /// KVM posts for another vCPU or an emulated device; `own`: the vCPU's own thread does.
    pub async fn software(&self, vector: u8, own: bool) {
        self.step().await;
        self.shared().log.push(Happened::Posted(vector));
        let late = self.has(Regression::NotifiedBeforePosted);
        if !late {
            if !insert(&mut self.shared().descriptor.pir, vector) {
                return;
            }
            self.step().await;
        }
        if self.shared().set_on() || self.has(Regression::OutstandingIgnored) {
            self.step().await;
            self.notify(own);
        }
        if late {
            self.step().await;
            insert(&mut self.shared().descriptor.pir, vector);
        }
    }

    fn notify(&self, own: bool) {
        let mut shared = self.shared();
        if shared.place == Place::GuestMode {
            if !own || shared.bugs.has(Regression::NotifiesItself) {
                let to = shared.processor;
                shared.send(NOTIFICATION, Some(to), own);
            }
        } else {
            shared.wake();
        }
    }

    /// PIR to IRR, before an entry.
    async fn sync(&self) {
        if !self.shared().descriptor.on {
            return;
        }
        let late = self.has(Regression::OutstandingClearedLate);
        if !late {
            self.shared().descriptor.on = false;
            self.step().await;
        }
        for word in 0..4 {
            if self.has(Regression::RequestsTakenInTwoSteps) {
                let read = self.shared().descriptor.pir[word];
                self.step().await;
                let mut shared = self.shared();
                shared.descriptor.pir[word] = 0;
                shared.irr[word] |= read;
            } else {
                let mut shared = self.shared();
                let taken = std::mem::take(&mut shared.descriptor.pir[word]);
                shared.irr[word] |= taken;
            }
            self.step().await;
        }
        let mut shared = self.shared();
        if late {
            shared.descriptor.on = false;
        }
        shared.rvi = highest(&shared.irr).unwrap_or(0);
    }

    /// One entry, time in the guest, and an exit. With `masked`, the guest takes no
    /// interrupts for the first half; with `posts`, the thread
    /// posts that vector for its own vCPU on the way.
    pub async fn run(&self, time: u32, masked: bool, posts: Option<u8>) {
        {
            let mut shared = self.shared();
            let on = shared.processor;
            shared.processors[on].interrupts_off = true;
            shared.place = Place::GuestMode;
            shared.masked = masked;
            shared.processors[on].refresh();
        }
        if let Some(vector) = posts {
            self.software(vector, true).await;
        }
        self.step().await;
        self.sync().await;
        self.step().await;
        {
            let mut shared = self.shared();
            let on = shared.processor;
            shared.processors[on].in_guest = true;
            shared.processors[on].interrupts_off = false;
            shared.processors[on].refresh();
        }
        for n in 0..time {
            self.shared().masked &= n < time / 2;
            self.shared().deliver();
            self.step().await;
        }
        self.shared().masked = false;
        self.shared().deliver();
        {
            let mut shared = self.shared();
            let on = shared.processor;
            shared.processors[on].in_guest = false;
            shared.place = Place::Root;
        }
        self.step().await;
    }

    /// The scheduler takes the thread off its processor though it could go on.
    pub async fn preempted(&self) {
        {
            let mut shared = self.shared();
            shared.descriptor.sn = true;
            shared.place = Place::Out;
        }
        self.step().await;
    }

    /// The vCPU halts until something is pending.
    pub async fn blocks(&self) {
        let woken = {
            let mut shared = self.shared();
            shared.blocking = true;
            shared.woken.set(false);
            shared.woken.clone()
        };
        self.step().await;
        if self.shared().has_pending() {
            self.shared().blocking = false;
            return;
        }
        self.step().await;
        {
            let mut shared = self.shared();
            let on = shared.processor;
            shared.processors[on].wakeup_list += 1;
        }
        self.step().await;
        {
            let mut shared = self.shared();
            shared.descriptor.nv = WAKEUP;
            shared.place = Place::Out;
            if shared.descriptor.on {
                let on = shared.processor;
                shared.send(WAKEUP, Some(on), true);
            }
        }
        woken.up().await;
        self.shared().blocking = false;
    }

    /// The scheduler puts the thread on `processor`.
    pub async fn scheduled(&self, processor: usize) {
        self.step().await;
        {
            let mut shared = self.shared();
            let from =
                if shared.bugs.has(Regression::TakenFromNewList) { processor } else { shared.processor };
            if shared.descriptor.nv == WAKEUP {
                let list = &mut shared.processors[from].wakeup_list;
                *list = list.saturating_sub(1);
            }
        }
        self.step().await;
        let early = self.has(Regression::RequestsReadBeforeSuppression);
        let mut requested = self.shared().descriptor.pir != [0; 4];
        if early {
            self.step().await;
        }
        {
            let mut shared = self.shared();
            shared.processor = processor;
            shared.descriptor.ndst = shared.destination(processor);
            if !shared.bugs.has(Regression::WakeupVectorKept) {
                shared.descriptor.nv = NOTIFICATION;
            }
            shared.descriptor.sn = false;
            shared.place = Place::Root;
        }
        self.step().await;
        if !early {
            requested = self.shared().descriptor.pir != [0; 4];
        }
        // Posts under SN did not set ON.
        if requested && !self.has(Regression::SuppressedPostsForgotten) {
            self.shared().set_on();
        }
        self.step().await;
    }

    /// A processor takes interrupts whenever it can, for ever.
    pub async fn interrupts(&self, processor: usize) {
        let interrupted = self.shared().processors[processor].interrupted.clone();
        loop {
            interrupted.up().await;
            let vector = {
                let mut shared = self.shared();
                let vector = shared.processors[processor].pending.remove(0);
                shared.processors[processor].refresh();
                if vector == NOTIFICATION && shared.processors[processor].in_guest {
                    shared.process_notification();
                    shared.deliver();
                }
                vector
            };
            // In root mode a notification is only counted. The wake-up vector has a handler; a guest is left for it.
            if vector == WAKEUP {
                self.step().await;
                let shared = self.shared();
                if shared.processors[processor].wakeup_list != 0 && shared.descriptor.on {
                    shared.wake();
                }
            }
        }
    }
}
