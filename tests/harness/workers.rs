//! What is particular to a service under usher.

use std::net::SocketAddr;

use serde_json::Value;

use crate::{Builder, Database, Reply, Runtime, Service, ask, eventually};

/// A worker, as the admin address tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its number.
    pub number: u64,
    /// Its process.
    pub pid: i32,
    /// What it is doing.
    pub state: String,
    /// How often it was replaced after it died.
    pub restarts: u64,
    /// Which of the reloads made it.
    pub generation: u64,
    /// The first digits of its module's digest.
    pub code: String,
}

/// A service by so many workers of usher that share a database.
pub fn shared(workers: usize, database: &Database) -> Builder {
    Service::builder(Runtime::Usher)
        .arg(&format!("--workers={workers}"))
        .env("DATABASE_URL", database.url())
        .env("LOG_LEVEL", "warn")
}

/// Such a service with two workers that are ready; the database is to end after it.
pub fn two_workers() -> (Service, Database) {
    let database = Database::start();
    let service = shared(2, &database).start();
    service.ready_workers(2);
    (service, database)
}

impl Service {
    /// Where usher is asked.
    pub fn admin(&self) -> SocketAddr {
        eventually("usher says where it is asked", || {
            let text = self.stdout();
            text.lines().find_map(|line| line.strip_prefix("admin on http://"))?.parse().ok()
        })
    }

    /// Asks usher.
    pub fn ask_usher(&self, method: &str, path: &str) -> Reply {
        ask(self.admin(), method, path)
    }

    /// The workers that have a process.
    pub fn workers(&self) -> Vec<Worker> {
        let rows = self.ask_usher("GET", "/workers").expect(200);
        rows.as_array().unwrap().iter().filter_map(worker).collect()
    }

    /// Waits until there are so many workers and all are ready, and gives them.
    pub fn ready_workers(&self, count: usize) -> Vec<Worker> {
        eventually("all workers are ready", || {
            let workers = self.workers();
            let ready = workers.iter().all(|worker| worker.state == "ready");
            (workers.len() == count && ready).then_some(workers)
        })
    }
}

fn worker(row: &Value) -> Option<Worker> {
    Some(Worker {
        number: row["worker"].as_u64()?,
        pid: row["pid"].as_i64()?.try_into().ok()?,
        state: row["state"].as_str()?.to_owned(),
        restarts: row["restarts"].as_u64()?,
        generation: row["generation"].as_u64()?,
        code: row["code"].as_str()?.to_owned(),
    })
}
