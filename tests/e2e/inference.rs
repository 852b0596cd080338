//! Models in every WasmEdge, with the extension and without it, and what is counted of them.

use std::fs;

use harness::{Database, Metrics, Models, Reply, Runtime, Service, assert_well_formed, shared, shipped_models};
use serde_json::json;

/// A row of each input of `diabetes`, to be sent by both protocols.
const PERSON: [f64; 4] = [48.0, 1.0, 26.4, 94.6];
const SERUM: [f64; 6] = [189.1, 115.4, 49.8, 4.1, 4.6, 91.3];

fn predict(service: &Service) -> Reply {
    let body = json!({"instances": [{"person": PERSON, "serum": SERUM}]});
    service.send_json("POST", "/v1/models/diabetes:predict", &body.to_string())
}

fn infer(service: &Service) -> Reply {
    let inputs = json!([
        {"name": "person", "shape": [1, 4], "datatype": "FP32", "data": PERSON},
        {"name": "serum", "shape": [1, 6], "datatype": "FP32", "data": SERUM},
    ]);
    service.send_json("POST", "/v2/models/diabetes/infer", &json!({"inputs": inputs}).to_string())
}

// ---- Every WasmEdge ----

fn models_are_run_by_both_protocols(runtime: Runtime) {
    let service = Service::builder(runtime).models(&shipped_models()).env("REQUIRE_MODELS", 1).start();
    assert_eq!(service.get("/readyz").body, "OK");
    let models = json!([
        {"name": "diabetes", "versions": ["1"]},
        {"name": "digits", "versions": ["1"]},
        {"name": "digits-int8", "versions": ["1"]},
    ]);
    assert_eq!(service.get("/v1/models").expect(200), json!({ "models": models }));
    let predicted = predict(&service).expect(200);
    let inferred = infer(&service).expect(200);
    let output = |name: &str| {
        let outputs = inferred["outputs"].as_array().unwrap();
        outputs.iter().find(|output| output["name"] == name).unwrap()["data"].clone()
    };
    assert_eq!(predicted["predictions"][0]["progression"], output("progression"));
    assert_eq!(predicted["predictions"][0]["quartiles"], output("quartiles"));
    service.add_user("Ada", "ada@x.org");
}

fn without_the_extension_all_else_works(runtime: Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::builder(runtime).models(&shipped_models()).without_plugins(folder.path()).start();
    service.add_user("Ada", "ada@x.org");
    assert_eq!(service.get("/api/users/1").expect(200)["name"], "Ada");
    assert_eq!(service.get("/readyz").body, "OK", "models are not required");
    let picture = service.send("POST", "/api/classify?model=digits", &[], Some("GIF89a"));
    let (kind, detail) = picture.problem(503);
    assert_eq!(kind, "no-extension");
    for said in [detail, predict(&service).inference_error(503), infer(&service).inference_error(503)] {
        assert!(said.contains("wasmedge_tensorflowlite") && said.contains("WASMEDGE_PLUGIN_PATH"), "{said}");
    }
    assert_eq!(service.get("/v2/models/digits/ready").status, 503);
    assert_eq!(service.get("/v2/health/ready").status, 200);
    let listed = service.get("/v1/models").expect(200);
    assert_eq!(listed["models"][1], json!({"name": "digits", "versions": []}));
    let status = &service.get("/v1/models/digits").expect(200)["model_version_status"][0];
    assert_eq!((&status["state"], &status["version"]), (&json!("END"), &json!("1")));
    assert_eq!(service.log().matches("there is no TensorFlow Lite extension here").count(), 0, "{}", service.log());
    assert_eq!(service.log().matches("WasmEdge has no TensorFlow Lite extension").count(), 1, "{}", service.log());
}

fn a_service_that_requires_models_is_not_ready_without_the_extension(runtime: Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let builder = Service::builder(runtime).models(&shipped_models()).without_plugins(folder.path());
    let service = builder.env("REQUIRE_MODELS", 1).start();
    for path in ["/readyz", "/v2/health/ready"] {
        let said = service.get(path).body;
        assert!(said.contains("REQUIRE_MODELS") && said.contains("wasmedge_tensorflowlite"), "{path}: {said}");
        assert_eq!(service.get(path).status, 503);
    }
    service.assert_alive();
    assert_eq!(service.get("/api/users").status, 200);
}

