//! What processes write.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex};
use std::thread;

/// What a process writes to a pipe, read as it comes so that the pipe never fills.
#[derive(Debug)]
pub struct Lines {
    text: Arc<Mutex<String>>,
    reader: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Lines {
    /// Reads to the end of the pipe, on a thread of its own.
    pub fn follow(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while matches!(pipe.read_until(b'\n', &mut line), Ok(1..)) {
                shared.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self { text, reader: Mutex::new(Some(reader)) }
    }

    /// What has come so far.
    pub fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// All of it; waits for the end of the process.
    pub fn finished(&self) -> String {
        if let Some(reader) = self.reader.lock().unwrap().take() {
            let _ = reader.join();
        }
        self.text()
    }
}
