//! Reloading: what serves afterwards, what is lost meanwhile (nothing), and what happens when it cannot be done.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use harness::{
    Builder, Compiler, Connections, Database, Load, Raw, Runtime, Service, Usage, artifacts, ask, children, eventually,
    make_module, variant, wire, within,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A module that a test replaces, by default compiled already.
struct Place {
    folder: TempDir,
    module: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let module = folder.path().join("module");
        let place = Self { folder, module };
        place.put(&variant(&artifacts::compiled(), 0));
        place
    }

    /// Puts another file in the module's place.
    fn put(&self, bytes: &[u8]) {
        let new = self.module.with_extension("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, &self.module).unwrap();
    }

    /// The same service in other words.
    fn put_variant(&self, number: u8) {
        self.put(&variant(&artifacts::compiled(), number));
    }

    /// A module that `tests/modules` has.
    fn put_small(&self, name: &str) {
        self.put(&fs::read(make_module(name, self.folder.path())).unwrap());
    }

    /// A service with the embedded store, which serves it.
    fn service(&self) -> Builder {
        let cache = self.folder.path().join("cache");
        Service::builder(Runtime::Usher).module(&self.module).arg(&format!("--cache={}", cache.display()))
    }

    /// The same with two workers and a database.
    fn two_workers(&self, database: &Database) -> Builder {
        self.workers(2, database)
    }

    fn workers(&self, count: usize, database: &Database) -> Builder {
        self.service().arg(&format!("--workers={count}")).env("DATABASE_URL", database.url()).env("LOG_LEVEL", "warn")
    }
}

/// How many reloads succeeded.
fn reloaded(service: &Service) -> usize {
    service.log().matches("usher: reloaded in ").count()
}

/// Has it reloaded by a signal, and waits until that is done.
fn reload(service: &Service) {
    let before = reloaded(service);
    service.signal(Signal::HUP);
    eventually("it reloads", || {
        assert!(!service.log().contains("not reloaded"), "{}", service.log());
        (reloaded(service) > before).then_some(())
    });
}

/// Asks for a reload that cannot be done, and gives the reason.
fn refused(service: &Service) -> String {
    let reply = service.ask_usher("POST", "/reload");
    let why = reply.expect(409)["detail"].as_str().unwrap().to_owned();
    eventually("the log says the same", || service.log().contains(&format!("not reloaded: {why}")).then_some(()));
    why
}

