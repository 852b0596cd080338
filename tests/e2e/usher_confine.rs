//! What the kernel keeps usher's workers from. That it does is tested beside the code
//! (`host/src/engine/confine.rs`); here, that workers are subject to it, and serve all the same.

use std::fs;

use harness::{Builder, Database, Runtime, Service};

fn usher() -> Builder {
    Service::builder(Runtime::Usher).env("LOG_LEVEL", "warn").arg("--workers=1")
}

/// What the kernel says of the only worker: (new privileges are off, filters of system calls).
fn restrictions(service: &Service) -> (String, String) {
    let status = fs::read_to_string(format!("/proc/{}/status", service.ready_workers(1)[0].pid)).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().to_owned()
    };
    (field("NoNewPrivs:"), field("Seccomp:"))
}

#[test]
fn workers_are_confined_and_use_either_store() {
    let database = Database::start();
    // The name is looked up by the host's resolver, which opens files.
    let by_name = database.url().replace("127.0.0.1", "localhost");
    for builder in [usher(), usher().env("DATABASE_URL", by_name)] {
        let service = builder.start();
        assert_eq!(restrictions(&service), ("1".to_owned(), "2".to_owned()));
        assert_eq!(service.get("/readyz").status, 200);
        assert_eq!(service.get("/api/users").status, 200);
    }
}

#[test]
fn workers_can_be_left_unconfined() {
    let service = usher().arg("--unconfined").start();
    assert_eq!(restrictions(&service), ("0".to_owned(), "0".to_owned()));
    assert_eq!(service.get("/api/users").status, 200);
}
