//! Runs the embedded SEV-ES guest under its hypervisor, and prints what it prints and how often it exited.

use std::sync::{Arc, Mutex};

use rootmode::guests::encrypted;
use rootmode::transparency::board_of;
use rootmode_arch::Hardware;
use rootmode_arch::choices::Tame;
use rootmode_arch::record::{Observer, Payload, Record};
use rootmode_svm::ExitCode;

/// Prints port 0xe9, and each exit but those of the bytes that go there.
#[derive(Clone, Default)]
struct Console(Arc<Mutex<Vec<(u64, u64)>>>);

impl Observer for Console {
    fn observe(&mut self, record: &Record) {
        match record.payload {
            Payload::Port { port: 0xe9, value, .. } => print!("{}", char::from(value as u8)),
            Payload::Exit { code, .. } => {
                let mut counts = self.0.lock().expect("nobody panics with the lock");
                match counts.iter_mut().find(|(known, _)| *known == code) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((code, 1)),
                }
            }
            _ => {}
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut board = board_of(&encrypted::image()?, encrypted::model(), Hardware::Tame, Box::new(Tame));
    let console = Console::default();
    board.set_observer(Some(Box::new(console.clone())));
    let stopped = board.run(100_000);
    for (code, count) in console.0.lock().expect("nobody panics with the lock").iter() {
        println!("{count:3} x {}", ExitCode(*code));
    }
    println!("{:?} at tick {}", stopped.stop, stopped.tick);
    Ok(())
}
