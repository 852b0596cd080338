//! The embedded store: what a crash, a full disk, a second process or a strange file does to it.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use harness::{Failed, Raw, Runtime, Service, eventually, wire};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

on_every_runtime!(
    no_acknowledged_write_is_lost_however_often_the_process_is_killed,
    a_second_process_on_the_same_folder_is_refused_and_the_first_is_unharmed,
    of_many_that_start_at_once_on_an_empty_folder_one_serves,
    what_is_not_a_store_is_refused_by_name_and_left_as_it_is,
    a_full_disk_refuses_writes_keeps_what_is_there_and_is_over_when_there_is_room
);

fn aot() -> harness::Builder {
    Service::builder(Runtime::Aot)
}

fn ids(service: &Service) -> Vec<u64> {
    let mut ids = Vec::new();
    let mut path = "/api/users?page_size=100".to_owned();
    loop {
        let page = service.get(&path).expect(200);
        ids.extend(page["users"].as_array().unwrap().iter().map(|user| user["id"].as_u64().unwrap()));
        let Some(token) = page.get("next_page_token").and_then(Value::as_str) else { return ids };
        path = format!("/api/users?page_size=100&page_token={token}");
    }
}

fn no_acknowledged_write_is_lost_however_often_the_process_is_killed(runtime: Runtime) {
    let mut service = Service::builder(runtime).start();
    let (mut history, asked) = (History::default(), AtomicU32::new(0));
    for round in 0..12 {
        let mut connection = service.connect();
        let enough = asked.load(Ordering::Relaxed) + 8;
        thread::scope(|scope| {
            let writer = scope.spawn(|| history.write_on(&mut connection, &asked));
            let begun = || asked.load(Ordering::Relaxed) >= enough || writer.is_finished();
            eventually("users are added", || begun().then_some(()));
            // Not a wait for anything: the moment is what differs from round to round.
            harness::within(Duration::from_millis(20 + 17 * round), || writer.is_finished().then_some(()));
            service.kill();
        });
        service = service.restart();
        history.assert_kept(&ids(&service));
    }
    assert!(history.there.len() > 50 && !history.gone.is_empty(), "{history:?}");
}

/// What a store has acknowledged.
#[derive(Debug, Default)]
struct History {
    there: Vec<u64>,
    gone: Vec<u64>,
}

impl History {
    /// Adds users and deletes some until the connection breaks. Counts those that it asks for.
    fn write_on(&mut self, connection: &mut Raw, asked: &AtomicU32) {
        loop {
            let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
            let post = wire::post(wire::user(&format!("k{number}@x.org")));
            let Ok(reply) = connection.request(post) else { return };
            self.there.push(reply.expect(201)["id"].as_u64().unwrap());
            if number.is_multiple_of(3) {
                // Once a deletion is asked for, the user may be gone, acknowledged or not.
                let id = self.there.remove(0);
                let delete = wire::request("DELETE", &format!("/api/users/{id}"), &[], "");
                let Ok(reply) = connection.request(delete) else { return };
                assert_eq!(reply.status, 204, "{reply:?}");
                self.gone.push(id);
            }
        }
    }

    fn assert_kept(&self, stored: &[u64]) {
        let lost: Vec<_> = self.there.iter().filter(|id| !stored.contains(id)).collect();
        let back: Vec<_> = self.gone.iter().filter(|id| stored.contains(id)).collect();
        assert!(lost.is_empty() && back.is_empty(), "lost {lost:?}, back {back:?}");
    }
}

fn a_second_process_on_the_same_folder_is_refused_and_the_first_is_unharmed(runtime: Runtime) {
    let mut first = Service::builder(runtime).start();
    first.add_user("Ada", "ada@x.org");
    let second = Service::builder(runtime).folder(first.folder()).run();
    assert_refused(&second, &["data", "in use by another process", "DATA_DIR"]);
    assert_eq!(ids(&first), [1]);
    // A claim whose holder crashed is not in the way, and neither is the one refused meanwhile.
    first = first.restart();
    assert_eq!(ids(&first), [1]);
}