fn pids(service: &Service, count: usize) -> Vec<i32> {
    service.ready_workers(count).into_iter().map(|worker| worker.pid).collect()
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

fn templates(service: &Service) -> Vec<i32> {
    children(service.pid()).into_iter().filter(|(_, title)| title == "usher: template").map(|(pid, _)| pid).collect()
}

/// Waits until there are only the template and so many workers.
fn settled(service: &Service, workers: usize) {
    eventually("the old workers and their template are gone", || {
        (children(service.pid()).len() == workers + 1 && templates(service).len() == 1).then_some(())
    });
}

/// All descriptors of usher, and its memory in KiB.
fn resources(service: &Service) -> (usize, u64) {
    let all = fs::read_dir(format!("/proc/{}/fd", service.pid())).unwrap().count();
    (all, Usage::of(service.pid()).memory_kib)
}

/// Reloads ten times under load, with other code each time, and asserts that nothing is lost and nothing left.
fn ten_times_under_load(place: &Place, service: &Service, workers: usize) {
    service.ready_workers(workers);
    let loads = [Connections::Kept, Connections::Fresh].map(|kind| Load::start(service.address(), 12, kind));
    // Twice for what is made once and kept.
    let mut before = None;
    for round in 1..=12 {
        let old = pids(service, workers);
        place.put_variant(round % 2);
        reload(service);
        let new = service.ready_workers(workers);
        assert!(new.iter().all(|worker| worker.generation == u64::from(round) + 1 && !old.contains(&worker.pid)));
        loads.iter().for_each(|load| load.answers(20));
        settled(service, workers);
        before = before.or((round == 2).then(|| resources(service)));
    }
    let ((descriptors, memory), after) = (before.unwrap(), resources(service));
    let tallies = loads.map(Load::finish);
    let answered: usize = tallies.iter().map(|tally| tally.answered).sum();
    println!(
        "{answered} requests over 12 reloads; descriptors {descriptors} -> {}, KiB {memory} -> {}",
        after.0, after.1
    );
    tallies.iter().for_each(|tally| assert_eq!(tally.failures, [""; 0], "of {answered}"));
    assert_eq!(after.0, descriptors);
    assert!(after.1 <= memory + 1024, "KiB: {memory} -> {}", after.1);
    assert!(service.workers().iter().all(|worker| worker.restarts == 0));
}

#[test]
fn workers_of_a_shared_store_are_reloaded_under_load_without_a_failed_request() {
    let (place, database) = (Place::new(), Database::start());
    let service = place.two_workers(&database).start();
    ten_times_under_load(&place, &service, 2);
}

#[test]
fn a_single_writer_is_reloaded_under_load_without_a_failed_request() {
    let place = Place::new();
    let service = place.service().env("LOG_LEVEL", "warn").start();
    service.add_user("Ada", "ada@example.org");
    ten_times_under_load(&place, &service, 1);
    assert_eq!(service.get("/api/users/1").expect(200)["name"], "Ada");
    let log = service.log();
    let pauses: Vec<&str> = log.lines().filter_map(|line| line.split("connections waited for ").nth(1)).collect();
    println!("pauses: {}", pauses.join(", "));
    assert_eq!(pauses.len(), 12, "{log}");
}

/// A whole module with a function that adds two numbers and has none (WebAssembly core specification §5.5).
const INVALID: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x06\x01\x04\0\x6a\x1a\x0b";

/// What cannot serve.
struct Bad {
    /// What is said of it.
    words: &'static str,
    /// Whether it is found out only by starting a worker.
    is_started: bool,
    /// `None`: there is no file.
    content: Option<Vec<u8>>,
}

impl Bad {
    fn all(place: &Place) -> Vec<Self> {
        let module = fs::read(artifacts::module()).unwrap();
        let small = |name| fs::read(make_module(name, place.folder.path())).unwrap();
        let bad = |words, is_started, content| Self { words, is_started, content };
        vec![
            bad("cannot read the module", false, None),
            bad("no WebAssembly module", false, Some(b"#!/bin/sh\n".to_vec())),
            bad("no whole WebAssembly module", false, Some(module[..module.len() / 2].to_vec())),
            bad("cannot compile", false, Some(INVALID.to_vec())),
            bad("WasmEdge does not take", false, Some(b"\x7fELF".to_vec())),
            bad("worker 0 ended by an error of its own", true, Some(small("crashes"))),
            bad("worker 0 ended with exit code 2", true, Some(small("tells_environment"))),
            bad("worker 0 ended with exit code 0", true, Some(small("ends"))),
            bad("worker 0 does not serve within 1s", true, Some(small("never_ready"))),
        ]
    }

    fn put(&self, place: &Place) {
        match &self.content {
            Some(content) => place.put(content),
            None => fs::remove_file(&place.module).unwrap(),
        }
    }
}

#[test]
fn what_cannot_serve_leaves_the_workers_of_a_shared_store_alone() {
    let (place, database) = (Place::new(), Database::start());
    let service = place.two_workers(&database).arg("--reload-timeout=1s").start();
    let (before, code) = (service.ready_workers(2), service.workers()[0].code.clone());
    for bad in Bad::all(&place) {
        bad.put(&place);
        let (words, why) = (bad.words, refused(&service));
        assert!(why.contains(words) && why.ends_with("the old workers serve on"), "{words:?} is missing: {why}");
        settled(&service, 2);
        assert_eq!(service.ready_workers(2), before, "{words}");
        assert_eq!(service.get("/api/users").status, 200);
    }
    // Whoever dies, and the template with it, is replaced by what served.
    kill(before[0].pid);
    kill(templates(&service)[0]);
    eventually("it is replaced", || (pids(&service, 2)[0] != before[0].pid).then_some(()));
    assert!(service.workers().iter().all(|worker| worker.generation == 1 && worker.code == code));

    place.put_variant(1);
    reload_after_failures(&service);
    assert!(service.ready_workers(2).iter().all(|worker| worker.code != code));
}

/// The log has failures in it already.
fn reload_after_failures(service: &Service) {
    let reply = service.ask_usher("POST", "/reload").expect(200);
    let served = service.workers();
    assert!(served.iter().any(|worker| reply["generation"] == worker.generation && reply["code"] == worker.code));
}

#[test]
fn what_cannot_serve_has_the_single_writer_start_again() {
    let place = Place::new();
    let service = place.service().arg("--reload-timeout=1s").env("LOG_LEVEL", "warn").start();
    service.add_user("Ada", "ada@example.org");
    let load = Load::start(service.address(), 4, Connections::Fresh);
    for bad in Bad::all(&place) {
        let before = pids(&service, 1);
        bad.put(&place);
        let (words, why, is_started) = (bad.words, refused(&service), bad.is_started);
        let goes_on = if is_started { "the old module is started again" } else { "the old workers serve on" };
        assert!(why.contains(words) && why.ends_with(goes_on), "{words:?} is missing: {why}");
        let worker = service.ready_workers(1).remove(0);
        assert_eq!((worker.generation, worker.pid != before[0]), (1, is_started), "{words}");
        load.answers(20);
        settled(&service, 1);
    }
    let tally = load.finish();
    assert_eq!(tally.failures, [""; 0], "of {}", tally.answered);
    place.put_variant(1);
    reload_after_failures(&service);
    assert_eq!(service.get("/api/users/1").expect(200)["name"], "Ada");
}

#[test]
fn workers_that_are_ready_are_taken_back_when_another_is_not() {
    let (place, database) = (Place::new(), Database::start());
    let limit = |connections: u8| database.sql(&format!("ALTER USER app WITH MAX_USER_CONNECTIONS {connections}"));
    // The server counts those only that are made under a limit.
    limit(100);
    let service = place.two_workers(&database).arg("--reload-timeout=2s").start();
    let before = service.ready_workers(2);
    eventually("each worker has a connection to the database", || {
        service.get("/readyz");
        let count = database.sql("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'app'");
        (count == "2").then_some(())
    });
    limit(3);
    let load = Load::start(service.address(), 8, Connections::Fresh);
    place.put_variant(1);
    let why = refused(&service);
    assert!(why.contains("worker 1 is not ready within 2s: ") && why.contains("database"), "{why}");
    load.answers(20);
    settled(&service, 2);
    assert_eq!(service.ready_workers(2), before);
    limit(100);
    reload_after_failures(&service);
    let tally = load.finish();
    assert_eq!(tally.failures, [""; 0], "of {}", tally.answered);
}

#[test]
fn secrets_and_variables_are_read_again() {
    let (place, database) = (Place::new(), Database::start());
    let (url, env) = (place.folder.path().join("url"), place.folder.path().join("env"));
    fs::write(&url, database.url()).unwrap();
    fs::write(&env, "LOG_LEVEL=info\n").unwrap();
    let service = place
        .service()
        .arg("--workers=2")
        .arg("--reload-timeout=2s")
        .arg(&format!("--dir=secrets:{}:ro", place.folder.path().display()))
        .arg(&format!("--env-file={}", env.display()))
        .env("DATABASE_URL_FILE", "secrets/url")
        .start();
    let before = service.ready_workers(2);

    database.sql("ALTER USER app IDENTIFIED BY 'changed'");
    database.close_connections();
    let why = refused(&service);
    assert!(why.contains("not ready within 2s") && !why.contains("pw"), "{why}");
    fs::write(&url, "nonsense").unwrap();
    assert!(refused(&service).contains("exit code 2"));
    fs::write(&env, "LOG_LEVEL\n").unwrap();
    assert!(refused(&service).contains("line 1"));
    assert_eq!(service.ready_workers(2), before);

    fs::write(&url, database.url().replace("pw@", "changed@")).unwrap();
    fs::write(&env, "LOG_FORMAT=json\n").unwrap();
    reload_after_failures(&service);
    assert_eq!(service.get("/readyz").status, 200);
    eventually("the variable is another one", || service.log().contains("\n{\"timestamp\"").then_some(()));
    assert!(service.ready_workers(2).iter().all(|worker| worker.code == before[0].code));
}

#[test]
fn another_kind_of_store_takes_a_restart() {
    let (place, database) = (Place::new(), Database::start());
    let env = place.folder.path().join("env");
    fs::write(&env, "").unwrap();
    let service = place.service().arg(&format!("--env-file={}", env.display())).start();
    service.add_user("Ada", "ada@example.org");
    fs::write(&env, format!("DATABASE_URL={}\n", database.url())).unwrap();
    let why = refused(&service);
    assert!(why.contains("several workers") && why.contains("restart of usher"), "{why}");
    service.ready_workers(1);
    assert_eq!(service.get("/api/users/1").expect(200)["name"], "Ada");

    let service = place.service().arg("--workers=2").arg(&format!("--env-file={}", env.display())).start();
    let before = service.ready_workers(2);
    fs::write(&env, "").unwrap();
    let why = refused(&service);
    assert!(why.contains("one worker only") && why.contains("restart of usher"), "{why}");
    settled(&service, 2);
    assert_eq!(service.ready_workers(2), before);
}

/// A portable module with a compiler that waits, and a service whose first compilation is done.
fn compiling(compiler: &Compiler, place: &Place) -> Service {
    place.put(&variant(&artifacts::module(), 0));
    compiler.allow(1);
    compiler.of(Service::builder(Runtime::Usher).module(&place.module)).start()
}

fn begun(compiler: &Compiler, compilations: usize) {
    eventually("it compiles", || (compiler.compilations() == compilations).then_some(()));
}

fn niceness(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The 19th field; those after the command, which ends with the last parenthesis, begin with the third.
    stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse().unwrap()
}

#[test]
fn it_serves_while_it_compiles_and_further_signals_are_one_more_reload() {
    let (compiler, place) = (Compiler::held(), Place::new());
    let service = compiling(&compiler, &place);
    let old = service.ready_workers(1).remove(0);
    place.put(&variant(&artifacts::module(), 1));
    service.signal(Signal::HUP);
    begun(&compiler, 2);
    let compiling = children(service.pid()).into_iter().find(|(_, title)| title == "usher-engine").unwrap().0;
    assert_eq!(niceness(compiling), 5, "it gives way to the workers");
    for _ in 0..3 {
        service.signal(Signal::HUP);
        assert_eq!(service.ask_usher("GET", "/livez").status, 200);
    }
    // Who dies meanwhile is replaced by what serves, and so can be who does not.
    kill(old.pid);
    eventually("it is replaced", || (pids(&service, 1)[0] != old.pid).then_some(()));
    assert_eq!(service.ask_usher("POST", "/workers/0/replace").status, 200);
    assert_eq!(service.workers()[0].code, old.code);
    service.assert_alive();
    compiler.allow(1);
    eventually("it reloads twice", || (reloaded(&service) == 2).then_some(()));
    let reply = service.ask_usher("POST", "/reload").expect(200);
    assert_eq!(reply["generation"], 4, "{}", service.log());
    assert_eq!(compiler.compilations(), 2);
}

#[test]
fn a_signal_to_reload_before_it_serves_is_not_forgotten() {
    let (compiler, place) = (Compiler::held(), Place::new());
    place.put(&variant(&artifacts::module(), 0));
    let service = compiler.of(Service::builder(Runtime::Usher).module(&place.module)).launch();
    begun(&compiler, 1);
    service.signal(Signal::HUP);
    compiler.allow(1);
    let service = service.listening();
    eventually("it reloads", || (reloaded(&service) == 1).then_some(()));
    assert_eq!(service.ready_workers(1)[0].generation, 2);
}

/// Asserts that it ends in order within a drain, and its processes with it.
fn ends_in_order(mut service: Service) {
    let processes = children(service.pid());
    service.signal(Signal::TERM);
    assert_eq!(service.ended().code(), Some(0), "{}", service.log());
    for (pid, title) in processes {
        eventually("it is gone", || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            (!status.contains(&title) || status.contains("State:\tZ")).then_some(())
        });
    }
}

