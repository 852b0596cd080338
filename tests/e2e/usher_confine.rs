//! What the kernel keeps usher's workers from. That it does is tested beside the code
//! (`host/src/engine/confine.rs`); here, that workers are subject to it, and serve all the same.

use std::fs;

use harness::{Builder, Database, Runtime, Service};

fn usher() -> Builder {
    Service::builder(Runtime::Usher).env("LOG_LEVEL", "warn").arg("--workers=1")
}

/// Whether the only worker's system calls are filtered (proc_pid_status(5)).
fn is_confined(service: &Service) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", service.ready_workers(1)[0].pid)).unwrap();
    status.lines().any(|line| line == "Seccomp:\t2")
}

#[test]
fn workers_are_confined_and_use_either_store() {
    let database = Database::start();
    // The name is looked up by the host's resolver, which opens files.
    let by_name = database.url().replace("127.0.0.1", "localhost");
    for builder in [usher(), usher().env("DATABASE_URL", by_name)] {
        let service = builder.start();
        assert!(is_confined(&service));
        assert_eq!(service.get("/readyz").status, 200);
        assert_eq!(service.get("/api/users").status, 200);
    }
}

#[test]
fn workers_can_be_left_unconfined() {
    let service = usher().arg("--unconfined").start();
    assert!(!is_confined(&service));
    assert_eq!(service.get("/api/users").status, 200);
}
