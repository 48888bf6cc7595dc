//! The executor of L0's tasks: single-threaded, deterministic; which runnable task continues at a point is a choice.
//!
//! Tasks are `async fn`s. They give up control only by awaiting a [`Wait`] through their [`Tasks`] handle, never
//! through a waker, so that the order of execution depends on the choices alone.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::sync::{Arc, Mutex, MutexGuard};

use rootmode_arch::{Choices, Site};

use super::point::{Point, Wait};

/// What the executor and the tasks share: the reason why the running task gave up control, and the locks.
#[derive(Debug, Default)]
struct Desk {
    waiting: Option<Wait>,
    running: u16,
    /// How often a task continued.
    steps: u64,
    locks: Vec<Option<u16>>,
    flags: Vec<bool>,
    opened_gates: Vec<u8>,
    woken: Vec<u8>,
}

/// A handle through which tasks wait and take locks. Clones refer to the same executor.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    desk: Arc<Mutex<Desk>>,
}

impl Tasks {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("one thread uses the desk and does not panic while it holds it")
    }

    /// Stands at `point` until chosen to continue.
    pub fn point(&self, point: Point) -> Yield {
        self.wait(Wait::Point(point))
    }

    /// Gives up control until `wait` is over.
    pub fn wait(&self, wait: Wait) -> Yield {
        Yield { tasks: self.clone(), wait: Some(wait) }
    }

    /// A new lock, free.
    pub fn new_lock(&self) -> Lock {
        let mut desk = self.desk();
        desk.locks.push(None);
        Lock { tasks: self.clone(), number: (desk.locks.len() - 1) as u16 }
    }

    /// A new flag, down.
    pub fn new_flag(&self) -> Flag {
        let mut desk = self.desk();
        desk.flags.push(false);
        Flag { tasks: self.clone(), number: (desk.flags.len() - 1) as u16 }
    }

    /// Says that physical CPU `cpu` has reached a gate: the task that waits for it becomes runnable.
    pub fn open_gate(&self, cpu: u8) {
        self.desk().opened_gates.push(cpu);
    }

    /// Says that something has come for the vCPU of physical CPU `cpu`, which sleeps: its task becomes runnable.
    pub fn wake(&self, cpu: u8) {
        self.desk().woken.push(cpu);
    }

    /// How often a task continued so far: by how much it grows over a wait tells whether others ran meanwhile.
    pub fn steps(&self) -> u64 {
        self.desk().steps
    }

    /// Number of the task that runs now, as [`Executor::spawn`] gave it.
    pub fn running(&self) -> u16 {
        self.desk().running
    }
}

/// A lock of the modelled kernel: taking it and giving it back are points.
#[derive(Clone, Debug)]
pub struct Lock {
    tasks: Tasks,
    number: u16,
}

impl Lock {
    /// Waits until the lock is free and takes it.
    pub async fn acquire(&self) {
        self.tasks.point(Point::LockAcquire).await;
        loop {
            {
                let mut desk = self.tasks.desk();
                let running = desk.running;
                let holder = &mut desk.locks[usize::from(self.number)];
                if holder.is_none() {
                    *holder = Some(running);
                    return;
                }
            }
            self.tasks.wait(Wait::Lock(self.number)).await;
        }
    }

    /// Gives the lock back.
    pub async fn release(&self) {
        {
            let mut desk = self.tasks.desk();
            let running = desk.running;
            let holder = desk.locks[usize::from(self.number)].take();
            debug_assert_eq!(holder, Some(running), "a lock is given back by the task that holds it");
        }
        self.tasks.point(Point::LockRelease).await;
    }
}

/// A condition that tasks can wait for.
#[derive(Clone, Debug)]
pub struct Flag {
    tasks: Tasks,
    number: u16,
}

impl Flag {
    /// Puts it up or down.
    pub fn set(&self, up: bool) {
        self.tasks.desk().flags[usize::from(self.number)] = up;
    }

    /// Waits until it is up.
    pub fn up(&self) -> Yield {
        self.tasks.wait(Wait::Flag(self.number))
    }
}