#[test]
fn a_signal_to_stop_is_heard_while_it_compiles() {
    let (compiler, place) = (Compiler::held(), Place::new());
    let service = compiling(&compiler, &place);
    place.put(&variant(&artifacts::module(), 1));
    service.signal(Signal::HUP);
    begun(&compiler, 2);
    ends_in_order(service);
}

#[test]
fn who_waits_for_a_new_worker_when_all_stop_is_answered() {
    let place = Place::new();
    let mut service = place.service().start();
    let mut slow = service.connect();
    let body = r#"{"name":"Ada","email":"ada@example.org"}"#;
    slow.send(format!(
        "POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ))
    .unwrap();
    service.assert_alive();
    service.signal(Signal::HUP);
    eventually("the old worker drains", || service.log().contains("draining").then_some(()));
    let mut waiting = service.connect();
    waiting.send(wire::get("/api/users/1")).unwrap();
    service.signal(Signal::TERM);
    eventually("the signal is heard", || service.log().contains("SIGTERM").then_some(()));
    slow.send(body).unwrap();
    assert_eq!(slow.reply().unwrap().status, 201);
    assert_eq!(waiting.reply().unwrap().status, 200);
    assert_eq!(service.ended().code(), Some(0), "{}", service.log());
}

/// Begins a request on a connection, and does not finish it.
fn stuck(service: &Service) -> Raw {
    let mut connection = service.connect();
    connection.send("POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n").unwrap();
    service.assert_alive();
    connection
}

#[test]
fn a_reload_waits_for_old_workers_that_would_pile_up() {
    let (place, database) = (Place::new(), Database::start());
    let service = place.workers(1, &database).arg("--drain=1h").start();
    let leaving = || service.workers().iter().filter(|worker| worker.state == "draining").count();
    let mut clients = Vec::new();
    for reloads in 1..=3 {
        clients.push(stuck(&service));
        reload(&service);
        assert_eq!(leaving(), reloads);
    }
    let admin = service.admin();
    let fourth = thread::spawn(move || ask(admin, "POST", "/reload"));
    // It is no proof that it waits, but soon seen if it does not.
    for _ in 0..200 {
        assert_eq!((leaving(), fourth.is_finished()), (3, false), "{}", service.log());
    }
    clients.remove(0);
    assert_eq!(fourth.join().unwrap().status, 200);
    assert!(leaving() <= 3);
}

/// A service with two workers, which waits for a new one that is never ready: the first of two.
fn waiting_for_a_new_worker(place: &Place, database: &Database) -> Service {
    let service = place.two_workers(database).start();
    service.ready_workers(2);
    place.put_small("never_ready");
    service.signal(Signal::HUP);
    eventually("a new worker is started", || {
        let workers = service.workers();
        workers.iter().any(|worker| worker.generation == 2 && worker.state == "starting").then_some(())
    });
    assert_eq!(service.workers().len(), 3);
    service
}

#[test]
fn a_signal_to_stop_is_heard_while_new_workers_start() {
    let (place, database) = (Place::new(), Database::start());
    let service = waiting_for_a_new_worker(&place, &database);
    ends_in_order(service);
}

#[test]
fn workers_and_templates_that_die_during_a_reload_are_replaced_by_their_like() {
    let (place, database) = (Place::new(), Database::start());
    let service = waiting_for_a_new_worker(&place, &database);
    let load = Load::start(service.address(), 4, Connections::Kept);
    let of = |generation: u64| {
        let workers = service.workers().into_iter();
        workers.filter(|worker| worker.generation == generation).map(|worker| worker.pid).collect::<Vec<_>>()
    };
    let (old, new) = (of(1), of(2));
    let (old_template, new_template) = (templates(&service)[0], templates(&service)[1]);
    assert!(new_template > old_template || new_template < new[0]);

    kill(old_template);
    kill(old[0]);
    eventually("both old ones are there", || {
        let now = of(1);
        (now.len() == 2 && !now.contains(&old[0]) && templates(&service).len() == 2).then_some(())
    });
    assert_eq!(of(2), new);
    kill(new_template);
    eventually("it is told", || service.log().contains("not reloaded: the process that its workers").then_some(()));
    eventually("the old ones are left", || of(2).is_empty().then_some(()));
    settled(&service, 2);
    load.answers(20);
    // One request of each client was in flight when its worker died.
    let tally = load.finish();
    assert!(tally.failures.len() <= 4, "{:?}", tally.failures);

    service.signal(Signal::HUP);
    let canary = eventually("a new worker is started", || of(3).first().copied());
    kill(canary);
    eventually("it is told", || service.log().contains("not reloaded: worker 0 was ended by SIGKILL").then_some(()));
    place.put_variant(1);
    reload_after_failures(&service);
}

#[test]
fn nothing_is_reloaded_while_it_stops() {
    let place = Place::new();
    let mut service = place.service().arg("--drain=2s").start();
    let _stuck = stuck(&service);
    service.signal(Signal::TERM);
    eventually("it drains", || service.log().contains("draining").then_some(()));
    service.signal(Signal::HUP);
    assert!(service.ask_usher("POST", "/reload").expect(409)["detail"].as_str().unwrap().contains("stopping"));
    eventually("it is told", || service.log().contains("SIGHUP: not reloaded").then_some(()));
    assert_eq!(service.ended().code(), Some(0));
}

#[test]
fn what_becomes_of_the_file_is_nothing_to_those_who_run_it() {
    let place = Place::new();
    let module = place.folder.path().join("portable");
    fs::copy(artifacts::module(), &module).unwrap();
    let service = Service::builder(Runtime::Usher).module(&module).arg("--interpret").start();
    let before = service.ready_workers(1);
    fs::write(&module, "half of it").unwrap();
    kill(templates(&service)[0]);
    kill(before[0].pid);
    let replaced = within(Duration::from_secs(25), || {
        let now = service.ready_workers(1);
        (now[0].pid != before[0].pid).then(|| now[0].code.clone())
    });
    assert_eq!(replaced.as_ref(), Some(&before[0].code), "{}", service.log());
    assert!(Path::new(&module).exists());
}