fn of_many_that_start_at_once_on_an_empty_folder_one_serves(runtime: Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let mut children: Vec<_> = (0..6)
        .map(|_| {
            let mut command = Service::builder(runtime).command(folder.path());
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
    let ended = |children: &mut Vec<std::process::Child>| {
        children.iter_mut().filter_map(|child| child.try_wait().unwrap()).filter(|status| !status.success()).count()
    };
    eventually("all but one are refused", || (ended(&mut children) == 5).then_some(()));
    let more = harness::within(Duration::from_millis(300), || (ended(&mut children) > 5).then_some(()));
    assert_eq!(more, None, "the last one ended too");
    for child in &mut children {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn what_is_not_a_store_is_refused_by_name_and_left_as_it_is(runtime: Runtime) {
    let whole = a_store();
    let mut not_redb = whole.clone();
    not_redb[0] = b'R';
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("text", b"my shopping list\n".to_vec(), "is not a store of this service"),
        ("too short", b"redb".to_vec(), "is not a store of this service"),
        ("another format", not_redb, "is not a store of this service"),
        ("cut at 60 %", whole[..whole.len() * 6 / 10].to_vec(), "is damaged"),
    ];
    for (what, content, says) in cases {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data/users.redb");
        fs::create_dir(folder.path().join("data")).unwrap();
        fs::write(&file, &content).unwrap();
        assert_refused(&Service::builder(runtime).folder(folder.path()).run(), &["users.redb", says, "move it away"]);
        assert!(fs::read(&file).unwrap() == content, "{what}: the file changed");
    }
}

/// The file of a store with so many users that a cut takes some of them: one that takes none is repaired.
fn a_store() -> Vec<u8> {
    let mut service = Service::start();
    for n in 0..300 {
        service.add_user("n", &format!("u{n}@x.org"));
    }
    service.kill();
    fs::read(service.folder().join("data/users.redb")).unwrap()
}

#[test]
fn a_file_of_no_bytes_becomes_an_empty_store() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    fs::write(folder.path().join("data/users.redb"), "").unwrap();
    assert_eq!(ids(&aot().folder(folder.path()).start()), [0; 0]);
}

#[test]
fn a_folder_that_cannot_be_used_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("data/users.redb")).unwrap();
    assert_refused(&aot().folder(folder.path()).run(), &["users.redb", "it is not a file"]);

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data"), "a file").unwrap();
    assert_refused(&aot().folder(folder.path()).run(), &["./data", "DATA_DIR"]);

    // Granted read-only, which holds for root too.
    let folder = tempfile::tempdir().unwrap();
    assert_refused(&aot().folder(folder.path()).mount(".:.:readonly").run(), &["./data", "DATA_DIR"]);

    // WasmEdge would look this one up below the folder that is granted.
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("elsewhere").display().to_string();
    assert_refused(&aot().env("DATA_DIR", &elsewhere).run(), &[&elsewhere, "--dir", "DATA_DIR"]);

    // There, but granted read-only.
    let folder = tempfile::tempdir().unwrap();
    drop(aot().folder(folder.path()).start());
    let before = fs::read(folder.path().join("data/users.redb")).unwrap();
    let refused = aot().folder(folder.path()).mount(".:.:readonly").run();
    assert_refused(&refused, &["data"]);
    assert!(fs::read(folder.path().join("data/users.redb")).unwrap() == before);
}

fn assert_refused(failed: &Failed, says: &[&str]) {
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(!failed.stdout.contains("listening"), "{failed:?}");
    for part in says {
        assert!(failed.stderr.contains(part), "{part:?} is not in {failed:?}");
    }
    assert!(!failed.stderr.contains("panicked"), "{failed:?}");
}

/// A full disk, by the limit on file size: writes fail alike, and it can be lifted again.
fn a_full_disk_refuses_writes_keeps_what_is_there_and_is_over_when_there_is_room(runtime: Runtime) {
    let service = Service::builder(runtime).shell("trap '' XFSZ").start();
    service.add_user("first", "first@x.org");
    let size = fs::metadata(service.folder().join("data/users.redb")).unwrap().len();
    limit_file_size(&service, Some(size));

    let (mut added, mut refused) = (vec![1], 0);
    let name = "n".repeat(200);
    for n in 0..2000 {
        let body = json!({"name": name, "email": format!("u{n}@x.org")}).to_string();
        let reply = service.send_json("POST", "/api/users", &body);
        if reply.status == 201 {
            added.push(reply.json()["id"].as_u64().unwrap());
            continue;
        }
        assert_eq!(reply.problem(503).0, "store-unavailable");
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(ids(&service), added, "reading goes on");
        refused += 1;
        if refused == 5 {
            break;
        }
    }
    assert_eq!(refused, 5, "the disk never was full");

    limit_file_size(&service, None);
    service.add_user("last", "last@x.org");
    assert_eq!(ids(&service).len(), added.len() + 1);
    let service = service.restart();
    assert_eq!(ids(&service).len(), added.len() + 1);
}

fn limit_file_size(service: &Service, bytes: Option<u64>) {
    let pid = Pid::from_raw(service.pid().try_into().unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[test]
fn a_copy_made_while_the_service_is_stopped_is_a_backup() {
    let mut service = Service::start();
    service.add_user("Ada", "ada@x.org");
    service.kill();
    let elsewhere = tempfile::tempdir().unwrap();
    restore(service.folder(), elsewhere.path());
    let service = service.restart();
    service.add_user("Bob", "bob@x.org");
    // Both run at once: the claim file is no part of the backup.
    let restored = aot().folder(elsewhere.path()).start();
    assert_eq!((ids(&service), ids(&restored)), (vec![1, 2], vec![1]));
}

fn restore(from: &Path, to: &Path) {
    fs::create_dir(to.join("data")).unwrap();
    fs::copy(from.join("data/users.redb"), to.join("data/users.redb")).unwrap();
}