/// The future behind every wait: pending once, then ready.
#[derive(Debug)]
pub struct Yield {
    tasks: Tasks,
    wait: Option<Wait>,
}

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        match self.wait.take() {
            Some(wait) => {
                self.tasks.desk().waiting = Some(wait);
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

/// Carries a future to its end at once: nobody else continues at its points. For calls that take no lock.
pub(crate) fn finish<T>(mut task: Pin<Box<dyn Future<Output = T> + Send + '_>>) -> T {
    loop {
        if let Poll::Ready(value) = task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
}

type Body = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task {
    body: Body,
    wait: Wait,
    /// Workers serve others: they alone do not keep the executor running.
    worker: bool,
}

/// What one step of the executor did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The task ran from its last wait to this one.
    Waits(u16, Wait),
    /// The task ended.
    Ended(u16),
    /// No task can continue before a gate is reached.
    Blocked,
    /// No task is left, workers aside.
    Finished,
}

/// Runs tasks one at a time.
#[derive(Default)]
pub struct Executor {
    tasks: Tasks,
    bodies: Vec<Option<Task>>,
}

impl core::fmt::Debug for Executor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.bodies.iter().map(|t| t.as_ref().map(|t| t.wait))).finish()
    }
}

impl Executor {
    /// An executor without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// The handle that tasks need to wait.
    pub fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    /// Adds a task, which first runs when it is chosen. Returns its number, the lowest that no task has.
    pub fn spawn(&mut self, body: impl Future<Output = ()> + Send + 'static) -> u16 {
        self.add(Box::pin(body), false)
    }

    /// Adds a task that may run whenever another one can, but never alone.
    pub fn spawn_worker(&mut self, body: impl Future<Output = ()> + Send + 'static) -> u16 {
        self.add(Box::pin(body), true)
    }

    fn add(&mut self, body: Body, worker: bool) -> u16 {
        let task = Some(Task { body, wait: Wait::Point(Point::Reschedule), worker });
        let number = match self.bodies.iter().position(Option::is_none) {
            Some(free) => {
                self.bodies[free] = task;
                free
            }
            None => {
                self.bodies.push(task);
                self.bodies.len() - 1
            }
        };
        number as u16
    }

    /// Lets one runnable task continue to its next wait. Runnable tasks are offered in order of their numbers, those
    /// of workers last, so that choice 0 is the schedule without preemption by workers.
    pub fn step(&mut self, choices: &mut dyn Choices) -> Step {
        let mut ready: Vec<u16> = Vec::new();
        let mut workers: Vec<u16> = Vec::new();
        let mut left = false;
        {
            let desk = self.tasks.desk();
            for (number, task) in self.bodies.iter().enumerate() {
                let Some(task) = task else { continue };
                left |= !task.worker;
                let runnable = match task.wait {
                    Wait::Point(_) => true,
                    Wait::Gate(cpu) => desk.opened_gates.contains(&cpu),
                    Wait::Lock(lock) => desk.locks[usize::from(lock)].is_none(),
                    Wait::Asleep(cpu) => desk.woken.contains(&cpu),
                    Wait::Flag(flag) => desk.flags[usize::from(flag)],
                };
                if runnable {
                    if task.worker { &mut workers } else { &mut ready }.push(number as u16);
                }
            }
        }
        if !left {
            return Step::Finished;
        }
        // A worker that holds a lock which a waiting task needs must be able to give it back.
        let blocked_on_worker = ready.is_empty()
            && self.bodies.iter().flatten().any(|t| !t.worker && matches!(t.wait, Wait::Lock(_)));
        if ready.is_empty() && !blocked_on_worker {
            return Step::Blocked;
        }
        ready.append(&mut workers);
        if ready.is_empty() {
            return Step::Blocked;
        }
        let chosen = if ready.len() == 1 { 0 } else { choices.choose(Site::Task, ready.len() as u64) };
        self.run(ready[chosen as usize])
    }

