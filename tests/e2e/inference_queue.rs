//! The bounds of what waits for models: who is refused, and that users are served all the while.

use std::thread;

use harness::{Raw, Reply, Runtime, Service, eventually, shipped_models, wire};
use serde_json::json;

/// Requests at once at most.
const REQUESTS_MAX: usize = 256;
/// Bytes of their bodies at most.
const BYTES_MAX: usize = 32 << 20;
/// Bytes of a body at most.
const BODY_MAX: usize = 8 << 20;

const PREDICT: &str = "/v1/models/digits:predict";

fn service() -> Service {
    Service::builder(Runtime::Aot).models(&shipped_models()).watched(true).start()
}

fn digits() -> String {
    json!({"instances": [vec![vec![[0.5]; 8]; 8]]}).to_string()
}

fn predict(service: &Service) -> Reply {
    service.send_json("POST", PREDICT, &digits())
}

/// A request that has its place, and was asked for its body.
fn announced(service: &Service, path: &str, headers: &str, size: usize) -> Raw {
    let mut connection = service.connect();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {size}\r\n");
    connection.send(head + "Expect: 100-continue\r\n\r\n").unwrap();
    assert_eq!(connection.reply_head().unwrap().status, 100);
    connection
}

/// Asserts what everybody is told when there is no room.
fn assert_full(service: &Service) {
    let infer = service.send_json("POST", "/v2/models/digits/infer", "{}");
    let picture = service.send("POST", "/api/classify?model=digits", &[], Some("x"));
    for reply in [&predict(service), &infer, &picture] {
        assert_eq!(reply.header("retry-after"), Some("1"), "{reply:?}");
    }
    assert!(predict(service).inference_error(503).contains("try again later"));
    assert!(infer.inference_error(503).contains("try again later"));
    assert_eq!(picture.problem(503).0, "too-many-inferences");
    // Nobody else is concerned.
    service.add_user("Ada", "ada@x.org");
    for path in ["/api/users", "/livez", "/readyz", "/v1/models", "/v2/models/digits", "/v2/health/ready", "/metrics"] {
        assert_eq!(service.get(path).status, 200, "{path}");
    }
    assert!(service.metrics().value("usher_inference_refused_total") >= 4.0);
}

#[test]
fn beyond_so_many_requests_clients_are_told_to_come_again() {
    let service = service();
    let body = digits();
    let mut waiting: Vec<Raw> = (0..REQUESTS_MAX).map(|_| announced(&service, PREDICT, "", body.len())).collect();
    assert_full(&service);
    waiting.iter_mut().for_each(|connection| connection.send(&body).unwrap());
    for connection in &mut waiting {
        assert_eq!(connection.reply().unwrap().expect(200)["predictions"].as_array().unwrap().len(), 1);
    }
    assert_eq!(predict(&service).status, 200);
    assert_eq!(service.metrics().value("usher_inference_queue_requests"), 0.0);
}

/// A request for `digits` with so many rows, binary both ways.
fn many_rows(rows: usize) -> Vec<u8> {
    let input = json!({
        "name": "pixels", "shape": [rows, 8, 8, 1], "datatype": "FP32",
        "parameters": {"binary_data_size": rows * 256},
    });
    let head = json!({"inputs": [input], "parameters": {"binary_data_output": true}}).to_string();
    let length = head.len().to_string();
    let body = [head.into_bytes(), vec![0; rows * 256]].concat();
    wire::request("POST", "/v2/models/digits/infer", &[("Inference-Header-Content-Length", &length)], body)
}

#[test]
fn beyond_so_many_bytes_clients_are_told_to_come_again() {
    let service = service();
    let body = format!("{}{}", digits(), " ".repeat(BODY_MAX - 1024 - digits().len()));
    let (most, last) = body.split_at(body.len() - 1);
    let nearly_sent = |_| {
        let mut connection = announced(&service, PREDICT, "", body.len());
        connection.send(most).unwrap();
        connection
    };
    let mut waiting: Vec<Raw> = (0..BYTES_MAX / BODY_MAX).map(nearly_sent).collect();
    let mut rest = announced(&service, PREDICT, "", 8192);
    rest.send(" ".repeat(BYTES_MAX - waiting.len() * most.len())).unwrap();
    assert_full(&service);
    // Those that go away make room.
    drop(rest);
    eventually("there is room again", || (predict(&service).status == 200).then_some(()));
    for connection in &mut waiting {
        assert_eq!(connection.request(last).unwrap().status, 200);
    }
}

#[test]
fn what_is_only_announced_keeps_nobody_out() {
    let service = service();
    let _announced: Vec<Raw> = (0..100).map(|_| announced(&service, PREDICT, "", BODY_MAX)).collect();
    eventually("they are being read", || {
        (service.metrics().value("http_server_active_requests") > 100.0).then_some(())
    });
    assert_eq!(predict(&service).status, 200);
}

#[test]
fn users_are_served_between_the_runs_of_a_full_queue() {
    let service = service();
    let request = many_rows(2000);
    let at_once = BYTES_MAX / request.len();
    let ask = || {
        let (reply, _) = service.connect().request_bytes(&request).unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
    };
    let between = thread::scope(|scope| {
        let asking: Vec<_> = (0..at_once).map(|_| scope.spawn(ask)).collect();
        let (mut between, mut number) = (0, 0);
        while asking.iter().any(|thread| !thread.is_finished()) {
            number += 1;
            let user = service.add_user("Ada", &format!("u{number}@x.org"));
            assert_eq!(service.get(&format!("/api/users/{}", user["id"])).status, 200);
            between += usize::from(service.metrics().value("usher_inference_queue_requests") > 0.0);
        }
        between
    });
    println!("{between} users were made and read while some of {at_once} requests of 2,000 rows were waiting");
    assert!(between > 0, "nobody was served meanwhile");
    assert_eq!(predict(&service).status, 200);
    assert_eq!(service.metrics().value("usher_inference_queue_requests"), 0.0);
}
