//! The MySQL store when more is asked of the database than it can do in time.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Database, Proxy, Raw, Runtime, Service, eventually, raise_descriptor_limit, wire};

const CLIENTS: usize = 500;
const CONNECTIONS: usize = 2;
/// `DATABASE_TIMEOUT`.
const DEADLINE: Duration = Duration::from_secs(5);
/// A user has ten packets, each of which is delayed: 0.3 s, so that two connections serve about 33 clients in
/// the deadline.
const DELAY: Duration = Duration::from_millis(30);

/// A service whose database is at this URL, with user 1.
fn service(url: &str) -> Service {
    raise_descriptor_limit(4000);
    let service = Service::builder(Runtime::Aot)
        .env("DATABASE_URL", url)
        .env("DATABASE_CONNECTIONS", CONNECTIONS)
        .env("DATABASE_TIMEOUT", format!("{}s", DEADLINE.as_secs()))
        .env("LOG_LEVEL", "off")
        .watched(true)
        .start();
    service.add_user("Ada", "ada@x.org");
    service
}

/// What became of the clients of [`all_at_once`].
struct Outcome {
    served: usize,
    /// How long each waited that was refused, the shortest first.
    refused: Vec<Duration>,
}

impl Outcome {
    /// The time in which so many percent of the refused were.
    fn percentile(&self, percent: usize) -> Duration {
        self.refused[(self.refused.len() - 1) * percent / 100]
    }
}

/// All clients ask for user 1 at the same time, each so often.
fn all_at_once(service: &Service, requests: usize) -> Outcome {
    let barrier = &Barrier::new(CLIENTS);
    let mut clients: Vec<Raw> = (0..CLIENTS).map(|_| service.connect()).collect();
    let refused = thread::scope(|scope| {
        let ask = |client| scope.spawn(move || ask(client, barrier, requests));
        let clients: Vec<_> = clients.iter_mut().map(ask).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let mut outcome = Outcome { served: CLIENTS * requests - refused.len(), refused };
    outcome.refused.sort();
    outcome
}

/// How long each request took that was refused.
fn ask(client: &mut Raw, barrier: &Barrier, requests: usize) -> Vec<Duration> {
    barrier.wait();
    let ask = |_| {
        let started = Instant::now();
        let reply = client.request(wire::get("/api/users/1")).unwrap();
        if reply.status == 200 {
            return None;
        }
        assert_eq!(reply.problem(503).0, "store-unavailable");
        assert_eq!(reply.header("retry-after"), Some("1"));
        Some(started.elapsed())
    };
    (0..requests).filter_map(ask).collect()
}

/// Operations that got no connection.
fn timeouts(service: &Service) -> f64 {
    service.metrics().value("db_client_connection_timeouts_total")
}

/// One after the other is served at once, and shows that many can be.
fn assert_healthy(service: &Service) {
    (0..50).for_each(|_| assert_eq!(service.get("/api/users/1").status, 200));
    assert_eq!(all_at_once(service, 1).refused, [Duration::ZERO; 0]);
}

#[test]
fn a_fast_database_serves_all_however_few_connections_there_are() {
    let database = Database::start();
    let service = service(&database.url());
    let outcome = all_at_once(&service, 10);
    assert_eq!((outcome.served, outcome.refused), (CLIENTS * 10, vec![]));
    assert!(timeouts(&service) < 1.0);
}

#[test]
fn a_slow_database_serves_as_many_as_it_can_and_the_others_are_refused_early() {
    let database = Database::start();
    let proxy = Proxy::to_database(&database);
    let service = service(&proxy.url(&database));
    proxy.delay(DELAY);
    let first = all_at_once(&service, 1);
    println!("slow, not known: {} served; {:?}, {:?}", first.served, first.percentile(50), first.percentile(90));
    assert!(first.served > 5 && first.percentile(90) < DEADLINE / 2, "{:?}", first.refused);
    // Those who got a connection and no answer in time are no time-outs of the pool.
    let counted = timeouts(&service);
    assert!((1.0..=first.refused.len() as f64).contains(&counted), "{counted}");
    let round = || {
        let next = all_at_once(&service, 1);
        println!("slow, known: {} served; {:?}, {:?}", next.served, next.percentile(50), next.percentile(90));
        assert!(next.served > 5 && next.percentile(90) < DEADLINE / 4, "{:?}", next.refused);
        service.usage().memory_kib
    };
    let memory: Vec<u64> = (0..4).map(|_| round()).collect();
    println!("memory in KiB: {memory:?}");
    // As many connections as in a round may still be there from the one before, and cost 10 KiB each.
    assert!(memory[3] < memory[0] + (5 << 10), "KiB: {memory:?}");
    proxy.delay(Duration::ZERO);
    assert_healthy(&service);
}

#[test]
fn a_database_that_stalls_has_no_queue_and_none_is_left_when_it_goes_on() {
    let database = Database::start();
    let proxy = Proxy::to_database(&database);
    let service = service(&proxy.url(&database));
    assert_healthy(&service);
    proxy.stall(true);
    for _ in 0..2 {
        let stalled = all_at_once(&service, 1);
        println!("stalled: {:?}, {:?}", stalled.percentile(50), stalled.percentile(75));
        assert_eq!(stalled.served, 0);
        assert!(stalled.percentile(75) < DEADLINE / 2, "{:?}", stalled.refused);
    }
    proxy.stall(false);
    eventually("it is served", || (service.get("/api/users/1").status == 200).then_some(()));
    assert_healthy(&service);
}