    fn run(&mut self, number: u16) -> Step {
        let slot = &mut self.bodies[usize::from(number)];
        let Some(task) = slot else { return Step::Ended(number) };
        {
            let mut desk = self.tasks.desk();
            match task.wait {
                Wait::Gate(cpu) => desk.opened_gates.retain(|c| *c != cpu),
                Wait::Asleep(cpu) => desk.woken.retain(|c| *c != cpu),
                Wait::Point(_) | Wait::Lock(_) | Wait::Flag(_) => {}
            }
            desk.running = number;
            desk.steps += 1;
            desk.waiting = None;
        }
        match task.body.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(()) => {
                *slot = None;
                Step::Ended(number)
            }
            Poll::Pending => {
                let wait = self.tasks.desk().waiting.take();
                task.wait = wait.expect("tasks wait through Tasks only");
                Step::Waits(number, task.wait)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootmode_arch::choices::{Exhaustive, Seeded, Tame};

    fn counting(choices: &mut dyn Choices) -> (u64, Vec<u16>) {
        let mut executor = Executor::new();
        let tasks = executor.tasks();
        let lock = tasks.new_lock();
        let cell = Arc::new(Mutex::new((0u64, Vec::new())));
        for _ in 0..2 {
            let (tasks, lock, cell) = (tasks.clone(), lock.clone(), cell.clone());
            executor.spawn(async move {
                lock.acquire().await;
                let seen = cell.lock().unwrap().0;
                tasks.point(Point::GuestMemory).await;
                {
                    let mut cell = cell.lock().unwrap();
                    cell.0 = seen + 1;
                    cell.1.push(tasks.running());
                }
                lock.release().await;
            });
        }
        while !matches!(executor.step(choices), Step::Finished | Step::Blocked) {}
        let cell = cell.lock().unwrap();
        (cell.0, cell.1.clone())
    }

    #[test]
    fn a_lock_excludes_in_every_schedule() {
        let mut all = Exhaustive::new(10_000);
        let mut orders = Vec::new();
        while all.begin() {
            let (sum, order) = counting(&mut all);
            assert_eq!(sum, 2);
            if !orders.contains(&order) {
                orders.push(order);
            }
        }
        orders.sort();
        assert_eq!(orders, [[0, 1], [1, 0]], "both orders occur");
    }

    #[test]
    fn the_tame_schedule_runs_tasks_in_order() {
        assert_eq!(counting(&mut Tame).1, [0, 1]);
    }

    #[test]
    fn a_gate_blocks_until_it_is_opened() {
        let mut executor = Executor::new();
        let tasks = executor.tasks();
        let inner = tasks.clone();
        executor.spawn(async move { inner.wait(Wait::Gate(3)).await });
        assert_eq!(executor.step(&mut Tame), Step::Waits(0, Wait::Gate(3)));
        assert_eq!(executor.step(&mut Tame), Step::Blocked);
        tasks.open_gate(2);
        assert_eq!(executor.step(&mut Tame), Step::Blocked);
        tasks.open_gate(3);
        assert_eq!(executor.step(&mut Tame), Step::Ended(0));
        assert_eq!(executor.step(&mut Tame), Step::Finished);
    }

    #[test]
    fn a_flag_is_waited_for_until_it_is_up() {
        let mut executor = Executor::new();
        let flag = executor.tasks().new_flag();
        let inner = flag.clone();
        executor.spawn(async move { inner.up().await });
        assert_eq!(executor.step(&mut Tame), Step::Waits(0, Wait::Flag(0)));
        assert_eq!(executor.step(&mut Tame), Step::Blocked);
        flag.set(true);
        assert_eq!(executor.step(&mut Tame), Step::Ended(0));
    }

    #[test]
    fn a_worker_never_keeps_the_executor_running() {
        let mut executor = Executor::new();
        let tasks = executor.tasks();
        let (a, b) = (tasks.clone(), tasks);
        executor.spawn_worker(async move {
            loop {
                a.point(Point::WorkerRound).await;
            }
        });
        executor.spawn(async move { b.point(Point::Reschedule).await });
        let mut seeded = Seeded::new(1);
        let steps = (0..1000).take_while(|_| executor.step(&mut seeded) != Step::Finished).count();
        assert!(steps < 1000);
    }
}