on_every_runtime!(
    models_are_run_by_both_protocols,
    without_the_extension_all_else_works,
    a_service_that_requires_models_is_not_ready_without_the_extension
);
on_every_runtime!(by_usher_too, Usher: models_are_run_by_both_protocols, without_the_extension_all_else_works);

/// usher leaves out WasmEdge's locks while a worker has one thread, and takes them when it has more.
#[test]
fn a_worker_has_one_thread_unless_models_are_to_run_on_more() {
    for (wanted, at_least, at_most) in [(1, 1, 1), (2, 2, usize::MAX)] {
        let builder = Service::builder(Runtime::Usher).models(&shipped_models()).arg("--workers=1");
        let service = builder.env("TENSORFLOW_LITE_THREADS", wanted).start();
        predict(&service).expect(200);
        let worker = service.ready_workers(1)[0].pid;
        let threads = fs::read_dir(format!("/proc/{worker}/task")).unwrap().count();
        assert!((at_least..=at_most).contains(&threads), "{threads}");
        infer(&service).expect(200);
        service.add_user("Ada", "ada@x.org");
        assert_eq!(service.ready_workers(1)[0].pid, worker);
    }
}

#[test]
fn a_service_without_models_is_ready_unless_it_requires_them() {
    let none = Models::new();
    let service = Service::builder(Runtime::Aot).models(none.path()).start();
    assert_eq!(service.get("/readyz").status, 200);
    assert_eq!(service.get("/v1/models").expect(200), json!({"models": []}));
    assert_eq!(
        service.get("/v1/models/digits").inference_error(404),
        "there is no model \"digits\"; GET /v1/models lists those there are"
    );
    let service = Service::builder(Runtime::Aot).env("REQUIRE_MODELS", 1).start();
    let (kind, detail) = service.get("/readyz").problem(503);
    assert_eq!((kind.as_str(), detail.contains("there are none in MODELS_DIR")), ("not-ready", true), "{detail}");
}

// ---- Metrics ----

const DIGITS: &str = "{model=\"digits\",version=\"1\"}";

fn digits(rows: usize) -> String {
    json!({"instances": vec![vec![vec![[0.5]; 8]; 8]; rows]}).to_string()
}

fn assert_counts(metrics: &Metrics, runs: f64, rows: f64) {
    assert_eq!(metrics.value(&format!("usher_inference_run_duration_seconds_count{DIGITS}")), runs);
    assert_eq!(metrics.value(&format!("usher_inference_rows_total{DIGITS}")), rows);
    assert_eq!(metrics.value("usher_inference_queue_duration_seconds_count"), runs);
    // Under usher there is one of each worker.
    let waiting = metrics.all("usher_inference_queue_requests");
    assert!(!waiting.is_empty() && waiting.iter().all(|(_, requests)| *requests == 0.0), "{waiting:?}");
    assert_eq!(metrics.value("usher_inference_refused_total"), 0.0);
}

#[test]
fn runs_and_rows_are_counted_and_what_is_refused_is_no_run() {
    let service = Service::builder(Runtime::Aot).models(&shipped_models()).start();
    assert_counts(&service.metrics(), 0.0, 0.0);
    for rows in [1, 2, 5] {
        let reply = service.send_json("POST", "/v1/models/digits:predict", &digits(rows));
        assert_eq!(reply.expect(200)["predictions"].as_array().unwrap().len(), rows);
    }
    assert_eq!(service.send_json("POST", "/v1/models/digits:predict", "{\"instances\":[[1]]}").status, 400);
    let metrics = service.metrics();
    assert_counts(&metrics, 3.0, 8.0);
    assert_eq!(metrics.requests("POST", "/v1/models/{model}:predict", 200), 3.0);
    assert_eq!(metrics.requests("POST", "/v1/models/{model}:predict", 400), 1.0);
    assert_well_formed(&service.get("/metrics").body);
}

#[test]
fn usher_adds_up_what_its_workers_ran() {
    let database = Database::start();
    let service = shared(2, &database).models(&shipped_models()).start();
    service.ready_workers(2);
    for _ in 0..20 {
        assert_eq!(service.send_json("POST", "/v1/models/digits:predict", &digits(3)).status, 200);
    }
    assert_counts(&service.ushers_metrics(), 20.0, 60.0);
    assert_well_formed(&service.ask_usher("GET", "/metrics").body);
}
